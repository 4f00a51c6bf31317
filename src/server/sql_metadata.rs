//! What Flight SQL clients (ADBC, JDBC, BI tools) ask about the store before they ask it anything: its abilities, types,
//! catalogs and tables. Names of tables come from `information_schema`, so there is one truth of them.

use std::sync::{Arc, OnceLock};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables, Nullable, Searchable, SqlInfo,
    SqlNullOrdering, SqlSupportedCaseSensitivity, SqlSupportedTransaction, XdbcDataType,
};

use super::Caller;
use super::flight::FlightSql;
use super::status::Error;

/// Most names of one answer.
pub(super) const ROWS_MAX: usize = 10_000;

const TABLES: &str = "SELECT table_catalog, table_schema, table_name, table_type FROM information_schema.tables";

/// Answers that never change; made once.
#[derive(Default)]
pub(super) struct SqlMetadata {
    sql_info: OnceLock<SqlInfoData>,
    xdbc_types: OnceLock<XdbcTypeInfoData>,
}

impl SqlMetadata {
    /// The abilities.
    pub(super) fn sql_info(&self) -> Result<&SqlInfoData, Error> {
        match self.sql_info.get() {
            Some(data) => Ok(data),
            None => {
                let data = sql_info()?;
                Ok(self.sql_info.get_or_init(|| data))
            }
        }
    }

    /// The types.
    pub(super) fn xdbc_types(&self) -> Result<&XdbcTypeInfoData, Error> {
        match self.xdbc_types.get() {
            Some(data) => Ok(data),
            None => {
                let data = xdbc_types()?;
                Ok(self.xdbc_types.get_or_init(|| data))
            }
        }
    }
}

/// An error of Arrow's that no request can cause.
pub(super) fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}

fn sql_info() -> Result<SqlInfoData, Error> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Quiver");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, "59.3");
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, false);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, false);
    info.append(SqlInfo::FlightSqlServerStatementTimeout, 0i32);
    info.append(SqlInfo::FlightSqlServerTransactionTimeout, 0i32);
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, false);
    // DataFusion folds names that are not quoted to lower case.
    info.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(SqlInfo::SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32);
    info.append(SqlInfo::SqlAllTablesAreSelectable, true);
    info.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    info.append(SqlInfo::SqlSearchStringEscape, "\\");
    info.append(SqlInfo::SqlSupportsColumnAliasing, true);
    info.append(SqlInfo::SqlNullPlusNullIsNull, true);
    info.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    info.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    info.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    info.build().map_err(internal)
}

fn xdbc_types() -> Result<XdbcTypeInfoData, Error> {
    let number = |type_name: &str, data_type, bits| XdbcTypeInfo {
        type_name: type_name.to_owned(),
        data_type,
        sql_data_type: data_type,
        column_size: Some(bits),
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        unsigned_attribute: Some(false),
        num_prec_radix: Some(2),
        local_type_name: Some(type_name.to_owned()),
        ..XdbcTypeInfo::default()
    };
    let other = |type_name: &str, data_type, quote: Option<&str>| XdbcTypeInfo {
        type_name: type_name.to_owned(),
        data_type,
        sql_data_type: data_type,
        literal_prefix: quote.map(str::to_owned),
        literal_suffix: quote.map(str::to_owned),
        nullable: Nullable::NullabilityNullable,
        case_sensitive: data_type == XdbcDataType::XdbcVarchar,
        searchable: Searchable::Full,
        local_type_name: Some(type_name.to_owned()),
        ..XdbcTypeInfo::default()
    };
    let mut types = XdbcTypeInfoDataBuilder::new();
    types.append(number("BIGINT", XdbcDataType::XdbcBigint, 64));
    types.append(number("INTEGER", XdbcDataType::XdbcInteger, 32));
    types.append(number("DOUBLE", XdbcDataType::XdbcDouble, 64));
    types.append(other("BOOLEAN", XdbcDataType::XdbcBit, None));
    types.append(other("TIMESTAMP", XdbcDataType::XdbcTimestamp, Some("'")));
    types.append(other("VARCHAR", XdbcDataType::XdbcVarchar, Some("'")));
    types.build().map_err(internal)
}

/// A table by its full name.
struct Table {
    catalog: String,
    schema: String,
    name: String,
    kind: &'static str,
}

async fn all_tables(flight: &FlightSql, caller: &Caller) -> Result<Vec<Table>, Error> {
    let (_, batches) = flight.collect(caller, TABLES).await?;
    let mut tables = Vec::new();
    for batch in &batches {
        let text = |column: usize| {
            let column = batch.column(column).as_string_opt::<i32>();
            column.ok_or_else(|| Error::Internal("information_schema.tables is not text".to_owned()))
        };
        let (catalogs, schemas, names, kinds) = (text(0)?, text(1)?, text(2)?, text(3)?);
        for row in 0..batch.num_rows() {
            // JDBC's words for them.
            let kind = if kinds.is_valid(row) && kinds.value(row) == "BASE TABLE" { "TABLE" } else { "VIEW" };
            let of = |column: &arrow::array::StringArray| column.value(row).to_owned();
            tables.push(Table { catalog: of(catalogs), schema: of(schemas), name: of(names), kind });
        }
    }
    Ok(tables)
}

/// Answers `GetCatalogs`.
pub(super) async fn catalogs(
    flight: &FlightSql,
    caller: &Caller,
    query: CommandGetCatalogs,
) -> Result<RecordBatch, Error> {
    let mut names: Vec<String> = all_tables(flight, caller).await?.into_iter().map(|table| table.catalog).collect();
    names.sort_unstable();
    names.dedup();
    let mut builder = query.into_builder();
    names.into_iter().for_each(|name| builder.append(name));
    builder.build().map_err(internal)
}

/// Answers `GetDbSchemas`.
pub(super) async fn db_schemas(
    flight: &FlightSql,
    caller: &Caller,
    query: CommandGetDbSchemas,
) -> Result<RecordBatch, Error> {
    let tables = all_tables(flight, caller).await?;
    let mut names: Vec<_> = tables.into_iter().map(|table| (table.catalog, table.schema)).collect();
    names.sort_unstable();
    names.dedup();
    let mut builder = query.into_builder();
    names.iter().for_each(|(catalog, schema)| builder.append(catalog, schema));
    builder.build().map_err(internal)
}

/// Answers `GetTables`, with the tables' schemas when they are wanted.
pub(super) async fn tables(flight: &FlightSql, caller: &Caller, query: CommandGetTables) -> Result<RecordBatch, Error> {
    let with_schema = query.include_schema;
    let mut builder = query.into_builder();
    for table in all_tables(flight, caller).await? {
        let schema = if with_schema { table_schema(flight, caller, &table).await? } else { Arc::new(Schema::empty()) };
        builder.append(&table.catalog, &table.schema, &table.name, table.kind, &schema).map_err(internal)?;
    }
    builder.build().map_err(internal)
}

async fn table_schema(flight: &FlightSql, caller: &Caller, table: &Table) -> Result<SchemaRef, Error> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let sql =
        format!("SELECT * FROM {}.{}.{} LIMIT 0", quoted(&table.catalog), quoted(&table.schema), quoted(&table.name));
    Ok(flight.collect(caller, &sql).await?.0)
}

/// Answers `GetTableTypes`.
pub(super) fn table_types(query: CommandGetTableTypes) -> Result<RecordBatch, Error> {
    let mut builder = query.into_builder();
    builder.append("TABLE");
    builder.append("VIEW");
    builder.build().map_err(internal)
}

/// Schema of `GetPrimaryKeys`' answer (FlightSql.proto); there are no keys.
pub(super) fn primary_keys() -> Schema {
    Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ])
}

/// Schema of the answers about foreign keys (FlightSql.proto); there are none.
pub(super) fn foreign_keys() -> Schema {
    Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abilities_and_types_can_be_asked_for() {
        let metadata = SqlMetadata::default();
        let all = metadata.sql_info().unwrap().record_batch([]).unwrap();
        assert!(all.num_rows() > 10);
        let one = metadata.sql_info().unwrap().record_batch([SqlInfo::FlightSqlServerTransaction as u32]).unwrap();
        assert_eq!(one.num_rows(), 1);
        assert_eq!(metadata.xdbc_types().unwrap().record_batch(None).unwrap().num_rows(), 6);
        assert_eq!(table_types(CommandGetTableTypes {}).unwrap().num_rows(), 2);
    }
}
