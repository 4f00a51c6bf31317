//! Times and ranges of time as callers write them: `from=`, `to=`, `--from`, `--to`. Pure: now is a parameter.

use jiff::{SignedDuration, Timestamp};

use crate::query::TimeRange;

/// Reads a time. **Shape**: RFC 3339, digits since the epoch (s, ms, µs or ns by their number), `now`, or a duration
/// before now (`15m`, `-15m`, `now-15m`). **Units**: nanoseconds since the epoch.
pub fn parse_time(text: &str, now_ns: i64) -> Option<i64> {
    let text = text.trim();
    if text == "now" {
        return Some(now_ns);
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i64 = text.parse().ok()?;
        // Seconds have 11 digits until the year 5138, milliseconds 14, microseconds 17.
        let factor = match digits.len() {
            0..=11 => 1_000_000_000,
            12..=14 => 1_000_000,
            15..=17 => 1_000,
            _ => 1,
        };
        return number.checked_mul(factor);
    }
    if let Some((seconds, fraction)) = digits.split_once('.')
        && (1..=11).contains(&seconds.len())
        && seconds.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())
    {
        let whole = seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?;
        let parts = format!("{fraction:0<9}").get(..9)?.parse::<i64>().ok()?;
        return if text.starts_with('-') { None } else { whole.checked_add(parts) };
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return i64::try_from(time.as_nanosecond()).ok();
    }
    let before = text.strip_prefix("now").unwrap_or(text);
    let before = before.strip_prefix('-').unwrap_or(before);
    let days = before.strip_suffix('d').and_then(|days| days.parse::<i64>().ok());
    let before = match days {
        Some(days) => SignedDuration::from_hours(days.checked_mul(24)?),
        None => before.parse::<SignedDuration>().ok()?,
    };
    now_ns.checked_sub(i64::try_from(before.as_nanos()).ok()?)
}

/// Reads both ends; one that is not given is open. **Errors**: a text that says which end is wrong.
pub fn parse_range(from: Option<&str>, to: Option<&str>, now_ns: i64) -> Result<Option<TimeRange>, String> {
    let end = |name: &str, text: Option<&str>| {
        match text.filter(|text| !text.trim().is_empty()) {
        None => Ok(None),
        Some(text) => parse_time(text, now_ns).map(Some).ok_or_else(|| {
            format!("'{name}={text}' is not a time: RFC 3339 (a '+' is written %2B), digits since the epoch, or a duration before now such as 15m")
        }),
    }
    };
    let (from, to) = (end("from", from)?, end("to", to)?);
    if from.is_none() && to.is_none() {
        return Ok(None);
    }
    let range = TimeRange { from_ns: from.unwrap_or(i64::MIN), to_ns: to.unwrap_or(i64::MAX) };
    if range.from_ns > range.to_ns {
        return Err("'from' is after 'to'".to_owned());
    }
    Ok(Some(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_767_225_600_000_000_000; // 2026-01-01T00:00:00Z
    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn times_are_read_in_every_form() {
        let cases = [
            ("2026-01-01T00:00:00Z", Some(NOW)),
            ("2026-01-01T01:00:00.000000001+01:00", Some(NOW + 1)),
            ("1767225600", Some(NOW)),
            ("1767225600.5", Some(NOW + SECOND / 2)),
            ("1767225600000", Some(NOW)),
            ("1767225600000000", Some(NOW)),
            ("1767225600000000001", Some(NOW + 1)),
            ("0", Some(0)),
            ("-1", Some(-SECOND)),
            ("now", Some(NOW)),
            ("15m", Some(NOW - 900 * SECOND)),
            ("-15m", Some(NOW - 900 * SECOND)),
            ("now-15m", Some(NOW - 900 * SECOND)),
            ("7d", Some(NOW - 7 * 86_400 * SECOND)),
            ("", None),
            ("yesterday", None),
            ("99999999999999999999", None),
            ("1.5.2", None),
            ("2026-01-01", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_time(text, NOW), expected, "{text}");
        }
    }

    #[test]
    fn a_missing_end_is_open() {
        assert_eq!(parse_range(None, Some(""), NOW), Ok(None));
        assert_eq!(parse_range(Some("now"), None, NOW), Ok(Some(TimeRange { from_ns: NOW, to_ns: i64::MAX })));
        assert!(parse_range(Some("now"), Some("1h"), NOW).unwrap_err().contains("after"));
        assert!(parse_range(Some("x"), None, NOW).unwrap_err().contains("'from=x'"));
    }
}
