//! What the protocol says about a line beside the line itself: stream labels, structured metadata, resource and attributes.
//!
//! Invariant: each field stands once; names that are our own columns', or came twice, have `_extracted` after them.

use super::Options;
use super::columns::{Cell, Columns, Slot};
use super::names::{Names, RANK_HINT, Role, in_overflow, is_reserved};
use crate::pipeline::{Entry, Field, Value};
use crate::record::{Level, column, overflow};

/// What Loki puts after a name that is taken already.
pub(super) const TAKEN_SUFFIX: &str = "_extracted";

#[derive(Debug, Clone, Copy, PartialEq)]
enum OuterValue {
    Text(u32, u32),
    Integer(i64),
    Float(f64),
    Boolean(bool),
}

/// Text of a recognised role, and where it goes when the line knows better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    text: (u32, u32),
    rank: u16,
    own: Option<Slot>,
}

/// The fields around a line.
#[derive(Debug, Default)]
pub(super) struct Outer {
    text: String,
    fields: Vec<(Slot, OuterValue)>,
    overflow: String,
    level: Option<(Level, u16)>,
    level_hint: Option<Level>,
    service: Option<Claim>,
    trace_id: Option<Claim>,
    span_id: Option<Claim>,
}

/// A state to which [`Outer::reset`] goes back.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mark {
    text: usize,
    fields: usize,
    overflow: usize,
    level: Option<(Level, u16)>,
    level_hint: Option<Level>,
    service: Option<Claim>,
    trace_id: Option<Claim>,
    span_id: Option<Claim>,
}

/// What is needed to give a field its column.
pub(super) struct Naming<'a> {
    pub columns: &'a mut Columns,
    pub names: &'a Names,
    pub options: &'a Options,
}

impl Outer {
    pub fn mark(&self) -> Mark {
        Mark {
            text: self.text.len(),
            fields: self.fields.len(),
            overflow: self.overflow.len(),
            level: self.level,
            level_hint: self.level_hint,
            service: self.service,
            trace_id: self.trace_id,
            span_id: self.span_id,
        }
    }

    pub fn reset(&mut self, mark: Mark) {
        self.text.truncate(mark.text);
        self.fields.truncate(mark.fields);
        self.overflow.truncate(mark.overflow);
        (self.level, self.service, self.trace_id, self.span_id) =
            (mark.level, mark.service, mark.trace_id, mark.span_id);
        self.level_hint = mark.level_hint;
    }

    /// Adds a field; recognised names take their roles, and a worse claim on a role becomes a plain field.
    pub fn push(&mut self, name: &str, cell: Cell<'_>, naming: &mut Naming<'_>) {
        let recognised = naming.names.recognise(name);
        let Cell::Text(text) = cell else { return self.push_field(name, cell, naming) };
        let (Some(recognised), false) = (recognised, text.is_empty()) else {
            return self.push_field(name, cell, naming);
        };
        let rank = recognised.rank;
        match recognised.role {
            Role::Level => {
                let level = Level::parse(text.as_bytes());
                let better = self.level.is_none_or(|(_, held)| rank < held);
                if let Some(level) = level.filter(|_| better) {
                    self.level = Some((level, rank));
                    if level.as_str() != text {
                        let kept = if is_reserved(name) { "level_original" } else { name };
                        self.push_field(kept, cell, naming);
                    }
                    return;
                }
                // The same word twice (`level` and `detected_level`) is not kept twice.
                if better || self.level.is_none_or(|(held, _)| held.as_str() != text) {
                    self.push_field(name, cell, naming);
                }
            }
            Role::Service => self.claim(name, text, rank, |outer| &mut outer.service, naming),
            Role::TraceId if is_id(text) => self.claim(name, text, rank, |outer| &mut outer.trace_id, naming),
            Role::SpanId if is_id(text) => self.claim(name, text, rank, |outer| &mut outer.span_id, naming),
            _ => self.push_field(name, cell, naming),
        }
    }

    fn claim(
        &mut self,
        name: &str,
        text: &str,
        rank: u16,
        role: fn(&mut Outer) -> &mut Option<Claim>,
        naming: &mut Naming<'_>,
    ) {
        let held = *role(self);
        if held.is_some_and(|held| held.rank <= rank) {
            return self.push_field(name, Cell::Text(text), naming);
        }
        if let Some(Claim { text: (start, end), own: Some(own), .. }) = held {
            self.fields.push((own, OuterValue::Text(start, end)));
        }
        let own = self.own_slot(name, naming);
        let text = self.keep(text);
        *role(self) = Some(Claim { text, rank, own });
    }

    /// Sets the level that the protocol itself gives.
    pub fn set_level(&mut self, level: Level) {
        self.level = Some((level, 0));
    }

    /// Sets the level of a line that says none itself: what a shipper made of stdout and stderr, or a sender that writes
    /// for others (syslog, a log driver) gave everything.
    pub fn set_level_hint(&mut self, level: Level) {
        self.level_hint = Some(level);
    }

    /// Sets a service that holds where neither a field nor the line names one.
    pub fn set_service_hint(&mut self, text: &str) {
        if self.service.is_none() && !text.is_empty() {
            self.service = Some(Claim { text: self.keep(text), rank: u16::MAX, own: None });
        }
    }

    /// Sets the trace id that the protocol itself gives.
    pub fn set_trace_id(&mut self, text: &str) {
        self.trace_id = Some(Claim { text: self.keep(text), rank: 0, own: None });
    }

    /// Sets the span id that the protocol itself gives.
    pub fn set_span_id(&mut self, text: &str) {
        self.span_id = Some(Claim { text: self.keep(text), rank: 0, own: None });
    }

    /// Adds a field that is nothing else, whatever its name says.
    pub fn push_field(&mut self, name: &str, cell: Cell<'_>, naming: &mut Naming<'_>) {
        let slot = self.own_slot(name, naming).filter(|_| self.fields.len() < naming.options.fields_per_line_max);
        let Some(slot) = slot else {
            let json = match cell {
                Cell::Text(text) => {
                    let mut json = String::new();
                    overflow::push_string(&mut json, text);
                    json
                }
                Cell::Integer(value, _) => value.to_string(),
                Cell::Float(value, _) => value.to_string(),
                Cell::Boolean(value) => value.to_string(),
            };
            return overflow::push(&mut self.overflow, &in_overflow(name), &json);
        };
        let value = match cell {
            Cell::Text(text) => {
                let (start, end) = self.keep(text);
                OuterValue::Text(start, end)
            }
            Cell::Integer(value, _) => OuterValue::Integer(value),
            Cell::Float(value, _) => OuterValue::Float(value),
            Cell::Boolean(value) => OuterValue::Boolean(value),
        };
        self.fields.push((slot, value));
    }

    fn keep(&mut self, text: &str) -> (u32, u32) {
        let start = self.text.len() as u32;
        self.text.push_str(text);
        (start, self.text.len() as u32)
    }

    /// The column of a plain field: its own name, or that with a suffix; none when both are taken or columns ran out.
    fn own_slot(&self, name: &str, naming: &mut Naming<'_>) -> Option<Slot> {
        if name.is_empty() || name.len() > naming.options.field_name_bytes_max {
            return None;
        }
        let fields_max = naming.options.columns_max;
        if !is_reserved(name) {
            let slot = naming.columns.slot(name, fields_max)?;
            if !self.holds(slot) {
                return Some(slot);
            }
        }
        let slot = naming.columns.slot(&format!("{name}{TAKEN_SUFFIX}"), fields_max)?;
        (!self.holds(slot)).then_some(slot)
    }

    fn holds(&self, slot: Slot) -> bool {
        self.slots().any(|held| held == slot)
    }

    /// The field columns that it fills, or may fill.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        let ids = [self.trace_id, self.span_id].into_iter().flatten().filter_map(|claim| claim.own);
        self.fields.iter().map(|(slot, _)| *slot).chain(self.service_own()).chain(ids)
    }

    /// What decides how a line's fields are placed: the columns taken, and the roles.
    pub fn signature(&self, out: &mut Vec<u32>) {
        out.clear();
        out.extend(self.slots());
        out.push(u32::MAX);
        out.push(self.service.map_or(0, |claim| 1 + u32::from(claim.rank)));
        out.push(
            u32::from(self.level.is_some())
                | u32::from(self.trace_id.is_some()) << 1
                | u32::from(self.span_id.is_some()) << 2,
        );
    }

    fn text_of(&self, claim: Option<Claim>) -> Option<&str> {
        claim.map(|claim| &self.text[claim.text.0 as usize..claim.text.1 as usize])
    }

    pub fn level(&self) -> Option<Level> {
        self.level.map(|(level, _)| level)
    }

    pub fn level_hint(&self) -> Option<Level> {
        self.level_hint
    }

    /// Whether the protocol says anything of the level, so that no words of the text need to be asked.
    pub fn hints_at_level(&self) -> bool {
        self.level.is_some() || self.level_hint.is_some()
    }

    pub fn service(&self) -> Option<&str> {
        self.text_of(self.service)
    }

    pub fn service_rank(&self) -> Option<u16> {
        self.service.map(|claim| claim.rank)
    }

    /// Where the service goes when the line has a better one; none when no line can have.
    pub fn service_own(&self) -> Option<Slot> {
        self.service.filter(|claim| claim.rank >= RANK_HINT).and_then(|claim| claim.own)
    }

    pub fn trace_id(&self) -> Option<&str> {
        self.text_of(self.trace_id)
    }

    pub fn span_id(&self) -> Option<&str> {
        self.text_of(self.span_id)
    }

    pub fn overflow(&self) -> &str {
        &self.overflow
    }

    /// The fields as pipelines see them.
    pub fn entry_fields(&self, columns: &Columns) -> Vec<Field> {
        let field = |name: &str, value| Field { name: name.to_string(), value, of_line: false };
        let plain = self.fields.iter().map(|(slot, value)| {
            let value = match *value {
                OuterValue::Text(start, end) => Value::Text(self.text[start as usize..end as usize].to_string()),
                OuterValue::Integer(value) => Value::Integer(value),
                OuterValue::Float(value) => Value::Float(value),
                OuterValue::Boolean(value) => Value::Boolean(value),
            };
            field(columns.name(*slot), value)
        });
        let claims =
            [(column::SERVICE, self.service), (column::TRACE_ID, self.trace_id), (column::SPAN_ID, self.span_id)];
        let claimed = claims.into_iter().filter_map(|(name, claim)| {
            let text = self.text_of(claim)?;
            let own = claim.and_then(|claim| claim.own).map(|own| columns.name(own));
            Some(field(own.filter(|own| !own.ends_with(TAKEN_SUFFIX)).unwrap_or(name), Value::Text(text.to_string())))
        });
        plain.chain(claimed).collect()
    }

    /// Takes over what pipelines left of an entry's fields.
    pub fn fill(&mut self, entry: &Entry, overflow: String, naming: &mut Naming<'_>) {
        self.overflow = overflow;
        if let Some(level) = entry.level {
            self.set_level(level);
        }
        for Field { name, value, .. } in entry.fields.iter().filter(|field| !field.of_line) {
            match value {
                Value::Text(text) => self.push(name, Cell::Text(text), naming),
                Value::Integer(value) => self.push(name, Cell::Integer(*value, ""), naming),
                Value::Float(value) => self.push(name, Cell::Float(*value, ""), naming),
                Value::Boolean(value) => self.push(name, Cell::Boolean(*value), naming),
            }
        }
    }

    /// Writes the plain fields into the row that is being made.
    pub fn write_fields(&self, columns: &mut Columns) {
        for (slot, value) in &self.fields {
            match *value {
                OuterValue::Text(start, end) => {
                    columns.push(*slot, Cell::Text(&self.text[start as usize..end as usize]))
                }
                OuterValue::Integer(value) => columns.push(*slot, Cell::Integer(value, "")),
                OuterValue::Float(value) => columns.push(*slot, Cell::Float(value, "")),
                OuterValue::Boolean(value) => columns.push(*slot, Cell::Boolean(value)),
            }
        }
    }
}

/// Whether a trace or span id says anything: not empty, not all zeros (OpenTelemetry's "invalid").
pub(super) fn is_id(text: &str) -> bool {
    text.bytes().any(|byte| byte != b'0' && byte != b'-')
}
