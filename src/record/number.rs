//! Numbers as lines write them: the styles in which languages print floats, and how to find the style of a text.
//!
//! Invariant: when [`style_of`] gives a style, writing the value in that style gives the text.

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Style {
    /// As JavaScript and Go's encoding/json: shortest, `12` for whole numbers, `1e+21`, `1e-7`. Integers too.
    Js,
    /// As Python: shortest, `12.0` for whole numbers, `1e+16`, `1e-05`.
    Python,
    /// As Rust's serde_json and ryu: shortest, `12.0`, `1e16`, `1e-7`.
    Rust,
    /// With so many decimals, at most 17.
    Fixed(u8),
}

/// Most decimals of [`Style::Fixed`]; more than a double tells.
const DECIMALS_MAX: usize = 17;

/// Appends an integer.
pub fn write_integer(value: i64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends an integer as `style` writes it; only [`Style::Js`] writes integers, the others the equal float.
pub fn write_integer_as(value: i64, style: Style, out: &mut Vec<u8>) {
    match style {
        Style::Js => write_integer(value, out),
        _ => write_float(value as f64, style, out),
    }
}

/// Appends a float. Infinities and NaN, which no decoder makes, are written as Rust does.
pub fn write_float(value: f64, style: Style, out: &mut Vec<u8>) {
    use std::io::Write;
    if !value.is_finite() {
        let _ = write!(out, "{value}");
        return;
    }
    match style {
        Style::Rust => out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes()),
        // Whole numbers of a million million, and most others, take the short way.
        Style::Js if value.fract() == 0.0 && value.abs() < 1e15 && (value != 0.0 || value.is_sign_positive()) => {
            write_integer(value as i64, out);
        }
        Style::Js => write_shortest(value, -6, 21, "", 1, out),
        Style::Python => write_shortest(value, -3, 16, ".0", 2, out),
        Style::Fixed(decimals) => {
            let _ = write!(out, "{value:.*}", usize::from(decimals));
        }
    }
}

/// Writes the shortest digits that give the value back: plainly when the point lies after digit `least` + 1 to `most`,
/// else with an exponent of at least `exponent_digits` digits and a sign; whole numbers get the `whole` suffix.
fn write_shortest(value: f64, least: i32, most: i32, whole: &str, exponent_digits: usize, out: &mut Vec<u8>) {
    use std::io::Write;
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(value.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = [0u8; 40];
    let mut count = 0;
    for digit in before.bytes().chain(after.bytes()) {
        digits[count] = digit;
        count += 1;
    }
    let zeros = digits[..count].iter().take_while(|digit| **digit == b'0').count().min(count - 1);
    let digits = digits[zeros..count].trim_ascii_end();
    let end = digits.iter().rposition(|digit| *digit != b'0').map_or(1, |last| last + 1);
    let digits = &digits[..end];
    // The value is 0.d1d2d3… times ten to the `point`.
    let point = before.len() as i32 - zeros as i32 + exponent.parse::<i32>().unwrap_or(0);
    let point = if value == 0.0 { 1 } else { point };
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if point > most || point <= least {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        let sign = if point > 0 { '+' } else { '-' };
        let _ = write!(out, "e{sign}{:0exponent_digits$}", (point - 1).unsigned_abs());
    } else if point <= 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', point.unsigned_abs() as usize));
        out.extend_from_slice(digits);
    } else if digits.len() <= point as usize {
        out.extend_from_slice(digits);
        out.extend(std::iter::repeat_n(b'0', point as usize - digits.len()));
        out.extend_from_slice(whole.as_bytes());
    } else {
        out.extend_from_slice(&digits[..point as usize]);
        out.push(b'.');
        out.extend_from_slice(&digits[point as usize..]);
    }
}

/// Appends the number that `text` stands for in `style`: how a number is written again after its column became text.
/// A text that is no number is appended as it is.
pub fn write_text_as(text: &str, style: Style, out: &mut Vec<u8>) {
    if let Ok(value) = text.parse::<i64>() {
        // A whole float may have been printed without its point.
        if text != "-0" {
            return write_integer_as(value, style, out);
        }
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => write_float(value, style, out),
        _ => out.extend_from_slice(text.as_bytes()),
    }
}

/// Finds the style that writes `value` as `text`; `text` is a decimal number as JSON has them, and not an integer.
pub fn style_of(text: &str, value: f64) -> Option<Style> {
    let bytes = text.as_bytes();
    if bytes.iter().any(|byte| matches!(byte, b'e' | b'E')) {
        return [Style::Js, Style::Rust, Style::Python].into_iter().find(|style| is_written_as(value, *style, bytes));
    }
    let point = bytes.iter().position(|byte| *byte == b'.');
    let Some(point) = point else { return is_written_as(value, Style::Js, bytes).then_some(Style::Js) };
    let decimals = bytes.len() - point - 1;
    if bytes[bytes.len() - 1] == b'0' {
        let first = if decimals == 1 { Style::Python } else { Style::Fixed(decimals.min(255) as u8) };
        return fits(value, first, bytes).then_some(first);
    }
    [Style::Js, Style::Fixed(decimals.min(255) as u8)].into_iter().find(|style| fits(value, *style, bytes))
}

/// Whether `value` in `style` is exactly `text`.
pub fn fits(value: f64, style: Style, text: &[u8]) -> bool {
    if matches!(style, Style::Fixed(decimals) if usize::from(decimals) > DECIMALS_MAX) {
        return false;
    }
    // A decimal of at most 15 significant digits is what its double gives with that many decimals, and, when it does not
    // end in zero, also the shortest text of that double.
    let point = memchr::memchr(b'.', text);
    let plain = text.len() <= 16 && !text.iter().any(|byte| matches!(byte, b'e' | b'E'));
    match (style, point) {
        (Style::Js, Some(_)) if plain && value.abs() >= 1e-6 && text.last() != Some(&b'0') => true,
        (Style::Fixed(decimals), Some(point)) if plain => text.len() - point - 1 == usize::from(decimals),
        _ => is_written_as(value, style, text),
    }
}

fn is_written_as(value: f64, style: Style, text: &[u8]) -> bool {
    let mut out = Vec::with_capacity(32);
    write_float(value, style, &mut out);
    out == text
}

/// The largest integer up to which every integer is a double: 2^53.
const EXACT_MAX: u64 = 1 << 53;

/// Whether a double holds this integer exactly.
pub fn is_exact(value: i64) -> bool {
    value.unsigned_abs() <= EXACT_MAX
}

impl Style {
    /// Appends the style's code, as shapes carry it.
    pub(super) fn write_code(self, out: &mut String) {
        match self {
            Style::Js => out.push('n'),
            Style::Python => out.push('y'),
            Style::Rust => out.push('r'),
            Style::Fixed(decimals) => out.push_str(&format!(".{decimals}")),
        }
    }

    /// The inverse of [`Style::write_code`].
    pub(super) fn parse_code(code: &str) -> Option<Style> {
        match code {
            "n" => Some(Style::Js),
            "y" => Some(Style::Python),
            "r" => Some(Style::Rust),
            _ => {
                let decimals: u8 = code.strip_prefix('.')?.parse().ok()?;
                (usize::from(decimals) <= DECIMALS_MAX).then_some(Style::Fixed(decimals))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: f64, style: Style) -> String {
        let mut out = Vec::new();
        write_float(value, style, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn floats_as_languages_print_them() {
        for (value, js, python, rust) in [
            (12.4, "12.4", "12.4", "12.4"),
            (12.0, "12", "12.0", "12.0"),
            (0.0, "0", "0.0", "0.0"),
            (-0.0, "-0", "-0.0", "-0.0"),
            (0.001, "0.001", "0.001", "0.001"),
            (0.00001, "0.00001", "1e-05", "0.00001"),
            (1e-7, "1e-7", "1e-07", "1e-7"),
            (1.5e-7, "1.5e-7", "1.5e-07", "1.5e-7"),
            (1e16, "10000000000000000", "1e+16", "1e16"),
            (1e21, "1e+21", "1e+21", "1e21"),
            (1.25e300, "1.25e+300", "1.25e+300", "1.25e300"),
            (123456789.125, "123456789.125", "123456789.125", "123456789.125"),
            (1234567890123456.0, "1234567890123456", "1234567890123456.0", "1234567890123456.0"),
        ] {
            assert_eq!(written(value, Style::Js), js);
            assert_eq!(written(value, Style::Python), python);
            assert_eq!(written(value, Style::Rust), rust);
        }
        assert_eq!(written(12.4, Style::Fixed(3)), "12.400");
    }

    #[test]
    fn styles_of_texts() {
        for (text, style) in [
            ("12.4", Some(Style::Js)),
            ("12.0", Some(Style::Python)),
            ("12.40", Some(Style::Fixed(2))),
            ("12.00", Some(Style::Fixed(2))),
            ("1e+21", Some(Style::Js)),
            ("1e-05", Some(Style::Python)),
            ("1e16", Some(Style::Rust)),
            ("1E5", None),
            ("-0", Some(Style::Js)),
            ("0.10000000000000000000001", None),
            ("1.00000000000000000000001", None),
        ] {
            assert_eq!(style_of(text, text.parse().unwrap()), style, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_style_writes_the_text(text in "-?(0|[1-9][0-9]{0,18})([.][0-9]{1,18})?([eE][+-]?[0-9]{1,2})?") {
            let value: f64 = text.parse().unwrap();
            if let Some(style) = style_of(&text, value) {
                prop_assert_eq!(written(value, style), text.clone());
                // ... also after the column became text, whichever way the value was printed then.
                for printed in [Style::Js, Style::Python, Style::Rust] {
                    let mut again = Vec::new();
                    write_text_as(&written(value, printed), style, &mut again);
                    prop_assert_eq!(String::from_utf8(again).unwrap(), text.clone());
                }
            }
        }

        #[test]
        fn shortest_texts_are_found(value in any::<f64>().prop_filter("finite", |value| value.is_finite())) {
            for style in [Style::Js, Style::Python, Style::Rust] {
                let text = written(value, style);
                prop_assert_eq!(text.parse::<f64>().unwrap(), value);
            }
        }
    }
}
