//! Records of one request on their way into one batch: what a decoder gives its lines to.
//!
//! Invariant: each accepted line is one row, in the order they came; each other one is counted, and told up to a limit.

use std::ops::Range;

use hashbrown::HashMap;

use super::columns::{Cell, Columns, slot};
use super::forms::{Context, Forms, Line, Piece, Placed, PlacedValue, Row};
use super::heads::{self, may_be_structured};
use super::json::scan_object;
use super::lines::{Draft, Workshop, Wrapper};
use super::names::{Names, Role};
use super::outer::{Mark, Naming, Outer};
use super::pairs::scan_pairs;
use super::partial::{self, Cut, DOCKER_START, string_end};
use super::streams::{NO_STREAM, stream_of};
use super::token::{Syntax, Tokens, Value};
use super::{Cause, Decoded, Error, Options, Rejection};
use crate::pipeline::{Entry, Outcome, Pipelines};
use crate::record::quote::{Quote, unescape_json};
use crate::record::{Level, Tenant, overflow, time};

/// Most different shapes of a batch; a line beyond them is kept as it is.
const SHAPES_MAX: usize = 1_000;

/// The batch that is being made.
pub(super) struct Records<'o> {
    options: &'o Options,
    names: Names,
    now_ns: i64,
    /// The time of lines that have none.
    seen_ns: i64,
    columns: Columns,
    /// Bytes of the lines that will come, about, and of those that came.
    expected_bytes: usize,
    line_bytes: usize,
    outer: Outer,
    /// Roots of the trees of forms, by [`Outer::signature`].
    roots: HashMap<Box<[u32]>, u32>,
    signature: Vec<u32>,
    /// Roots for lines of the kinds seen with the fields around as they are now.
    kind_roots: Vec<(u32, u32)>,
    forms: Forms,
    shapes: Shapes,
    row: Row,
    draft: Draft,
    tokens: Tokens,
    /// A line that a wrapper's string was undone in.
    unwrapped: String,
    quoted: Vec<u8>,
    taken: Vec<u64>,
    turn: u64,
    rejected: Vec<Rejection>,
    rejected_count: usize,
    causes: [usize; Cause::COUNT],
    /// Why the last line was not accepted, until somebody asks.
    latest_reason: Option<String>,
    dropped: usize,
    /// Lines that wait for their last part, one for each stream of a container.
    cut: Vec<Cut>,
    /// What was received where the line that is being added was put together.
    received: Option<Vec<u8>>,
    /// A line that may go on in the next ones.
    waiting: Option<Waiting>,
    /// Records that pipelines gave to other tenants.
    others: Vec<(Tenant, Records<'o>)>,
    /// The stream of the next records is one too many.
    is_refused: bool,
}

/// A line that a pipeline joins with those after it.
#[derive(Debug)]
struct Waiting {
    entry: Entry,
    lines: usize,
    place: usize,
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

/// Rows by which the length of the columns is judged, and the room for those that are longer.
const JUDGED_ROWS: usize = 256;
const ROOM: f64 = 1.05;

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
            seen_ns: now_ns,
            columns: Columns::new(),
            expected_bytes: 0,
            line_bytes: 0,
            outer: Outer::default(),
            roots: HashMap::new(),
            signature: Vec::new(),
            kind_roots: Vec::new(),
            forms: Forms::default(),
            shapes: Shapes::default(),
            row: Row::default(),
            draft: Draft::default(),
            tokens: Tokens::default(),
            unwrapped: String::new(),
            quoted: Vec::new(),
            taken: Vec::new(),
            turn: 0,
            rejected: Vec::new(),
            rejected_count: 0,
            causes: [0; Cause::COUNT],
            latest_reason: None,
            dropped: 0,
            cut: Vec::new(),
            received: None,
            waiting: None,
            others: Vec::new(),
            is_refused: false,
        }
    }

    /// Tells how many bytes of lines will come, about: columns are made as long as they will be, judged by the first rows.
    pub fn expect(&mut self, bytes: usize) {
        self.expected_bytes = bytes;
    }

    /// Changes the fields around the next lines.
    pub fn outer(&mut self, change: impl FnOnce(&mut Outer, &mut Naming<'_>)) {
        self.end_cut();
        self.change_outer(change);
    }

    fn change_outer(&mut self, change: impl FnOnce(&mut Outer, &mut Naming<'_>)) {
        let mut naming = Naming { columns: &mut self.columns, names: &self.names, options: self.options };
        change(&mut self.outer, &mut naming);
        self.kind_roots.clear();
    }

    /// A state of the fields around, for [`Records::reset_outer`].
    pub fn outer_mark(&self) -> Mark {
        self.outer.mark()
    }

    /// Goes back to an earlier state of the fields around.
    pub fn reset_outer(&mut self, mark: Mark) {
        self.end_cut();
        self.outer.reset(mark);
        self.kind_roots.clear();
    }

    /// Says of which stream the next records are; those of one too many will be rejected. Gives whether it is let in.
    pub fn stream<N: AsRef<str>, V: AsRef<[u8]>>(&mut self, parts: impl IntoIterator<Item = (N, V)>) -> bool {
        if let Some(active) = &self.options.streams {
            let stream = stream_of(parts);
            self.is_refused = stream != NO_STREAM && !active.admit(stream, self.now_ns);
        }
        !self.is_refused
    }

    /// Says when the next lines were seen by their sender: their time where neither the protocol nor they tell one.
    pub fn seen_at(&mut self, seen_ns: i64) {
        self.seen_ns = if seen_ns > self.latest_ns() { self.now_ns } else { seen_ns };
    }

    /// Rejects a record of a stream that is not let in.
    pub fn reject_stream(&mut self, place: usize) {
        let streams_max = self.options.streams.as_ref().map_or(0, |active| active.streams_max());
        let reason = format!("it is of a new stream; the tenant's limit is 'limits.streams_max', {streams_max}");
        self.reject_as(Cause::Streams, place, reason);
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
        if self.is_refused {
            self.reject_stream(place);
            return Ok(());
        }
        match std::str::from_utf8(line).ok().and_then(|text| Some((text, partial::read(text)?))) {
            Some((text, part)) if !part.is_last || !self.cut.is_empty() => self.part(text, part, given_ns, place),
            _ => self.whole_line(line, given_ns, place),
        }
    }

    /// Takes a part of a line that a container's runtime cut.
    fn part(&mut self, text: &str, part: partial::Part<'_>, given_ns: Option<i64>, place: usize) -> Result<(), Error> {
        let known = self.cut.iter().position(|cut| cut.is_of(part));
        let Some(index) = known.filter(|index| self.cut[*index].bytes() + text.len() <= self.options.line_bytes_max)
        else {
            if let Some(full) = known.map(|index| self.cut.swap_remove(index)) {
                self.add_cut(full)?;
            }
            if part.is_last {
                return self.whole_line(text.as_bytes(), given_ns, place);
            }
            self.cut.push(Cut::new(text, part, given_ns, place));
            return Ok(());
        };
        self.cut[index].push(text, part);
        if part.is_last {
            let whole = self.cut.swap_remove(index);
            self.add_cut(whole)?;
        }
        Ok(())
    }

    fn add_cut(&mut self, cut: Cut) -> Result<(), Error> {
        let line = cut.line();
        self.received = Some(cut.received);
        let added = self.whole_line(line.as_bytes(), cut.given_ns, cut.place);
        self.received = None;
        added
    }

    /// Adds lines whose last part did not come, as they are.
    fn end_cut(&mut self) {
        for cut in std::mem::take(&mut self.cut) {
            let place = cut.place;
            if let Err(error) = self.add_cut(cut) {
                self.reject(place, error.to_string());
            }
        }
    }

    fn whole_line(&mut self, line: &[u8], given_ns: Option<i64>, place: usize) -> Result<(), Error> {
        match self.options.pipelines.as_deref() {
            None => self.believed_line(line, given_ns, place),
            Some(pipelines) => self.piped_line(pipelines, line, given_ns, place),
        }
    }

    fn believed_line(&mut self, line: &[u8], given_ns: Option<i64>, place: usize) -> Result<(), Error> {
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
        self.change_outer(|outer, naming| outer.push_field("timestamp_original", Cell::Text(&text), naming));
        let added = add(self, self.now_ns);
        self.outer.reset(mark);
        self.kind_roots.clear();
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
        self.text_line(text, given_ns);
        Ok(())
    }

    fn text_line(&mut self, text: &str, given_ns: Option<i64>) {
        self.tokens.clear();
        if may_be_structured(text) {
            if self.docker_line(text, given_ns) || self.known_form(text, LINE, given_ns) {
                return;
            }
            if scan_structured(text, 0..text.len(), &mut self.tokens) {
                return self.structured(text, LINE, given_ns, None);
            }
        }
        let head = heads::scan(text, 0, text.len(), &mut self.tokens);
        if self.tokens.list.is_empty() {
            return self.plain(text, given_ns);
        }
        let kind = Kind { wrapper: None, families: head.families };
        if self.known_form(text, kind, given_ns) {
            return;
        }
        scan_rest(text, head.open, text.len(), &mut self.tokens);
        self.structured(text, kind, given_ns, None);
    }

    /// Adds the line if Docker's json-file driver wrapped it.
    fn docker_line(&mut self, text: &str, given_ns: Option<i64>) -> bool {
        if !text.starts_with(DOCKER_START) {
            return false;
        }
        let Some(wrapper) = self.unwrap(text, DOCKER_START.len()) else { return false };
        let unwrapped = std::mem::take(&mut self.unwrapped);
        let taken = self.unwrapped_line(&unwrapped, text, &wrapper, given_ns);
        self.unwrapped = unwrapped;
        if !taken {
            self.tokens.clear();
        }
        taken
    }

    /// Undoes the JSON string whose inside starts at `start`, into `self.unwrapped`.
    fn unwrap(&mut self, text: &str, start: usize) -> Option<Wrapper> {
        let end = start + string_end(&text.as_bytes()[start..])?;
        let raw = &text[start..end];
        self.unwrapped.clear();
        self.unwrapped.push_str(&text[..start]);
        unescape_json(raw, &mut self.unwrapped).ok()?;
        let inner = start..self.unwrapped.len();
        let quote = Quote::JSON.into_iter().find(|quote| {
            self.quoted.clear();
            quote.write(&self.unwrapped[inner.clone()], &mut self.quoted);
            self.quoted == raw.as_bytes()
        })?;
        self.unwrapped.push_str(&text[end..]);
        Some(Wrapper { inner, quote })
    }

    /// Adds a line whose wrapper was undone; false when what is around the string is no wrapper of Docker's.
    fn unwrapped_line(&mut self, text: &str, line: &str, wrapper: &Wrapper, given_ns: Option<i64>) -> bool {
        let inner = &text[wrapper.inner.clone()];
        let bare = wrapper.inner.start..wrapper.inner.start + inner.trim_end_matches(['\n', '\r']).len();
        let (families, open) = if may_be_structured(&text[bare.clone()]) {
            (0, Some(bare.start))
        } else {
            let head = heads::scan(text, bare.start, bare.end, &mut self.tokens);
            if self.tokens.list.is_empty() {
                heads::push_message(&mut self.tokens, bare.start, bare.end);
            }
            (head.families, head.open)
        };
        let kind = Kind { wrapper: Some(wrapper.quote), families };
        if self.known_form(text, kind, given_ns) {
            return true;
        }
        scan_rest(text, open, bare.end, &mut self.tokens);
        if !scan_around(text, wrapper, &mut self.tokens) {
            return false;
        }
        self.structured(text, kind, given_ns, Some((wrapper, line)));
        true
    }

    /// Adds a line that has to be a JSON object; others are rejected. **Errors**: as [`Records::line`].
    pub fn object(&mut self, line: &[u8], place: usize) -> Result<(), Error> {
        if self.is_refused {
            self.reject_stream(place);
            return Ok(());
        }
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
        if let Some(pipelines) = self.options.pipelines.as_deref() {
            self.tokens.clear();
            return match scan_object(text, &mut self.tokens) {
                Ok(()) => self.piped_line(pipelines, line, None, place),
                Err(fault) => {
                    self.reject(place, format!("not a JSON object: {fault}"));
                    Ok(())
                }
            };
        }
        self.row.clear();
        self.tokens.clear();
        if self.docker_line(text, None) || self.known_form(text, LINE, None) {
            return Ok(());
        }
        match scan_object(text, &mut self.tokens) {
            Ok(()) => self.structured(text, LINE, None, None),
            Err(fault) => self.reject(place, format!("not a JSON object: {fault}")),
        }
        Ok(())
    }

    /// Adds a record that has no line: the message alone, and the fields around it. **Errors**: as [`Records::line`].
    pub fn message(&mut self, message: Option<&str>, given_ns: i64, place: usize) -> Result<(), Error> {
        if self.is_refused {
            self.reject_stream(place);
            return Ok(());
        }
        let Some(pipelines) = self.options.pipelines.as_deref() else {
            return self.plain_message(message, given_ns, place);
        };
        let mut entry = self.entry(message.unwrap_or_default(), Some(given_ns));
        entry.message = message.map(str::to_string);
        self.run(pipelines, entry, Body::Message, place)
    }

    fn plain_message(&mut self, message: Option<&str>, given_ns: i64, place: usize) -> Result<(), Error> {
        if given_ns > self.latest_ns() {
            return self.with_original_time(given_ns, |records, now_ns| records.plain_message(message, now_ns, place));
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

    /// The fields around as an entry's, and a line.
    fn entry(&self, line: &str, time_ns: Option<i64>) -> Entry {
        Entry {
            line: line.to_string(),
            fields: self.outer.entry_fields(&self.columns),
            time_ns,
            level: self.outer.level(),
            message: None,
            tenant: self.options.tenant.clone(),
        }
    }

    /// Adds a line as pipelines change it.
    fn piped_line(
        &mut self,
        pipelines: &'o Pipelines,
        line: &[u8],
        given_ns: Option<i64>,
        place: usize,
    ) -> Result<(), Error> {
        let line = String::from_utf8_lossy(line);
        let entry = self.entry(&line, given_ns);
        if let Some(waiting) = &mut self.waiting {
            let same = waiting.entry.fields == entry.fields && waiting.entry.level == entry.level;
            let fits = waiting.entry.line.len() + line.len() < self.options.line_bytes_max;
            if same && fits && pipelines.joins(&waiting.entry, waiting.lines, &line) {
                waiting.entry.line.push('\n');
                waiting.entry.line.push_str(&line);
                waiting.lines += 1;
                return Ok(());
            }
            self.end_waiting(pipelines)?;
        }
        if pipelines.is_multiline(&entry) {
            self.waiting = Some(Waiting { entry, lines: 1, place });
            return Ok(());
        }
        self.run(pipelines, entry, Body::Line, place)
    }

    fn end_waiting(&mut self, pipelines: &Pipelines) -> Result<(), Error> {
        match self.waiting.take() {
            Some(waiting) => self.run(pipelines, waiting.entry, Body::Line, waiting.place),
            None => Ok(()),
        }
    }

    fn run(&mut self, pipelines: &Pipelines, mut entry: Entry, body: Body, place: usize) -> Result<(), Error> {
        // What was put together is stored as it is now: pipelines may have taken something out.
        self.received = None;
        match pipelines.run(&mut entry, self.now_ns) {
            Outcome::Dropped => {
                self.dropped += 1;
                Ok(())
            }
            Outcome::Kept => self.add(entry, body, place),
        }
    }

    /// Adds an entry that went through the pipelines.
    fn add(&mut self, entry: Entry, body: Body, place: usize) -> Result<(), Error> {
        if let Some(tenant) = entry.tenant.as_ref().filter(|tenant| Some(*tenant) != self.options.tenant.as_ref()) {
            let known = self.others.iter().position(|(other, _)| other == tenant);
            let index = known.unwrap_or_else(|| {
                self.others.push((tenant.clone(), Records::new(self.options, self.now_ns)));
                self.others.len() - 1
            });
            let (_, other) = &mut self.others[index];
            other.seen_ns = self.seen_ns;
            return other.add_here(entry, body, place, String::new());
        }
        let overflow = self.outer.overflow().to_string();
        self.add_here(entry, body, place, overflow)
    }

    fn add_here(&mut self, entry: Entry, body: Body, place: usize, overflow: String) -> Result<(), Error> {
        let around = std::mem::take(&mut self.outer);
        self.change_outer(|outer, naming| outer.fill(&entry, overflow, naming));
        if let Some(level) = around.level_hint() {
            self.outer.set_level_hint(level);
        }
        let added = match (&entry.message, body) {
            (None, Body::Line) => self.believed_line(entry.line.as_bytes(), entry.time_ns, place),
            (message, _) => {
                let kept = body == Body::Line && message.as_deref() != Some(&entry.line);
                self.received = kept.then(|| entry.line.clone().into_bytes());
                self.plain_message(message.as_deref(), entry.time_ns.unwrap_or(self.seen_ns), place)
            }
        };
        self.received = None;
        self.outer = around;
        self.kind_roots.clear();
        added
    }

    /// The batch, and what was not accepted.
    pub fn finish(mut self) -> Decoded {
        self.end_cut();
        if let (Some(pipelines), Some(place)) =
            (self.options.pipelines.as_deref(), self.waiting.as_ref().map(|waiting| waiting.place))
            && let Err(error) = self.end_waiting(pipelines)
        {
            self.reject(place, error.to_string());
        }
        let mut others = Vec::new();
        for (tenant, records) in std::mem::take(&mut self.others) {
            let decoded = records.finish();
            self.rejected_count += decoded.rejected_count;
            self.causes.iter_mut().zip(decoded.causes).for_each(|(cause, more)| *cause += more);
            self.rejected.extend(decoded.rejected);
            others.push((tenant, decoded.batch));
        }
        Decoded {
            batch: self.columns.finish(&self.shapes.texts),
            others,
            dropped: self.dropped,
            rejected: self.rejected,
            rejected_count: self.rejected_count,
            causes: self.causes,
        }
    }

    /// How well a name tells what a field is; lower is better.
    pub fn rank(&self, name: &str, role: Role) -> Option<u16> {
        self.names.recognise(name).filter(|found| found.role == role).map(|found| found.rank)
    }

    /// Whether a text is no prose: an object, pairs that tell a level, or a line of a known program.
    pub fn is_of_known_form(&mut self, text: &str) -> bool {
        let text = text.trim_ascii();
        self.tokens.clear();
        if may_be_structured(text) && scan_structured(text, 0..text.len(), &mut self.tokens) {
            let tells_level = |name: &str| self.rank(name, Role::Level).is_some();
            return text.starts_with('{') || self.tokens.list.iter().any(|token| tells_level(self.tokens.name(token)));
        }
        heads::scan(text, 0, text.len(), &mut self.tokens);
        !self.tokens.list.is_empty()
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

    fn root(&mut self, kind: Kind) -> u32 {
        let kind = kind.number();
        if let Some((_, root)) = self.kind_roots.iter().find(|(known, _)| *known == kind) {
            return *root;
        }
        self.outer.signature(&mut self.signature);
        self.signature.push(kind);
        let root = match self.roots.get(self.signature.as_slice()) {
            Some(root) => *root,
            None => {
                let root = self.forms.root();
                self.roots.insert(self.signature.as_slice().into(), root);
                root
            }
        };
        self.kind_roots.push((kind, root));
        root
    }

    /// Adds the line if its form is known; `self.tokens` has what a scanner of heads found in it.
    fn known_form(&mut self, text: &str, kind: Kind, given_ns: Option<i64>) -> bool {
        let root = self.root(kind);
        self.row.clear();
        // Without a branch per byte, so that it is done in vectors.
        let controls = text.bytes().fold(false, |found, byte| found | (byte < 0x20));
        let context = Context { outer: &self.outer, given_ns, latest_ns: self.latest_ns(), controls };
        let line = Line { text, guide: &self.tokens.list, context: &context };
        let Some(shape) = self.forms.read(root, line, &mut self.row) else { return false };
        self.end_row(text, Ending { shape: Some(shape), raw: None, time_ns: given_ns.unwrap_or(self.seen_ns) });
        true
    }

    /// Adds the line whose tokens were found; `wrapped` has the received line where `text` is not.
    fn structured(&mut self, text: &str, kind: Kind, given_ns: Option<i64>, wrapped: Option<(&Wrapper, &str)>) {
        let root = self.root(kind);
        let latest_ns = self.latest_ns();
        let tokens = std::mem::take(&mut self.tokens);
        self.row.clear();
        self.draft.clear();
        self.turn += 1;
        let mut workshop = Workshop {
            naming: Naming { columns: &mut self.columns, names: &self.names, options: self.options },
            context: Context { outer: &self.outer, given_ns, latest_ns, controls: false },
            now_ns: self.now_ns,
            row: &mut self.row,
            draft: &mut self.draft,
            taken: &mut self.taken,
            turn: self.turn,
        };
        workshop.begin();
        let decisions = workshop.decide(text, &tokens);
        workshop.write(text, &tokens, &decisions, wrapped.map(|(wrapper, _)| wrapper));
        self.tokens = tokens;
        let shape = if self.draft.exact { self.shapes.id(&self.draft.shape) } else { None };
        if let Some(shape) = shape
            && self.draft.learnable
        {
            self.forms.learn(root, text, &self.draft.steps, &text[self.draft.done..], shape);
        }
        let received = wrapped.map_or(text, |(_, line)| line);
        let raw = shape.is_none().then_some(received.as_bytes());
        self.end_row(text, Ending { shape, raw, time_ns: given_ns.unwrap_or(self.seen_ns) });
    }

    /// Adds a line of plain text: the message is the line.
    fn plain(&mut self, text: &str, given_ns: Option<i64>) {
        self.row.clear();
        self.place_message(text);
        self.row.level = Level::find_in_text(text.as_bytes()).filter(|_| !self.outer.hints_at_level());
        let found = if given_ns.is_none() && text.as_bytes().first().is_some_and(u8::is_ascii_digit) {
            time::parse_calendar(text.as_bytes()).map(|(ns, _, _)| ns)
        } else {
            None
        };
        self.row.time = found.filter(|ns| *ns <= self.latest_ns());
        self.end_row(text, Ending { shape: None, raw: None, time_ns: given_ns.unwrap_or(self.seen_ns) });
    }

    /// Adds a line that is not UTF-8: what can be read of it is the message, and the bytes are kept.
    fn not_utf8(&mut self, line: &[u8], given_ns: Option<i64>) {
        let text = String::from_utf8_lossy(line);
        self.row.clear();
        self.place_message(&text);
        self.row.level = Level::find_in_text(line).filter(|_| !self.outer.hints_at_level());
        self.end_row(&text, Ending { shape: None, raw: Some(line), time_ns: given_ns.unwrap_or(self.seen_ns) });
    }

    fn place_message(&mut self, text: &str) {
        let piece = Piece::Line(0, text.len() as u32);
        self.row.placed.push(Placed { slot: slot::MESSAGE, value: PlacedValue::Text, piece });
    }

    /// Writes the row into the columns.
    fn end_row(&mut self, line: &str, ending: Ending<'_>) {
        let received = self.received.take();
        let ending = match &received {
            Some(received) => Ending { shape: None, raw: Some(received), time_ns: ending.time_ns },
            None => ending,
        };
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
        self.line_bytes += line.len() + 1;
        if columns.rows() == JUDGED_ROWS && self.expected_bytes > self.line_bytes {
            // Never more than a batch may take: labels that are repeated in every row are no part of what is expected.
            let most = self.options.batch_bytes_max as f64 / columns.bytes().max(1) as f64;
            columns.reserve((self.expected_bytes as f64 / self.line_bytes as f64 * ROOM).min(most));
        }
    }
}

/// What decides, beside the fields around, how lines are read: those of two kinds share no form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    /// How the string that the line stood in was quoted.
    wrapper: Option<Quote>,
    /// [`heads::Head::families`]
    families: u32,
}

/// A line without wrapper and head.
const LINE: Kind = Kind { wrapper: None, families: 0 };

impl Kind {
    fn number(self) -> u32 {
        let wrapper = Quote::JSON.iter().position(|quote| Some(*quote) == self.wrapper).map_or(0, |index| index + 1);
        self.families * 8 + wrapper as u32
    }
}

/// Whether an entry came as a line, or as a message of its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Line,
    Message,
}

/// Finds the tokens of a JSON object or of pairs in a part of the text; false, and none, when it is neither.
fn scan_structured(text: &str, range: Range<usize>, tokens: &mut Tokens) -> bool {
    let (start, count) = (range.start, tokens.list.len());
    let part = &text[range];
    let trimmed = part.trim_ascii();
    let found = match trimmed.starts_with('{') {
        true => trimmed.ends_with('}') && scan_object(part, tokens).is_ok(),
        false => scan_pairs(part, tokens),
    };
    match found {
        true => tokens.shift(count, start as isize),
        false => tokens.truncate(count),
    }
    found
}

/// Finds the tokens of what follows a head: a structured line, or the message.
fn scan_rest(text: &str, open: Option<usize>, end: usize, tokens: &mut Tokens) {
    if let Some(start) = open
        && !scan_structured(text, start..end, tokens)
    {
        heads::push_message(tokens, start, end);
    }
}

/// Finds what Docker writes beside the line, `stream`, `time` and `attrs`, and appends it to the line's own tokens.
fn scan_around(text: &str, wrapper: &Wrapper, tokens: &mut Tokens) -> bool {
    let count = tokens.list.len();
    let after = &text[wrapper.inner.end..];
    // The string itself is left out: `{"log":"` and `","stream":…}` are an object, too.
    let object = format!("{DOCKER_START}{after}");
    if scan_object(&object, tokens).is_err() {
        return false;
    }
    tokens.list.remove(count);
    let (mut stream, mut time) = (false, None);
    for (index, token) in tokens.list.iter().enumerate().skip(count) {
        let text = matches!(token.value, Value::Text { syntax: Syntax::Json, .. });
        match tokens.name(token) {
            "stream" if text => stream = true,
            "time" if text => time = Some(index),
            name if text && name.starts_with("attrs.") => {}
            _ => return false,
        }
    }
    tokens.clock = time;
    tokens.shift(count, wrapper.inner.end as isize - DOCKER_START.len() as isize);
    stream && time.is_some()
}
