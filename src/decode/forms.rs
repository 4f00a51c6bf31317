//! Forms: lines seen before, as a tree of literals and values, so that the next line of the same form is read without
//! looking at names at all. A form is learnt from a line that [`super::lines`] took apart.
//!
//! Invariant: a line is taken only when the slow way would have placed each of its values in the same columns and
//! given it the same shape: literals are equal, and each value passes the checks of its place and is written again as it came.

use std::ops::Range;

use super::columns::Slot;
use super::json;
use super::outer::{Outer, is_id};
use super::token::{Part, Syntax, Token, Value, number, number_length};
use crate::record::Level;
use crate::record::number as numbers;
use crate::record::quote::{Quote, unescape_json, unescape_python};
use crate::record::shape::Kind;
use crate::record::time;

/// Most values of a form; longer lines are always taken apart.
const STEPS_MAX: usize = 256;
/// Most nodes of all trees of a batch.
const NODES_MAX: usize = 50_000;
/// Most edges that are tried for one line.
const TRIES_MAX: usize = 1_500;

/// How a value is spelled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Want {
    /// A text between quotes, in this style.
    Quoted(Syntax, Quote),
    /// Text without quotes; `typed` when what looks like a number or boolean is none.
    Bare {
        typed: bool,
    },
    Integer,
    Float(numbers::Style),
    Boolean {
        python: bool,
    },
    /// A JSON array.
    Array,
    /// A part of a text line, whose end the scanner of its format tells.
    Part(Part),
    /// A text that is made of others; it stands nowhere of its own.
    Echo,
    /// A time in this style; the syntax is absent for a number.
    Time(Option<Syntax>, time::Style),
}

impl Want {
    /// How the value is written again.
    pub fn kind(self) -> Kind {
        match self {
            Want::Quoted(_, quote) => Kind::Text(quote),
            Want::Bare { .. } | Want::Array | Want::Part(_) | Want::Echo => Kind::Text(Quote::Verbatim),
            Want::Integer => Kind::Number(numbers::Style::Js),
            Want::Float(style) => Kind::Number(style),
            Want::Boolean { python: false } => Kind::Boolean,
            Want::Boolean { python: true } => Kind::BooleanPython,
            Want::Time(_, style) => Kind::Time(style),
        }
    }
}

/// What a value has to be for its place, and what it says of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// Anything.
    None,
    /// The service: not empty.
    Service,
    /// A trace or span id: not empty, not zero.
    Id,
    /// The time of the row.
    Time,
    /// The time of the row, in a style that is not written again.
    TimeText,
    /// No time, or a time that the protocol's own overrules.
    NoTime,
    /// The time that the protocol gave.
    TimeIs,
    /// The level, spelled as we spell it.
    LevelPlain,
    /// The level, spelled otherwise.
    LevelOther,
    /// A word that is no level.
    NoLevel,
    /// A text that may tell the level somewhere.
    LevelWithin,
    /// A syslog priority, which tells the level.
    Priority,
    /// What stands only in lines whose level is left out when it is "information" (Serilog).
    LevelInfo,
    /// The level that the protocol gave, spelled as we spell it.
    LevelIs,
    /// The service that the protocol gave.
    ServiceIs,
    /// The trace id that the protocol gave.
    TraceIdIs,
    /// The span id that the protocol gave.
    SpanIdIs,
}

/// Where a value goes: a column, or none when it only has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub slot: Option<Slot>,
    pub check: Check,
}

/// Where the characters of a value stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// In the line.
    Line(u32, u32),
    /// In the row's scratch text.
    Scratch(u32, u32),
}

/// A value of the row that is being made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Placed {
    pub slot: Slot,
    pub value: PlacedValue,
    pub piece: Piece,
}

/// Its type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum PlacedValue {
    Text,
    Integer(i64),
    Float(f64),
    Boolean(bool),
}

/// The row that is being made; kept between rows to save allocations.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub placed: Vec<Placed>,
    pub scratch: String,
    pub time: Option<i64>,
    pub level: Option<Level>,
    /// The object of overflow fields that the line itself has, not closed.
    pub overflow: String,
}

impl Row {
    pub fn clear(&mut self) {
        self.placed.clear();
        self.scratch.clear();
        self.overflow.clear();
        self.time = None;
        self.level = None;
    }
}

/// What values are checked against.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub outer: &'a Outer,
    /// The time that the protocol gave.
    pub given_ns: Option<i64>,
    /// Times after this one are not believed.
    pub latest_ns: i64,
    /// Whether the line has control characters.
    pub controls: bool,
}

/// Small counts are no times: 100,000,000 seconds are in 1973.
const EPOCH_LEAST_NS: i64 = 100_000_000_000_000_000;

impl Context<'_> {
    /// Reads a value as a time; one without a year is in the last twelve months.
    pub fn time_of(&self, text: &str, value: PlacedValue) -> Option<(i64, Option<time::Style>)> {
        let first = text.as_bytes().first()?;
        if !first.is_ascii_alphanumeric() || matches!(value, PlacedValue::Boolean(_)) {
            return None;
        }
        // First, as it is cheap to see that it is none, and dear for the formats that are seen now and then.
        if let Some(ns) = time::parse_without_year(text.as_bytes(), self.latest_ns) {
            return Some((ns, None));
        }
        let (ns, style) = time::parse(text.as_bytes())?;
        let counted = !matches!(style, Some(time::Style::Calendar(_) | time::Style::Clf(_)))
            && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        (!counted || ns >= EPOCH_LEAST_NS).then_some((ns, style))
    }

    /// Whether `text` passes the check; sets what it says of the row.
    pub fn passes(&self, check: Check, text: &str, value: PlacedValue, row: &mut Row) -> bool {
        match check {
            Check::None => true,
            Check::Service => !text.is_empty(),
            Check::Id => is_id(text),
            Check::Time | Check::TimeText => match self.time_of(text, value) {
                Some((ns, style)) if ns <= self.latest_ns && (check == Check::Time || style.is_none()) => {
                    row.time = Some(ns);
                    true
                }
                _ => false,
            },
            Check::NoTime => self.time_of(text, value).is_none(),
            Check::TimeIs => self.time_of(text, value).map(|(ns, _)| ns) == self.given_ns,
            Check::LevelPlain => {
                row.level = Level::parse(text.as_bytes()).filter(|level| level.as_str() == text);
                row.level.is_some()
            }
            Check::LevelOther => {
                row.level = level_of(text, value).filter(|level| level.as_str() != text);
                row.level.is_some()
            }
            Check::NoLevel => level_of(text, value).is_none(),
            Check::LevelWithin => {
                row.level = Level::find_in_text(text.as_bytes());
                true
            }
            Check::LevelInfo => {
                row.level = Some(Level::Info);
                true
            }
            Check::Priority => {
                row.level = priority_level(value);
                true
            }
            Check::LevelIs => self.outer.level().is_some_and(|level| level.as_str() == text),
            Check::ServiceIs => self.outer.service() == Some(text),
            Check::TraceIdIs => self.outer.trace_id() == Some(text),
            Check::SpanIdIs => self.outer.span_id() == Some(text),
        }
    }
}

/// Reads a value as a level.
pub(super) fn level_of(text: &str, value: PlacedValue) -> Option<Level> {
    match value {
        PlacedValue::Text => Level::parse(text.as_bytes()),
        PlacedValue::Integer(number) => Level::from_pino(number),
        PlacedValue::Float(_) | PlacedValue::Boolean(_) => None,
    }
}

/// The level that a syslog priority tells (RFC 5424 §6.2.1).
pub(super) fn priority_level(value: PlacedValue) -> Option<Level> {
    match value {
        PlacedValue::Integer(number) => Level::from_syslog(number & 7),
        _ => None,
    }
}

/// A value of a line that was taken apart, with the literal before it.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub literal: Range<usize>,
    pub want: Want,
    pub place: Place,
}

#[derive(Debug)]
struct Edge {
    literal: Box<str>,
    want: Want,
    place: Place,
    child: u32,
}

#[derive(Debug, Default)]
struct Node {
    edges: Vec<Edge>,
    ends: Vec<(Box<str>, u32)>,
}

/// The known forms of a batch.
#[derive(Debug, Default)]
pub(super) struct Forms {
    nodes: Vec<Node>,
}

impl Forms {
    /// A new tree; gives its root.
    pub fn root(&mut self) -> u32 {
        self.nodes.push(Node::default());
        self.nodes.len() as u32 - 1
    }

    /// Learns a form; `tail` is the literal after the last value.
    pub fn learn(&mut self, root: u32, line: &str, steps: &[Step], tail: &str, shape: u32) {
        if steps.len() > STEPS_MAX || self.nodes.len() + steps.len() > NODES_MAX {
            return;
        }
        let mut node = root as usize;
        for step in steps {
            let literal = &line[step.literal.clone()];
            let same = |edge: &&Edge| edge.want == step.want && edge.place == step.place && &*edge.literal == literal;
            node = match self.nodes[node].edges.iter().find(same) {
                Some(edge) => edge.child as usize,
                None => {
                    let child = self.root();
                    let edge = Edge { literal: literal.into(), want: step.want, place: step.place, child };
                    self.nodes[node].edges.push(edge);
                    child as usize
                }
            };
        }
        let ends = &mut self.nodes[node].ends;
        if !ends.iter().any(|(known, _)| &**known == tail) {
            ends.push((tail.into(), shape));
        }
    }

    /// Reads a line if its form is known, placing its values in `row`; gives the shape.
    pub fn read(&mut self, root: u32, line: Line<'_>, row: &mut Row) -> Option<u32> {
        let mut tries = TRIES_MAX;
        self.descend(root as usize, (0, 0), line, row, &mut tries)
    }

    fn descend(
        &mut self,
        node: usize,
        (at, depth): (usize, usize),
        line: Line<'_>,
        row: &mut Row,
        tries: &mut usize,
    ) -> Option<u32> {
        let rest = &line.text.as_bytes()[at..];
        if depth >= line.guide.len()
            && let Some((_, shape)) = self.nodes[node].ends.iter().find(|(tail, _)| tail.as_bytes() == rest)
        {
            return Some(*shape);
        }
        for index in 0..self.nodes[node].edges.len() {
            *tries = tries.checked_sub(1)?;
            let edge = &self.nodes[node].edges[index];
            if !rest.starts_with(edge.literal.as_bytes()) {
                continue;
            }
            let child = edge.child as usize;
            let before = (row.placed.len(), row.scratch.len(), row.time, row.level);
            let start = at + edge.literal.len();
            let next = match line.guide.get(depth) {
                Some(token) => take_part(edge, line, start, token, row),
                None => take(edge, line, start, row),
            };
            if let Some(next) = next
                && let Some(shape) = self.descend(child, (next, depth + 1), line, row, tries)
            {
                // The next line is most likely like this one.
                self.nodes[node].edges.swap(0, index);
                return Some(shape);
            }
            row.placed.truncate(before.0);
            row.scratch.truncate(before.1);
            (row.time, row.level) = (before.2, before.3);
        }
        None
    }
}

/// A line that is being read.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    pub text: &'a str,
    /// Its first values, where a scanner of heads ([`super::heads`]) found them already.
    pub guide: &'a [Token],
    pub context: &'a Context<'a>,
}

/// Places the value of `token`, if it is what the edge wants; gives where it ends.
fn take_part(edge: &Edge, line: Line<'_>, start: usize, token: &Token, row: &mut Row) -> Option<usize> {
    let inner = token.inner();
    if inner.start != start && token.value != Value::Echo {
        return None;
    }
    let piece = Piece::Line(inner.start as u32, inner.end as u32);
    let value = match (edge.want, token.value) {
        (Want::Part(wanted), Value::Text { syntax: Syntax::Part(part), .. }) if wanted == part => PlacedValue::Text,
        (Want::Time(Some(Syntax::Part(_)), style), Value::Text { syntax: Syntax::Part(Part::Time), .. }) => {
            return take_time(edge, &line.text[inner.clone()], style, line.context, row).then_some(inner.end);
        }
        (Want::Integer, Value::Integer(value)) => PlacedValue::Integer(value),
        (Want::Quoted(..), Value::Text { syntax: Syntax::Double, .. }) => {
            return take(edge, line, start, row).filter(|end| *end == inner.end);
        }
        (Want::Echo, Value::Echo) => return place(edge, line, (PlacedValue::Text, piece), row).then_some(start),
        _ => return None,
    };
    place(edge, line, (value, piece), row).then_some(inner.end)
}

/// Takes `text` as the time of the row if it is written in `style`.
fn take_time(edge: &Edge, text: &str, style: time::Style, context: &Context<'_>, row: &mut Row) -> bool {
    let Some(ns) = time::parse_as(text.as_bytes(), style) else { return false };
    let counted = !matches!(style, time::Style::Calendar(_) | time::Style::Clf(_));
    let believed = match edge.place.check {
        Check::TimeIs => context.given_ns == Some(ns),
        _ => ns <= context.latest_ns,
    };
    row.time = Some(ns);
    believed && (!counted || ns >= EPOCH_LEAST_NS)
}

/// Checks a value and places it.
fn place(edge: &Edge, line: Line<'_>, (value, piece): (PlacedValue, Piece), row: &mut Row) -> bool {
    let Place { slot, check } = edge.place;
    if check != Check::None {
        let scratch = std::mem::take(&mut row.scratch);
        let text = match piece {
            Piece::Line(start, end) => &line.text[start as usize..end as usize],
            Piece::Scratch(start, end) => &scratch[start as usize..end as usize],
        };
        let passes = line.context.passes(check, text, value, row);
        row.scratch = scratch;
        if !passes {
            return false;
        }
    }
    row.placed.extend(slot.map(|slot| Placed { slot, value, piece }));
    true
}

/// Reads the edge's value at `start`, where its characters (not its quotes) begin, and places it; gives where it ends.
fn take(edge: &Edge, line: Line<'_>, start: usize, row: &mut Row) -> Option<usize> {
    let (text, bytes) = (line.text, line.text.as_bytes());
    let (end, value, piece) = match edge.want {
        Want::Quoted(syntax, quote) => {
            let (end, piece) = take_quoted(line, start, syntax, quote, row)?;
            (end, PlacedValue::Text, piece)
        }
        Want::Bare { typed } => {
            let end = start + bytes[start..].iter().take_while(|byte| **byte > b' ').count();
            let plain = !typed || matches!(super::pairs::bare_value(&text[start..end]), Some(Value::Text { .. }));
            // What starts with a quote or a bracket is no bare value.
            if !plain || matches!(bytes.get(start), Some(b'"' | b'\'' | b'[' | b'{' | b'(')) {
                return None;
            }
            (end, PlacedValue::Text, Piece::Line(start as u32, end as u32))
        }
        Want::Integer | Want::Float(_) => {
            let end = start + number_length(&bytes[start..])?;
            let spelling = &text[start..end];
            let value = match (number(spelling), edge.want) {
                (Value::Integer(value), Want::Integer) => PlacedValue::Integer(value),
                (Value::Float(value), Want::Float(style)) if numbers::fits(value, style, spelling.as_bytes()) => {
                    PlacedValue::Float(value)
                }
                _ => return None,
            };
            (end, value, Piece::Line(start as u32, end as u32))
        }
        Want::Boolean { python } => {
            let [yes, no] = if python { ["True", "False"] } else { ["true", "false"] };
            let value = bytes[start..].starts_with(yes.as_bytes());
            let word = if value { yes } else { no };
            let end = start + word.len();
            if !bytes[start..].starts_with(word.as_bytes()) {
                return None;
            }
            (end, PlacedValue::Boolean(value), Piece::Line(start as u32, end as u32))
        }
        Want::Array => {
            let end = (bytes.get(start) == Some(&b'[')).then(|| json::skip_value(text, start).ok())??;
            (end, PlacedValue::Text, Piece::Line(start as u32, end as u32))
        }
        Want::Time(syntax, style) => {
            let rest = &bytes[start..];
            let length = match syntax {
                Some(Syntax::Single) => memchr::memchr(b'\'', rest)?,
                Some(Syntax::Json | Syntax::Double) => memchr::memchr(b'"', rest)?,
                Some(Syntax::Bare) => rest.iter().position(|byte| *byte <= b' ').unwrap_or(rest.len()),
                Some(Syntax::Part(_)) => return None,
                None => number_length(rest)?,
            };
            let end = start + length;
            return take_time(edge, text.get(start..end)?, style, line.context, row).then_some(end);
        }
        Want::Part(_) | Want::Echo => return None,
    };
    place(edge, line, (value, piece), row).then_some(end)
}

/// Reads a quoted text whose characters begin at `start`; `None` when it would not be written again as it came.
fn take_quoted(line: Line<'_>, start: usize, syntax: Syntax, quote: Quote, row: &mut Row) -> Option<(usize, Piece)> {
    let bytes = line.text.as_bytes();
    let mark = if syntax == Syntax::Single { b'\'' } else { b'"' };
    let mut end = start + memchr::memchr2(mark, b'\\', &bytes[start..])?;
    if line.context.controls && bytes[start..end].iter().any(|byte| *byte < 0x20) {
        return None;
    }
    if bytes[end] == mark && quote.leaves(&bytes[start..end]) {
        return Some((end, Piece::Line(start as u32, end as u32)));
    }
    while bytes[end] != mark {
        let from = end + 2;
        end = from + memchr::memchr2(mark, b'\\', bytes.get(from..)?)?;
    }
    let raw = line.text.get(start..end)?;
    let text_start = row.scratch.len();
    if !unescape(raw, quote, &mut row.scratch) {
        return None;
    }
    let mut again = Vec::with_capacity(raw.len());
    quote.write(&row.scratch[text_start..], &mut again);
    (again == raw.as_bytes()).then_some((end, Piece::Scratch(text_start as u32, row.scratch.len() as u32)))
}

/// Appends the characters of a text quoted in this style; false when it is not.
pub(super) fn unescape(raw: &str, quote: Quote, out: &mut String) -> bool {
    match quote {
        Quote::Verbatim => {
            out.push_str(raw);
            true
        }
        Quote::Json | Quote::JsonAscii | Quote::JsonGo | Quote::JsonPhp => unescape_json(raw, out).is_ok(),
        Quote::PythonSingle | Quote::PythonDouble => unescape_python(raw, out).is_ok(),
    }
}
