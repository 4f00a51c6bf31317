//! Loki's selectors with line filters, `{app="x", env!~"dev.*"} |= "y"`, as conditions of ours.

/// The condition that a selector stands for. **Errors**: what of it has no equal.
pub(super) fn condition(selector: &str) -> Result<String, String> {
    let fault = || format!("the selector '{selector}' is none");
    let inside = selector.trim().strip_prefix('{').ok_or_else(fault)?;
    let (mut terms, mut rest) = (Vec::new(), inside.trim_start());
    while !rest.starts_with('}') {
        let end = rest.find(['=', '!']).ok_or_else(fault)?;
        let name = rest[..end].trim();
        let sign = ["=~", "!~", "!=", "="].into_iter().find(|sign| rest[end..].starts_with(sign)).ok_or_else(fault)?;
        let (text, after) = quoted(rest[end + sign.len()..].trim_start()).ok_or_else(fault)?;
        // Loki's expressions match the whole value.
        terms.push(match sign {
            "=~" | "!~" => format!("{name} {sign} {}", quote(&format!("^(?:{text})$"))),
            sign => equal(name, sign, &text),
        });
        rest = after.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    rest = rest[1..].trim_start();
    while !rest.is_empty() {
        let sign = ["|=", "|~", "!=", "!~"].into_iter().find(|sign| rest.starts_with(sign));
        let sign = sign.ok_or_else(|| format!("'{rest}' is more than a filter of lines"))?;
        let (text, after) = quoted(rest[2..].trim_start()).ok_or_else(fault)?;
        terms.push(match sign {
            "|=" => format!("line =~ {}", quote(&regex::escape(&text))),
            "!=" => format!("line !~ {}", quote(&regex::escape(&text))),
            "|~" => format!("line =~ {}", quote(&text)),
            _ => format!("line !~ {}", quote(&text)),
        });
        rest = after.trim_start();
    }
    Ok(terms.join(" and "))
}

/// `name = "text"`, where a star in the text is one.
pub(super) fn equal(name: &str, sign: &str, text: &str) -> String {
    match (text.contains('*'), sign) {
        (false, sign) => format!("{name} {sign} {}", quote(text)),
        (true, "=") => format!("{name} =~ {}", quote(&format!("^{}$", regex::escape(text)))),
        (true, _) => format!("{name} !~ {}", quote(&format!("^{}$", regex::escape(text)))),
    }
}

/// A text between double quotes.
pub(super) fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Reads a text in Go's quotes; gives what follows.
pub(super) fn quoted(text: &str) -> Option<(String, &str)> {
    if let Some(text) = text.strip_prefix('`') {
        return text.split_once('`').map(|(value, after)| (value.to_string(), after));
    }
    let text = text.strip_prefix('"')?;
    let (mut value, mut escaped) = (String::new(), false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => {
                match letter {
                    'n' => value.push('\n'),
                    't' => value.push('\t'),
                    '"' | '\\' => value.push(letter),
                    other => value.extend(['\\', other]),
                }
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &text[at + 1..])),
            other => value.push(other),
        }
    }
    None
}
