//! Retention: which rule keeps a record, for how long, and which segments have outlived theirs. Pure; the writer removes.
//!
//! **Invariant**: a segment is written with the records of one rule only (its [`Class`]), so expiry is the unlinking of
//! whole files; and a segment goes only when no record that it may hold has to be kept any longer, also after the rules
//! were changed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::catalog::Segment;
use crate::record::Tenant;

/// Rules a user may give.
pub const RULES_MAX: usize = 256;
/// Longest `match` of a rule.
pub const MATCH_BYTES_MAX: usize = 4_096;
/// Most values of one `in (…)`.
const VALUES_MAX: usize = 256;
/// How often segments are checked, unless a rule keeps so briefly that it has to be more often.
const CHECK_EVERY_MAX: Duration = Duration::from_secs(60);
const CHECK_EVERY_MIN: Duration = Duration::from_millis(500);
const LEVELS: [&str; 6] = ["fatal", "error", "warn", "info", "debug", "trace"];
const DAY: Duration = Duration::from_secs(86_400);

/// The name of a rule in paths and in the catalog: 1 to 64 of `[a-z0-9-]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(Arc<str>);

impl Class {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The class of that name; `None` when it is no name of a class.
    pub fn parse(name: &str) -> Option<Class> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid = (1..=64).contains(&name.len()) && name.bytes().all(fits);
        valid.then(|| Class(name.into()))
    }

    /// The class of a user's rule: readable, and the same at every start as long as the match is the same.
    fn of_match(conditions: &[Condition]) -> Class {
        let text = conditions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        let mut slug = String::new();
        for word in conditions.iter().flat_map(|condition| &condition.values) {
            let letters = word.to_lowercase();
            let words = letters.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
            words.for_each(|word| slug.extend([word, "-"]));
        }
        slug.truncate(40);
        let slug = if slug.is_empty() { "rule-" } else { slug.as_str() };
        let hyphen = if slug.ends_with('-') { "" } else { "-" };
        Class(format!("{slug}{hyphen}{:08x}", crc32fast::hash(text.as_bytes())).into())
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How long a record is kept; ordered by length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// So long after its timestamp.
    For(Duration),
    /// Until somebody deletes it.
    Forever,
}

/// What is wrong with a rule.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The text of `match` is not understood.
    #[error("retention rule {rule}, match, column {column}: {message}")]
    Match {
        /// Which `[[retention]]`, from 1.
        rule: usize,
        /// Where in the text, from 1.
        column: usize,
        /// What was found, and what would be right.
        message: String,
    },
    /// The rule as a whole can't be.
    #[error("retention rule {rule}: {message}")]
    Rule {
        /// Which `[[retention]]`, from 1.
        rule: usize,
        /// What is wrong.
        message: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Level,
    Service,
    Tenant,
}

impl Subject {
    const ALL: [(Subject, &'static str); 3] =
        [(Subject::Level, "level"), (Subject::Service, "service"), (Subject::Tenant, "tenant")];
}

/// `level in ("debug", "trace")`; a value may hold `*`, and the empty one stands for an absent level or service.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    subject: Subject,
    values: Vec<String>,
}

impl Condition {
    fn matches(&self, value: Option<&str>) -> bool {
        self.values.iter().any(|pattern| glob(pattern, value.unwrap_or("")))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Subject::ALL.iter().find(|(subject, _)| *subject == self.subject).map_or("", |(_, name)| name);
        write!(f, "{name} in {:?}", self.values)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    class: Class,
    conditions: Vec<Condition>,
    keep: Keep,
}

impl Rule {
    fn matches(&self, tenant: &Tenant, level: Option<&str>, service: Option<&str>) -> bool {
        self.may_match(tenant, level) && self.conditions_on(Subject::Service).all(|found| found.matches(service))
    }

    /// Whether it matches some service.
    fn may_match(&self, tenant: &Tenant, level: Option<&str>) -> bool {
        self.conditions_on(Subject::Tenant).all(|found| found.matches(Some(tenant.as_str())))
            && self.conditions_on(Subject::Level).all(|found| found.matches(level))
    }

    fn conditions_on(&self, subject: Subject) -> impl Iterator<Item = &Condition> {
        self.conditions.iter().filter(move |condition| condition.subject == subject)
    }
}

/// The rules in force, the user's first; the first that matches a record keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

impl Default for Rules {
    /// Errors 30 days, warnings 14, information 7, debugging 3.
    fn default() -> Rules {
        let rule = |class: &str, levels: &[&str], days: u32| {
            let values = levels.iter().map(|level| (*level).to_owned()).collect();
            let conditions = vec![Condition { subject: Subject::Level, values }];
            Rule { class: Class(class.into()), conditions, keep: Keep::For(DAY * days) }
        };
        let mut others = rule("info", &[], 7);
        others.conditions.clear();
        Rules(vec![
            rule("error", &["error", "fatal"], 30),
            rule("warn", &["warn"], 14),
            rule("debug", &["debug", "trace"], 3),
            others,
        ])
    }
}

impl Rules {
    /// The user's rules (`match` and how long; `None`: for ever) before the default ones.
    pub fn new<'a>(given: impl IntoIterator<Item = (&'a str, Option<Duration>)>) -> Result<Rules, Error> {
        let mut rules: Vec<Rule> = Vec::new();
        for ((text, keep), rule) in given.into_iter().zip(1..) {
            let wrong = |message: String| Error::Rule { rule, message };
            if rule > RULES_MAX {
                return Err(wrong(format!("there are more than {RULES_MAX} rules")));
            }
            if keep.is_some_and(|keep| keep.is_zero()) {
                return Err(wrong("'keep' must be more than 0".to_owned()));
            }
            let conditions = parse(text).map_err(|(at, message)| Error::Match { rule, column: at + 1, message })?;
            let class = Class::of_match(&conditions);
            if let Some(before) = rules.iter().position(|known| known.class == class) {
                return Err(wrong(format!("rule {} has the same 'match', so this one is never reached", before + 1)));
            }
            rules.push(Rule { class, conditions, keep: keep.map_or(Keep::Forever, Keep::For) });
        }
        rules.extend(Rules::default().0);
        Ok(Rules(rules))
    }

    /// The class of a record: which records may share a segment.
    pub fn class_of(&self, tenant: &Tenant, level: Option<&str>, service: Option<&str>) -> &Class {
        self.class(self.place_of(tenant, level, service))
    }

    /// The place of a record's rule among the rules.
    pub(super) fn place_of(&self, tenant: &Tenant, level: Option<&str>, service: Option<&str>) -> usize {
        let found = self.0.iter().position(|rule| rule.matches(tenant, level, service));
        found.expect("the last default rule matches every record")
    }

    /// The class of the rule in that place.
    pub(super) fn class(&self, place: usize) -> &Class {
        &self.0[place].class
    }

    /// How long a segment is kept: the longest of what the present rules say of the records that it may hold.
    pub fn keep_of(&self, segment: &Segment) -> Keep {
        self.longest(segment, |_| false)
    }

    /// Stops at the first length that is `enough`.
    fn longest(&self, segment: &Segment, enough: impl Fn(Keep) -> bool) -> Keep {
        let mut longest = Keep::For(Duration::ZERO);
        for level in &segment.detail.levels {
            let level = level.as_deref();
            let found = match &segment.detail.services {
                Some(services) => {
                    let rule = |service: &Option<String>| self.place_of(&segment.tenant, level, service.as_deref());
                    services.iter().map(|service| self.0[rule(service)].keep).max()
                }
                None => self.of_any_service(&segment.tenant, level),
            };
            // A segment whose services are not told at all might hold anything.
            longest = longest.max(found.unwrap_or(Keep::Forever));
            if longest == Keep::Forever || enough(longest) {
                break;
            }
        }
        if segment.detail.levels.is_empty() { Keep::Forever } else { longest }
    }

    /// The longest that some service's record of this level is kept.
    fn of_any_service(&self, tenant: &Tenant, level: Option<&str>) -> Option<Keep> {
        let mut longest = None;
        for rule in self.0.iter().filter(|rule| rule.may_match(tenant, level)) {
            longest = longest.max(Some(rule.keep));
            if rule.conditions_on(Subject::Service).next().is_none() {
                break;
            }
        }
        longest
    }

    fn shortest(&self) -> Keep {
        self.0.iter().map(|rule| rule.keep).min().unwrap_or(Keep::Forever)
    }

    /// How often to look for expired segments.
    pub fn check_every(&self) -> Duration {
        match self.shortest() {
            Keep::For(keep) => (keep / 2).clamp(CHECK_EVERY_MIN, CHECK_EVERY_MAX),
            Keep::Forever => CHECK_EVERY_MAX,
        }
    }
}

/// The segments whose newest record has outlived its rule at `now_ns`.
pub fn expired<'a>(
    segments: impl IntoIterator<Item = &'a Arc<Segment>>,
    now_ns: i64,
    rules: &Rules,
) -> Vec<Arc<Segment>> {
    let is_over = |keep: Keep, max_ts: i64| match keep {
        Keep::Forever => false,
        Keep::For(keep) => {
            let keep_ns = i64::try_from(keep.as_nanos()).unwrap_or(i64::MAX);
            max_ts < now_ns.saturating_sub(keep_ns)
        }
    };
    let shortest = rules.shortest();
    let candidates = segments.into_iter().filter(|segment| is_over(shortest, segment.max_ts));
    let is_expired = |segment: &&Arc<Segment>| {
        let still_kept = |keep: Keep| !is_over(keep, segment.max_ts);
        !still_kept(rules.longest(segment, still_kept))
    };
    candidates.filter(is_expired).cloned().collect()
}

/// Whether `text` is what `pattern` says, `*` standing for anything.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let Some((middle, tail)) = rest.rsplit_once('*') else { return text.ends_with(rest) };
    for part in middle.split('*') {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(tail)
}

/// What is wrong, and at which byte.
type Wrong = (usize, String);

/// Reads `level = "debug" and service in ("a", "b-*")`; an empty text matches everything.
fn parse(text: &str) -> Result<Vec<Condition>, Wrong> {
    if text.len() > MATCH_BYTES_MAX {
        return Err((MATCH_BYTES_MAX, format!("the text is longer than {MATCH_BYTES_MAX} bytes")));
    }
    let mut reader = Reader { text, at: 0 };
    let mut conditions: Vec<Condition> = Vec::new();
    if reader.at_end() {
        return Ok(conditions);
    }
    loop {
        let start = reader.at;
        let condition = reader.condition()?;
        if conditions.iter().any(|known| known.subject == condition.subject) {
            return Err((start, "this is compared twice; list values as in (\"a\", \"b\")".to_owned()));
        }
        conditions.push(condition);
        if reader.at_end() {
            return Ok(conditions);
        }
        let start = reader.at;
        match reader.word() {
            "and" => {}
            other => return Err((start, format!("expected 'and' or the end, found '{other}'"))),
        }
        reader.at_end();
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Skips blanks.
    fn at_end(&mut self) -> bool {
        self.at = self.text.len() - self.rest().trim_start().len();
        self.at == self.text.len()
    }

    fn take(&mut self, symbol: char) -> bool {
        self.at_end();
        let found = self.rest().starts_with(symbol);
        self.at += if found { symbol.len_utf8() } else { 0 };
        found
    }

    /// Letters, or else the next character.
    fn word(&mut self) -> &'a str {
        self.at_end();
        let rest = self.rest();
        let letters = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
        let bytes = if letters > 0 { letters } else { rest.chars().next().map_or(0, char::len_utf8) };
        self.at += bytes;
        &rest[..bytes]
    }

    fn condition(&mut self) -> Result<Condition, Wrong> {
        let start = self.at;
        let name = self.word();
        let Some((subject, _)) = Subject::ALL.iter().find(|(_, known)| *known == name) else {
            return Err((start, format!("'{name}' can't be matched; level, service and tenant can")));
        };
        let mut values = Vec::new();
        if self.take('=') {
            values.push(self.value(*subject)?);
            return Ok(Condition { subject: *subject, values });
        }
        let start = self.at;
        if self.word() != "in" || !self.take('(') {
            return Err((start, format!("expected {name} = \"…\" or {name} in (\"…\", \"…\")")));
        }
        loop {
            values.push(self.value(*subject)?);
            if values.len() > VALUES_MAX {
                return Err((self.at, format!("there are more than {VALUES_MAX} values")));
            }
            if self.take(')') {
                return Ok(Condition { subject: *subject, values });
            }
            if !self.take(',') {
                return Err((self.at, "expected ',' or ')'".to_owned()));
            }
        }
    }

    /// A text in quotes, single or double.
    fn value(&mut self, subject: Subject) -> Result<String, Wrong> {
        self.at_end();
        let start = self.at;
        let quote = self.rest().chars().next().filter(|first| matches!(first, '"' | '\''));
        let quote = quote.ok_or_else(|| (start, "expected a value in quotes".to_owned()))?;
        let end = self.rest()[1..].find(quote).ok_or_else(|| (start, "the closing quote is missing".to_owned()))?;
        let value = &self.rest()[1..=end];
        self.at += end + 2;
        let is_glob = value.contains('*');
        match subject {
            Subject::Level if !value.is_empty() && !is_glob && !LEVELS.contains(&value) => {
                Err((start, format!("'{value}' is no level; levels are {}, and \"\" for none", LEVELS.join(", "))))
            }
            Subject::Tenant if !is_glob && Tenant::parse(value).is_none() => {
                Err((start, format!("'{value}' can't be a tenant")))
            }
            _ => Ok(value.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::catalog::tests::segment;

    const NS_PER_DAY: i64 = 86_400_000_000_000;

    fn days(days: u32) -> Option<Duration> {
        Some(DAY * days)
    }

    fn rules(given: &[(&str, Option<Duration>)]) -> Rules {
        Rules::new(given.iter().copied()).unwrap()
    }

    #[test]
    fn the_default_classes_are_those_of_the_levels() {
        let tenant = Tenant::default_tenant();
        let cases = [
            (Some("fatal"), "error"),
            (Some("error"), "error"),
            (Some("warn"), "warn"),
            (Some("info"), "info"),
            (None, "info"),
            (Some("debug"), "debug"),
            (Some("trace"), "debug"),
        ];
        for (level, class) in cases {
            assert_eq!(Rules::default().class_of(&tenant, level, Some("a")).as_str(), class, "{level:?}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_keeps_the_record() {
        let rules = rules(&[
            (r#"level = "debug" and service = "web-*" and tenant = "t1""#, days(1)),
            (r#"service in ("pay", 'audit')"#, None),
            (r#"level in ("info", "") and tenant = "t2""#, days(2)),
        ]);
        let keep = |tenant: &str, level: Option<&str>, service: Option<&str>| {
            rules.0[rules.place_of(&Tenant::parse(tenant).unwrap(), level, service)].keep
        };
        assert_eq!(keep("t1", Some("debug"), Some("web-1")), Keep::For(DAY));
        assert_eq!(keep("t2", Some("debug"), Some("web-1")), Keep::For(DAY * 3));
        assert_eq!(keep("t1", Some("debug"), Some("pay")), Keep::Forever);
        assert_eq!(keep("t1", Some("info"), Some("audit")), Keep::Forever);
        assert_eq!(keep("t2", None, None), Keep::For(DAY * 2));
        assert_eq!(keep("t1", None, None), Keep::For(DAY * 7));
    }

    #[test]
    fn a_class_is_a_stable_and_safe_name() {
        let class = |text: &str| Class::of_match(&parse(text).unwrap()).as_str().to_owned();
        let first = class(r#"level = "debug" and service = "web-*""#);
        assert!(first.starts_with("debug-web-"), "{first}");
        assert_eq!(first, class(r#"  level  = 'debug'   and service in ("web-*")"#), "the spelling does not matter");
        assert_ne!(first, class(r#"level = "debug" and service = "web*""#));
        for text in ["", "service = \"\"", "service = \"../..//Ä\"", &format!("service = \"{}\"", "x".repeat(500))] {
            let name = class(text);
            assert!(Class::parse(&name).is_some(), "{name}");
        }
        assert_eq!(Class::parse("error").unwrap(), *Rules::default().class(0));
        assert!(Class::parse("").is_none() && Class::parse("../x").is_none() && Class::parse("A").is_none());
    }

    #[test]
    fn mistakes_are_placed() {
        let cases = [
            (r#"levl = "debug""#, "retention rule 1, match, column 1: 'levl' can't be matched"),
            (r#"level = debug"#, "column 9: expected a value in quotes"),
            (r#"level = "debug"#, "column 9: the closing quote is missing"),
            (r#"level = "eror""#, "column 9: 'eror' is no level; levels are fatal, error,"),
            (r#"level = "info" or service = "a""#, "column 16: expected 'and' or the end, found 'or'"),
            (r#"level = "info" and level = "warn""#, "column 20: this is compared twice"),
            (r#"level = "info" and "#, "column 20: '' can't be matched"),
            (r#"service ~ "a""#, "column 9: expected service = "),
            (r#"service in "a""#, "column 9: expected service = "),
            (r#"service in ("a" "b")"#, "column 17: expected ',' or ')'"),
            (r#"tenant = "a/b""#, "column 10: 'a/b' can't be a tenant"),
        ];
        for (text, expect) in cases {
            let error = Rules::new([(text, days(1))]).expect_err(text).to_string();
            assert!(error.contains(expect), "{text}: {error}");
        }
        let error = Rules::new([("", Some(Duration::ZERO))]).unwrap_err().to_string();
        assert_eq!(error, "retention rule 1: 'keep' must be more than 0");
        let error = Rules::new([("", days(1)), (" ", days(2))]).unwrap_err().to_string();
        assert!(error.starts_with("retention rule 2: rule 1 has the same 'match'"), "{error}");
    }

    #[test]
    fn globs() {
        let cases = [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*b", "a", false),
            ("ab*bc", "abc", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxyyc", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, text, expect) in cases {
            assert_eq!(glob(pattern, text), expect, "{pattern} {text}");
        }
    }

    #[test]
    fn a_segment_expires_when_its_longest_kept_record_does() {
        let rules = rules(&[(r#"level = "debug" and service = "web""#, days(1)), (r#"service = "audit""#, None)]);
        let some = |names: &[&str]| Some(names.iter().map(|name| Some((*name).to_owned())).collect::<Vec<_>>());
        // Levels, services, and after how many days it goes.
        let cases = [
            (some(&["debug"]), some(&["web"]), Some(1)),
            (some(&["debug"]), some(&["web", "shop"]), Some(3)),
            (some(&["debug", "error"]), some(&["web"]), Some(30)),
            (some(&["debug"]), some(&["web", "audit"]), None),
            (some(&["debug"]), None, None),
            (Some(vec![None]), some(&["web"]), Some(7)),
            (Some(vec![]), some(&["web"]), None),
        ];
        for (levels, services, expect) in cases {
            let mut found = segment(1);
            (found.min_ts, found.max_ts) = (0, 0);
            (found.detail.levels, found.detail.services) = (levels.clone().unwrap(), services.clone());
            let found = [Arc::new(found)];
            let first = (0..100).find(|day| !expired(&found, day * NS_PER_DAY + 1, &rules).is_empty());
            assert_eq!(first, expect, "{levels:?} {services:?}");
        }
    }

    #[test]
    fn short_rules_are_checked_often() {
        assert_eq!(Rules::default().check_every(), Duration::from_secs(60));
        assert_eq!(rules(&[("", Some(Duration::from_secs(10)))]).check_every(), Duration::from_secs(5));
        assert_eq!(rules(&[("", Some(Duration::from_millis(10)))]).check_every(), Duration::from_millis(500));
    }
}
