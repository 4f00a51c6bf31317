//! Takes a line apart: which of its values goes to which column, and the line's shape. The slow, complete way; what it
//! finds is learnt by [`super::forms`].
//!
//! Invariant: a shape is given only when every value, written again as its placeholder says, is what stood in the line.

use std::ops::Range;

use super::columns::{Slot, slot};
use super::forms::{
    Check, Context, Piece, Place, Placed, PlacedValue, Row, Step, Want, level_of, priority_level, unescape,
};
use super::names::{RANK_HINT, Recognised, Role, in_overflow, is_reserved};
use super::outer::{Naming, Outer, TAKEN_SUFFIX, is_id};
use super::token::{Part, Syntax, Token, Tokens, Value};
use crate::record::quote::Quote;
use crate::record::shape::{Kind, Rendering, can_hold, write_placeholder};
use crate::record::{Level, column, number, overflow, time};

/// Longest shape; a line that would get a longer one is kept as it is.
const SHAPE_BYTES_MAX: usize = 16 << 10;

/// What is known of the line that is being taken apart.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// The shape so far.
    pub shape: String,
    /// Its values, for [`super::forms::Forms::learn`].
    pub steps: Vec<Step>,
    /// Where the literal after the last value starts.
    pub done: usize,
    /// Whether the line can be given back from its shape.
    pub exact: bool,
    /// Whether other lines of this form would fare alike.
    pub learnable: bool,
}

impl Draft {
    pub fn clear(&mut self) {
        self.shape.clear();
        self.steps.clear();
        self.done = 0;
        self.exact = true;
        self.learnable = true;
    }

    /// Appends `range` of `text`, quoted as far as it stands in the wrapper.
    fn literal(&mut self, text: &str, range: Range<usize>, wrapper: Option<&Wrapper>) {
        let Some(Wrapper { inner, quote }) = wrapper else { return self.plain_literal(&text[range], None) };
        let (from, to) = (inner.start.clamp(range.start, range.end), inner.end.clamp(range.start, range.end));
        self.plain_literal(&text[range.start..from], None);
        self.plain_literal(&text[from..to], Some(*quote));
        self.plain_literal(&text[to..range.end], None);
    }

    fn plain_literal(&mut self, text: &str, quote: Option<Quote>) {
        self.exact &= can_hold(text) && self.shape.len() + text.len() <= SHAPE_BYTES_MAX;
        match quote {
            _ if !self.exact => {}
            None => self.shape.push_str(text),
            Some(quote) => {
                let mut quoted = Vec::with_capacity(text.len());
                quote.write(text, &mut quoted);
                // Quoting keeps UTF-8 whole.
                self.shape.push_str(&String::from_utf8_lossy(&quoted));
            }
        }
    }

    fn value(&mut self, kind: Kind, column: &str, wrapper: Option<Quote>) {
        self.exact &= can_hold(column);
        if self.exact {
            write_placeholder(Rendering { kind, wrapper }, column, &mut self.shape);
        }
    }
}

/// The part of a line that stood inside a string of the received one (Docker's wrapper), and how that string is quoted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wrapper {
    pub inner: Range<usize>,
    pub quote: Quote,
}

/// What becomes of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Decision {
    /// It goes to its place.
    Place(Place),
    /// It is the time, written in a known style.
    Time(Check, time::Style),
    /// It says nothing and stays in the shape.
    Literal,
    /// It found no column.
    Overflow,
}

/// What taking apart needs beside the line.
pub(super) struct Workshop<'a> {
    pub naming: Naming<'a>,
    pub context: Context<'a>,
    pub now_ns: i64,
    pub row: &'a mut Row,
    pub draft: &'a mut Draft,
    /// Marks the columns that the row has already, by the number of the line.
    pub taken: &'a mut Vec<u64>,
    pub turn: u64,
}

/// A value with what its name says.
struct Candidate<'a> {
    name: &'a str,
    text: &'a str,
    value: PlacedValue,
    /// Written with escapes, or a list: never a time, a level or an id.
    escaped: bool,
    recognised: Option<Recognised>,
    /// How the value tells the level of a line that has none.
    tells_level: Option<Check>,
}

/// What names tell only beside others: the service in bunyan's lines, the level that Serilog leaves out.
fn recognise_together(candidates: &mut [Candidate<'_>]) {
    let has = |name: &str| candidates.iter().any(|candidate| candidate.name == name);
    if has("v") && has("name") && has("hostname") && has("pid") {
        let name = candidates.iter_mut().find(|candidate| candidate.name == "name");
        name.into_iter().for_each(|name| name.recognised = Some(Recognised { role: Role::Service, rank: RANK_HINT }));
    } else if has("@t") && (has("@mt") || has("@m")) {
        let messages = candidates.iter_mut().filter(|candidate| matches!(candidate.name, "@mt" | "@m"));
        messages.for_each(|message| message.tells_level = Some(Check::LevelInfo));
    }
}

/// The best candidates of a line, by role.
type Winners = [Option<(usize, u16)>; Role::COUNT];

fn placed_value(value: Value) -> PlacedValue {
    match value {
        Value::Integer(value) => PlacedValue::Integer(value),
        Value::Float(value) => PlacedValue::Float(value),
        Value::Boolean { value, .. } => PlacedValue::Boolean(value),
        Value::Text { .. } | Value::Verbatim | Value::Echo => PlacedValue::Text,
    }
}

impl Workshop<'_> {
    /// Marks the columns that the protocol's own fields take in this row.
    pub fn begin(&mut self) {
        let outer: &Outer = self.context.outer;
        for slot in outer.slots() {
            take(self.taken, slot, self.turn);
        }
    }

    /// The column of a field of this name, `_extracted` after it when it is taken; none when there is none.
    fn field_slot(&mut self, name: &str) -> Option<Slot> {
        if name.is_empty() || name.len() > self.naming.options.field_name_bytes_max {
            return None;
        }
        let fields_max = self.naming.options.columns_max;
        if !is_reserved(name) {
            let slot = self.naming.columns.slot(name, fields_max)?;
            if take(self.taken, slot, self.turn) {
                return Some(slot);
            }
        }
        let slot = self.naming.columns.slot(&format!("{name}{TAKEN_SUFFIX}"), fields_max)?;
        take(self.taken, slot, self.turn).then_some(slot)
    }

    fn field(&mut self, name: &str, check: Check) -> Decision {
        match self.field_slot(name) {
            Some(slot) => Decision::Place(Place { slot: Some(slot), check }),
            None => Decision::Overflow,
        }
    }

    /// Decides on all values of a line.
    pub fn decide(&mut self, text: &str, tokens: &Tokens) -> Vec<Decision> {
        let mut candidates: Vec<Candidate<'_>> =
            tokens.list.iter().map(|token| self.candidate(text, tokens, token)).collect();
        recognise_together(&mut candidates);
        let mut winners = self.winners(&candidates);
        if let Some(clock) = tokens.clock {
            winners[Role::Timestamp as usize] = Some((clock, 0));
        }
        let has_level = self.context.outer.level().is_some() || winners[Role::Level as usize].is_some();
        let fields_max = self.naming.options.fields_per_line_max;
        candidates
            .iter()
            .enumerate()
            .map(|(index, candidate)| match candidate.recognised {
                _ if index >= fields_max => Decision::Overflow,
                None if tokens.priority == Some(index) && !has_level => {
                    self.row.level = priority_level(candidate.value);
                    self.field(candidate.name, Check::Priority)
                }
                Some(recognised) => {
                    let decision = self.decide_recognised(index, candidate, recognised, &winners);
                    match candidate.tells_level {
                        Some(check) if !has_level && tokens.priority.is_none() => {
                            self.level_besides(candidate, check, decision)
                        }
                        _ => decision,
                    }
                }
                None => self.field(candidate.name, Check::None),
            })
            .collect()
    }

    /// The decision, where the value also tells the level.
    fn level_besides(&mut self, candidate: &Candidate<'_>, check: Check, decision: Decision) -> Decision {
        match decision {
            Decision::Place(Place { slot, check: Check::None }) => {
                self.row.level = match check {
                    Check::LevelInfo => Some(Level::Info),
                    _ => Level::find_in_text(candidate.text.as_bytes()),
                };
                Decision::Place(Place { slot, check })
            }
            other => other,
        }
    }

    fn candidate<'t>(&self, text: &'t str, tokens: &'t Tokens, token: &Token) -> Candidate<'t> {
        let name = tokens.name(token);
        let written = &text[token.inner()];
        let escaped = match token.value {
            Value::Text { escaped, .. } => escaped,
            // A number beyond 64 bits may be an id; a list is none.
            Value::Verbatim => !written.starts_with(|first: char| first.is_ascii_digit()),
            _ => false,
        };
        let is_text = token.value == Value::Text { syntax: Syntax::Part(Part::Message), escaped: false };
        Candidate {
            name,
            text: written,
            value: placed_value(token.value),
            escaped,
            recognised: self.naming.names.recognise(name),
            tells_level: is_text.then_some(Check::LevelWithin),
        }
    }

    /// The best candidate of each role whose value will do.
    fn winners(&self, candidates: &[Candidate<'_>]) -> Winners {
        let mut winners: Winners = [None; Role::COUNT];
        for (index, candidate) in candidates.iter().enumerate() {
            let Some(Recognised { role, rank }) = candidate.recognised else { continue };
            let text = !candidate.escaped;
            let will_do = match role {
                Role::Timestamp => text && self.context.time_of(candidate.text, candidate.value).is_some(),
                Role::Level => text && level_of(candidate.text, candidate.value).is_some(),
                Role::Service => !candidate.text.is_empty(),
                Role::Message => true,
                Role::TraceId | Role::SpanId => text && is_id(candidate.text),
            };
            let winner = &mut winners[role as usize];
            if will_do && winner.is_none_or(|(_, held)| rank < held) {
                *winner = Some((index, rank));
            }
        }
        winners
    }

    fn decide_recognised(
        &mut self,
        index: usize,
        candidate: &Candidate<'_>,
        found: Recognised,
        winners: &Winners,
    ) -> Decision {
        let won = winners[found.role as usize].is_some_and(|(winner, _)| winner == index);
        let core = |slot: Slot, check: Check| Decision::Place(Place { slot: Some(slot), check });
        let outer = self.context.outer;
        match found.role {
            Role::Timestamp => self.decide_time(candidate, won),
            Role::Level => self.decide_level(candidate, won),
            Role::Service => {
                let better = outer.service_rank().is_none_or(|rank| rank >= RANK_HINT && found.rank < RANK_HINT);
                match outer.service() {
                    _ if won && better => core(slot::SERVICE, Check::Service),
                    Some(service) if service == candidate.text => self.same(candidate, Check::ServiceIs),
                    _ => {
                        self.draft.learnable &= !candidate.text.is_empty();
                        self.field(candidate.name, Check::None)
                    }
                }
            }
            Role::Message if won => core(slot::MESSAGE, Check::None),
            Role::Message => self.field(candidate.name, Check::None),
            Role::TraceId => self.decide_id(candidate, won, outer.trace_id(), slot::TRACE_ID, Check::TraceIdIs),
            Role::SpanId => self.decide_id(candidate, won, outer.span_id(), slot::SPAN_ID, Check::SpanIdIs),
        }
    }

    /// A value that the protocol gave already: it is not kept twice.
    fn same(&mut self, candidate: &Candidate<'_>, check: Check) -> Decision {
        if candidate.escaped || candidate.value != PlacedValue::Text {
            return self.field(candidate.name, Check::None);
        }
        Decision::Place(Place { slot: None, check })
    }

    fn decide_id(
        &mut self,
        candidate: &Candidate<'_>,
        won: bool,
        outer: Option<&str>,
        slot: Slot,
        same: Check,
    ) -> Decision {
        match outer {
            Some(id) if id == candidate.text => self.same(candidate, same),
            None if won => Decision::Place(Place { slot: Some(slot), check: Check::Id }),
            _ if !candidate.escaped && !is_id(candidate.text) => Decision::Literal,
            _ => self.field(candidate.name, Check::None),
        }
    }

    fn decide_time(&mut self, candidate: &Candidate<'_>, won: bool) -> Decision {
        let time = if candidate.escaped { None } else { self.context.time_of(candidate.text, candidate.value) };
        let Some((ns, style)) = time else { return self.field(candidate.name, Check::NoTime) };
        match (self.context.given_ns, style) {
            _ if !won => self.field(candidate.name, Check::None),
            (Some(given), Some(style)) if given == ns => Decision::Time(Check::TimeIs, style),
            (Some(_), _) => self.field(candidate.name, Check::None),
            (None, _) if ns > self.context.latest_ns => {
                self.draft.learnable = false;
                self.row.time = Some(self.now_ns);
                self.field("timestamp_original", Check::None)
            }
            (None, Some(style)) => {
                self.row.time = Some(ns);
                Decision::Time(Check::Time, style)
            }
            (None, None) => {
                self.row.time = Some(ns);
                self.field(candidate.name, Check::TimeText)
            }
        }
    }

    fn decide_level(&mut self, candidate: &Candidate<'_>, won: bool) -> Decision {
        let level = if candidate.escaped { None } else { level_of(candidate.text, candidate.value) };
        let kept = if is_reserved(candidate.name) { "level_original" } else { candidate.name };
        match (self.context.outer.level(), level) {
            (Some(outer), _) if outer.as_str() == candidate.text => self.same(candidate, Check::LevelIs),
            (Some(_), _) => self.field(candidate.name, Check::None),
            (None, None) => self.field(kept, Check::NoLevel),
            (None, Some(_)) if !won => self.field(candidate.name, Check::None),
            (None, Some(level)) => {
                self.row.level = Some(level);
                if level.as_str() == candidate.text {
                    return Decision::Place(Place { slot: None, check: Check::LevelPlain });
                }
                self.field(kept, Check::LevelOther)
            }
        }
    }

    /// Writes the values into row and shape, and ends the line.
    pub fn write(&mut self, text: &str, tokens: &Tokens, decisions: &[Decision], wrapper: Option<&Wrapper>) {
        for (token, decision) in tokens.list.iter().zip(decisions) {
            let inner = token.inner();
            let (place, style) = match *decision {
                Decision::Literal => continue,
                Decision::Overflow if token.value == Value::Echo => continue,
                Decision::Overflow => {
                    self.draft.exact = false;
                    overflow_field(text, tokens, token, &mut self.row.overflow);
                    continue;
                }
                Decision::Place(place) => (place, None),
                Decision::Time(check, style) => (Place { slot: None, check }, Some(style)),
            };
            if token.value == Value::Echo {
                let piece = Piece::Line(inner.start as u32, inner.end as u32);
                let placed = place.slot.map(|slot| Placed { slot, value: PlacedValue::Text, piece });
                self.row.placed.extend(placed);
                self.draft.steps.push(Step { literal: 0..0, want: Want::Echo, place });
                continue;
            }
            let literal = self.draft.done..inner.start;
            self.draft.literal(text, literal.clone(), wrapper);
            self.draft.done = inner.end;
            let (want, value, piece) = self.spell(text, token, place, style);
            if let Some(slot) = place.slot {
                self.row.placed.push(Placed { slot, value, piece });
            }
            let column = match (place.slot, place.check) {
                (Some(slot), _) => self.naming.columns.name(slot),
                (None, Check::LevelPlain | Check::LevelIs) => column::LEVEL,
                (None, Check::ServiceIs) => column::SERVICE,
                (None, Check::TraceIdIs) => column::TRACE_ID,
                (None, Check::SpanIdIs) => column::SPAN_ID,
                (None, _) => column::TIMESTAMP,
            };
            let Some(want) = want else {
                self.draft.exact = false;
                continue;
            };
            let quote =
                wrapper.filter(|wrapper| wrapper.inner.contains(&inner.start) || wrapper.inner.end == inner.end);
            self.draft.value(want.kind(), column, quote.map(|wrapper| wrapper.quote));
            self.draft.steps.push(Step { literal, want, place });
        }
        self.draft.literal(text, self.draft.done..text.len(), wrapper);
    }

    /// How the value is spelled, if it can be written again, and the value itself.
    fn spell(
        &mut self,
        text: &str,
        token: &Token,
        place: Place,
        style: Option<time::Style>,
    ) -> (Option<Want>, PlacedValue, Piece) {
        let inner = token.inner();
        let spelling = &text[inner.clone()];
        let mut piece = Piece::Line(inner.start as u32, inner.end as u32);
        let syntax = match token.value {
            Value::Text { syntax, .. } => Some(syntax),
            _ => None,
        };
        if let Some(style) = style {
            return (Some(Want::Time(syntax, style)), PlacedValue::Text, piece);
        }
        if let Some(Syntax::Part(part)) = syntax {
            return (Some(Want::Part(part)), PlacedValue::Text, piece);
        }
        let before = inner.start.checked_sub(1).and_then(|before| text.as_bytes().get(before));
        let bare = before == Some(&b'=');
        if bare
            && place.slot.is_some_and(|slot| slot < slot::FIELDS)
            && syntax.is_none_or(|syntax| syntax == Syntax::Bare)
        {
            // An id of digits, a message that is a number: text, whatever it looks like.
            self.draft.learnable &= token.value != Value::Verbatim;
            return (Some(Want::Bare { typed: false }), PlacedValue::Text, piece);
        }
        let value = placed_value(token.value);
        let want = match token.value {
            Value::Text { syntax: Syntax::Bare, .. } => Some(Want::Bare { typed: true }),
            Value::Text { syntax, escaped } => {
                let (quote, unquoted) = self.unquote(spelling, syntax, escaped);
                piece = unquoted.unwrap_or(piece);
                quote.map(|quote| Want::Quoted(syntax, quote))
            }
            Value::Integer(_) => Some(Want::Integer),
            Value::Float(value) => number::style_of(spelling, value).map(Want::Float),
            Value::Boolean { python, .. } => Some(Want::Boolean { python }),
            Value::Echo => Some(Want::Echo),
            Value::Verbatim => {
                self.draft.learnable &= !bare && spelling.starts_with('[');
                Some(Want::Array)
            }
        };
        (want, value, piece)
    }

    /// Finds the style of a quoted text, and its characters where they differ from how they are written.
    fn unquote(&mut self, raw: &str, syntax: Syntax, escaped: bool) -> (Option<Quote>, Option<Piece>) {
        if !escaped && syntax == Syntax::Json {
            return (Some(Quote::Json), None);
        }
        let styles: &[Quote] = match syntax {
            Syntax::Json => &Quote::JSON,
            Syntax::Double => &[Quote::Json, Quote::JsonAscii, Quote::JsonGo, Quote::PythonDouble, Quote::Verbatim],
            Syntax::Single => &[Quote::PythonSingle, Quote::Verbatim],
            Syntax::Bare | Syntax::Part(_) => &[Quote::Verbatim],
        };
        let start = self.row.scratch.len();
        let mut again = Vec::with_capacity(raw.len());
        for quote in styles {
            self.row.scratch.truncate(start);
            again.clear();
            if unescape(raw, *quote, &mut self.row.scratch) {
                quote.write(&self.row.scratch[start..], &mut again);
                if again == raw.as_bytes() {
                    return (Some(*quote), Some(Piece::Scratch(start as u32, self.row.scratch.len() as u32)));
                }
            }
        }
        // A JSON string in a style that we do not write: its characters are known all the same.
        self.row.scratch.truncate(start);
        let known = unescape(raw, styles[0], &mut self.row.scratch);
        (None, known.then_some(Piece::Scratch(start as u32, self.row.scratch.len() as u32)))
    }
}

/// Marks a column as taken in this row; false when it was.
fn take(taken: &mut Vec<u64>, slot: Slot, turn: u64) -> bool {
    let slot = slot as usize;
    if taken.len() <= slot {
        taken.resize(slot + 1, 0);
    }
    std::mem::replace(&mut taken[slot], turn) != turn
}

/// Appends a value to the row's overflow object, as JSON.
fn overflow_field(text: &str, tokens: &Tokens, token: &Token, object: &mut String) {
    let spelling = &text[token.start as usize..token.end as usize];
    let json = match token.value {
        Value::Integer(_) | Value::Float(_) | Value::Text { syntax: Syntax::Json, .. } => spelling.to_string(),
        Value::Boolean { value, .. } => value.to_string(),
        Value::Verbatim if super::json::skip_value(text, token.start as usize) == Ok(token.end as usize) => {
            spelling.to_string()
        }
        _ => {
            let mut json = String::new();
            overflow::push_string(&mut json, &text[token.inner()]);
            json
        }
    };
    overflow::push(object, &in_overflow(tokens.name(token)), &json);
}
