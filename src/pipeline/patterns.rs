//! Patterns that are no regular expressions: grok's, which become one, and dissect's.

use std::collections::BTreeMap;

use regex::Regex;

/// How deep grok's patterns may be nested.
const DEPTH_MAX: usize = 16;
/// Longest expression that a grok pattern may become.
const EXPRESSION_BYTES_MAX: usize = 64 << 10;

/// Logstash's legacy patterns that logs are written with, with look-around left out, which linear matching does not have.
/// Source: logstash-plugins/logstash-patterns-core, patterns/legacy.
const GROK: &[(&str, &str)] = &[
    ("USERNAME", r"[a-zA-Z0-9._-]+"),
    ("USER", r"%{USERNAME}"),
    ("EMAILLOCALPART", r"[a-zA-Z0-9!#$%&'*+\-/=?^_`{|}~.]+"),
    ("EMAILADDRESS", r"%{EMAILLOCALPART}@%{HOSTNAME}"),
    ("INT", r"[+-]?[0-9]+"),
    ("BASE10NUM", r"[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"),
    ("NUMBER", r"%{BASE10NUM}"),
    ("BASE16NUM", r"[+-]?(?:0x)?[0-9A-Fa-f]+"),
    ("POSINT", r"\b[1-9][0-9]*\b"),
    ("NONNEGINT", r"\b[0-9]+\b"),
    ("WORD", r"\b\w+\b"),
    ("NOTSPACE", r"\S+"),
    ("SPACE", r"\s*"),
    ("DATA", r".*?"),
    ("GREEDYDATA", r".*"),
    ("QUOTEDSTRING", r#"(?:"(?:\\.|[^\\"])*"|'(?:\\.|[^\\'])*'|`(?:\\.|[^\\`])*`)"#),
    ("QS", r"%{QUOTEDSTRING}"),
    ("UUID", r"[A-Fa-f0-9]{8}-(?:[A-Fa-f0-9]{4}-){3}[A-Fa-f0-9]{12}"),
    ("MAC", r"(?:[A-Fa-f0-9]{2}[:-]){5}[A-Fa-f0-9]{2}|(?:[A-Fa-f0-9]{4}\.){2}[A-Fa-f0-9]{4}"),
    ("IPV6", r"(?:[0-9A-Fa-f]{0,4}:){2,7}(?:%{IPV4}|[0-9A-Fa-f]{0,4})(?:%\w+)?"),
    ("IPV4", r"(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"),
    ("IP", r"(?:%{IPV6}|%{IPV4})"),
    ("HOSTNAME", r"\b[0-9A-Za-z][0-9A-Za-z-]{0,62}(?:\.[0-9A-Za-z][0-9A-Za-z-]{0,62})*\.?"),
    ("IPORHOST", r"(?:%{IP}|%{HOSTNAME})"),
    ("HOSTPORT", r"%{IPORHOST}:%{POSINT}"),
    ("PATH", r"(?:%{UNIXPATH}|%{WINPATH})"),
    ("UNIXPATH", r"(?:/[\w_%!$@:.,+~-]*)+"),
    ("TTY", r"/dev/(?:pts|tty(?:[pq])?)(?:\w+)?/?[0-9]+"),
    ("WINPATH", r"(?:[A-Za-z]+:|\\)(?:\\[^\\?*]*)+"),
    ("URIPROTO", r"[A-Za-z](?:[A-Za-z0-9+\-.]+)+"),
    ("URIHOST", r"%{IPORHOST}(?::%{POSINT})?"),
    ("URIPATH", r"(?:/[A-Za-z0-9$.+!*'(){},~:;=@#%&_\-]*)+"),
    ("URIPARAM", r"\?[A-Za-z0-9$.+!*'|(){},~@#%&/=:;_?\-\[\]<>]*"),
    ("URIPATHPARAM", r"%{URIPATH}(?:%{URIPARAM})?"),
    ("URI", r"%{URIPROTO}://(?:%{USER}(?::[^@]*)?@)?(?:%{URIHOST})?(?:%{URIPATHPARAM})?"),
    (
        "MONTH",
        r"\b(?:[Jj]an(?:uary)?|[Ff]eb(?:ruary)?|[Mm]ar(?:ch)?|[Aa]pr(?:il)?|[Mm]ay|[Jj]une?|[Jj]uly?|[Aa]ug(?:ust)?|[Ss]ep(?:tember)?|[Oo]ct(?:ober)?|[Nn]ov(?:ember)?|[Dd]ec(?:ember)?)\b",
    ),
    ("MONTHNUM", r"(?:0?[1-9]|1[0-2])"),
    ("MONTHNUM2", r"(?:0[1-9]|1[0-2])"),
    ("MONTHDAY", r"(?:0[1-9]|[12][0-9]|3[01]|[1-9])"),
    ("DAY", r"(?:Mon(?:day)?|Tue(?:sday)?|Wed(?:nesday)?|Thu(?:rsday)?|Fri(?:day)?|Sat(?:urday)?|Sun(?:day)?)"),
    ("YEAR", r"(?:\d\d){1,2}"),
    ("HOUR", r"(?:2[0123]|[01]?[0-9])"),
    ("MINUTE", r"[0-5][0-9]"),
    ("SECOND", r"(?:(?:[0-5]?[0-9]|60)(?:[:.,][0-9]+)?)"),
    ("TIME", r"%{HOUR}:%{MINUTE}(?::%{SECOND})"),
    ("DATE_US", r"%{MONTHNUM}[/-]%{MONTHDAY}[/-]%{YEAR}"),
    ("DATE_EU", r"%{MONTHDAY}[./-]%{MONTHNUM}[./-]%{YEAR}"),
    ("ISO8601_TIMEZONE", r"(?:Z|[+-]%{HOUR}(?::?%{MINUTE}))"),
    ("ISO8601_SECOND", r"%{SECOND}"),
    ("TIMESTAMP_ISO8601", r"%{YEAR}-%{MONTHNUM}-%{MONTHDAY}[T ]%{HOUR}:?%{MINUTE}(?::?%{SECOND})?%{ISO8601_TIMEZONE}?"),
    ("DATE", r"(?:%{DATE_US}|%{DATE_EU})"),
    ("DATESTAMP", r"%{DATE}[- ]%{TIME}"),
    ("TZ", r"(?:[APMCE][SD]T|UTC)"),
    ("DATESTAMP_RFC822", r"%{DAY} %{MONTH} %{MONTHDAY} %{YEAR} %{TIME} %{TZ}"),
    ("DATESTAMP_RFC2822", r"%{DAY}, %{MONTHDAY} %{MONTH} %{YEAR} %{TIME} %{ISO8601_TIMEZONE}"),
    ("DATESTAMP_OTHER", r"%{DAY} %{MONTH} %{MONTHDAY} %{TIME} %{TZ} %{YEAR}"),
    ("SYSLOGTIMESTAMP", r"%{MONTH} +%{MONTHDAY} %{TIME}"),
    ("PROG", r"[\x21-\x5a\x5c\x5e-\x7e]+"),
    ("SYSLOGPROG", r"%{PROG:program}(?:\[%{POSINT:pid}\])?"),
    ("SYSLOGHOST", r"%{IPORHOST}"),
    ("SYSLOGFACILITY", r"<%{NONNEGINT:facility}.%{NONNEGINT:priority}>"),
    ("HTTPDATE", r"%{MONTHDAY}/%{MONTH}/%{YEAR}:%{TIME} %{INT}"),
    ("SYSLOGBASE", r"%{SYSLOGTIMESTAMP:timestamp} (?:%{SYSLOGFACILITY} )?%{SYSLOGHOST:logsource} %{SYSLOGPROG}:"),
    ("HTTPDUSER", r"(?:%{EMAILADDRESS}|%{USER})"),
    (
        "COMMONAPACHELOG",
        r#"%{IPORHOST:clientip} %{HTTPDUSER:ident} %{USER:auth} \[%{HTTPDATE:timestamp}\] "(?:%{WORD:verb} %{NOTSPACE:request}(?: HTTP/%{NUMBER:httpversion})?|%{DATA:rawrequest})" %{NUMBER:response} (?:%{NUMBER:bytes}|-)"#,
    ),
    ("COMBINEDAPACHELOG", r#"%{COMMONAPACHELOG} %{QS:referrer} %{QS:agent}"#),
    (
        "LOGLEVEL",
        r"(?i:alert|trace|debug|notice|info(?:rmation)?|warn(?:ing)?|err(?:or)?|crit(?:ical)?|fatal|severe|emerg(?:ency)?)",
    ),
    ("JAVACLASS", r"(?:[a-zA-Z$_][a-zA-Z$_0-9]*\.)*[a-zA-Z$_][a-zA-Z$_0-9]*"),
    ("JAVAFILE", r"[A-Za-z0-9_. -]+"),
    ("JAVAMETHOD", r"(?:<(?:cl)?init>|[a-zA-Z$_][a-zA-Z$_0-9]*)"),
    ("JAVASTACKTRACEPART", r"\s*at %{JAVACLASS:class}\.%{JAVAMETHOD:method}\(%{JAVAFILE:file}(?::%{NUMBER:line})?\)"),
];

/// A grok pattern as an expression, with the names of its groups (which may have signs that groups' names can't have).
/// **Errors**: an unknown or endless pattern, or one that is no expression.
pub(super) fn grok(pattern: &str, own: &BTreeMap<String, String>) -> Result<(Regex, Vec<String>), String> {
    let (mut expression, mut names) = (String::new(), Vec::new());
    expand(pattern, own, 0, &mut expression, &mut names)?;
    let regex = Regex::new(&expression).map_err(|error| super::condition::told(&error))?;
    // Groups of one's own, (?<name>…), are fields as well; the others are numbered as they came.
    Ok((regex, names))
}

fn expand(
    pattern: &str,
    own: &BTreeMap<String, String>,
    depth: usize,
    out: &mut String,
    names: &mut Vec<String>,
) -> Result<(), String> {
    if depth > DEPTH_MAX || out.len() > EXPRESSION_BYTES_MAX {
        return Err("the patterns are nested too deep".to_string());
    }
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once("%{") {
        let (inside, after) = after.split_once('}').ok_or("a '%{' has no '}'")?;
        out.push_str(before);
        let mut parts = inside.split(':');
        let (kind, name) = (parts.next().unwrap_or_default(), parts.next().filter(|name| !name.is_empty()));
        let known = GROK.iter().find(|(known, _)| *known == kind).map(|(_, pattern)| *pattern);
        let found = own.get(kind).map(String::as_str).or(known);
        let found = found.ok_or_else(|| format!("'{kind}' is no known pattern; name it in 'patterns'"))?;
        match name {
            Some(name) => {
                out.push_str(&format!("(?P<grok_{}>", names.len()));
                names.push(name.to_string());
            }
            None => out.push_str("(?:"),
        }
        expand(found, own, depth + 1, out, names)?;
        out.push(')');
        rest = after;
    }
    out.push_str(rest);
    Ok(())
}

/// A dissect pattern: fixed texts, and the fields between them.
#[derive(Debug, Clone)]
pub(super) struct Dissect {
    start: String,
    fields: Vec<Between>,
}

#[derive(Debug, Clone)]
struct Between {
    /// Empty: skipped.
    name: String,
    /// What follows it; empty: the end.
    until: String,
    padded: bool,
}

impl Dissect {
    /// **Errors**: what is wrong with the pattern.
    pub fn parse(pattern: &str) -> Result<Dissect, String> {
        let (start, mut rest) = pattern.split_once("%{").ok_or("there is no '%{name}'")?;
        let mut fields = Vec::new();
        loop {
            let (inside, after) = rest.split_once('}').ok_or("a '%{' has no '}'")?;
            let (until, next) = match after.split_once("%{") {
                Some((until, next)) => (until, Some(next)),
                None => (after, None),
            };
            if until.is_empty() && next.is_some() {
                return Err(format!("nothing stands between '%{{{inside}}}' and the next"));
            }
            let (name, padded) = match inside.strip_suffix("->") {
                Some(name) => (name, true),
                None => (inside, false),
            };
            let name = if name.starts_with('?') { "" } else { name };
            fields.push(Between { name: name.to_string(), until: until.to_string(), padded });
            match next {
                Some(next) => rest = next,
                None => return Ok(Dissect { start: start.to_string(), fields }),
            }
        }
    }

    /// The fields of a text, when it is of this pattern.
    pub fn read<'a>(&'a self, text: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
        let mut rest = text.strip_prefix(self.start.as_str())?;
        let mut found = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            let value = if field.until.is_empty() {
                std::mem::take(&mut rest)
            } else {
                let (value, after) = rest.split_once(field.until.as_str())?;
                rest = after;
                value
            };
            if field.padded {
                while let Some(after) = rest.strip_prefix(field.until.as_str()).filter(|_| !field.until.is_empty()) {
                    rest = after;
                }
            }
            if !field.name.is_empty() {
                found.push((field.name.as_str(), value));
            }
        }
        rest.is_empty().then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_is_an_expression() {
        for (name, _) in GROK {
            let made = grok(&format!("%{{{name}}}"), &BTreeMap::new());
            assert!(made.is_ok(), "{name}: {}", made.unwrap_err());
        }
    }
}
