//! Arrow Flight SQL: statements and prepared statements, read-only. What a client asks *about* the store (tables, types,
//! abilities) stands in `sql_metadata`.
//!
//! Invariant: the server keeps nothing between two calls. A ticket and a prepared statement's handle are the statement
//! itself, so a client may go on after a restart, or at another node, and nothing has to be cleaned up after it. The plugin
//! counts on it: it makes its tickets itself, so that a query is planned once.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery,
    CommandStatementUpdate, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::utils::batches_to_flight_data;
use arrow_flight::{
    Action, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage,
    SchemaAsIpc, Ticket,
};
use arrow_ipc::writer::IpcWriteOptions;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status, Streaming};

use super::answer::Answer;
use super::range::parse_range;
use super::sql_metadata::{self, SqlMetadata};
use super::status::Error;
use super::{App, Caller, answer, grpc, query};

type DoGet = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;
type Handshake = Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>;
type Answered = Result<Response<DoGet>, Status>;
type Informed = Result<Response<FlightInfo>, Status>;

/// The label of queries in metrics.
const ENDPOINT: &str = "flight";
const READ_ONLY: Error = Error::Forbidden("SQL is read-only here; logs come in by Loki push, OTLP or /api/v1/ingest");

/// The service; what it needs is in the [`App`].
pub(super) struct FlightSql {
    app: Arc<App>,
    metadata: SqlMetadata,
}

impl FlightSql {
    pub(super) fn new(app: Arc<App>) -> Self {
        FlightSql { app, metadata: SqlMetadata::default() }
    }

    /// A statement with what the call's metadata asks for.
    fn asked<T>(&self, sql: String, request: &Request<T>) -> Result<(query::Request, Wishes), Error> {
        let caller = grpc::caller(request)?;
        let wishes = Wishes::of(request.metadata(), self.app.clock.now_ns())?;
        let Wishes { range, limit, timeout, .. } = wishes;
        Ok((query::Request { tenant: caller.tenant, sql, range, limit, timeout }, wishes))
    }

    /// The schema of a statement's answer.
    async fn schema_of<T>(&self, sql: String, request: &Request<T>) -> Result<SchemaRef, Error> {
        let (asked, wishes) = self.asked(sql, request)?;
        Ok(self.app.plan(asked, ENDPOINT, wishes.source).await?.schema())
    }

    /// Schema and ticket of a statement.
    async fn inform(&self, sql: String, request: Request<FlightDescriptor>) -> Informed {
        let handle = Bytes::from(sql.clone().into_bytes());
        let schema = self.schema_of(sql, &request).await?;
        inform(&schema, &TicketStatementQuery { statement_handle: handle }, request.into_inner())
    }

    /// The rows of a statement.
    async fn answer<T>(&self, handle: Bytes, request: Request<T>) -> Answered {
        let (asked, wishes) = self.asked(statement(handle)?, &request)?;
        let answer = self.app.ask(asked, ENDPOINT, wishes.source).await?;
        Ok(Response::new(encode(answer.schema(), answer, wishes.stats)))
    }

    /// The rows of a small query of our own, for metadata.
    pub(super) async fn collect(&self, caller: &Caller, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), Error> {
        let limit = Some(sql_metadata::ROWS_MAX);
        let asked =
            query::Request { tenant: caller.tenant.clone(), sql: sql.to_owned(), range: None, limit, timeout: None };
        let answer = self.app.ask(asked, "flight_metadata", None).await?;
        Ok((answer.schema(), answer.try_collect().await?))
    }
}

/// What the metadata of a call asks for, all of it optional.
#[derive(Debug, Default, PartialEq)]
struct Wishes {
    /// `quiver-timeout-ms`
    timeout: Option<Duration>,
    /// `quiver-row-limit`
    limit: Option<usize>,
    /// `quiver-from`, `quiver-to`
    range: Option<query::TimeRange>,
    /// `quiver-stats: 1`: the last message of DoGet tells what the query cost
    stats: bool,
    /// `quiver-source`: who asks, for the log of slow queries
    source: Option<String>,
}

impl Wishes {
    fn of(metadata: &MetadataMap, now_ns: i64) -> Result<Wishes, Error> {
        let text = |name: &'static str| match metadata.get(name).map(|value| value.to_str()) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text.trim()).filter(|text| !text.is_empty())),
            Some(Err(_)) => Err(Error::Invalid(format!("'{name}' is not text"))),
        };
        let number = |name: &'static str| match text(name)? {
            None => Ok(None),
            Some(digits) => digits
                .parse::<u64>()
                .map(Some)
                .map_err(|_| Error::Invalid(format!("'{name}: {digits}' is not a number"))),
        };
        Ok(Wishes {
            timeout: number("quiver-timeout-ms")?.filter(|ms| *ms > 0).map(Duration::from_millis),
            limit: number("quiver-row-limit")?.filter(|rows| *rows > 0).and_then(|rows| usize::try_from(rows).ok()),
            range: parse_range(text("quiver-from")?, text("quiver-to")?, now_ns).map_err(Error::Invalid)?,
            stats: text("quiver-stats")? == Some("1"),
            source: text("quiver-source")?.map(str::to_owned),
        })
    }
}

/// The statement in a ticket or handle.
fn statement(handle: Bytes) -> Result<String, Error> {
    String::from_utf8(handle.into()).map_err(|_| Error::Invalid("this ticket is not from here".to_owned()))
}

/// A `FlightInfo` with one endpoint: this server.
fn inform<M: ProstMessageExt>(schema: &Schema, ticket: &M, descriptor: FlightDescriptor) -> Informed {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket.as_any().encode_to_vec()));
    let info = FlightInfo::new().try_with_schema(schema).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(Response::new(info.with_endpoint(endpoint).with_descriptor(descriptor)))
}

/// Rows as Flight messages; the schema goes first, also when there are no rows.
fn encode(schema: SchemaRef, answer: Answer, with_stats: bool) -> DoGet {
    let cost = Arc::new(Mutex::new(None));
    let kept = cost.clone();
    // The cost is complete at the stream's end only, and the encoder owns the stream: it is put aside there.
    let rows = futures::stream::unfold(Some(answer), move |answer| {
        let kept = kept.clone();
        async move {
            let mut answer = answer?;
            match answer.next().await {
                Some(Ok(batch)) => Some((Ok(batch), Some(answer))),
                Some(Err(error)) => Some((Err(FlightError::from(Status::from(error))), None)),
                None => {
                    let stats = answer.stats();
                    // Who does not read the cost would take a cut answer for a whole one.
                    let is_cut = stats.truncated && !with_stats;
                    *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(stats);
                    is_cut.then(|| (Err(FlightError::from(Status::from(answer::cut()))), None))
                }
            }
        }
    });
    let messages = FlightDataEncoderBuilder::new().with_schema(schema.clone()).build(rows).map_err(Status::from);
    if !with_stats {
        return messages.boxed();
    }
    let last = futures::stream::once(async move {
        let stats = cost.lock().unwrap_or_else(PoisonError::into_inner).take();
        stats.map(|stats| stats_message(&schema, &stats))
    });
    messages.chain(last.filter_map(async |message| message)).boxed()
}

/// A record batch without rows that carries what the query cost.
fn stats_message(schema: &Schema, stats: &query::Stats) -> Result<FlightData, Status> {
    let internal = |text: String| Status::from(Error::Internal(text));
    let empty = RecordBatch::new_empty(Arc::new(schema.clone()));
    let messages = batches_to_flight_data(schema, vec![empty]).map_err(|error| internal(error.to_string()))?;
    let batch = messages.into_iter().last().ok_or_else(|| internal("an empty batch became no message".to_owned()))?;
    let json = serde_json::to_vec(stats).map_err(|error| internal(error.to_string()))?;
    Ok(batch.with_app_metadata(json))
}

/// One batch, as a whole answer.
fn single(batch: RecordBatch) -> DoGet {
    let schema = batch.schema();
    let rows = futures::stream::iter([Ok(batch)]);
    FlightDataEncoderBuilder::new().with_schema(schema).build(rows).map_err(Status::from).boxed()
}

fn schema_bytes(schema: &Schema) -> Result<Bytes, Status> {
    let message = IpcMessage::try_from(SchemaAsIpc::new(schema, &IpcWriteOptions::default()));
    Ok(message.map_err(|error| Error::Internal(error.to_string()))?.0)
}

#[tonic::async_trait]
impl FlightSqlService for FlightSql {
    type FlightService = FlightSql;

    /// Basic or bearer credentials in, the header to go on with out (see [`super::auth::Auth::handshake`]).
    async fn do_handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Result<Response<Handshake>, Status> {
        let headers = request.metadata().clone().into_headers();
        let token = self.app.auth.handshake(&headers)?;
        let payload = Bytes::from(token.clone().into_bytes());
        let reply = HandshakeResponse { protocol_version: 0, payload };
        let mut response = Response::new(futures::stream::iter([Ok(reply)]).boxed() as Handshake);
        let value =
            MetadataValue::try_from(token).map_err(|_| Error::Invalid("the credentials are not ASCII".to_owned()))?;
        response.metadata_mut().insert("authorization", value);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Informed {
        self.inform(query.query, request).await
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Answered {
        self.answer(ticket.statement_handle, request).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let handle = Bytes::from(query.query.clone().into_bytes());
        let schema = self.schema_of(query.query, &request).await?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle,
            dataset_schema: schema_bytes(&schema)?,
            parameter_schema: schema_bytes(&Schema::empty())?,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        _: ActionClosePreparedStatementRequest,
        _: Request<Action>,
    ) -> Result<(), Status> {
        // Nothing is kept for it.
        Ok(())
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Informed {
        self.inform(statement(query.prepared_statement_handle)?, request).await
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Answered {
        self.answer(query.prepared_statement_handle, request).await
    }

    /// Binds parameters: there are none, so only an empty binding is right.
    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let mut messages = request.into_inner();
        let first = messages.next().await.transpose()?;
        let schema = first.as_ref().and_then(|first| Schema::try_from(first).ok());
        if schema.is_some_and(|schema| !schema.fields().is_empty()) {
            return Err(
                Error::Invalid("statements take no parameters; write the values into the text".to_owned()).into()
            );
        }
        while messages.next().await.transpose()?.is_some() {}
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(query.prepared_statement_handle) })
    }

    async fn do_put_statement_update(
        &self,
        _: CommandStatementUpdate,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(READ_ONLY.into())
    }

    async fn do_put_prepared_statement_update(
        &self,
        _: CommandPreparedStatementUpdate,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(READ_ONLY.into())
    }

    async fn do_put_statement_ingest(
        &self,
        _: CommandStatementIngest,
        _: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(READ_ONLY.into())
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Informed {
        inform(&query.into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, request: Request<Ticket>) -> Answered {
        Ok(Response::new(single(sql_metadata::catalogs(self, &grpc::caller(&request)?, query).await?)))
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Informed {
        inform(&query.clone().into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, request: Request<Ticket>) -> Answered {
        Ok(Response::new(single(sql_metadata::db_schemas(self, &grpc::caller(&request)?, query).await?)))
    }

    async fn get_flight_info_tables(&self, query: CommandGetTables, request: Request<FlightDescriptor>) -> Informed {
        inform(&query.clone().into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> Answered {
        Ok(Response::new(single(sql_metadata::tables(self, &grpc::caller(&request)?, query).await?)))
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Informed {
        inform(&query.into_builder().schema(), &query, request.into_inner())
    }

    async fn do_get_table_types(&self, query: CommandGetTableTypes, _: Request<Ticket>) -> Answered {
        Ok(Response::new(single(sql_metadata::table_types(query)?)))
    }

    async fn get_flight_info_sql_info(&self, query: CommandGetSqlInfo, request: Request<FlightDescriptor>) -> Informed {
        inform(&self.metadata.sql_info()?.schema(), &query, request.into_inner())
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, _: Request<Ticket>) -> Answered {
        let batch = self.metadata.sql_info()?.record_batch(query.info).map_err(sql_metadata::internal)?;
        Ok(Response::new(single(batch)))
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Informed {
        inform(&self.metadata.xdbc_types()?.schema(), &query, request.into_inner())
    }

    async fn do_get_xdbc_type_info(&self, query: CommandGetXdbcTypeInfo, _: Request<Ticket>) -> Answered {
        let batch = self.metadata.xdbc_types()?.record_batch(query.data_type).map_err(sql_metadata::internal)?;
        Ok(Response::new(single(batch)))
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Informed {
        inform(&sql_metadata::primary_keys(), &query, request.into_inner())
    }

    async fn do_get_primary_keys(&self, _: CommandGetPrimaryKeys, _: Request<Ticket>) -> Answered {
        Ok(Response::new(single(RecordBatch::new_empty(Arc::new(sql_metadata::primary_keys())))))
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Informed {
        inform(&sql_metadata::foreign_keys(), &query, request.into_inner())
    }

    async fn do_get_exported_keys(&self, _: CommandGetExportedKeys, _: Request<Ticket>) -> Answered {
        Ok(Response::new(single(RecordBatch::new_empty(Arc::new(sql_metadata::foreign_keys())))))
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Informed {
        inform(&sql_metadata::foreign_keys(), &query, request.into_inner())
    }

    async fn do_get_imported_keys(&self, _: CommandGetImportedKeys, _: Request<Ticket>) -> Answered {
        Ok(Response::new(single(RecordBatch::new_empty(Arc::new(sql_metadata::foreign_keys())))))
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Informed {
        inform(&sql_metadata::foreign_keys(), &query, request.into_inner())
    }

    async fn do_get_cross_reference(&self, _: CommandGetCrossReference, _: Request<Ticket>) -> Answered {
        Ok(Response::new(single(RecordBatch::new_empty(Arc::new(sql_metadata::foreign_keys())))))
    }

    /// Required by the trait; what is known is fixed when the service is made.
    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};

    use super::*;

    fn metadata(pairs: &[(&'static str, &str)]) -> MetadataMap {
        let mut map = MetadataMap::new();
        pairs.iter().for_each(|(name, value)| drop(map.insert(*name, value.parse().unwrap())));
        map
    }

    #[test]
    fn metadata_asks_for_less() {
        assert_eq!(Wishes::of(&metadata(&[]), 0).unwrap(), Wishes::default());
        let pairs = [
            ("quiver-timeout-ms", "1500"),
            ("quiver-row-limit", "10"),
            ("quiver-stats", "1"),
            ("quiver-from", "1"),
            ("quiver-source", "dashboard=x;panel=2"),
        ];
        let wishes = Wishes::of(&metadata(&pairs), 0).unwrap();
        assert_eq!(wishes.timeout, Some(Duration::from_millis(1500)));
        assert_eq!(wishes.limit, Some(10));
        assert!(wishes.stats);
        assert_eq!(wishes.range.unwrap().from_ns, 1_000_000_000);
        assert_eq!(wishes.source.as_deref(), Some("dashboard=x;panel=2"));
        assert!(Wishes::of(&metadata(&[("quiver-row-limit", "many")]), 0).is_err());
        assert!(Wishes::of(&metadata(&[("quiver-to", "soon")]), 0).is_err());
    }

    #[tokio::test]
    async fn the_cost_travels_on_an_empty_batch() {
        let schema = Schema::new(vec![Field::new("message", DataType::Utf8, true)]);
        let stats = query::Stats { rows_scanned: 7, ..query::Stats::default() };
        let batch = RecordBatch::new_empty(Arc::new(schema.clone()));
        let messages: Vec<_> =
            single(batch).chain(futures::stream::iter([stats_message(&schema, &stats)])).collect().await;
        let stream = futures::stream::iter(messages.into_iter().map(|message| message.map_err(FlightError::from)));
        let decoded: Vec<_> = FlightDataDecoder::new(stream).try_collect().await.unwrap();
        let last = decoded.last().unwrap();
        assert!(matches!(&last.payload, DecodedPayload::RecordBatch(batch) if batch.num_rows() == 0));
        let json: serde_json::Value = serde_json::from_slice(&last.app_metadata()).unwrap();
        assert_eq!(json["rows_scanned"], 7);
        assert_eq!(json["truncated"], false);
    }

    #[test]
    fn a_ticket_must_be_text() {
        assert_eq!(statement(Bytes::from_static(b"SELECT 1")).unwrap(), "SELECT 1");
        assert!(matches!(statement(Bytes::from_static(b"\xff\xfe")), Err(Error::Invalid(_))));
    }
}
