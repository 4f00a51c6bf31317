//! The macros that SQL of panels may hold, replaced by SQL; what the rest of the text means is not looked at.
//! Invariant: comments and quoted names stay as they are, and inside a text in quotes only those macros are replaced
//! whose value is made to stand there (`INTERVAL '$__interval'`).

use super::{Context, Error, literal};

/// The macros, how they are written, and what they are for. The editor's completion says the same.
pub const MACROS: [(&str, &str); 8] = [
    ("$__timeFilter", "$__timeFilter(timestamp)"),
    ("$__timeGroup", "$__timeGroup(timestamp, $__interval)"),
    ("$__interval", "INTERVAL '$__interval'"),
    ("$__interval_ms", "$__interval_ms"),
    ("$__from", "timestamp >= $__from"),
    ("$__to", "timestamp < $__to"),
    ("$__fromMs", "$__fromMs"),
    ("$__toMs", "$__toMs"),
];

/// Replaces every macro. **Errors**: an unknown macro outside quotes, or arguments that do not fit, with its place.
pub fn expand(sql: &str, context: &Context) -> Result<String, Error> {
    expand_with_places(sql, context).map(|expanded| expanded.sql)
}

/// SQL whose macros are replaced, and which part of the text as typed each replacement stands for.
#[derive(Debug, Default)]
pub struct Expanded {
    /// The text without macros.
    pub sql: String,
    /// In order: bytes of the typed text, bytes of `sql`.
    replaced: Vec<(Span, Span)>,
}

/// Bytes of a text.
pub type Span = std::ops::Range<usize>;

impl Expanded {
    /// The part of the typed text that a part of `sql` comes from; of a replacement, all of it.
    pub fn typed(&self, span: &Span) -> Span {
        let place = |at: usize, end: bool| {
            let mut shift = 0_isize;
            for (from, to) in &self.replaced {
                let inside = if end { at > to.start && at <= to.end } else { at >= to.start && at < to.end };
                if inside {
                    return if end { from.end } else { from.start };
                }
                if at <= to.start {
                    break;
                }
                shift = from.end as isize - to.end as isize;
            }
            at.saturating_add_signed(shift)
        };
        let start = place(span.start, false);
        start..place(span.end, true).max(start)
    }
}

/// As [`expand`], with the places of what was replaced.
pub fn expand_with_places(sql: &str, context: &Context) -> Result<Expanded, Error> {
    let mut out = String::with_capacity(sql.len() + 64);
    let mut replaced = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let at = sql.len() - rest.len();
        let length = match first {
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest[2..].find("*/").map_or(rest.len(), |end| end + 4),
            '"' => quoted_length(rest, '"'),
            '\'' => {
                let length = quoted_length(rest, '\'');
                let text = expand_quoted(at..at + length, sql, context)?;
                if text != rest[..length] {
                    replaced.push((at..at + length, out.len()..out.len() + text.len()));
                }
                out.push_str(&text);
                rest = &rest[length..];
                continue;
            }
            '$' if rest.starts_with("$__") => {
                let (value, length) = expand_one(rest, at, sql, context)?;
                replaced.push((at..at + length, out.len()..out.len() + value.len()));
                out.push_str(&value);
                rest = &rest[length..];
                continue;
            }
            other => other.len_utf8(),
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    Ok(Expanded { sql: out, replaced })
}

/// The text with a name of the same length, in bytes, in the place of every macro and template variable outside quotes:
/// what a parser of SQL can read, with everything where it was.
pub fn mask(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let (length, masked) = match first {
            '-' if rest.starts_with("--") => (rest.find('\n').unwrap_or(rest.len()), false),
            '/' if rest.starts_with("/*") => (rest[2..].find("*/").map_or(rest.len(), |end| end + 4), false),
            '"' | '\'' => (quoted_length(rest, first), false),
            '$' if rest.starts_with("${") => (rest.find('}').map_or(rest.len(), |end| end + 1), true),
            '[' if rest.starts_with("[[") => (rest.find("]]").map_or(rest.len(), |end| end + 2), true),
            '$' => {
                let name = name_at(rest);
                let call = match name {
                    "$__timeFilter" | "$__timeGroup" => arguments(&rest[name.len()..]),
                    _ => Call::None,
                };
                let length = name.len() + if let Call::Some(_, length) = call { length } else { 0 };
                (length, name.len() > 1)
            }
            other => (other.len_utf8(), false),
        };
        if masked {
            out.push('m');
            out.extend(std::iter::repeat_n('_', length - 1));
        } else {
            out.push_str(&rest[..length]);
        }
        rest = &rest[length..];
    }
    out
}

/// Bytes up to and with the closing quote; a doubled quote does not close.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut from = 1;
    while let Some(end) = text[from..].find(quote) {
        from += end + 1;
        if !text[from..].starts_with(quote) {
            return from;
        }
        from += 1;
    }
    text.len()
}

fn expand_quoted(span: Span, sql: &str, context: &Context) -> Result<String, Error> {
    let mut out = String::with_capacity(span.len());
    let mut rest = &sql[span.clone()];
    while let Some(at) = rest.find("$__") {
        out.push_str(&rest[..at]);
        let name = name_at(&rest[at..]);
        match name {
            "$__interval" => out.push_str(&literal::interval_body(context.interval_ms)),
            "$__interval_ms" => out.push_str(&context.interval_ms.to_string()),
            "$__fromMs" => out.push_str(&context.range.start_ms().to_string()),
            "$__toMs" => out.push_str(&context.range.end_ms().to_string()),
            "$__from" | "$__to" => {
                let reason = format!("'{name}' is a timestamp already; write it without quotes around it");
                return Err(wrong(reason, span, sql));
            }
            // Somebody searches for such a text.
            other => out.push_str(other),
        }
        rest = &rest[at + name.len()..];
    }
    out.push_str(rest);
    Ok(out)
}

fn name_at(text: &str) -> &str {
    let end = text[1..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(text.len(), |end| end + 1);
    &text[..end]
}

/// The value of the macro at the start of `rest`, and how many bytes it takes with its arguments.
fn expand_one(rest: &str, offset: usize, sql: &str, context: &Context) -> Result<(String, usize), Error> {
    let name = name_at(rest);
    let call = arguments(&rest[name.len()..]);
    let fail = |reason: String| wrong(reason, offset..offset + name.len(), sql);
    let (arguments, length) = match call {
        Call::None => (None, name.len()),
        Call::Open => return Err(fail(format!("'{name}(' has no closing bracket"))),
        Call::Some(arguments, length) => (Some(arguments), name.len() + length),
    };
    let column = |arguments: &[&str]| match arguments.first() {
        None | Some(&"") => Ok("timestamp".to_owned()),
        Some(argument) => expand(argument, context),
    };
    let value = match (name, &arguments) {
        ("$__timeFilter", Some(list)) if list.len() <= 1 => time_filter(&column(list)?, context),
        ("$__timeFilter", Some(_)) => return Err(fail("'$__timeFilter' takes one column, or none".to_owned())),
        ("$__timeGroup", Some(list)) if list.len() <= 2 => {
            let ms = match list.get(1) {
                None => context.interval_ms,
                Some(text) => interval_argument(text, context).ok_or_else(|| {
                    fail(format!("'$__timeGroup' cannot read the interval '{text}'; write $__interval or 5m"))
                })?,
            };
            format!("date_bin({}, {})", literal::interval(ms), column(list)?)
        }
        ("$__timeGroup", Some(_)) => {
            return Err(fail("'$__timeGroup' takes a column and an interval".to_owned()));
        }
        ("$__timeFilter" | "$__timeGroup", None) => {
            return Err(fail(format!("'{name}' needs brackets: {name}(timestamp)")));
        }
        ("$__interval", _) => literal::interval_body(context.interval_ms),
        ("$__interval_ms", _) => context.interval_ms.to_string(),
        ("$__from", _) => literal::timestamp(context.range.from_ns),
        ("$__to", _) => literal::timestamp(context.range.to_ns),
        ("$__fromMs", _) => context.range.start_ms().to_string(),
        ("$__toMs", _) => context.range.end_ms().to_string(),
        _ => return Err(fail(unknown(name))),
    };
    // Only the two with brackets own the brackets that follow.
    let takes_call = matches!(name, "$__timeFilter" | "$__timeGroup");
    Ok((value, if takes_call { length } else { name.len() }))
}

fn time_filter(column: &str, context: &Context) -> String {
    let (from, to) = (literal::timestamp(context.range.from_ns), literal::timestamp(context.range.to_ns));
    format!("({column} >= {from} AND {column} < {to})")
}

fn interval_argument(text: &str, context: &Context) -> Option<u64> {
    let mut text = text.trim();
    if text.get(..8).is_some_and(|word| word.eq_ignore_ascii_case("interval")) {
        text = text[8..].trim();
    }
    match text.trim_matches('\'').trim() {
        "$__interval" | "" => Some(context.interval_ms),
        other => literal::duration_ms(other),
    }
}

enum Call<'a> {
    None,
    Open,
    Some(Vec<&'a str>, usize),
}

/// The arguments in brackets right after a macro's name, cut at the commas of the outermost level.
fn arguments(text: &str) -> Call<'_> {
    if !text.starts_with('(') {
        return Call::None;
    }
    let (mut depth, mut start, mut at) = (0, 1, 0);
    let mut list = Vec::new();
    while let Some(c) = text[at..].chars().next() {
        match c {
            '\'' | '"' => {
                at += quoted_length(&text[at..], c);
                continue;
            }
            '(' => depth += 1,
            ',' if depth == 1 => {
                list.push(text[start..at].trim());
                start = at + 1;
            }
            ')' if depth == 1 => {
                let last = text[start..at].trim();
                if !(list.is_empty() && last.is_empty()) {
                    list.push(last);
                }
                return Call::Some(list, at + 1);
            }
            ')' => depth -= 1,
            _ => {}
        }
        at += c.len_utf8();
    }
    Call::Open
}

fn unknown(name: &str) -> String {
    let near = MACROS.iter().map(|(known, _)| (strsim::damerau_levenshtein(name, known), known)).min();
    match near {
        Some((distance, known)) if distance <= 4 => format!("no macro named '{name}'; did you mean '{known}'?"),
        _ => {
            let names: Vec<_> = MACROS.iter().map(|(known, _)| *known).collect();
            format!("no macro named '{name}'; there are {}", names.join(", "))
        }
    }
}

fn wrong(reason: String, at: Span, sql: &str) -> Error {
    let before = &sql[..at.start];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Error::Macro { reason, place: format!("line {line}, column {column}"), at }
}

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy;

    use super::super::{Context, Range};
    use super::*;

    const FROM: &str = "TIMESTAMP '2026-01-01T12:00:00Z'";
    const TO: &str = "TIMESTAMP '2026-01-01T13:00:00Z'";

    fn check(sql: &str, expect: &str) {
        let range = Range { from_ns: 1_767_268_800_000_000_000, to_ns: 1_767_272_400_000_000_000 };
        let context = Context { range, interval_ms: 60_000, limit_default: 1000, points_max: 1000 };
        let got = expand(sql, &context).unwrap_or_else(|error| error.to_string());
        assert_eq!(got, expect.replace("FROM!", FROM).replace("TO!", TO), "{sql}");
    }

    #[test]
    fn macros_become_sql() {
        check("WHERE $__timeFilter(timestamp)", "WHERE (timestamp >= FROM! AND timestamp < TO!)");
        check("WHERE $__timeFilter()", "WHERE (timestamp >= FROM! AND timestamp < TO!)");
        check("$__timeFilter(\"my (ts\")", "(\"my (ts\" >= FROM! AND \"my (ts\" < TO!)");
        check("$__timeGroup(timestamp, $__interval)", "date_bin(INTERVAL '60 seconds', timestamp)");
        check("$__timeGroup(timestamp)", "date_bin(INTERVAL '60 seconds', timestamp)");
        check("$__timeGroup()", "date_bin(INTERVAL '60 seconds', timestamp)");
        check("$__timeGroup(ts, 5m)", "date_bin(INTERVAL '300 seconds', ts)");
        check("$__timeGroup(ts, '90 seconds')", "date_bin(INTERVAL '90 seconds', ts)");
        check("$__timeGroup(ts, INTERVAL '250ms')", "date_bin(INTERVAL '250 milliseconds', ts)");
        check("$__timeGroup(to_timestamp(a, 'x,y'), 1h)", "date_bin(INTERVAL '3600 seconds', to_timestamp(a, 'x,y'))");
        check("date_bin(INTERVAL '$__interval', ts)", "date_bin(INTERVAL '60 seconds', ts)");
        check("ts >= $__from AND ts < $__to", "ts >= FROM! AND ts < TO!");
        check("$__fromMs, $__toMs, $__interval_ms", "1767268800000, 1767272400000, 60000");
        check("count(*) / ($__interval_ms / 1000.0)", "count(*) / (60000 / 1000.0)");
        check("$__interval_ms(1)", "60000(1)");
    }

    #[test]
    fn macros_and_variables_can_be_masked() {
        for (sql, expect) in [
            ("a $__timeFilter(ts) b", "a m________________ b"),
            ("$x ${y:csv} [[z]] $", "m_ m_______ m____ $"),
            ("'$x' \"${y}\" -- $x", "'$x' \"${y}\" -- $x"),
            ("$__interval(1)", "m__________(1)"),
            ("${open", "m_____"),
        ] {
            assert_eq!(mask(sql), expect);
            assert_eq!(mask(sql).len(), sql.len());
        }
    }

    #[test]
    fn comments_names_and_texts_stay() {
        check("SELECT 1 -- $__nothing\n, $__fromMs", "SELECT 1 -- $__nothing\n, 1767268800000");
        check("/* $__x */ \"$__from\" '$__odd' 'it''s $__foo'", "/* $__x */ \"$__from\" '$__odd' 'it''s $__foo'");
        check("'$__fromMs'", "'1767268800000'");
        check("'open $__x", "'open $__x");
        check("/* open", "/* open");
        check("price $5 $ äöü", "price $5 $ äöü");
    }

    #[test]
    fn mistakes_say_what_and_where() {
        check(
            "SELECT\n  $__timeFiltr(ts)",
            "no macro named '$__timeFiltr'; did you mean '$__timeFilter'?, line 2, column 3",
        );
        check("$__timeFilter", "'$__timeFilter' needs brackets: $__timeFilter(timestamp), line 1, column 1");
        check("$__timeFilter(a, b)", "'$__timeFilter' takes one column, or none, line 1, column 1");
        check("$__timeFilter(a", "'$__timeFilter(' has no closing bracket, line 1, column 1");
        check(
            "$__timeGroup(ts, often)",
            "'$__timeGroup' cannot read the interval 'often'; write $__interval or 5m, line 1, column 1",
        );
        check(
            "ts > '$__from'",
            "'$__from' is a timestamp already; write it without quotes around it, line 1, column 6",
        );
        check(
            "$__everythingElse",
            "no macro named '$__everythingElse'; there are $__timeFilter, $__timeGroup, $__interval, $__interval_ms, \
             $__from, $__to, $__fromMs, $__toMs, line 1, column 1",
        );
    }

    #[test]
    fn places_lead_back_to_what_was_typed() {
        let typed = "SELECT 1 WHERE $__timeFilter(ts) AND a = '$__interval' AND bad";
        let range = Range { from_ns: 0, to_ns: 60_000_000_000 };
        let context = Context { range, interval_ms: 1000, limit_default: 1, points_max: 1 };
        let expanded = expand_with_places(typed, &context).expect("fine");
        let span = |text: &str| {
            let start = expanded.sql.find(text).expect("it is there");
            start..start + text.len()
        };
        for (text, expect) in [
            ("SELECT", "SELECT"),
            ("1970-01-01T00:00:00Z", "$__timeFilter(ts)"),
            ("(ts", "$__timeFilter(ts)"),
            ("1 second", "'$__interval'"),
            ("a = '1 second' AND", "a = '$__interval' AND"),
            ("bad", "bad"),
        ] {
            assert_eq!(&typed[expanded.typed(&span(text))], expect, "{text}");
        }
    }

    proptest::proptest! {
        /// Pieces that meet each other in odd ways: quotes that stay open, macros in macros, letters of several bytes.
        #[test]
        fn no_text_panics(pieces in proptest::collection::vec(piece(), 0..12)) {
            let range = Range { from_ns: 0, to_ns: 60_000_000_000 };
            let context = Context { range, interval_ms: 1, limit_default: 1, points_max: 1 };
            // Either answer is fine.
            let _ = expand(&pieces.concat(), &context);
            proptest::prop_assert_eq!(mask(&pieces.concat()).len(), pieces.concat().len());
        }
    }

    fn piece() -> impl proptest::strategy::Strategy<Value = String> {
        let known = [
            "$__timeFilter",
            "$__timeGroup",
            "$__interval",
            "$__",
            "$",
            "(",
            ")",
            ",",
            "'",
            "''",
            "\"",
            "--",
            "/*",
            "*/",
            "\n",
            " ",
            "ä",
            "🦀",
            "INTERVAL",
            "5m",
            "timestamp",
            "$__from",
            "$__nope",
        ];
        proptest::prop_oneof![proptest::sample::select(known.to_vec()).prop_map(str::to_owned), ".{0,4}"]
    }
}
