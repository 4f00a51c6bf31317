//! Pipelines as they are typed in the config; nothing is compiled or checked here but names and types.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[[pipeline]]`: which lines, and what is done to them.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table with match and stages; in the config file [[pipeline]] starts one")]
pub struct Pipeline {
    /// What errors and `quiver parse --explain` call it.
    #[serde(default)]
    pub name: String,
    /// Which lines; empty: all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub r#match: String,
    /// What is done, in this order.
    pub stages: Vec<Stage>,
}

/// One stage: a table with one key, its kind.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Stages for some of the lines only.
    Match(Match),
    /// Members of a JSON object become fields.
    Json(Extract),
    /// `key=value` becomes fields.
    Logfmt(Extract),
    /// Pairs with other signs become fields.
    Kv(Kv),
    /// Named groups become fields.
    Regex(Regex),
    /// As `regex`, written with grok's patterns.
    Grok(Grok),
    /// What stands between fixed texts becomes fields.
    Dissect(Dissect),
    /// A field is the time.
    Timestamp(Timestamp),
    /// A field is the level.
    Level(Level),
    /// A field is the message.
    Message(Source),
    /// Fields of fixed or composed texts.
    Labels(Fields),
    /// Fields get other names.
    Rename(Fields),
    /// Fields are removed.
    Remove(Names),
    /// All other fields are removed.
    Keep(Names),
    /// Lines are dropped.
    Drop(Drop),
    /// Only a part of the lines is kept.
    Sample(Sample),
    /// Secrets and personal data are made unreadable.
    Mask(Mask),
    /// A part of a text is replaced.
    Replace(Replace),
    /// Lines are joined to one record.
    Multiline(Multiline),
    /// The records are another tenant's.
    Tenant(Tenant),
    /// ANSI's colours are removed.
    Decolorize(Source),
    /// Letters are made small or large.
    Case(Cased),
}

impl Stage {
    /// All keys, in the order of the variants.
    pub const KINDS: [&'static str; 21] = [
        "match",
        "json",
        "logfmt",
        "kv",
        "regex",
        "grok",
        "dissect",
        "timestamp",
        "level",
        "message",
        "labels",
        "rename",
        "remove",
        "keep",
        "drop",
        "sample",
        "mask",
        "replace",
        "multiline",
        "tenant",
        "decolorize",
    ];

    /// Its key in the config.
    pub fn kind(&self) -> &'static str {
        match self {
            Stage::Match(_) => "match",
            Stage::Json(_) => "json",
            Stage::Logfmt(_) => "logfmt",
            Stage::Kv(_) => "kv",
            Stage::Regex(_) => "regex",
            Stage::Grok(_) => "grok",
            Stage::Dissect(_) => "dissect",
            Stage::Timestamp(_) => "timestamp",
            Stage::Level(_) => "level",
            Stage::Message(_) => "message",
            Stage::Labels(_) => "labels",
            Stage::Rename(_) => "rename",
            Stage::Remove(_) => "remove",
            Stage::Keep(_) => "keep",
            Stage::Drop(_) => "drop",
            Stage::Sample(_) => "sample",
            Stage::Mask(_) => "mask",
            Stage::Replace(_) => "replace",
            Stage::Multiline(_) => "multiline",
            Stage::Tenant(_) => "tenant",
            Stage::Decolorize(_) => "decolorize",
            Stage::Case(_) => "case",
        }
    }
}

/// `match`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// Which lines.
    pub r#match: String,
    /// What is done to them.
    pub stages: Vec<Stage>,
}

/// `json`, `logfmt`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Extract {
    /// The field that is read; empty: the line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// What stands before the names of the fields found.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// New names and where each is found (nested names joined with dots); empty: all, named as they are.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

/// `kv`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kv {
    /// The field that is read; empty: the line.
    pub source: String,
    /// What stands before the names of the fields found.
    pub prefix: String,
    /// Between pairs; empty: a blank.
    pub separator: String,
    /// Between name and value; empty: `=`.
    pub assign: String,
}

/// `regex`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Regex {
    /// The field that is read; empty: the line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// With named groups, `(?P<name>…)`.
    pub expression: String,
}

/// `grok`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Grok {
    /// The field that is read; empty: the line.
    #[serde(default)]
    pub source: String,
    /// With `%{PATTERN:name}`.
    pub pattern: String,
    /// Patterns of one's own, by name.
    #[serde(default)]
    pub patterns: BTreeMap<String, String>,
}

/// `dissect`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Dissect {
    /// The field that is read; empty: the line.
    #[serde(default)]
    pub source: String,
    /// With `%{name}`; `%{}` and `%{?name}` are skipped, `%{name->}` takes the blanks after it.
    pub pattern: String,
}

/// `timestamp`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Timestamp {
    /// The field that is read.
    pub source: String,
    /// `auto`, `unix`, `unix_ms`, `unix_us`, `unix_ns`, or strftime's signs (`%Y-%m-%d %H:%M:%S%.f`).
    pub formats: Vec<String>,
    /// Zone of times that name none, such as `Europe/Berlin`; empty: UTC.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
}

/// `level`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// The field that is read.
    pub source: String,
    /// What its values mean, where that is not known; `*` stands for any characters.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
}

/// `message`, `decolorize`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// The field; empty: the line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// `labels`, `rename`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// By name: a text, in which `${name}` stands for a field (`labels`); the new name (`rename`).
    pub fields: BTreeMap<String, String>,
}

/// `remove`, `keep`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    /// Names; `*` stands for any characters.
    pub fields: Vec<String>,
}

/// `drop`: all conditions that are given must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drop {
    /// Which lines; empty: all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#match: String,
    /// Lines of more bytes; 0: any.
    #[serde(skip_serializing_if = "is_zero")]
    pub longer_than: usize,
    /// Lines whose time is further back; absent: any.
    #[serde(skip_serializing_if = "Option::is_none", with = "age")]
    pub older_than: Option<Duration>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// `sample`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Which part is kept, from 0 to 1.
    pub rate: f64,
    /// The field whose values are kept or dropped together; empty: the line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
}

/// `mask`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mask {
    /// The field; empty: the line and every field.
    pub source: String,
    /// `email`, `card`, `iban`, `ipv4`, `ipv6`, `phone`, `jwt`, `bearer`, `password`, `aws_key`, `private_key`.
    pub kinds: Vec<String>,
    /// Expressions of one's own.
    pub expressions: Vec<String>,
    /// What is put in place; empty: `***`.
    pub with: String,
}

/// `replace`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Replace {
    /// The field; empty: the line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// What is looked for.
    pub expression: String,
    /// What is put in place; `$1` and `${name}` are groups.
    pub with: String,
}

/// `case`
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cased {
    /// The field; empty: the line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// What its letters become.
    pub to: Case,
}

/// Letters' case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Case {
    /// Small letters.
    Lower,
    /// Large letters.
    Upper,
}

/// `multiline`: only as the first stage of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Multiline {
    /// What the first line of a record matches.
    pub first: String,
    /// Most lines of a record; absent: 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines_max: Option<usize>,
}

/// `tenant`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tenant {
    /// The tenant's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Or the field that holds it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// Ages: `"24h"`, `"7d"`.
mod age {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        let text = String::deserialize(from)?;
        let days = text.trim().strip_suffix('d').and_then(|days| days.parse::<u64>().ok());
        let seconds = days.and_then(|days| days.checked_mul(86_400)).map(Duration::from_secs);
        let age = seconds.or_else(|| Duration::try_from(text.trim().parse::<jiff::SignedDuration>().ok()?).ok());
        age.map(Some).ok_or_else(|| D::Error::custom(format!("'{text}' is not an age such as \"24h\" or \"7d\"")))
    }

    pub fn serialize<S: Serializer>(age: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{}s", age.unwrap_or_default().as_secs()))
    }
}
