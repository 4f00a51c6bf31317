//! Elasticsearch's bulk requests and single documents: which records they become, and what each item is answered.
//!
//! Invariant: every action gets one item, in order; a damaged one costs no other. A document whose message is a log line
//! of its own (Filebeat, Fluent Bit) is that line, with the rest of the document around it; any other is its own line.
//! Source: Elasticsearch's reference, "Bulk API"; how clients read the answer is told in server/elastic.rs.

use std::borrow::Cow;

use serde::Deserialize;

use super::columns::Cell;
use super::document::push_inner_line;
use super::envelope::members;
use super::outer::Mark;
use super::records::Records;
use super::{Decoded, Error, Options};
use crate::record::Seen;

/// The field that holds the index or data stream a document was sent to.
const INDEX: &str = "index";

/// What a bulk request became.
#[derive(Debug)]
pub struct Bulk {
    /// The records.
    pub decoded: Decoded,
    /// An item for each action.
    pub items: Vec<Item>,
}

/// What an action asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Keep a document; the same id again replaces it.
    Index,
    /// Keep a document whose id is new.
    Create,
    /// Change one.
    Update,
    /// Remove one.
    Delete,
}

impl Action {
    /// Its name in requests and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Index => "index",
            Action::Create => "create",
            Action::Update => "update",
            Action::Delete => "delete",
        }
    }
}

/// One action of a bulk request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What was asked.
    pub action: Action,
    /// Of which index or data stream.
    pub index: String,
    /// The id that was given.
    pub id: Option<String>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There is a record of it.
    Created,
    /// The same document came before under the same id.
    Repeated,
    /// It was not done.
    Refused(Fault),
}

/// Why an action was not done: Elasticsearch's names for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The action is none, or not supported.
    Malformed,
    /// The document is no JSON object, or too long.
    Unparsed,
    /// `create` of an id that was created before.
    Conflict,
    /// Not now: the same id is being kept at this moment, or there are too many streams. Try again.
    Busy,
}

/// Why an action was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// In a word.
    pub kind: Kind,
    /// For people.
    pub reason: String,
}

impl Kind {
    /// Elasticsearch's word and status.
    pub fn told(self) -> (&'static str, u16) {
        match self {
            Kind::Malformed => ("illegal_argument_exception", 400),
            Kind::Unparsed => ("document_parsing_exception", 400),
            Kind::Conflict => ("version_conflict_engine_exception", 409),
            Kind::Busy => ("es_rejected_execution_exception", 429),
        }
    }
}

/// Tells what is known of the id that is made up of these parts, and claims it when it is new.
pub type Known<'k> = dyn FnMut(&[&[u8]]) -> Seen + 'k;

/// The line before a document: `{"create":{"_index":"logs-web-prod","_id":"7"}}`.
#[derive(Debug, Default, Deserialize)]
struct Target<'a> {
    #[serde(borrow, default, rename = "_index")]
    index: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "_id")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    op_type: Option<Cow<'a, str>>,
}

/// Decodes a bulk body; `index` is the one of the path, for actions that name none. `known` is asked for documents that
/// have an id. **Errors**: when it grows too large.
pub fn bulk(
    body: &[u8],
    index: Option<&str>,
    known: &mut Known<'_>,
    options: &Options,
    now_ns: i64,
) -> Result<Bulk, Error> {
    let mut records = Records::new(options, now_ns);
    let mut items = Vec::new();
    let mut lines =
        body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).peekable();
    while let Some(line) = lines.next() {
        let place = items.len() + 1;
        let (action, target) = match read_action(line) {
            Ok(found) => found,
            Err(reason) => {
                // What follows is most likely its document, unless it is the next action.
                lines.next_if(|next| read_action(next).is_err());
                records.reject(place, reason.clone());
                let outcome = Outcome::Refused(Fault { kind: Kind::Malformed, reason });
                let index = index.unwrap_or_default().to_owned();
                items.push(Item { action: Action::Index, index, id: None, outcome });
                continue;
            }
        };
        let index = target.index.as_deref().or(index).unwrap_or_default().to_owned();
        let mut item = Item { action, index, id: target.id.map(Cow::into_owned), outcome: Outcome::Created };
        item.outcome = match action {
            Action::Index | Action::Create => match lines.next() {
                Some(document) => keep(document, &item, known, &mut records, place)?,
                None => refuse(&mut records, place, "the action has no document after it"),
            },
            Action::Update => {
                lines.next();
                refuse(&mut records, place, "logs are kept as they came: update is not supported")
            }
            Action::Delete => {
                let reason = "logs are not deleted one by one: use POST /api/v1/delete, or rules of retention";
                refuse(&mut records, place, reason)
            }
        };
        items.push(item);
    }
    Ok(Bulk { decoded: records.finish(), items })
}

/// Decodes one document (`/{index}/_doc`). **Errors**: as [`bulk`].
pub fn document(
    body: &[u8],
    (action, index, id): (Action, &str, Option<&str>),
    known: &mut Known<'_>,
    options: &Options,
    now_ns: i64,
) -> Result<Bulk, Error> {
    let mut records = Records::new(options, now_ns);
    let mut item = Item { action, index: index.to_owned(), id: id.map(str::to_owned), outcome: Outcome::Created };
    item.outcome = keep(body, &item, known, &mut records, 1)?;
    Ok(Bulk { decoded: records.finish(), items: vec![item] })
}

fn refuse(records: &mut Records<'_>, place: usize, reason: &str) -> Outcome {
    records.reject(place, reason.to_owned());
    Outcome::Refused(Fault { kind: Kind::Malformed, reason: reason.to_owned() })
}

/// Adds a document unless its id says that it is there. `create` goes by the id alone; `index` again with another
/// document is another record, as what was kept is not changed.
fn keep(
    document: &[u8],
    item: &Item,
    known: &mut Known<'_>,
    records: &mut Records<'_>,
    place: usize,
) -> Result<Outcome, Error> {
    if !records.stream([(INDEX, item.index.as_bytes())]) {
        records.reject_stream(place);
        let reason = records.take_reason().unwrap_or_default();
        return Ok(Outcome::Refused(Fault { kind: Kind::Busy, reason }));
    }
    // What will be rejected must not claim its id.
    let may_be_kept =
        || std::str::from_utf8(document).is_ok_and(|text| records.fits_alone(text) && members(text).is_ok());
    if let Some(id) = item.id.as_deref().filter(|_| may_be_kept()) {
        let content = if item.action == Action::Create { &[][..] } else { document };
        let seen = known(&[item.action.as_str().as_bytes(), item.index.as_bytes(), id.as_bytes(), content]);
        match (seen, item.action) {
            (Seen::New, _) => {}
            (Seen::BeingKept, _) => {
                let reason = format!("[{id}]: a document of this id is being kept; try again");
                return Ok(Outcome::Refused(Fault { kind: Kind::Busy, reason }));
            }
            (Seen::Kept, Action::Create) => {
                let reason = format!("[{id}]: version conflict, document already exists (current version [1])");
                return Ok(Outcome::Refused(Fault { kind: Kind::Conflict, reason }));
            }
            (Seen::Kept, _) => return Ok(Outcome::Repeated),
        }
    }
    push_document(document, &item.index, records, place)
}

fn read_action(line: &[u8]) -> Result<(Action, Target<'_>), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Line<'a> {
        #[serde(borrow)]
        Index(Target<'a>),
        Create(Target<'a>),
        Update(Target<'a>),
        Delete(Target<'a>),
    }
    let read: Line<'_> =
        serde_json::from_slice(line).map_err(|error| format!("malformed action/metadata line: {error}"))?;
    Ok(match read {
        Line::Index(target) if target.op_type.as_deref() == Some("create") => (Action::Create, target),
        Line::Index(target) => (Action::Index, target),
        Line::Create(target) => (Action::Create, target),
        Line::Update(target) => (Action::Update, target),
        Line::Delete(target) => (Action::Delete, target),
    })
}

/// Adds a document; tells why when it is no JSON object, or too long.
fn push_document(document: &[u8], index: &str, records: &mut Records<'_>, place: usize) -> Result<Outcome, Error> {
    // What was told of an action before is not this document's.
    records.take_reason();
    records.reset_outer(Mark::default());
    if !index.is_empty() {
        records.outer(|outer, naming| outer.push_field(INDEX, Cell::Text(index), naming));
    }
    // Of what is not UTF-8, `object` says where.
    let text = std::str::from_utf8(document).unwrap_or_default();
    if !push_inner_line(text, None, records, place)? {
        records.object(document, place)?;
    }
    let refused = |reason| Outcome::Refused(Fault { kind: Kind::Unparsed, reason });
    Ok(records.take_reason().map_or(Outcome::Created, refused))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, row};
    use super::*;

    fn decoded(body: &str) -> (Vec<String>, Vec<String>) {
        let mut seen = Vec::new();
        let mut known = |parts: &[&[u8]]| {
            let id = parts.join(&b'|');
            if id.ends_with(b"busy|") {
                return Seen::BeingKept;
            }
            if seen.contains(&id) {
                return Seen::Kept;
            }
            seen.push(id);
            Seen::New
        };
        let bulk = bulk(body.as_bytes(), Some("path"), &mut known, &Options::default(), NOW).unwrap();
        let rows = (0..bulk.decoded.accepted()).map(|index| row(&bulk.decoded.batch, index)).collect();
        let shown = |item: &Item| {
            let outcome = match &item.outcome {
                Outcome::Created => "ok".to_owned(),
                Outcome::Repeated => "repeated".to_owned(),
                Outcome::Refused(fault) => format!("{}: {}", fault.kind.told().0, fault.reason),
            };
            format!("{} {} {} {outcome}", item.action.as_str(), item.index, item.id.as_deref().unwrap_or("-"))
        };
        (rows, bulk.items.iter().map(shown).collect())
    }

    #[test]
    fn documents_become_records() {
        let cases = [
            (
                r#"{"create":{"_index":"logs-web-prod"}}
{"@timestamp":"2026-01-01T12:00:00.123Z","log.level":"warn","message":"slow","service":{"name":"web"},"n":5}"#,
                "timestamp=2026-01-01T12:00:00.123Z | level=warn | service=web | message=slow | index=logs-web-prod | n=5",
            ),
            // Fluent Bit's `es` with a container's line in `log`.
            (
                r#"{"create":{"_index":"fluent-bit","_type":"_doc"}}
{"@timestamp":"2026-01-01T12:00:00.000Z","log":"{\"level\":\"error\",\"msg\":\"boom\",\"n\":5}\n","stream":"stderr","kubernetes":{"container_name":"web"}}"#,
                "timestamp=2026-01-01T12:00:00Z | level=error | message=boom | index=fluent-bit | stream=stderr | \
                 kubernetes.container_name=web | n=5",
            ),
            // Filebeat: the line is in `message`.
            (
                r#"{"index":{"_index":"filebeat-8.17.0"}}
{"@timestamp":"2026-01-01T12:00:00.000Z","message":"ts=1 level=info msg=\"it runs\" n=5","host":{"name":"box"}}"#,
                "timestamp=2026-01-01T12:00:00Z | level=info | message=it runs | index=filebeat-8.17.0 | host.name=box | ts=1 \
                 | n=5",
            ),
            ("{\"index\":{}}\n{\"message\":\"{half\",\"x\":\"{\\\"\"}", "message={half | index=path | x={\""),
        ];
        for (body, wanted) in cases {
            let (rows, items) = decoded(body);
            assert!(rows.len() == 1 && rows[0].ends_with(wanted), "{body}\n{rows:?} {items:?}");
            assert!(items[0].ends_with("- ok"), "{items:?}");
        }
    }

    #[test]
    fn each_action_has_an_item() {
        let body = "{\"index\":{\"_id\":\"1\"}}\r\n{\"n\":1}\r\n\n\
                    {\"create\":{\"_index\":\"other\",\"_id\":\"2\"}}\n{\"n\":\n\
                    {\"update\":{\"_id\":\"3\"}}\n{\"doc\":{}}\n\
                    {\"delete\":{\"_id\":\"4\"}}\n\
                    {\"crate\":{}}\n{\"n\":2}\n\
                    nonsense\n{\"index\":{\"op_type\":\"create\",\"pipeline\":\"p\"}}\n{\"n\":3}\n\
                    {\"create\":{}}\n";
        let (rows, items) = decoded(body);
        assert_eq!(rows.len(), 2);
        assert!(rows[1].ends_with("index=path | n=3"), "{rows:?}");
        for (item, wanted) in items.iter().zip([
            "index path 1 ok",
            "create other 2 document_parsing_exception: not a JSON object: ",
            "update path 3 illegal_argument_exception: logs are kept as they came",
            "delete path 4 illegal_argument_exception: logs are not deleted",
            "index path - illegal_argument_exception: malformed action/metadata line: unknown variant `crate`",
            "index path - illegal_argument_exception: malformed action/metadata line: expected",
            "create path - ok",
            "create path - illegal_argument_exception: the action has no document",
        ]) {
            assert!(item.starts_with(wanted), "{item}\n{wanted}");
        }
        assert_eq!(items.len(), 8);
    }

    #[test]
    fn a_document_of_a_known_id_is_kept_once() {
        let body = "{\"create\":{\"_id\":\"1\"}}\n{\"n\":\n{\"create\":{\"_id\":\"1\"}}\n{\"n\":1}\n\
                    {\"create\":{\"_id\":\"1\"}}\n{\"n\":2}\n{\"create\":{\"_id\":\"busy\"}}\n{\"n\":3}\n\
                    {\"index\":{\"_id\":\"1\"}}\n{\"n\":4}\n{\"index\":{\"_id\":\"1\"}}\n{\"n\":4}\n\
                    {\"index\":{\"_id\":\"1\"}}\n{\"n\":5}\n";
        let (rows, items) = decoded(body);
        for (item, wanted) in items.iter().zip([
            "create path 1 document_parsing_exception",
            "create path 1 ok",
            "create path 1 version_conflict_engine_exception: [1]: version conflict, document already exists",
            "create path busy es_rejected_execution_exception",
            "index path 1 ok",
            "index path 1 repeated",
            "index path 1 ok",
        ]) {
            assert!(item.starts_with(wanted), "{item}\n{wanted}");
        }
        assert_eq!((items.len(), rows.len()), (7, 3));
    }
}
