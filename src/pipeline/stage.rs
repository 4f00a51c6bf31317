//! Stages, compiled: what each does to an entry. What they are called and how they are typed is [`super::settings`].

use regex::{Captures, Regex};

use super::condition::{Condition, like, told};
use super::mask::Mask;
use super::patterns::{self, Dissect};
use super::settings::{self as typed, Stage as Typed};
use super::{Entry, Error, Field, Value};
use crate::record::{Level, Tenant, time};

/// Most lines of a record, where a `multiline` stage says nothing.
const LINES_MAX: usize = 128;
/// Most stages of a pipeline, inner ones included; so deep is the nesting bounded, too.
const STAGES_MAX: usize = 256;

/// Whether an entry goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    Drop,
}

/// How lines become one record.
#[derive(Debug)]
pub(super) struct Join {
    /// The first line of a record matches it.
    pub first: Regex,
    /// Most lines of a record.
    pub lines_max: usize,
}

/// A stage, and where it stands.
#[derive(Debug)]
pub(super) struct Stage {
    /// `stage 2 (regex)`
    pub place: String,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Match { condition: Condition, stages: Vec<Stage> },
    Json(typed::Extract),
    Logfmt(typed::Extract),
    Kv(typed::Kv),
    Groups { source: String, expression: Regex, names: Vec<(usize, String)> },
    Dissect { source: String, pattern: Dissect },
    Timestamp { source: String, formats: Vec<Format>, zone: jiff::tz::TimeZone },
    Level { source: String, values: Vec<(String, Level)> },
    Message(String),
    Labels(Vec<(String, Vec<Piece>)>),
    Rename(Vec<(String, String)>),
    Remove(Vec<String>),
    Keep(Vec<String>),
    Drop { condition: Condition, longer_than: usize, older_than_ns: Option<i64> },
    Sample { threshold: u64, by: String },
    Mask { source: String, masks: Vec<Mask>, with: String },
    Replace { source: String, expression: Regex, with: String },
    Join(Join),
    Tenant { value: Option<Tenant>, source: String },
    Decolorize { source: String, codes: Regex },
    Case { source: String, to: typed::Case },
}

#[derive(Debug)]
enum Format {
    Auto,
    Unix(time::Unit),
    Signs(String),
}

/// A part of a composed text.
#[derive(Debug)]
enum Piece {
    Text(String),
    Field(String),
}

/// What is wrong with one field of a stage.
type Fault = (&'static str, String);

/// Compiles stages; `within` is the place of the stage around, with a comma after it.
pub(super) fn compile(pipeline: &str, within: &str, stages: &[Typed]) -> Result<Vec<Stage>, Error> {
    let error = |place: String, (field, message): Fault| Error::Setting {
        pipeline: pipeline.to_string(),
        place,
        field,
        message,
    };
    if stages.len() > STAGES_MAX || within.matches("stage ").count() > 8 {
        let fault = ("stages", "there are too many stages, or they are nested too deep".to_string());
        return Err(error(format!("{within}its stages"), fault));
    }
    let compiled = stages.iter().zip(1..).map(|(stage, number)| {
        let place = format!("{within}stage {number} ({})", stage.kind());
        let action = match stage {
            Typed::Match(inner) => {
                let condition = Condition::parse(&inner.r#match);
                let condition = condition.map_err(|message| error(place.clone(), ("match", message)))?;
                Action::Match { condition, stages: compile(pipeline, &format!("{place}, "), &inner.stages)? }
            }
            Typed::Multiline(_) if number > 1 || !within.is_empty() => {
                let message = "lines are joined before anything else: it must be the first stage of a pipeline";
                return Err(error(place, ("first", message.to_string())));
            }
            plain => action(plain).map_err(|fault| error(place.clone(), fault))?,
        };
        Ok(Stage { place, action })
    });
    compiled.collect()
}

/// Takes the stage that joins lines out of a pipeline's stages.
pub(super) fn take_join(stages: &mut Vec<Stage>) -> Option<Join> {
    match stages.first() {
        Some(Stage { action: Action::Join(_), .. }) => match stages.remove(0).action {
            Action::Join(join) => Some(join),
            _ => None,
        },
        _ => None,
    }
}

fn regex(field: &'static str, expression: &str) -> Result<Regex, Fault> {
    Regex::new(expression).map_err(|error| (field, told(&error)))
}

fn named(expression: Regex, source: &str) -> Result<Action, Fault> {
    let groups = expression.capture_names().enumerate();
    let names: Vec<_> = groups.filter_map(|(index, name)| Some((index, name?.to_string()))).collect();
    if names.is_empty() {
        return Err(("expression", "no group has a name: write (?P<name>…)".to_string()));
    }
    Ok(Action::Groups { source: source.to_string(), expression, names })
}

/// Compiles a stage that has no others in it.
fn action(stage: &Typed) -> Result<Action, Fault> {
    Ok(match stage {
        Typed::Json(extract) => Action::Json(extract.clone()),
        Typed::Logfmt(extract) => Action::Logfmt(extract.clone()),
        Typed::Kv(kv) => {
            let or = |text: &str, default: &str| if text.is_empty() { default.to_string() } else { text.to_string() };
            Action::Kv(typed::Kv { separator: or(&kv.separator, " "), assign: or(&kv.assign, "="), ..kv.clone() })
        }
        Typed::Regex(stage) => named(regex("expression", &stage.expression)?, &stage.source)?,
        Typed::Grok(stage) => {
            let (expression, fields) =
                patterns::grok(&stage.pattern, &stage.patterns).map_err(|message| ("pattern", message))?;
            let Action::Groups { source, expression, mut names } = named(expression, &stage.source)
                .map_err(|_| ("pattern", "no pattern has a name: write %{PATTERN:name}".to_string()))?
            else {
                return Err(("pattern", "is no expression".to_string()));
            };
            for (_, name) in &mut names {
                let index = name.strip_prefix("grok_").and_then(|index| index.parse::<usize>().ok());
                if let Some(field) = index.and_then(|index| fields.get(index)) {
                    name.clone_from(field);
                }
            }
            Action::Groups { source, expression, names }
        }
        Typed::Dissect(stage) => Action::Dissect {
            source: stage.source.clone(),
            pattern: Dissect::parse(&stage.pattern).map_err(|message| ("pattern", message))?,
        },
        Typed::Timestamp(stage) => timestamp(stage)?,
        Typed::Level(stage) => {
            let read = |(value, level): (&String, &String)| match Level::parse(level.as_bytes()) {
                Some(level) => Ok((value.clone(), level)),
                None => {
                    Err(("values", format!("'{level}' is no level; levels are trace, debug, info, warn, error, fatal")))
                }
            };
            let values = stage.values.iter().map(read).collect::<Result<_, _>>()?;
            Action::Level { source: stage.source.clone(), values }
        }
        Typed::Message(stage) => Action::Message(stage.source.clone()),
        Typed::Labels(stage) => {
            let pieces = stage.fields.iter().map(|(name, text)| Ok((name.clone(), pieces(text)?)));
            Action::Labels(pieces.collect::<Result<_, Fault>>()?)
        }
        Typed::Rename(stage) => Action::Rename(stage.fields.clone().into_iter().collect()),
        Typed::Remove(stage) => Action::Remove(stage.fields.clone()),
        Typed::Keep(stage) => Action::Keep(stage.fields.clone()),
        Typed::Drop(stage) => Action::Drop {
            condition: Condition::parse(&stage.r#match).map_err(|message| ("match", message))?,
            longer_than: stage.longer_than,
            older_than_ns: stage.older_than.map(|age| i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)),
        },
        Typed::Sample(stage) if (0.0..=1.0).contains(&stage.rate) => {
            Action::Sample { threshold: (stage.rate * u64::MAX as f64) as u64, by: stage.by.clone() }
        }
        Typed::Sample(stage) => return Err(("rate", format!("{} is not between 0 and 1", stage.rate))),
        Typed::Mask(stage) => mask(stage)?,
        Typed::Replace(stage) => Action::Replace {
            source: stage.source.clone(),
            expression: regex("expression", &stage.expression)?,
            with: stage.with.clone(),
        },
        Typed::Multiline(stage) => Action::Join(Join {
            first: regex("first", &stage.first)?,
            lines_max: stage.lines_max.unwrap_or(LINES_MAX).max(1),
        }),
        Typed::Tenant(stage) => tenant(stage)?,
        Typed::Decolorize(stage) => {
            Action::Decolorize { source: stage.source.clone(), codes: regex("source", "\x1b\\[[0-9;?]*[A-Za-z]")? }
        }
        Typed::Case(stage) => Action::Case { source: stage.source.clone(), to: stage.to },
        Typed::Match(_) => return Err(("stages", "has stages of its own".to_string())),
    })
}

fn timestamp(stage: &typed::Timestamp) -> Result<Action, Fault> {
    if stage.formats.is_empty() {
        return Err(("formats", "names no format; \"auto\" reads the usual ones".to_string()));
    }
    let read = |format: &String| {
        Ok(match format.as_str() {
            "auto" => Format::Auto,
            "unix" => Format::Unix(time::Unit::Seconds),
            "unix_ms" => Format::Unix(time::Unit::Millis),
            "unix_us" => Format::Unix(time::Unit::Micros),
            "unix_ns" => Format::Unix(time::Unit::Nanos),
            signs if signs.contains('%') => match jiff::fmt::strtime::format(signs, &jiff::Zoned::default()) {
                Ok(_) => Format::Signs(signs.to_string()),
                Err(error) => return Err(("formats", format!("'{signs}': {error}"))),
            },
            other => {
                let known = "auto, unix, unix_ms, unix_us, unix_ns, or signs such as %Y-%m-%d %H:%M:%S";
                return Err(("formats", format!("'{other}' is none of {known}")));
            }
        })
    };
    let zone = match stage.zone.as_str() {
        "" => jiff::tz::TimeZone::UTC,
        name => jiff::tz::TimeZone::get(name).map_err(|error| ("zone", error.to_string()))?,
    };
    let formats = stage.formats.iter().map(read).collect::<Result<_, _>>()?;
    Ok(Action::Timestamp { source: stage.source.clone(), formats, zone })
}

fn mask(stage: &typed::Mask) -> Result<Action, Fault> {
    let mut masks = Vec::new();
    for kind in &stage.kinds {
        masks.extend(Mask::of_kind(kind).map_err(|message| ("kinds", message))?);
    }
    for expression in &stage.expressions {
        masks.push(Mask::of_expression(expression).map_err(|message| ("expressions", message))?);
    }
    if masks.is_empty() {
        return Err(("kinds", "names nothing to mask; give kinds or expressions".to_string()));
    }
    let with = if stage.with.is_empty() { "***".to_string() } else { stage.with.clone() };
    Ok(Action::Mask { source: stage.source.clone(), masks, with })
}

fn tenant(stage: &typed::Tenant) -> Result<Action, Fault> {
    let value = match (stage.value.as_str(), stage.source.as_str()) {
        ("", "") => return Err(("value", "give a value or a source".to_string())),
        ("", _) => None,
        (name, "") => {
            let fault =
                || ("value", format!("'{name}' can't be a tenant: 1 to 64 of letters, digits, '_', '-' and '.'"));
            Some(Tenant::parse(name).ok_or_else(fault)?)
        }
        _ => return Err(("source", "give either a value or a source".to_string())),
    };
    Ok(Action::Tenant { value, source: stage.source.clone() })
}

fn pieces(text: &str) -> Result<Vec<Piece>, Fault> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or(("fields", format!("'{text}': a '${{' has no '}}'")))?;
        pieces.extend((!before.is_empty()).then(|| Piece::Text(before.to_string())));
        pieces.push(Piece::Field(name.to_string()));
        rest = after;
    }
    pieces.extend((!rest.is_empty() || pieces.is_empty()).then(|| Piece::Text(rest.to_string())));
    Ok(pieces)
}

impl Stage {
    /// The stages of a `match` whose condition holds.
    pub fn inner(&self, entry: &Entry) -> Option<&[Stage]> {
        match &self.action {
            Action::Match { condition, stages } if condition.holds(entry) => Some(stages),
            _ => None,
        }
    }

    /// Does its work.
    pub fn run(&self, entry: &mut Entry, now_ns: i64) -> Verdict {
        match &self.action {
            Action::Match { condition, stages } => {
                if condition.holds(entry) && stages.iter().any(|stage| stage.run(entry, now_ns) == Verdict::Drop) {
                    return Verdict::Drop;
                }
            }
            Action::Json(extract) => json(extract, entry),
            Action::Logfmt(extract) => logfmt(extract, entry),
            Action::Kv(kv) => pairs(kv, entry),
            Action::Groups { source, expression, names } => groups(source, expression, names, entry),
            Action::Dissect { source, pattern } => {
                let text = entry.text(source).unwrap_or_default().into_owned();
                for (name, value) in pattern.read(&text).unwrap_or_default() {
                    entry.set(name, typed_value(value));
                }
            }
            Action::Timestamp { source, formats, zone } => {
                let found =
                    entry.text(source).and_then(|text| formats.iter().find_map(|format| format.read(&text, zone)));
                entry.time_ns = found.or(entry.time_ns);
            }
            Action::Level { source, values } => {
                let found = entry.text(source).and_then(|text| {
                    let known = values.iter().find(|(value, _)| like(value, &text)).map(|(_, level)| *level);
                    known.or_else(|| Level::parse(text.trim().as_bytes()))
                });
                entry.level = found.or(entry.level);
            }
            Action::Message(source) => {
                if let Some(text) = entry.text(source).map(std::borrow::Cow::into_owned) {
                    entry.message = Some(text);
                }
            }
            Action::Labels(labels) => labels.iter().for_each(|(name, pieces)| {
                let text = compose(pieces, entry);
                entry.set(name, Value::Text(text));
            }),
            Action::Rename(names) => rename(names, entry),
            Action::Remove(names) => entry.fields.retain(|field| !names.iter().any(|name| like(name, &field.name))),
            Action::Keep(names) => entry.fields.retain(|field| names.iter().any(|name| like(name, &field.name))),
            Action::Drop { condition, longer_than, older_than_ns } => {
                let long = *longer_than == 0 || entry.line.len() > *longer_than;
                let old =
                    older_than_ns.is_none_or(|age| entry.time_ns.is_some_and(|time| time < now_ns.saturating_sub(age)));
                if long && old && condition.holds(entry) {
                    return Verdict::Drop;
                }
            }
            Action::Sample { threshold, by } => {
                let text = entry.text(by).unwrap_or_default();
                let hash = twox_hash::XxHash64::oneshot(0, text.as_bytes());
                if hash > *threshold || *threshold == 0 {
                    return Verdict::Drop;
                }
            }
            Action::Mask { source, masks, with } => {
                change(source, true, entry, |text| {
                    let mut masked: Option<String> = None;
                    for mask in masks {
                        masked = mask.apply(masked.as_deref().unwrap_or(text), with).or(masked);
                    }
                    masked
                });
            }
            Action::Replace { source, expression, with } => change(source, false, entry, |text| {
                let replaced = expression.replace_all(text, with.as_str());
                (replaced != text).then(|| replaced.into_owned())
            }),
            // Done before the stages.
            Action::Join(_) => {}
            Action::Tenant { value, source } => {
                let found = value.clone().or_else(|| Tenant::parse(&entry.text(source)?));
                entry.tenant = found.or(entry.tenant.take());
            }
            Action::Decolorize { source, codes } => change(source, false, entry, |text| {
                codes.is_match(text).then(|| codes.replace_all(text, "").into_owned())
            }),
            Action::Case { source, to } => change(source, false, entry, |text| {
                let changed = match to {
                    typed::Case::Lower => text.to_lowercase(),
                    typed::Case::Upper => text.to_uppercase(),
                };
                (changed != text).then_some(changed)
            }),
        }
        Verdict::Keep
    }
}

impl Format {
    fn read(&self, text: &str, zone: &jiff::tz::TimeZone) -> Option<i64> {
        let text = text.trim();
        match self {
            Format::Auto => time::parse(text.as_bytes()).map(|(ns, _)| ns),
            Format::Unix(unit) => match text.parse::<i64>() {
                Ok(count) => count.checked_mul(unit.nanos()),
                Err(_) => {
                    let ns = text.parse::<f64>().ok()? * unit.nanos() as f64;
                    (ns.abs() < i64::MAX as f64).then_some(ns as i64)
                }
            },
            Format::Signs(signs) => {
                let broken = jiff::fmt::strtime::parse(signs, text).ok()?;
                let timestamp = match broken.to_timestamp() {
                    Ok(timestamp) => timestamp,
                    Err(_) => broken.to_datetime().ok()?.to_zoned(zone.clone()).ok()?.timestamp(),
                };
                i64::try_from(timestamp.as_nanosecond()).ok()
            }
        }
    }
}

/// Changes a field, or the line; with `all` and no source, the line and every text.
fn change(source: &str, all: bool, entry: &mut Entry, with: impl Fn(&str) -> Option<String>) {
    let everything = all && source.is_empty();
    if matches!(source, "" | "line") {
        entry.line = with(&entry.line).unwrap_or_else(|| std::mem::take(&mut entry.line));
    }
    if (everything || source == "message")
        && let Some(changed) = entry.message.as_deref().and_then(&with)
    {
        entry.message = Some(changed);
    }
    let changed = entry.fields.iter_mut().filter(|field| everything || field.name == source);
    for field in changed {
        // A number may be what is looked for, too: a card's, a phone's.
        if let Some(text) = with(&field.value.text()) {
            field.value = Value::Text(text);
            field.of_line &= everything;
        }
    }
}

/// What an unquoted value is.
fn typed_value(text: &str) -> Value {
    let integer = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
    match (integer, text) {
        (Some(number), _) => Value::Integer(number),
        (None, "true") => Value::Boolean(true),
        (None, "false") => Value::Boolean(false),
        _ => Value::Text(text.to_string()),
    }
}

/// Adds what was read from `source`: fields under new names, or all with a prefix.
fn add(extract: &typed::Extract, found: Vec<(String, Value)>, entry: &mut Entry) {
    let of_line = matches!(extract.source.as_str(), "" | "line") && extract.prefix.is_empty();
    for (name, value) in found {
        let wanted = extract.fields.iter().filter(|(_, place)| **place == name);
        let names: Vec<String> = match extract.fields.is_empty() {
            true => vec![format!("{}{name}", extract.prefix)],
            false => wanted.map(|(name, _)| format!("{}{name}", extract.prefix)).collect(),
        };
        for new in names {
            let of_line = of_line && new == name;
            entry.fields.retain(|field| field.name != new);
            entry.fields.push(Field { name: new, value: value.clone(), of_line });
        }
    }
}

fn json(extract: &typed::Extract, entry: &mut Entry) {
    let Some(text) = entry.text(&extract.source) else { return };
    let Ok(serde_json::Value::Object(object)) = serde_json::from_str(text.trim()) else { return };
    let mut found = Vec::new();
    flatten("", object, &mut found);
    add(extract, found, entry);
}

fn flatten(prefix: &str, object: serde_json::Map<String, serde_json::Value>, found: &mut Vec<(String, Value)>) {
    for (name, value) in object {
        let name = format!("{prefix}{name}");
        match value {
            serde_json::Value::Null => {}
            serde_json::Value::Bool(value) => found.push((name, Value::Boolean(value))),
            serde_json::Value::Number(number) => {
                let float = number.as_f64().map(Value::Float);
                let value = number.as_i64().map(Value::Integer).or(float);
                found.extend(value.map(|value| (name, value)));
            }
            serde_json::Value::String(text) => found.push((name, Value::Text(text))),
            serde_json::Value::Object(inner) if !inner.is_empty() => flatten(&format!("{name}."), inner, found),
            other => found.push((name, Value::Text(other.to_string()))),
        }
    }
}

fn logfmt(extract: &typed::Extract, entry: &mut Entry) {
    let Some(text) = entry.text(&extract.source) else { return };
    let found = split_pairs(&text, " ", "=");
    add(extract, found, entry);
}

fn pairs(kv: &typed::Kv, entry: &mut Entry) {
    let Some(text) = entry.text(&kv.source) else { return };
    for (name, value) in split_pairs(&text, &kv.separator, &kv.assign) {
        entry.set(&format!("{}{name}", kv.prefix), value);
    }
}

/// Pairs of names and values; a value may stand between double or single quotes.
fn split_pairs(text: &str, separator: &str, assign: &str) -> Vec<(String, Value)> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once(assign) {
        // What stands before the name was no pair.
        let name = before.rsplit(separator).next().unwrap_or(before).trim();
        let quote = after.chars().next().filter(|first| matches!(first, '"' | '\''));
        let (value, after) = match quote.and_then(|quote| unquote(&after[1..], quote)) {
            Some((value, after)) => (Value::Text(value), after),
            None => {
                let (value, after) = after.split_once(separator).unwrap_or((after, ""));
                (typed_value(value.trim()), after)
            }
        };
        if !name.is_empty() && !name.contains(char::is_whitespace) {
            found.push((name.to_string(), value));
        }
        rest = after;
    }
    found
}

/// Reads up to the closing quote; gives what follows.
fn unquote(text: &str, quote: char) -> Option<(String, &str)> {
    let (mut value, mut escaped) = (String::new(), false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => {
                value.push(match letter {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    other => other,
                });
                escaped = false;
            }
            '\\' => escaped = true,
            _ if letter == quote => return Some((value, &text[at + 1..])),
            _ => value.push(letter),
        }
    }
    None
}

fn groups(source: &str, expression: &Regex, names: &[(usize, String)], entry: &mut Entry) {
    let text = entry.text(source).unwrap_or_default().into_owned();
    let Some(captures) = expression.captures(&text) else { return };
    let value = |captures: &Captures<'_>, index: usize| captures.get(index).map(|group| typed_value(group.as_str()));
    for (index, name) in names {
        if let Some(value) = value(&captures, *index) {
            entry.set(name, value);
        }
    }
}

fn rename(names: &[(String, String)], entry: &mut Entry) {
    for (old, new) in names {
        let Some(at) = entry.fields.iter().position(|field| field.name == *old) else { continue };
        let field = entry.fields.remove(at);
        entry.set(new, field.value);
    }
}

fn compose(pieces: &[Piece], entry: &Entry) -> String {
    let text = pieces.iter().map(|piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Field(name) => entry.text(name).unwrap_or_default().into_owned(),
    });
    text.collect()
}
