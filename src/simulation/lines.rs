//! Lines as services write them, with what is known of each: the decoder is not asked, so its answer can be checked.

use jiff::Timestamp;

use super::random::Random;

pub(super) const NS_PER_SECOND: i64 = 1_000_000_000;
pub(super) const NS_PER_HOUR: i64 = 3_600 * NS_PER_SECOND;
pub(super) const NS_PER_DAY: i64 = 24 * NS_PER_HOUR;

pub(super) const SERVICES: [&str; 4] = ["api", "web", "batch-7", "käse"];
/// As it is written, and as it is normalised.
const LEVELS: [(&str, &str); 11] = [
    ("info", "info"),
    ("INFO", "info"),
    ("information", "info"),
    ("warn", "warn"),
    ("WARNING", "warn"),
    ("error", "error"),
    ("Err", "error"),
    ("debug", "debug"),
    ("DEBUG", "debug"),
    ("trace", "trace"),
    ("critical", "fatal"),
];
/// None of them says a level, or looks like a field.
const WORDS: [&str; 14] = [
    "alpha",
    "bravo",
    "connection",
    "refused",
    "Timeout",
    "while",
    "reading",
    "upstream",
    "cache42",
    "x",
    "GET",
    "listening",
    "öäü",
    "10.0.0.7",
];
/// Of a JSON string: as it is written, and what it means.
const ESCAPED: [(&str, &str); 10] = [
    (r#"\"quoted\""#, "\"quoted\""),
    (r"back\\slash", r"back\slash"),
    (r"two\nlines", "two\nlines"),
    (r"caf\u00e9", "café"),
    ("café", "café"),
    (r"a\/b", "a/b"),
    ("a/b", "a/b"),
    ("😀", "😀"),
    (r"\ud83d\ude00", "😀"),
    ("⟨s x⟩", "⟨s x⟩"),
];
/// Values of fields that nobody asks for, in all the ways that JSON allows.
const ODD_VALUES: [&str; 18] = [
    "1",
    "-0",
    "1.50",
    "1e3",
    "1E+400",
    "0.1",
    "9007199254740993",
    "18446744073709551616",
    "true",
    "false",
    "null",
    "\"\"",
    "\"text\"",
    "[]",
    "[1,\"a\",null]",
    "{}",
    "{\"id\":5,\"tags\":[\"a\",{\"b\":1.0}]}",
    "\"12\"",
];

/// The value of the field `code`, whose type clashes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Code {
    Number(f64),
    Other,
}

/// What a line says.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// When; none: when it came.
    pub ts: Option<i64>,
    pub level: Option<&'static str>,
    pub service: Option<&'static str>,
    pub trace: Option<String>,
    pub message: String,
    /// Its number, where that is a field.
    pub n: Option<u64>,
    pub code: Option<Code>,
    /// Further fields with text in them.
    pub fields: Vec<(String, String)>,
}

/// How a batch is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    JsonLines,
    Text,
}

/// A line that no other one equals, for `n` is in it.
pub(super) fn line(random: &mut Random, body: Body, n: u64, now_ns: i64) -> (String, Facts) {
    match (body, random.below(10)) {
        (Body::Text, 0..4) => plain(random, n),
        (Body::Text, 4..8) => pairs(random, n, now_ns),
        _ => json(random, n, now_ns),
    }
}

/// A time near now, sometimes late, seldom very late or a little early; in one of four resolutions.
fn time(random: &mut Random, now_ns: i64) -> i64 {
    let age = match random.below(100) {
        0..60 => random.between(0, 2 * NS_PER_HOUR),
        60..80 => random.between(0, 2 * NS_PER_DAY),
        80..93 => random.between(2 * NS_PER_DAY, 6 * NS_PER_DAY),
        93..95 => random.between(6 * NS_PER_DAY, 40 * NS_PER_DAY),
        // Many at the same moment: ties.
        95..98 => NS_PER_HOUR + now_ns % NS_PER_HOUR,
        _ => -random.between(0, 2 * NS_PER_HOUR),
    };
    let unit = random.pick(&[1, 1_000, 1_000_000, NS_PER_SECOND]);
    (now_ns - age).div_euclid(unit) * unit
}

fn rfc3339(ns: i64) -> String {
    Timestamp::from_nanosecond(i128::from(ns)).map_or_else(|_| String::new(), |time| time.to_string())
}

fn words(random: &mut Random, count: u64) -> String {
    (0..count).map(|_| random.pick(&WORDS)).collect::<Vec<_>>().join(" ")
}

fn hex(random: &mut Random, digits: usize) -> String {
    (0..digits).map(|_| char::from(random.pick(b"0123456789abcdef"))).collect()
}

/// Trace ids repeat, so that asking for one finds several records.
fn trace(random: &mut Random) -> String {
    let known = Random::new(random.below(40)).next();
    let id = hex(&mut Random::new(known), 32);
    if random.percent(5) { id.to_uppercase() } else { id }
}

fn plain(random: &mut Random, n: u64) -> (String, Facts) {
    let count = 1 + random.below(6);
    let text = format!("{} number {n} {}", words(random, count), random.pick(&WORDS));
    (text.clone(), Facts { message: text, ..Facts::default() })
}

fn pairs(random: &mut Random, n: u64, now_ns: i64) -> (String, Facts) {
    let mut facts = Facts { n: Some(n), ..Facts::default() };
    let mut parts = Vec::new();
    if random.percent(90) {
        let ns = time(random, now_ns);
        facts.ts = Some(ns);
        parts.push(format!("ts={}", rfc3339(ns)));
    }
    if random.percent(90) {
        let (written, level) = random.pick(&LEVELS);
        facts.level = Some(level);
        parts.push(format!("level={written}"));
    }
    if random.percent(80) {
        let service = random.pick(&SERVICES);
        facts.service = Some(service);
        parts.push(format!("service={service}"));
    }
    let count = 2 + random.below(6);
    facts.message = words(random, count);
    parts.push(format!("msg=\"{}\"", facts.message));
    parts.push(format!("n={n}"));
    if random.percent(30) {
        let id = trace(random);
        parts.push(format!("trace_id={id}"));
        facts.trace = Some(id);
    }
    if random.percent(30) {
        let (written, code) = random.pick(&[("404", Some(404.0)), ("7", Some(7.0)), ("E404", None)]);
        parts.push(format!("code={written}"));
        facts.code = Some(code.map_or(Code::Other, Code::Number));
    }
    (parts.join(" "), facts)
}

fn json(random: &mut Random, n: u64, now_ns: i64) -> (String, Facts) {
    let mut facts = Facts { n: Some(n), ..Facts::default() };
    let mut members: Vec<(String, String)> = Vec::new();
    let mut member = |name: &str, value: String| members.push((name.to_owned(), value));
    if random.percent(92) {
        let ns = time(random, now_ns);
        facts.ts = Some(ns);
        member(random.pick(&["ts", "timestamp", "time"]), format!("\"{}\"", rfc3339(ns)));
    }
    if random.percent(90) {
        let (written, level) = random.pick(&LEVELS);
        facts.level = Some(level);
        member(random.pick(&["level", "severity"]), format!("\"{written}\""));
    }
    if random.percent(85) {
        let service = random.pick(&SERVICES);
        facts.service = Some(service);
        member("service", format!("\"{service}\""));
    }
    let (written, message) = message(random);
    facts.message = message;
    member(random.pick(&["msg", "message"]), format!("\"{written}\""));
    member("n", n.to_string());
    if random.percent(40) {
        let id = trace(random);
        member("trace_id", format!("\"{id}\""));
        facts.trace = Some(id);
    }
    if random.percent(50) {
        let (written, code) = code(random);
        member("code", written.to_owned());
        facts.code = Some(code);
    }
    if random.percent(30) {
        let id = hex(random, 32);
        let uuid = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-");
        member("request_id", format!("\"{}\"", if random.percent(3) { uuid.to_uppercase() } else { uuid }));
    }
    for name in ["status", "dur", "ok", "user", "empty"] {
        if random.percent(20) {
            member(name, random.pick(&ODD_VALUES).to_owned());
        }
    }
    if random.percent(4) {
        let first = random.below(400);
        for field in first..first + random.below(120) {
            let (name, value) = (format!("f{field}"), format!("v{}", random.below(5)));
            member(&name, format!("\"{value}\""));
            facts.fields.push((name, value));
        }
    }
    if random.percent(25) {
        let at = random.place(members.len());
        members.rotate_left(at);
    }
    let (colon, comma, open) =
        random.weighted(&[(8, (":", ",", "{")), (2, (": ", ", ", "{")), (1, (" :", " ,\t", "{ "))]);
    let inner: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\"{colon}{value}")).collect();
    (format!("{open}{}}}", inner.join(comma)), facts)
}

/// A message as it is written in JSON, and what it means.
fn message(random: &mut Random) -> (String, String) {
    let count = if random.percent(1) { 2_000 + random.below(6_000) } else { 1 + random.below(8) };
    let (mut written, mut meant) = (String::new(), String::new());
    for at in 0..count {
        let (raw, text) = if random.percent(6) {
            random.pick(&ESCAPED)
        } else {
            let word = random.pick(&WORDS);
            (word, word)
        };
        if at > 0 {
            written.push(' ');
            meant.push(' ');
        }
        written.push_str(raw);
        meant.push_str(text);
    }
    (written, meant)
}

fn code(random: &mut Random) -> (&'static str, Code) {
    let number = |written, number| (written, Code::Number(number));
    match random.below(20) {
        0..10 => number("404", 404.0),
        10..14 => number("7", 7.0),
        14 => number("404.0", 404.0),
        15 => number("1.5", 1.5),
        16 => number("9007199254740993", 9_007_199_254_740_993.0),
        17 => ("\"E404\"", Code::Other),
        18 => ("true", Code::Other),
        _ => ("null", Code::Other),
    }
}
