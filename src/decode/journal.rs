//! systemd's journal export format (`application/vnd.fdo.journal`), as `systemd-journal-upload` sends it.
//!
//! Invariant: an entry is its MESSAGE as a line; its other fields stand around it, in lower case and without the
//! underscores in front (`_SYSTEMD_UNIT` → `systemd_unit`). Fields of the transport itself (`__CURSOR`) are left out.
//! Source: systemd, docs/JOURNAL_EXPORT_FORMATS.md and systemd.journal-fields(7).

use super::columns::Cell;
use super::outer::Mark;
use super::records::Records;
use super::{Decoded, Error, Options};
use crate::record::Level;

/// Longest name of a field (systemd: 64 characters).
const NAME_BYTES_MAX: usize = 256;

/// Fields that say the service, best first.
const SERVICES: [&str; 3] = ["CONTAINER_NAME", "SYSLOG_IDENTIFIER", "_SYSTEMD_UNIT"];

/// Where the last whole entry of `bytes` ends; what follows is the start of another. **Errors**: bytes that are no entry.
pub fn whole(bytes: &[u8]) -> Result<usize, Error> {
    let mut end = 0;
    let mut entries = Entries { rest: bytes };
    while let Some(entry) = entries.entry()? {
        end = bytes.len() - entries.rest.len();
        drop(entry);
    }
    Ok(end)
}

/// Decodes entries; an unfinished one at the end is rejected. `is_new` is asked with an entry's cursor, which names it
/// for ever. **Errors**: when bytes are no entry, or the whole grows too large, and those of `is_new`.
pub fn entries<E: From<Error>>(
    body: &[u8],
    mut is_new: impl FnMut(&[u8]) -> Result<bool, E>,
    options: &Options,
    now_ns: i64,
) -> Result<Decoded, E> {
    let mut records = Records::new(options, now_ns);
    let mut entries = Entries { rest: body };
    let mut place = 0;
    while let Some(entry) = entries.entry()? {
        let cursor = entry.iter().find(|(name, _)| *name == "__CURSOR").map(|(_, cursor)| *cursor);
        let is_wanted = cursor.map_or(Ok(true), &mut is_new)?;
        if !entry.is_empty() && is_wanted {
            place += 1;
            push_entry(&entry, &mut records, place, now_ns)?;
        }
    }
    if !entries.rest.is_empty() {
        records.reject(place + 1, "the last entry is cut".to_owned());
    }
    Ok(records.finish())
}

type Entry<'a> = Vec<(&'a str, &'a [u8])>;

/// Entries in a row, each a list of fields.
struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    /// The next entry up to the empty line after it; `None` when there is no whole one.
    fn entry(&mut self) -> Result<Option<Entry<'a>>, Error> {
        let mut entry = Vec::new();
        let mut rest = self.rest;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            rest = after;
            if line.is_empty() {
                self.rest = rest;
                return Ok(Some(entry));
            }
            let name_end = memchr::memchr(b'=', line).unwrap_or(line.len());
            let name = std::str::from_utf8(&line[..name_end]).ok().filter(|name| name.len() <= NAME_BYTES_MAX);
            let wrong = || Error::Malformed("the body is no journal export: a field without a name".to_owned());
            let name = name.filter(|name| !name.is_empty()).ok_or_else(wrong)?;
            if name_end < line.len() {
                entry.push((name, &line[name_end + 1..]));
                continue;
            }
            // A name alone: length as 64 bits, little-endian, then the value and a line's end.
            let Some((length, value)) = rest.split_first_chunk::<8>() else { return Ok(None) };
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
            let Some((value, after)) = value.split_at_checked(length) else { return Ok(None) };
            match after.split_first() {
                Some((b'\n', after)) => rest = after,
                Some(_) => {
                    return Err(Error::Malformed(format!(
                        "the body is no journal export: the value of '{name}' does not end where it should"
                    )));
                }
                None => return Ok(None),
            }
            entry.push((name, value));
        }
        Ok(None)
    }
}

fn push_entry(entry: &Entry<'_>, records: &mut Records<'_>, place: usize, now_ns: i64) -> Result<(), Error> {
    let find = |name: &str| entry.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
    let micros = find("__REALTIME_TIMESTAMP").and_then(|value| std::str::from_utf8(value).ok()?.parse::<i64>().ok());
    let time_ns = micros.map_or(now_ns, |micros| micros.saturating_mul(1_000));
    let origin = ["_HOSTNAME"].iter().chain(&SERVICES);
    records.stream(origin.filter_map(|name| Some((name, find(name)?))));
    records.reset_outer(Mark::default());
    records.outer(|outer, naming| {
        for (name, value) in entry {
            match *name {
                "MESSAGE" => {}
                name if name.starts_with("__") => {}
                "PRIORITY" => {
                    let text = String::from_utf8_lossy(value);
                    match text.parse().ok().and_then(Level::from_syslog) {
                        Some(level) => outer.set_level_hint(level),
                        None => outer.push_field("priority", Cell::Text(&text), naming),
                    }
                }
                name => {
                    let lower = name.trim_start_matches('_').to_ascii_lowercase();
                    outer.push(&lower, Cell::Text(&String::from_utf8_lossy(value)), naming);
                }
            }
        }
        if let Some(service) = SERVICES.iter().find_map(|name| find(name)).filter(|_| outer.service().is_none()) {
            let service = String::from_utf8_lossy(service);
            outer.push("service", Cell::Text(service.strip_suffix(".service").unwrap_or(&service)), naming);
        }
    });
    match find("MESSAGE") {
        Some(line) => records.line(line, Some(time_ns), place),
        None => records.message(None, time_ns, place),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{NOW, row};
    use super::*;

    /// The first is from docs/JOURNAL_EXPORT_FORMATS.md, with its binary field; cut to what matters.
    const EXPORT: &[u8] = b"__CURSOR=s=739ad463348b4ceca5a9e69c95a3c93f;i=4ece7\n\
        __REALTIME_TIMESTAMP=1342540861416351\n_BOOT_ID=49335d14\nPRIORITY=4\n_UID=0\n_HOSTNAME=bupkis\n\
        SYSLOG_IDENTIFIER=python3\n_COMM=python3\n_SYSTEMD_UNIT=user@0.service\nMESSAGE\n\x07\0\0\0\0\0\0\0foo\nbar\n\
        CODE_LINE=1\n\n\
        MESSAGE={\"msg\":\"two\",\"level\":\"error\"}\n__REALTIME_TIMESTAMP=1767268800000001\n_SYSTEMD_UNIT=web.service\n\n";

    fn decoded(body: &[u8]) -> Result<Decoded, Error> {
        entries(body, |_| Ok(true), &Options::default(), NOW)
    }

    #[test]
    fn entries_become_records() {
        let none = entries(EXPORT, |cursor| Ok::<_, Error>(!cursor.ends_with(b"4ece7")), &Options::default(), NOW);
        assert_eq!(none.unwrap().accepted(), 1, "the first came before");
        let decoded = decoded(EXPORT).unwrap();
        let rows: Vec<String> = (0..decoded.accepted()).map(|index| row(&decoded.batch, index)).collect();
        assert_eq!(
            rows,
            [
                "timestamp=2012-07-17T16:01:01.416351Z | level=warn | service=python3 | message=foo\nbar | boot_id=49335d14 | \
                 uid=0 | hostname=bupkis | syslog_identifier=python3 | comm=python3 | systemd_unit=user@0.service | code_line=1",
                "timestamp=2026-01-01T12:00:00.000001Z | level=error | service=web | message=two | systemd_unit=web.service",
            ]
        );
        assert_eq!(decoded.rejected_count, 0);
    }

    #[test]
    fn a_cut_body_is_whole_up_to_its_last_entry() {
        let first = memchr::memmem::find(EXPORT, b"\n\n").unwrap() + 2;
        for cut in 0..=EXPORT.len() {
            let wanted = if cut == EXPORT.len() {
                cut
            } else if cut >= first {
                first
            } else {
                0
            };
            assert_eq!(whole(&EXPORT[..cut]).unwrap(), wanted, "cut at {cut}");
        }
        let decoded = decoded(&EXPORT[..EXPORT.len() - 1]).unwrap();
        assert_eq!((decoded.accepted(), decoded.rejected_count), (1, 1));
        assert!(whole(b"=x\n").is_err());
        assert!(whole(b"A\n\x01\0\0\0\0\0\0\0xy\n").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(at in 0usize..EXPORT.len(), byte in any::<u8>()) {
            let mut damaged = EXPORT.to_vec();
            damaged[at] = byte;
            let _ = whole(&damaged);
            let _ = decoded(&damaged);
        }
    }
}
