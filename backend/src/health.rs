//! What Save & test answers: what is wrong, in words, or what was found; it asks the store the way queries do.

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use jiff::Timestamp;

use crate::client::{Client, Error, Options};
use crate::query::Caller;
use crate::sql::literal;

/// A store that is well answers these in milliseconds.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
const HOUR_NS: i64 = 3_600_000_000_000;

/// Asks the store who it is and what it has. **Errors**: why it can't be used, for the person at the form.
pub async fn check(client: &Client, caller: &Caller) -> Result<String, Error> {
    let options = Options { timeout: Some(TIMEOUT), source: Some("health check".to_owned()), ..caller.options() };
    let fields_sql = "SELECT count(*) AS fields FROM information_schema.columns WHERE table_name = 'logs'";
    let now_ns = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    let since = literal::timestamp(now_ns.saturating_sub(HOUR_NS));
    let records_sql = format!("SELECT count(*) AS records FROM logs WHERE timestamp >= {since}");
    let fields = count(client, fields_sql, &options).await?;
    if fields == 0 {
        return Err(Error::NotAStore {
            url: client.settings().url.to_string(),
            reason: "it speaks Arrow Flight SQL, and has no table 'logs'".to_owned(),
        });
    }
    let records = count(client, &records_sql, &options).await?;
    let name = client.server_name(&options).await.unwrap_or_else(|| "the store".to_owned());
    let lines = match records {
        0 => "no lines in the last hour yet".to_owned(),
        1 => "1 line in the last hour".to_owned(),
        many => format!("{} lines in the last hour", thousands(many)),
    };
    Ok(format!("Connected to {name}: {} fields, {lines}.", thousands(fields)))
}

async fn count(client: &Client, sql: &str, options: &Options) -> Result<i64, Error> {
    let answer = client.query(sql, options).await?;
    let count = answer.batches.first().and_then(|batch| {
        let column = batch.columns().first()?.as_primitive_opt::<Int64Type>()?;
        (column.len() == 1 && column.is_valid(0)).then(|| column.value(0))
    });
    count.ok_or_else(|| Error::Internal(format!("no number came back for '{sql}'")))
}

fn thousands(number: i64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_readable() {
        for (number, expect) in [(0, "0"), (999, "999"), (3210, "3,210"), (1_000_000, "1,000,000")] {
            assert_eq!(super::thousands(number), expect);
        }
    }
}
