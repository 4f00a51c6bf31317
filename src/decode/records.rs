//! Records of one request on their way into one batch: what a decoder gives its lines to.
//!
//! Invariant: each accepted line is one row, in the order they came; each other one is counted, and told up to a limit.

use hashbrown::HashMap;

use super::columns::{Cell, Columns, slot};
use super::forms::{Context, Forms, Piece, Placed, PlacedValue, Row};
use super::json::{Fault, scan_object};
use super::lines::{Draft, Workshop};
use super::names::Names;
use super::outer::{Mark, Naming, Outer};
use super::pairs::scan_pairs;
use super::token::{Syntax, Tokens, Value};
use super::{Cause, Decoded, Error, Options, Rejection};
use crate::record::quote::unescape_json;
use crate::record::{Level, overflow, time};

/// Most different shapes of a batch; a line beyond them is kept as it is.
const SHAPES_MAX: usize = 1_000;

/// The batch that is being made.
pub(super) struct Records<'o> {
    options: &'o Options,
    names: Names,
    now_ns: i64,
    columns: Columns,
    outer: Outer,
    /// Roots of the trees of forms, by [`Outer::signature`].
    roots: HashMap<Box<[u32]>, u32>,
    signature: Vec<u32>,
    root: Option<u32>,
    forms: Forms,
    shapes: Shapes,
    row: Row,
    draft: Draft,
    tokens: Tokens,
    inner_tokens: Tokens,
    taken: Vec<u64>,
    turn: u64,
    rejected: Vec<Rejection>,
    rejected_count: usize,
    causes: [usize; Cause::COUNT],
    /// Why the last line was not accepted, until somebody asks.
    latest_reason: Option<String>,
}

/// The shapes of a batch, each once.
#[derive(Debug, Default)]
struct Shapes {
    texts: Vec<Box<str>>,
    ids: HashMap<Box<str>, u32>,
    bytes: usize,
}

impl Shapes {
    fn id(&mut self, shape: &str) -> Option<u32> {
        if let Some(id) = self.ids.get(shape) {
            return Some(*id);
        }
        if self.texts.len() >= SHAPES_MAX {
            return None;
        }
        let id = self.texts.len() as u32;
        self.bytes += shape.len();
        self.texts.push(shape.into());
        self.ids.insert(shape.into(), id);
        Some(id)
    }
}

/// What a row ends with beside its values.
struct Ending<'a> {
    shape: Option<u32>,
    raw: Option<&'a [u8]>,
    /// The time where neither the protocol nor the line gave one.
    time_ns: i64,
}

impl<'o> Records<'o> {
    pub fn new(options: &'o Options, now_ns: i64) -> Self {
        Records {
            options,
            names: Names::of(options),
            now_ns,
            columns: Columns::new(),
            outer: Outer::default(),
            roots: HashMap::new(),
            signature: Vec::new(),
            root: None,
            forms: Forms::default(),
            shapes: Shapes::default(),
            row: Row::default(),
            draft: Draft::default(),
            tokens: Tokens::default(),
            inner_tokens: Tokens::default(),
            taken: Vec::new(),
            turn: 0,
            rejected: Vec::new(),
            rejected_count: 0,
            causes: [0; Cause::COUNT],
            latest_reason: None,
        }
    }

    /// Changes the fields around the next lines.
    pub fn outer(&mut self, change: impl FnOnce(&mut Outer, &mut Naming<'_>)) {
        let mut naming = Naming { columns: &mut self.columns, names: &self.names, options: self.options };
        change(&mut self.outer, &mut naming);
        self.root = None;
    }

    /// A state of the fields around, for [`Records::reset_outer`].
    pub fn outer_mark(&self) -> Mark {
        self.outer.mark()
    }

    /// Goes back to an earlier state of the fields around.
    pub fn reset_outer(&mut self, mark: Mark) {
        self.outer.reset(mark);
        self.root = None;
    }

    /// Counts a line that is not what the protocol says.
    pub fn reject(&mut self, line: usize, reason: String) {
        self.reject_as(Cause::Malformed, line, reason);
    }

    fn reject_as(&mut self, cause: Cause, line: usize, reason: String) {
        self.rejected_count += 1;
        self.causes[cause as usize] += 1;
        if self.rejected.len() < self.options.rejections_max {
            self.rejected.push(Rejection { line, reason: reason.clone() });
        }
        self.latest_reason = Some(reason);
    }

    /// Why a line was not accepted since this was last asked; for protocols that answer each record by itself.
    pub fn take_reason(&mut self) -> Option<String> {
        self.latest_reason.take()
    }

    /// Adds a line of any format; `place` is its number in the request, from 1. `given_ns` is the protocol's time.
    /// **Errors**: when the batch has become too large.
    pub fn line(&mut self, line: &[u8], given_ns: Option<i64>, place: usize) -> Result<(), Error> {
        match given_ns.filter(|ns| *ns > self.latest_ns()) {
            None => self.line_at(line, given_ns, place),
            Some(late) => self.with_original_time(late, |records, now_ns| records.line_at(line, Some(now_ns), place)),
        }
    }

    /// Adds one with a time that is not believed: now is its time, and what was given stays in `timestamp_original`.
    fn with_original_time(
        &mut self,
        late_ns: i64,
        add: impl FnOnce(&mut Self, i64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mark = self.outer_mark();
        let mut text = Vec::new();
        time::write(late_ns, time::RFC_3339, &mut text);
        let text = String::from_utf8_lossy(&text);
        self.outer(|outer, naming| outer.push_field("timestamp_original", Cell::Text(&text), naming));
        let added = add(self, self.now_ns);
        self.reset_outer(mark);
        added
    }

    fn line_at(&mut self, line: &[u8], given_ns: Option<i64>, place: usize) -> Result<(), Error> {
        if !self.fits(line, place)? {
            return Ok(());
        }
        let Ok(text) = std::str::from_utf8(line) else {
            self.not_utf8(line, given_ns);
            return Ok(());
        };
        self.row.clear();
        let Some(format) = self.known_form(text, given_ns).is_none().then(|| self.scan(text)) else { return Ok(()) };
        match format {
            Some(_) => self.structured(text, given_ns),
            None => self.plain(text, given_ns),
        }
        Ok(())
    }

    /// Adds a line that has to be a JSON object; others are rejected. **Errors**: as [`Records::line`].
    pub fn object(&mut self, line: &[u8], place: usize) -> Result<(), Error> {
        if !self.fits(line, place)? {
            return Ok(());
        }
        let text = match std::str::from_utf8(line) {
            Ok(text) => text,
            Err(error) => {
                self.reject_as(Cause::NotUtf8, place, format!("not valid UTF-8 at column {}", error.valid_up_to() + 1));
                return Ok(());
            }
        };
        self.row.clear();
        if self.known_form(text, None).is_some() {
            return Ok(());
        }
        self.tokens.clear();
        match scan_object(text, &mut self.tokens) {
            Ok(()) => self.structured(text, None),
            Err(fault) => self.reject(place, format!("not a JSON object: {fault}")),
        }
        Ok(())
    }

    /// Adds a record that has no line: the message alone, and the fields around it. **Errors**: as [`Records::line`].
    pub fn message(&mut self, message: Option<&str>, given_ns: i64, place: usize) -> Result<(), Error> {
        if given_ns > self.latest_ns() {
            return self.with_original_time(given_ns, |records, now_ns| records.message(message, now_ns, place));
        }
        if !self.fits(message.unwrap_or_default().as_bytes(), place)? {
            return Ok(());
        }
        self.row.clear();
        if let Some(message) = message {
            self.place_message(message);
        }
        self.end_row(message.unwrap_or_default(), Ending { shape: None, raw: None, time_ns: given_ns });
        Ok(())
    }

    /// The batch, and what was not accepted.
    pub fn finish(self) -> Decoded {
        Decoded {
            batch: self.columns.finish(&self.shapes.texts),
            rejected: self.rejected,
            rejected_count: self.rejected_count,
            causes: self.causes,
        }
    }

    /// Whether a line is not too long by itself.
    pub fn fits_alone(&self, line: &str) -> bool {
        line.len() <= self.options.line_bytes_max
    }

    /// Whether the line keeps the limits; it is rejected when not.
    fn fits(&mut self, line: &[u8], place: usize) -> Result<bool, Error> {
        let batch_bytes_max = self.options.batch_bytes_max.min(i32::MAX as usize - (64 << 20));
        if self.columns.bytes() + self.shapes.bytes + line.len() > batch_bytes_max {
            return Err(Error::TooLarge(batch_bytes_max));
        }
        if line.len() > self.options.line_bytes_max {
            let limit = self.options.line_bytes_max;
            self.reject_as(Cause::TooLong, place, format!("the line has {} bytes; the limit is {limit}", line.len()));
            return Ok(false);
        }
        Ok(true)
    }

    /// Later times are not believed.
    fn latest_ns(&self) -> i64 {
        self.now_ns.saturating_add(self.options.future_max_ns)
    }

    fn root(&mut self) -> u32 {
        if let Some(root) = self.root {
            return root;
        }
        self.outer.signature(&mut self.signature);
        let root = match self.roots.get(self.signature.as_slice()) {
            Some(root) => *root,
            None => {
                let root = self.forms.root();
                self.roots.insert(self.signature.as_slice().into(), root);
                root
            }
        };
        self.root = Some(root);
        root
    }

    /// Adds the line if its form is known.
    fn known_form(&mut self, text: &str, given_ns: Option<i64>) -> Option<()> {
        // Without a branch per byte, so that it is done in vectors.
        let controls = text.bytes().fold(false, |found, byte| found | (byte < 0x20));
        if controls {
            return None;
        }
        let root = self.root();
        let context = Context { outer: &self.outer, given_ns, latest_ns: self.latest_ns() };
        let shape = self.forms.read(root, text, &context, &mut self.row)?;
        let time_ns = given_ns.unwrap_or(self.now_ns);
        self.end_row(text, Ending { shape: Some(shape), raw: None, time_ns });
        Some(())
    }

    /// Finds the tokens of a JSON or `key=value` line.
    fn scan(&mut self, text: &str) -> Option<()> {
        scan_any(text, &mut self.tokens)
    }

    /// Adds the line whose tokens were found.
    fn structured(&mut self, text: &str, given_ns: Option<i64>) {
        let root = self.root();
        let tokens = std::mem::take(&mut self.tokens);
        let mut inner_tokens = std::mem::take(&mut self.inner_tokens);
        self.row.clear();
        self.draft.clear();
        self.turn += 1;
        let mut workshop = Workshop {
            naming: Naming { columns: &mut self.columns, names: &self.names, options: self.options },
            context: Context {
                outer: &self.outer,
                given_ns,
                latest_ns: self.now_ns.saturating_add(self.options.future_max_ns),
            },
            now_ns: self.now_ns,
            row: &mut self.row,
            draft: &mut self.draft,
            taken: &mut self.taken,
            turn: self.turn,
        };
        workshop.begin();
        match docker_log(text, &tokens) {
            Some((log, inner)) => {
                let bare = inner.trim_end_matches(['\n', '\r']);
                let structured = scan_any(bare, &mut inner_tokens).map(|()| &inner_tokens);
                workshop.write_wrapped(text, &tokens, log, &inner, structured);
            }
            None => {
                let decisions = workshop.decide(text, &tokens);
                workshop.write(text, &tokens, &decisions, 0..decisions.len(), None);
                workshop.end(text, None);
            }
        }
        let shape = if self.draft.exact { self.shapes.id(&self.draft.shape) } else { None };
        if let Some(shape) = shape
            && self.draft.learnable
        {
            self.forms.learn(root, text, &self.draft.steps, &text[self.draft.done..], shape);
        }
        self.tokens = tokens;
        self.inner_tokens = inner_tokens;
        let raw = shape.is_none().then_some(text.as_bytes());
        self.end_row(text, Ending { shape, raw, time_ns: given_ns.unwrap_or(self.now_ns) });
    }

    /// Adds a line of plain text: the message is the line.
    fn plain(&mut self, text: &str, given_ns: Option<i64>) {
        self.place_message(text);
        self.row.level = Level::find_in_text(text.as_bytes()).filter(|_| !self.outer.hints_at_level());
        let found = if given_ns.is_none() && text.as_bytes().first().is_some_and(u8::is_ascii_digit) {
            time::parse_calendar(text.as_bytes()).map(|(ns, _, _)| ns)
        } else {
            None
        };
        self.row.time = found.filter(|ns| *ns <= self.latest_ns());
        self.end_row(text, Ending { shape: None, raw: None, time_ns: given_ns.unwrap_or(self.now_ns) });
    }

    /// Adds a line that is not UTF-8: what can be read of it is the message, and the bytes are kept.
    fn not_utf8(&mut self, line: &[u8], given_ns: Option<i64>) {
        let text = String::from_utf8_lossy(line);
        self.row.clear();
        self.place_message(&text);
        self.row.level = Level::find_in_text(line).filter(|_| !self.outer.hints_at_level());
        self.end_row(&text, Ending { shape: None, raw: Some(line), time_ns: given_ns.unwrap_or(self.now_ns) });
    }

    fn place_message(&mut self, text: &str) {
        let piece = Piece::Line(0, text.len() as u32);
        self.row.placed.push(Placed { slot: slot::MESSAGE, value: PlacedValue::Text, piece });
    }

    /// Writes the row into the columns.
    fn end_row(&mut self, line: &str, ending: Ending<'_>) {
        let columns = &mut self.columns;
        self.outer.write_fields(columns);
        let (mut has_service, mut has_trace_id, mut has_span_id) = (false, false, false);
        for placed in &self.row.placed {
            let text = match placed.piece {
                Piece::Line(start, end) => &line[start as usize..end as usize],
                Piece::Scratch(start, end) => &self.row.scratch[start as usize..end as usize],
            };
            let cell = match placed.value {
                PlacedValue::Text => Cell::Text(text),
                PlacedValue::Integer(value) => Cell::Integer(value, text),
                PlacedValue::Float(value) => Cell::Float(value, text),
                PlacedValue::Boolean(value) => Cell::Boolean(value),
            };
            has_service |= placed.slot == slot::SERVICE;
            has_trace_id |= placed.slot == slot::TRACE_ID;
            has_span_id |= placed.slot == slot::SPAN_ID;
            columns.push(placed.slot, cell);
        }
        if let Some(service) = self.outer.service() {
            match (has_service, self.outer.service_own()) {
                (false, _) => columns.push(slot::SERVICE, Cell::Text(service)),
                (true, Some(own)) => columns.push(own, Cell::Text(service)),
                (true, None) => {}
            }
        }
        if let Some(id) = self.outer.trace_id().filter(|_| !has_trace_id) {
            columns.push(slot::TRACE_ID, Cell::Text(id));
        }
        if let Some(id) = self.outer.span_id().filter(|_| !has_span_id) {
            columns.push(slot::SPAN_ID, Cell::Text(id));
        }
        if let Some(level) = self.outer.level().or(self.row.level).or(self.outer.level_hint()) {
            columns.push(slot::LEVEL, Cell::Text(level.as_str()));
        }
        if !self.outer.overflow().is_empty() || !self.row.overflow.is_empty() {
            let mut object = self.outer.overflow().to_string();
            if object.is_empty() {
                object.push_str(&self.row.overflow);
            } else if let Some(members) = self.row.overflow.strip_prefix('{') {
                object.push(',');
                object.push_str(members);
            }
            overflow::close(&mut object);
            columns.push(slot::OVERFLOW, Cell::Text(&object));
        }
        columns.end_row(self.row.time.unwrap_or(ending.time_ns), ending.shape, ending.raw);
    }
}

/// Finds the tokens of a line that is a JSON object or made of pairs.
fn scan_any(text: &str, tokens: &mut Tokens) -> Option<()> {
    let trimmed = text.trim_ascii();
    tokens.clear();
    if trimmed.starts_with('{') {
        let found: Result<(), Fault> = if trimmed.ends_with('}') { scan_object(text, tokens) } else { return None };
        return found.ok();
    }
    memchr::memchr(b'=', text.as_bytes())?;
    scan_pairs(text, tokens).then_some(())
}

/// The inner line, and the token that holds it, when this is a line of Docker's json-file driver.
fn docker_log(text: &str, tokens: &Tokens) -> Option<(usize, String)> {
    let mut log = None;
    let (mut stream, mut time) = (false, false);
    for (index, token) in tokens.list.iter().enumerate() {
        let Value::Text { syntax: Syntax::Json, .. } = token.value else { return None };
        match tokens.name(token) {
            "log" if log.is_none() => log = Some(index),
            "stream" => stream = true,
            "time" => time = true,
            name if name.starts_with("attrs.") => {}
            _ => return None,
        }
    }
    let log = log.filter(|_| stream && time)?;
    let mut inner = String::new();
    unescape_json(&text[tokens.list[log].inner()], &mut inner).ok()?;
    Some((log, inner))
}
