//! Alloy's configuration: `loki.process` components, and which lines reach them. Its stages are Promtail's under other
//! names; they are put into Promtail's form, and translated there.
//! Source: docs/sources/get-started/configuration-syntax and docs/sources/reference/components/loki/loki.process.md of
//! grafana/alloy 1.x.

use serde_yaml_ng::value::{Tag, TaggedValue};
use serde_yaml_ng::{Mapping, Value};

use super::Made;
use super::promtail;
use super::selector::{equal, quote};

/// Blocks and values that are nested deeper are an error.
const DEPTH_MAX: usize = 32;
/// Components that lines pass through are followed so far.
const HOPS_MAX: usize = 16;
/// The tag of a value that is told only when Alloy runs: a reference, a call, a sum.
const EXPRESSION: &str = "expression";

/// A block: `name "label" { attributes, blocks }`.
#[derive(Debug, Default)]
struct Block {
    name: String,
    label: String,
    attributes: Mapping,
    blocks: Vec<Block>,
}

impl Block {
    fn get(&self, name: &str) -> Option<&Value> {
        self.attributes.get(name)
    }

    /// How others refer to it.
    fn reference(&self) -> String {
        format!("{}.{}", self.name, self.label)
    }
}

/// The pipelines of a configuration, one of each `loki.process`. **Errors**: where it is no Alloy configuration.
pub(super) fn pipelines(text: &str) -> Result<Vec<Made>, String> {
    let mut reader = Reader { text, at: 0 };
    let components = reader.body(0)?;
    if reader.at < text.len() {
        return Err(reader.fault("a block, or the end"));
    }
    let processes = components.iter().filter(|block| block.name == "loki.process");
    Ok(processes.map(|process| pipeline(process, &components)).collect())
}

fn pipeline(process: &Block, components: &[Block]) -> Made {
    let stages: Vec<Value> = process.blocks.iter().map(stage).collect();
    let mut made = Made { name: process.label.clone(), ..promtail::pipeline(&stages) };
    let mut jobs = Vec::new();
    if jobs_into(&process.reference(), components, HOPS_MAX, &mut jobs) && !jobs.is_empty() {
        jobs.sort_unstable();
        jobs.dedup();
        made.condition = match jobs.as_slice() {
            [job] => equal("job", "=", job),
            jobs => format!("job in ({})", jobs.iter().map(|job| quote(job)).collect::<Vec<_>>().join(", ")),
        };
    } else {
        made.comments.push(
            "which lines are meant is told by what forwards to this component: set match, such as 'job = \"…\"'".into(),
        );
    }
    made
}

/// Collects the jobs of all lines that reach a component; `false` when not all of them can be told.
fn jobs_into(receiver: &str, components: &[Block], hops: usize, jobs: &mut Vec<String>) -> bool {
    let into = format!("{receiver}.receiver");
    let forwards = |block: &&Block| {
        let to = block.get("forward_to").and_then(Value::as_sequence);
        to.is_some_and(|to| to.iter().any(|one| expression(one) == Some(into.as_str())))
    };
    hops > 0
        && components.iter().filter(forwards).all(|block| match block.name.as_str() {
            "loki.process" | "loki.relabel" => jobs_into(&block.reference(), components, hops - 1, jobs),
            _ => targets(block.get("targets"), components).is_some_and(|targets| {
                targets.iter().all(|target| match target.get("job").and_then(Value::as_str) {
                    Some(job) => {
                        jobs.push(job.to_owned());
                        true
                    }
                    None => false,
                })
            }),
        })
}

/// Targets as they stand, or as a `local.file_match` that is referred to has them.
fn targets<'c>(value: Option<&'c Value>, components: &'c [Block]) -> Option<&'c Vec<Value>> {
    let value = value?;
    let matched = expression(value).and_then(|reference| reference.strip_suffix(".targets"));
    let of = matched.and_then(|name| components.iter().find(|block| block.reference() == name));
    of.map_or(Some(value), |block| block.get("path_targets"))?.as_sequence()
}

fn expression(value: &Value) -> Option<&str> {
    match value {
        Value::Tagged(tagged) if tagged.tag == EXPRESSION => tagged.value.as_str(),
        _ => None,
    }
}

/// A stage's block as Promtail's YAML.
fn stage(block: &Block) -> Value {
    let name = block.name.strip_prefix("stage.").unwrap_or(&block.name);
    let values = || block.get("values").cloned().unwrap_or(Value::Null);
    let (name, body) = match name {
        "label_drop" => ("labeldrop", values()),
        "label_keep" => ("labelallow", values()),
        "structured_metadata_drop" => ("labeldrop", values()),
        "labels" | "static_labels" | "structured_metadata" => (name, values()),
        "match" => {
            let mut body = block.attributes.clone();
            body.insert("stages".into(), Value::Sequence(block.blocks.iter().map(stage).collect()));
            (name, Value::Mapping(body))
        }
        name => {
            let mut body = block.attributes.clone();
            // `stage.metrics` and its like: shown where they have no equal.
            body.extend(block.blocks.iter().map(|inner| (inner.name.as_str().into(), inner.attributes.clone().into())));
            (name, Value::Mapping(body))
        }
    };
    Value::Mapping(Mapping::from_iter([(name.into(), body)]))
}

/// Reads the text from its start.
struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn fault(&self, wanted: &str) -> String {
        let before = &self.text[..self.at];
        let column = before.len() - before.rfind('\n').map_or(0, |end| end + 1) + 1;
        format!("line {}, column {column}: expected {wanted}", before.matches('\n').count() + 1)
    }

    /// Goes past blanks and comments.
    fn blanks(&mut self) {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start().len();
            let rest = self.rest();
            self.at += match (rest.starts_with("//"), rest.starts_with("/*")) {
                (true, _) => rest.find('\n').unwrap_or(rest.len()),
                (_, true) => rest.find("*/").map_or(rest.len(), |end| end + 2),
                _ => return,
            };
        }
    }

    fn take(&mut self, sign: char) -> bool {
        self.blanks();
        let found = self.rest().starts_with(sign);
        self.at += if found { sign.len_utf8() } else { 0 };
        found
    }

    /// A name, with dots in it.
    fn name(&mut self) -> Option<&'t str> {
        self.blanks();
        let rest = self.rest();
        let end = rest.find(|letter: char| !(letter.is_alphanumeric() || matches!(letter, '_' | '.')));
        let name = &rest[..end.unwrap_or(rest.len())];
        let is_name = name.starts_with(|first: char| first.is_alphabetic() || first == '_');
        self.at += if is_name { name.len() } else { 0 };
        is_name.then_some(name)
    }

    /// Blocks up to what is none; attributes go into the last of `out`.
    fn body(&mut self, depth: usize) -> Result<Vec<Block>, String> {
        self.members(depth).map(|block| block.blocks)
    }

    fn members(&mut self, depth: usize) -> Result<Block, String> {
        if depth > DEPTH_MAX {
            return Err(self.fault("less nesting"));
        }
        let mut found = Block::default();
        while let Some(name) = self.name() {
            if self.take('=') {
                let value = self.value(depth + 1)?;
                found.attributes.insert(name.into(), value);
                continue;
            }
            self.blanks();
            let label = if self.rest().starts_with('"') { self.string()? } else { String::new() };
            if !self.take('{') {
                return Err(self.fault("'=' or '{'"));
            }
            let inner = self.members(depth + 1)?;
            if !self.take('}') {
                return Err(self.fault("an attribute, a block or '}'"));
            }
            found.blocks.push(Block { name: name.to_owned(), label, ..inner });
        }
        self.blanks();
        Ok(found)
    }

    /// A value; what is more than a literal is kept as its text.
    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err(self.fault("less nesting"));
        }
        self.blanks();
        let start = self.at;
        let value = match self.rest().chars().next() {
            Some('"' | '`') => Value::String(self.string()?),
            Some('[') => self.list(depth)?,
            Some('{') => self.object(depth)?,
            Some(first) if first.is_ascii_digit() || first == '-' => self.number(),
            _ => match self.name() {
                Some("true") => Value::Bool(true),
                Some("false") => Value::Bool(false),
                Some("null") => Value::Null,
                Some(name) => tagged(name),
                None => return Err(self.fault("a value")),
            },
        };
        self.more(start, value, depth)
    }

    /// What goes on behind a value makes it an expression: a call, an index, an operator and its other side.
    fn more(&mut self, start: usize, mut value: Value, depth: usize) -> Result<Value, String> {
        loop {
            let end = self.at;
            let blank_line = self.text[end..].trim_start_matches([' ', '\t']).starts_with(['\n', '\r']);
            if blank_line {
                return Ok(value);
            }
            self.blanks();
            match self.rest().chars().next() {
                Some(open @ ('(' | '[')) => {
                    self.at += 1;
                    let close = if open == '(' { ')' } else { ']' };
                    while !self.take(close) {
                        self.value(depth + 1)?;
                        self.take(',');
                    }
                }
                Some('+' | '-' | '*' | '/' | '%' | '<' | '>' | '!' | '&' | '|' | '?') => {
                    let signs = |letter: char| !"+-*/%<>=!&|?".contains(letter);
                    self.at += self.rest().find(signs).unwrap_or(self.rest().len());
                    self.value(depth + 1)?;
                }
                _ => {
                    self.at = end;
                    return Ok(value);
                }
            }
            value = tagged(self.text[start..self.at].trim());
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut values = Vec::new();
        while !self.take(']') {
            values.push(self.value(depth + 1)?);
            if !self.take(',') && !self.rest().starts_with(']') {
                return Err(self.fault("',' or ']'"));
            }
        }
        Ok(Value::Sequence(values))
    }

    fn object(&mut self, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut members = Mapping::new();
        while !self.take('}') {
            let name = if self.rest().starts_with('"') {
                self.string()?
            } else {
                self.name().ok_or_else(|| self.fault("a name"))?.to_owned()
            };
            if !self.take('=') {
                return Err(self.fault("'='"));
            }
            members.insert(name.into(), self.value(depth + 1)?);
            self.take(',');
        }
        Ok(Value::Mapping(members))
    }

    fn number(&mut self) -> Value {
        let rest = self.rest();
        let end = rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '+')));
        let written = &rest[..end.unwrap_or(rest.len())];
        self.at += written.len();
        serde_yaml_ng::from_str(written).unwrap_or_else(|_| Value::String(written.to_owned()))
    }

    /// A text in Go's quotes.
    fn string(&mut self) -> Result<String, String> {
        let (text, after) = super::selector::quoted(self.rest()).ok_or_else(|| self.fault("a text that ends"))?;
        self.at = self.text.len() - after.len();
        Ok(text)
    }
}

fn tagged(text: &str) -> Value {
    Value::Tagged(Box::new(TaggedValue { tag: Tag::new(EXPRESSION), value: Value::String(text.to_owned()) }))
}
