//! What is done to lines before they are decoded, as `[[pipeline]]` of the config says. Pure: no clock, no I/O, nothing of
//! protocols and columns; without pipelines nothing of it runs.
//!
//! Invariant: everything typed is checked when it is compiled; no line can make a stage fail, only do nothing.

use std::borrow::Cow;

use crate::error::Kind;
use crate::record::{Level, Tenant, time};

mod condition;
mod mask;
mod patterns;
pub mod settings;
mod stage;
#[cfg(test)]
mod tests;

use condition::Condition;
use stage::{Stage, Verdict};

/// Why a pipeline can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A stage that can't be.
    #[error("pipeline '{pipeline}', {place}, '{field}': {message}")]
    Setting {
        /// Its name or number.
        pipeline: String,
        /// Which stage: `stage 2 (regex)`.
        place: String,
        /// Which of its fields.
        field: &'static str,
        /// What is wrong, and what would be right.
        message: String,
    },
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

/// A value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// An integer.
    Integer(i64),
    /// A finite float.
    Float(f64),
    /// A boolean.
    Boolean(bool),
}

impl Value {
    /// The value as it is printed.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Value::Text(text) => Cow::Borrowed(text),
            Value::Integer(value) => value.to_string().into(),
            Value::Float(value) => value.to_string().into(),
            Value::Boolean(value) => value.to_string().into(),
        }
    }
}

/// A field of an entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// It was read from the whole line, whose own fields are found anyway: stages can use it, and it is not kept twice.
    pub of_line: bool,
}

/// A line on its way in, and what is known of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    /// The line; what is changed here is never stored as it came.
    pub line: String,
    /// Labels, attributes, and what stages found.
    pub fields: Vec<Field>,
    /// The time, where the protocol or a stage gave one.
    pub time_ns: Option<i64>,
    /// The level, likewise.
    pub level: Option<Level>,
    /// The message, where a stage chose one; the line is then not looked into.
    pub message: Option<String>,
    /// The tenant that it is kept for.
    pub tenant: Option<Tenant>,
}

impl Entry {
    /// The text of a field; `line`, `message`, `level` and `tenant` are fields, too.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        let field = self.fields.iter().rev().find(|field| field.name == name);
        match (field, name) {
            (Some(field), _) => Some(field.value.text()),
            (None, "" | "line") => Some(Cow::Borrowed(&self.line)),
            (None, "message") => self.message.as_deref().map(Cow::Borrowed),
            (None, "level") => self.level.map(|level| Cow::Borrowed(level.as_str())),
            (None, "tenant") => self.tenant.as_ref().map(|tenant| Cow::Borrowed(tenant.as_str())),
            _ => None,
        }
    }

    /// Sets a field.
    pub fn set(&mut self, name: &str, value: Value) {
        match self.fields.iter_mut().find(|field| field.name == name) {
            Some(field) => (field.value, field.of_line) = (value, false),
            None => self.fields.push(Field { name: name.to_string(), value, of_line: false }),
        }
    }
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is kept.
    Kept,
    /// A stage dropped it.
    Dropped,
}

/// One stage's work on one entry, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// `nginx: stage 2 (regex)`
    pub stage: String,
    /// What it changed, one change a line; empty: nothing.
    pub changes: Vec<String>,
}

/// The pipelines of a config, ready for use.
#[derive(Debug, Default)]
pub struct Pipelines(Vec<Pipeline>);

#[derive(Debug)]
struct Pipeline {
    name: String,
    condition: Condition,
    join: Option<stage::Join>,
    stages: Vec<Stage>,
}

impl Pipelines {
    /// **Errors**: the first stage that can't be, by the names of pipeline, stage and field.
    pub fn compile(typed: &[settings::Pipeline]) -> Result<Pipelines, Error> {
        let compiled = typed.iter().zip(1..).map(|(pipeline, number)| {
            let name = match pipeline.name.as_str() {
                "" => number.to_string(),
                name => name.to_string(),
            };
            let setting = |message| Error::Setting {
                pipeline: name.clone(),
                place: "its condition".to_string(),
                field: "match",
                message,
            };
            let condition = Condition::parse(&pipeline.r#match).map_err(setting)?;
            let mut stages = stage::compile(&name, "", &pipeline.stages)?;
            let join = stage::take_join(&mut stages);
            Ok(Pipeline { name, condition, join, stages })
        });
        compiled.collect::<Result<_, _>>().map(Pipelines)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `line` goes on the record that `before` began, of `lines` lines so far.
    pub fn joins(&self, before: &Entry, lines: usize, line: &str) -> bool {
        self.join_of(before).is_some_and(|join| lines < join.lines_max && !join.first.is_match(line))
    }

    /// Whether lines like this one may go on in the next ones.
    pub fn is_multiline(&self, entry: &Entry) -> bool {
        self.join_of(entry).is_some()
    }

    fn join_of(&self, entry: &Entry) -> Option<&stage::Join> {
        self.0.iter().find_map(|pipeline| pipeline.join.as_ref().filter(|_| pipeline.condition.holds(entry)))
    }

    /// Runs all pipelines whose condition holds, in order.
    pub fn run(&self, entry: &mut Entry, now_ns: i64) -> Outcome {
        for pipeline in self.0.iter() {
            if pipeline.condition.holds(entry) {
                for stage in &pipeline.stages {
                    if stage.run(entry, now_ns) == Verdict::Drop {
                        return Outcome::Dropped;
                    }
                }
            }
        }
        Outcome::Kept
    }

    /// As [`Pipelines::run`], and tells what each stage did.
    pub fn explain(&self, entry: &mut Entry, now_ns: i64) -> (Outcome, Vec<Explained>) {
        let mut told = Vec::new();
        for pipeline in self.0.iter() {
            if !pipeline.condition.holds(entry) {
                let changes = vec!["does not match".to_string()];
                told.push(Explained { stage: format!("{}: match", pipeline.name), changes });
                continue;
            }
            if explain(&pipeline.stages, &pipeline.name, entry, now_ns, &mut told) == Verdict::Drop {
                return (Outcome::Dropped, told);
            }
        }
        (Outcome::Kept, told)
    }
}

fn explain(stages: &[Stage], name: &str, entry: &mut Entry, now_ns: i64, told: &mut Vec<Explained>) -> Verdict {
    for stage in stages {
        let label = format!("{name}: {}", stage.place);
        if let Some(inner) = stage.inner(entry) {
            if explain(inner, name, entry, now_ns, told) == Verdict::Drop {
                return Verdict::Drop;
            }
            continue;
        }
        let before = entry.clone();
        let verdict = stage.run(entry, now_ns);
        let mut changes = changes(&before, entry);
        if verdict == Verdict::Drop {
            changes.push("the line is dropped".to_string());
        }
        told.push(Explained { stage: label, changes });
        if verdict == Verdict::Drop {
            return Verdict::Drop;
        }
    }
    Verdict::Keep
}

/// The differences between two states of an entry, in words.
fn changes(before: &Entry, after: &Entry) -> Vec<String> {
    let mut found = Vec::new();
    let mut tell = |name: &str, before: Option<String>, after: Option<String>| {
        if before != after {
            found.push(match after {
                Some(after) => format!("{name} = {after}"),
                None => format!("{name} is removed"),
            });
        }
    };
    tell("line", Some(before.line.clone()), Some(after.line.clone()));
    let shown = |ns: Option<i64>| {
        ns.map(|ns| {
            let mut text = Vec::new();
            time::write(ns, time::RFC_3339, &mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    tell("timestamp", shown(before.time_ns), shown(after.time_ns));
    tell(
        "level",
        before.level.map(|level| level.as_str().to_string()),
        after.level.map(|level| level.as_str().to_string()),
    );
    tell("message", before.message.clone(), after.message.clone());
    tell("tenant", before.tenant.as_ref().map(Tenant::to_string), after.tenant.as_ref().map(Tenant::to_string));
    let of = |entry: &Entry, name: &str| {
        entry.fields.iter().find(|field| field.name == name).map(|field| field.value.text().into_owned())
    };
    let mut names: Vec<&str> = before.fields.iter().chain(&after.fields).map(|field| field.name.as_str()).collect();
    names.dedup();
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
            tell(name, of(before, name), of(after, name));
        }
    }
    found
}
