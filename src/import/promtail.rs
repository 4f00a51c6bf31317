//! Promtail's `pipeline_stages`. Source: docs/sources/send-data/promtail/stages and clients/pkg/logentry/stages of
//! grafana/loki 3.x.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_yaml_ng::{Mapping, Value};

use super::selector::{condition, equal, quote};
use super::{Made, Step, template};
use crate::pipeline::settings::{self, Stage};

/// Stages that are nested deeper are not looked at.
const DEPTH_MAX: usize = 8;

/// The pipelines of a whole configuration, of `pipeline_stages` alone, or of their list.
pub(super) fn pipelines(yaml: &Value) -> Vec<Made> {
    let of = |stages: &Value| stages.as_sequence().map(|stages| pipeline(stages));
    let configs = yaml.get("scrape_configs").and_then(Value::as_sequence);
    let Some(configs) = configs else {
        let stages = yaml.get("pipeline_stages").unwrap_or(yaml);
        return of(stages).into_iter().collect();
    };
    let made = configs.iter().filter_map(|config| {
        let name = text(config.get("job_name")).unwrap_or_default();
        let jobs = config.get("static_configs").and_then(Value::as_sequence).into_iter().flatten();
        let jobs: Vec<Option<String>> = jobs.map(|one| text(one.get("labels")?.get("job"))).collect();
        let mut made = Made { name, ..of(config.get("pipeline_stages")?)? };
        match jobs.split_first() {
            Some((Some(job), others)) if others.iter().all(|other| other.as_ref() == Some(job)) => {
                made.condition = equal("job", "=", job);
            }
            _ => made.comments.push(
                "which lines are meant is told by the targets of this scrape config: set match, such as 'job = \"…\"'"
                    .to_string(),
            ),
        }
        Some(made)
    });
    made.collect()
}

/// A pipeline of these stages.
pub(super) fn pipeline(stages: &[Value]) -> Made {
    Made { steps: steps(stages, 0), ..Made::default() }
}

fn steps(stages: &[Value], depth: usize) -> Vec<Step> {
    let mut made: Vec<Step> = Vec::new();
    for stage in stages {
        let one = stage.as_mapping().and_then(|mapping| mapping.iter().next());
        let Some((name, body)) = one.and_then(|(name, body)| Some((name.as_str()?, body))) else {
            made.push(missing("?", stage, "this is no stage"));
            continue;
        };
        let first = !made.iter().any(|step| matches!(step, Step::Stage(_)));
        match step(name, body, first, depth) {
            Ok(step) => made.extend(step),
            Err(why) => made.push(missing(name, body, &why)),
        }
    }
    made
}

/// What is said of a stage without equal, and the stage itself.
fn missing(name: &str, body: &Value, why: &str) -> Step {
    let yaml = serde_yaml_ng::to_string(body).unwrap_or_default();
    Step::Missing(format!("{name}: {why}\n{}", yaml.trim_end()))
}

pub(super) type Steps = Result<Vec<Step>, String>;

fn one(stage: Stage) -> Steps {
    Ok(vec![Step::Stage(stage)])
}

/// Translates one stage; **Errors**: why it has no equal.
fn step(name: &str, body: &Value, first: bool, depth: usize) -> Steps {
    match name {
        "docker" | "cri" => {
            Ok(vec![Step::Needless(format!("{name}: these lines are recognised and unwrapped anyway"))])
        }
        "json" => extract(body, "expressions").map(|extract| vec![Step::Stage(Stage::Json(extract))]),
        "logfmt" => extract(body, "mapping").map(|extract| vec![Step::Stage(Stage::Logfmt(extract))]),
        "regex" => {
            let expression = wanted(body, "expression")?;
            regex::Regex::new(&expression).map_err(|error| format!("the expression is none here: {error}"))?;
            one(Stage::Regex(settings::Regex { source: source(body), expression }))
        }
        "replace" => replace(body),
        "template" => template(body),
        "timestamp" => timestamp(body),
        "output" => one(Stage::Message(settings::Source { source: wanted(body, "source")? })),
        "labels" | "structured_metadata" => labels(name, body),
        "labeldrop" => one(Stage::Remove(settings::Names { fields: names(body) })),
        "labelallow" => one(Stage::Keep(settings::Names { fields: names(body) })),
        "static_labels" => {
            let told_later =
                body.as_mapping().into_iter().flatten().find(|(_, value)| matches!(value, Value::Tagged(_)));
            if let Some(name) = told_later.and_then(|(name, _)| text(Some(name))) {
                return Err(format!("'{name}' is told only when Alloy runs"));
            }
            let fields = pairs(body).into_iter().map(|(name, value)| (name, value.unwrap_or_default()));
            one(Stage::Labels(settings::Fields { fields: fields.collect() }))
        }
        "tenant" => one(Stage::Tenant(settings::Tenant {
            value: text(body.get("value")).unwrap_or_default(),
            source: text(body.get("source")).or(text(body.get("label"))).unwrap_or_default(),
        })),
        "match" => matching(body, depth),
        "multiline" if first => {
            let lines_max = body.get("max_lines").and_then(Value::as_u64).map(|count| count as usize);
            one(Stage::Multiline(settings::Multiline { first: wanted(body, "firstline")?, lines_max }))
        }
        "multiline" => Err("lines are joined before all other stages".to_string()),
        "drop" => drop(body),
        "sampling" => {
            let rate = body.get("rate").and_then(Value::as_f64).ok_or("it has no rate")?;
            one(Stage::Sample(settings::Sample { rate, by: String::new() }))
        }
        "decolorize" => one(Stage::Decolorize(settings::Source::default())),
        "pack" => Err("labels are columns, and need not be packed into the line".to_string()),
        "limit" => Err("rates are limited by tenant, in the server's settings".to_string()),
        "metrics" => Err("count with SQL: SELECT count(*) FROM logs WHERE …".to_string()),
        _ => Err("there is no such stage here".to_string()),
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        // Alloy's, which only it can tell.
        _ => None,
    }
}

fn wanted(body: &Value, name: &str) -> Result<String, String> {
    text(body.get(name)).ok_or_else(|| format!("it has no {name}"))
}

fn source(body: &Value) -> String {
    text(body.get("source")).unwrap_or_default()
}

fn pairs(body: &Value) -> Vec<(String, Option<String>)> {
    let none = Mapping::new();
    let pairs = body.as_mapping().unwrap_or(&none).iter();
    pairs
        .filter_map(|(name, value)| Some((text(Some(name))?, text(Some(value)).filter(|text| !text.is_empty()))))
        .collect()
}

fn names(body: &Value) -> Vec<String> {
    match body.as_sequence() {
        Some(names) => names.iter().filter_map(|name| text(Some(name))).collect(),
        None => pairs(body).into_iter().map(|(name, _)| name).collect(),
    }
}

fn extract(body: &Value, key: &str) -> Result<settings::Extract, String> {
    let mut fields = BTreeMap::new();
    for (name, path) in body.get(key).map(pairs).unwrap_or_default() {
        let path = path.unwrap_or_else(|| name.clone());
        let plain = path.trim_matches('"');
        if plain.contains(['[', '|', '(', '*', '@', '"', '`']) {
            return Err(format!("'{path}' is more than a name or names joined with dots"));
        }
        fields.insert(name, plain.replace("\".\"", "."));
    }
    Ok(settings::Extract { source: source(body), prefix: String::new(), fields })
}

/// Promtail replaces what the groups hold, not all that is found.
fn replace(body: &Value) -> Steps {
    let (expression, with) = (wanted(body, "expression")?, wanted(body, "replace").unwrap_or_default());
    if with.contains("{{") {
        return Err("templates in what is put in place".to_string());
    }
    let compiled = regex::Regex::new(&expression).map_err(|error| format!("the expression is none here: {error}"))?;
    let with = with.replace('$', "$$");
    let (expression, with) = match (compiled.captures_len(), group(&expression)) {
        (1, _) => (expression, with),
        (2, Some((before, inside, after))) => {
            (format!("(?P<before>{before})(?:{inside})(?P<after>{after})"), format!("${{before}}{with}${{after}}"))
        }
        _ => return Err("more than one group is replaced".to_string()),
    };
    regex::Regex::new(&expression).map_err(|error| format!("the expression is none here: {error}"))?;
    one(Stage::Replace(settings::Replace { source: source(body), expression, with }))
}

/// What stands before, in and after the only group, where it stands in no other brackets.
fn group(expression: &str) -> Option<(&str, &str, &str)> {
    let (mut depth, mut escaped, mut class, mut start) = (0usize, false, false, None);
    for (at, letter) in expression.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => class = true,
            ']' => class = false,
            _ if class => {}
            '|' if depth == 0 => return None,
            '(' => {
                let captures = !expression[at..].starts_with("(?") || expression[at..].starts_with("(?P<");
                if depth == 0 && captures {
                    start = Some(at);
                }
                depth += 1;
            }
            ')' => {
                depth = depth.checked_sub(1)?;
                let quantified = expression[at + 1..].starts_with(['*', '+', '?', '{']);
                if let Some(start) = start.filter(|_| depth == 0 && !quantified) {
                    let inside = &expression[start + 1..at];
                    let inside = inside
                        .strip_prefix("?P<")
                        .and_then(|named| named.split_once('>'))
                        .map_or(inside, |(_, rest)| rest);
                    return Some((&expression[..start], inside, &expression[at + 1..]));
                }
            }
            _ => {}
        }
    }
    None
}

/// `{{ .Value }}`, `{{ .name }}` and functions of them in a text.
fn template(body: &Value) -> Steps {
    let (name, template) = (wanted(body, "source")?, wanted(body, "template")?);
    if let Some(steps) = template::function(&name, &template) {
        return steps;
    }
    let (mut composed, mut rest) = (String::new(), template.as_str());
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, after) = after.split_once("}}").ok_or("the template has no end")?;
        let field = inside
            .trim_matches(['-', ' '])
            .strip_prefix('.')
            .filter(|field| field.chars().all(|letter| letter.is_alphanumeric() || letter == '_'));
        let field = field.ok_or_else(|| format!("'{{{{{inside}}}}}' is more than the name of a field"))?;
        composed.push_str(&format!("{before}${{{}}}", template::field(field, &name)));
        rest = after;
    }
    composed.push_str(rest);
    one(Stage::Labels(settings::Fields { fields: BTreeMap::from([(name, composed)]) }))
}

fn timestamp(body: &Value) -> Steps {
    let fallbacks = body.get("fallback_formats").and_then(Value::as_sequence).into_iter().flatten();
    let formats = std::iter::once(wanted(body, "format")?).chain(fallbacks.filter_map(|format| text(Some(format))));
    let formats = formats.map(|format| time_format(&format)).collect::<Result<Vec<_>, _>>()?;
    one(Stage::Timestamp(settings::Timestamp {
        source: wanted(body, "source")?,
        formats,
        zone: text(body.get("location")).unwrap_or_default(),
    }))
}

/// Go's layout as strftime's signs; the longer ones first.
const LAYOUT: [(&str, &str); 27] = [
    ("January", "%B"),
    ("Monday", "%A"),
    ("Z07:00", "%:z"),
    ("-07:00", "%:z"),
    ("Z0700", "%z"),
    ("-0700", "%z"),
    ("2006", "%Y"),
    ("Jan", "%b"),
    ("Mon", "%a"),
    (".000000000", "%.f"),
    (".999999999", "%.f"),
    (".000000", "%.f"),
    (".999999", "%.f"),
    (".000", "%.f"),
    (".999", "%.f"),
    ("_2", "%e"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("15", "%H"),
    ("PM", "%p"),
    ("2", "%-d"),
    ("3", "%-I"),
    ("1", "%-m"),
];

fn time_format(format: &str) -> Result<String, String> {
    Ok(match format {
        "RFC3339" | "RFC3339Nano" | "RFC1123Z" | "ANSIC" => "auto".to_string(),
        "Unix" => "unix".to_string(),
        "UnixMs" => "unix_ms".to_string(),
        "UnixUs" => "unix_us".to_string(),
        "UnixNs" => "unix_ns".to_string(),
        "RFC822Z" => "%d %b %y %H:%M %z".to_string(),
        "UnixDate" | "RFC822" | "RFC850" | "RFC1123" => {
            return Err(format!("{format} names a zone that no number stands for"));
        }
        "RubyDate" => "%a %b %d %H:%M:%S %z %Y".to_string(),
        layout if layout.contains("MST") => {
            return Err(format!("'{layout}' names a zone that no number stands for"));
        }
        layout => {
            let (mut signs, mut rest) = (String::new(), layout);
            while let Some(first) = rest.chars().next() {
                match LAYOUT.iter().find(|(go, _)| rest.starts_with(go)) {
                    Some((go, sign)) => {
                        signs.push_str(sign);
                        rest = &rest[go.len()..];
                    }
                    None => {
                        signs.push(first);
                        rest = &rest[first.len_utf8()..];
                    }
                }
            }
            signs
        }
    })
}

fn labels(stage: &str, body: &Value) -> Steps {
    let renamed = pairs(body).into_iter().filter_map(|(name, from)| {
        let from = from.filter(|from| *from != name)?;
        Some((name, format!("${{{from}}}")))
    });
    let fields: BTreeMap<String, String> = renamed.collect();
    if fields.is_empty() {
        let names = names(body).join(", ");
        return Ok(vec![Step::Needless(format!("{stage} {names}: extracted values are fields anyway"))]);
    }
    one(Stage::Labels(settings::Fields { fields }))
}

fn matching(body: &Value, depth: usize) -> Steps {
    let condition = condition(&wanted(body, "selector")?)?;
    if text(body.get("action")).as_deref() == Some("drop") {
        return one(Stage::Drop(settings::Drop { r#match: condition, ..settings::Drop::default() }));
    }
    if depth >= DEPTH_MAX {
        return Err("it is nested too deep".to_string());
    }
    let inner = body.get("stages").and_then(Value::as_sequence).map(|stages| steps(stages, depth + 1));
    let (mut stages, mut said) = (Vec::new(), Vec::new());
    for step in inner.unwrap_or_default() {
        match step {
            // Lines are joined by a pipeline of its own.
            Step::Stage(Stage::Multiline(_)) => {
                said.push(Step::Missing(
                    "multiline in a match: make a pipeline of it, with the same match".to_string(),
                ));
            }
            Step::Stage(stage) => stages.push(stage),
            other => said.push(other),
        }
    }
    said.push(Step::Stage(Stage::Match(settings::Match { r#match: condition, stages })));
    Ok(said)
}

fn drop(body: &Value) -> Steps {
    let sources = match body.get("source") {
        Some(Value::Sequence(sources)) => sources.iter().filter_map(|source| text(Some(source))).collect(),
        source => text(source).into_iter().filter(|source| !source.is_empty()).collect::<Vec<_>>(),
    };
    let (value, expression) = (text(body.get("value")), text(body.get("expression")));
    let condition = match (sources.as_slice(), value, expression) {
        ([], None, None) => String::new(),
        ([], None, Some(expression)) => format!("line =~ {}", quote(&expression)),
        ([source], None, None) => format!("{source} != \"\""),
        ([source], Some(value), None) => equal(source, "=", &value),
        ([source], None, Some(expression)) => format!("{source} =~ {}", quote(&expression)),
        _ => return Err("more than one source is looked at as one".to_string()),
    };
    let older_than = match text(body.get("older_than")) {
        Some(age) => Some(duration(&age).ok_or_else(|| format!("'{age}' is no duration"))?),
        None => None,
    };
    let longer_than = match text(body.get("longer_than")) {
        Some(size) => bytes(&size).ok_or_else(|| format!("'{size}' is no size"))?,
        None => 0,
    };
    if condition.is_empty() && older_than.is_none() && longer_than == 0 {
        return Err("it has no condition".to_string());
    }
    one(Stage::Drop(settings::Drop { r#match: condition, longer_than, older_than }))
}

fn duration(text: &str) -> Option<Duration> {
    Duration::try_from(text.parse::<jiff::SignedDuration>().ok()?).ok()
}

fn bytes(text: &str) -> Option<usize> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1 << 10,
        "mb" => 1 << 20,
        _ => return None,
    };
    text[..digits].parse::<usize>().ok()?.checked_mul(factor)
}
