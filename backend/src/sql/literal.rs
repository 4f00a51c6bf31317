//! How values stand in SQL text: names, texts, numbers, times and lengths of time; no queries.
//! Invariant: whatever comes in, what goes out is one token (or one literal) and never ends its own quotes.

use jiff::Timestamp;

/// A name in quotes, as the store's columns need them: they keep their case and their dots.
pub fn identifier(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut chars = name.chars();
    let simple = chars.next().is_some_and(plain) && chars.all(|c| plain(c) || c.is_ascii_digit());
    // Words that SQL itself uses are left in quotes; the store's own columns read better without.
    if simple && CORE_COLUMNS.contains(&name) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

const CORE_COLUMNS: [&str; 7] = ["timestamp", "level", "service", "message", "trace_id", "span_id", "_seq"];

/// A text in quotes.
pub fn text(value: &str) -> String {
    // A NUL can't stand in a line, and some parsers end at it.
    format!("'{}'", value.replace('\0', "").replace('\'', "''"))
}

/// The text as a number, if it is one that SQL reads as it stands; otherwise in quotes.
pub fn number_or_text(value: &str) -> String {
    let trimmed = value.trim();
    let digits = trimmed.strip_prefix('-').unwrap_or(trimmed);
    let plain = !digits.is_empty()
        && digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.ends_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
        && digits.matches('.').count() <= 1;
    if plain { trimmed.to_owned() } else { text(value) }
}

/// A point in time, to the nanosecond.
pub fn timestamp(ns: i64) -> String {
    format!("TIMESTAMP '{}'", instant(ns))
}

/// A point in time as RFC 3339.
pub fn instant(ns: i64) -> String {
    // Every i64 of nanoseconds lies between the years 1677 and 2262, inside jiff's range.
    Timestamp::from_nanosecond(i128::from(ns)).expect("an i64 of nanoseconds is a time").to_string()
}

/// The body of an interval literal: `90 seconds`, `250 milliseconds`.
pub fn interval_body(ms: u64) -> String {
    let (count, unit) = if ms.is_multiple_of(1000) { (ms / 1000, "second") } else { (ms, "millisecond") };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// An interval literal.
pub fn interval(ms: u64) -> String {
    format!("INTERVAL '{}'", interval_body(ms))
}

/// Reads a length of time as Grafana and as SQL write it: `5m`, `1h30m`, `90 seconds`, `250ms`. **Units**: milliseconds.
pub fn duration_ms(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let count: f64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        total += count * unit_ms(&rest[..letters])?;
        rest = rest[letters..].trim_start();
    }
    (1.0..1e15).contains(&total).then_some(total.round() as u64)
}

fn unit_ms(unit: &str) -> Option<f64> {
    Some(match unit {
        "ms" | "millisecond" | "milliseconds" => 1.0,
        "s" | "sec" | "secs" | "second" | "seconds" => 1e3,
        "m" | "min" | "mins" | "minute" | "minutes" => 60e3,
        "h" | "hour" | "hours" => 3_600e3,
        "d" | "day" | "days" => 86_400e3,
        "w" | "week" | "weeks" => 7.0 * 86_400e3,
        "y" | "year" | "years" => 365.0 * 86_400e3,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_leave_their_quotes() {
        for (name, expect) in [
            ("level", "level"),
            ("user_id", "\"user_id\""),
            ("http.status", "\"http.status\""),
            ("select", "\"select\""),
            ("a\"b", "\"a\"\"b\""),
            ("x\"; DROP TABLE logs; --", "\"x\"\"; DROP TABLE logs; --\""),
        ] {
            assert_eq!(identifier(name), expect);
        }
        for (value, expect) in [("it's", "'it''s'"), ("", "''"), ("' OR ''='", "''' OR ''''='''"), ("a\0b", "'ab'")] {
            assert_eq!(text(value), expect);
        }
    }

    #[test]
    fn only_plain_numbers_stand_without_quotes() {
        for (value, expect) in [
            ("500", "500"),
            ("-1.5", "-1.5"),
            (" 7 ", "7"),
            ("1e5", "'1e5'"),
            ("1.", "'1.'"),
            (".5", "'.5'"),
            ("1.2.3", "'1.2.3'"),
            ("--1", "'--1'"),
            ("", "''"),
            ("NaN", "'NaN'"),
        ] {
            assert_eq!(number_or_text(value), expect, "{value}");
        }
    }

    #[test]
    fn lengths_of_time_are_read_both_ways() {
        for (value, expect) in [
            ("5m", Some(300_000)),
            ("1h30m", Some(5_400_000)),
            ("90 seconds", Some(90_000)),
            ("250ms", Some(250)),
            ("0.5s", Some(500)),
            ("1d", Some(86_400_000)),
            ("2 hours 30 minutes", Some(9_000_000)),
            ("", None),
            ("5", None),
            ("m", None),
            ("5 parsecs", None),
            ("0s", None),
            ("1..2s", None),
        ] {
            assert_eq!(duration_ms(value), expect, "{value}");
        }
        assert_eq!(interval(60_000), "INTERVAL '60 seconds'");
        assert_eq!(interval(1_000), "INTERVAL '1 second'");
        assert_eq!(interval(250), "INTERVAL '250 milliseconds'");
    }

    #[test]
    fn times_keep_their_nanoseconds() {
        assert_eq!(timestamp(1_767_268_800_000_000_001), "TIMESTAMP '2026-01-01T12:00:00.000000001Z'");
        assert_eq!(timestamp(0), "TIMESTAMP '1970-01-01T00:00:00Z'");
        assert!(timestamp(i64::MIN).starts_with("TIMESTAMP '1677-"));
    }
}
