//! Times as lines write them: read to nanoseconds, and written again in the same style, byte for byte.
//!
//! Invariant: when [`parse`] gives a [`Style`], writing the time in that style gives the text that was parsed.
//! No clock here, and no choice of which field is the time.

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Style {
    /// `2026-01-01T12:00:00.123Z` and its kin.
    Calendar(Calendar),
    /// `10/Oct/2000:13:55:36 -0700`, the time of access logs; the offset in minutes.
    Clf(i16),
    /// A count of a unit since the epoch, as an integer.
    Epoch(Unit),
    /// Seconds since the epoch with a fraction.
    EpochFraction(Digits),
}

/// RFC 3339 in UTC with as many digits as it takes: how we write times ourselves.
pub const RFC_3339: Style = Style::Calendar(Calendar {
    date_separator: b'-',
    separator: b'T',
    point: b'.',
    digits: Digits::Trimmed,
    zone: Zone::Utc,
});

/// A date and a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Calendar {
    /// Between year, month and day: `-` or `/`.
    pub date_separator: u8,
    /// Between date and time: `T` or a space.
    pub separator: u8,
    /// Before the fraction: `.` or `,`.
    pub point: u8,
    /// Digits of the fraction.
    pub digits: Digits,
    /// The zone.
    pub zone: Zone,
}

/// How many digits a fraction has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Digits {
    /// Always so many, 0 to 9; 0 is without a point.
    Fixed(u8),
    /// As many as it takes; none, and no point, when the fraction is zero (Go's RFC3339Nano).
    Trimmed,
}

/// How the zone is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Zone {
    /// Not at all; taken as UTC.
    None,
    /// `Z`
    Utc,
    /// `+02:00`
    Colon(i16),
    /// `+0200`
    Compact(i16),
    /// ` +02:00`
    SpaceColon(i16),
    /// ` +0200`
    SpaceCompact(i16),
}

/// Unit of an epoch count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

impl Unit {
    /// Nanoseconds in one of them.
    pub fn nanos(self) -> i64 {
        match self {
            Unit::Seconds => 1_000_000_000,
            Unit::Millis => 1_000_000,
            Unit::Micros => 1_000,
            Unit::Nanos => 1,
        }
    }

    /// The unit that a count is in, by its magnitude: seconds up to the year 5138, then ms, us, ns likewise.
    pub fn of(count: i64) -> Unit {
        match count.unsigned_abs() {
            0..100_000_000_000 => Unit::Seconds,
            100_000_000_000..100_000_000_000_000 => Unit::Millis,
            100_000_000_000_000..100_000_000_000_000_000 => Unit::Micros,
            _ => Unit::Nanos,
        }
    }
}

/// Reads an epoch count in the unit of its magnitude. **Units**: gives nanoseconds.
pub fn from_epoch(count: i64) -> Option<(i64, Unit)> {
    let unit = Unit::of(count);
    Some((count.checked_mul(unit.nanos())?, unit))
}

/// Reads a time as text: a calendar time, or digits of an epoch. The style is absent where it could not be written again
/// exactly (more than nine digits, the rarer formats). **Units**: nanoseconds since the epoch.
pub fn parse(text: &[u8]) -> Option<(i64, Option<Style>)> {
    if text.len() >= 5 && matches!(text[4], b'-' | b'/') {
        if let Some((ns, style, used)) = parse_calendar(text)
            && used == text.len()
        {
            return Some((ns, style.map(Style::Calendar)));
        }
    } else if let Some(found) = parse_epoch(text) {
        return Some(found);
    }
    if let Some((ns, offset)) = parse_clf(text) {
        return Some((ns, Some(Style::Clf(offset))));
    }
    parse_rare(text).map(|ns| (ns, None))
}

/// Reads `text` if it is written in `style`. **Units**: nanoseconds since the epoch.
pub fn parse_as(text: &[u8], style: Style) -> Option<i64> {
    match style {
        Style::Calendar(wanted) => {
            let (ns, found, used) = parse_calendar(text)?;
            let found = found?;
            let fits = used == text.len()
                && (found.date_separator, found.separator, found.zone)
                    == (wanted.date_separator, wanted.separator, wanted.zone)
                && (found.point == wanted.point || found.digits == Digits::Fixed(0))
                && digits_fit(found.digits, ns, wanted.digits);
            fits.then_some(ns)
        }
        Style::Clf(wanted) => parse_clf(text).filter(|(_, offset)| *offset == wanted).map(|(ns, _)| ns),
        Style::Epoch(wanted) => match parse_epoch(text)? {
            (ns, Some(Style::Epoch(unit))) if unit == wanted => Some(ns),
            _ => None,
        },
        Style::EpochFraction(wanted) => match parse_epoch(text)? {
            (ns, Some(Style::EpochFraction(digits))) if digits_fit(digits, ns, wanted) => Some(ns),
            _ => None,
        },
    }
}

/// Whether a fraction found with `found` digits is what `wanted` would write.
fn digits_fit(found: Digits, ns: i64, wanted: Digits) -> bool {
    match (found, wanted) {
        (found, wanted) if found == wanted => true,
        (Digits::Trimmed, Digits::Fixed(count)) => significant_digits(ns) == count,
        (Digits::Fixed(0), Digits::Trimmed) => true,
        _ => false,
    }
}

/// Digits that the fraction of a second takes when the zeros at its end are dropped.
fn significant_digits(ns: i64) -> u8 {
    let mut fraction = ns.rem_euclid(1_000_000_000);
    let mut digits = 9;
    while digits > 0 && fraction % 10 == 0 {
        fraction /= 10;
        digits -= 1;
    }
    digits
}

fn two(text: &[u8], at: usize) -> Option<i64> {
    let (tens, ones) = (text.get(at)?.wrapping_sub(b'0'), text.get(at + 1)?.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| i64::from(tens) * 10 + i64::from(ones))
}

/// Reads a calendar time from the start of `text`; gives the bytes used.
pub fn parse_calendar(text: &[u8]) -> Option<(i64, Option<Calendar>, usize)> {
    let date_separator = *text.get(4)?;
    if text.len() < 19 || !matches!(date_separator, b'-' | b'/') || text[7] != date_separator {
        return None;
    }
    let separator = text[10];
    if !matches!(separator, b'T' | b' ') || text[13] != b':' || text[16] != b':' {
        return None;
    }
    let (year, month, day) = (two(text, 0)? * 100 + two(text, 2)?, two(text, 5)?, two(text, 8)?);
    let (hour, minute, second) = (two(text, 11)?, two(text, 14)?, two(text, 17)?);
    if !(1..=12).contains(&month)
        || !(1..=days_in_month(year, month)).contains(&day)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let mut at = 19;
    let (mut fraction, mut count) = (0i64, 0usize);
    let mut point = b'.';
    if let Some(found @ (b'.' | b',')) = text.get(at)
        && text.get(at + 1).is_some_and(u8::is_ascii_digit)
    {
        point = *found;
        at += 1;
        while let Some(digit) = text.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit <= 9) {
            if count < 9 {
                fraction = fraction * 10 + i64::from(digit);
            }
            count += 1;
            at += 1;
        }
    }
    let last = text[at - 1];
    (count..9).for_each(|_| fraction *= 10);
    let (zone, offset_minutes, at) = parse_zone(text, at)?;
    let seconds =
        days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset_minutes * 60;
    let ns = seconds.checked_mul(1_000_000_000)?.checked_add(fraction)?;
    let digits = if count > 0 && last != b'0' { Digits::Trimmed } else { Digits::Fixed(count.min(9) as u8) };
    let style = Calendar { date_separator, separator, point, digits, zone };
    Some((ns, (count <= 9).then_some(style), at))
}

/// Reads the zone at `at`; a text that ends or goes on without one has none.
fn parse_zone(text: &[u8], at: usize) -> Option<(Zone, i64, usize)> {
    match text.get(at..)? {
        [b'Z', ..] => Some((Zone::Utc, 0, at + 1)),
        [b'+' | b'-', ..] => {
            let (minutes, colon, end) = parse_offset(text, at)?;
            let zone = if colon { Zone::Colon(minutes) } else { Zone::Compact(minutes) };
            Some((zone, i64::from(minutes), end))
        }
        [b' ', b'+' | b'-', ..] => Some(match parse_offset(text, at + 1) {
            Some((minutes, true, end)) => (Zone::SpaceColon(minutes), i64::from(minutes), end),
            Some((minutes, false, end)) => (Zone::SpaceCompact(minutes), i64::from(minutes), end),
            None => (Zone::None, 0, at),
        }),
        _ => Some((Zone::None, 0, at)),
    }
}

/// Reads `+02:00` or `+0200`: the minutes, whether there is a colon, and where it ends.
fn parse_offset(text: &[u8], at: usize) -> Option<(i16, bool, usize)> {
    let negative = text.get(at) == Some(&b'-');
    let hours = two(text, at + 1)?;
    let colon = text.get(at + 3) == Some(&b':');
    let minutes_at = if colon { at + 4 } else { at + 3 };
    let minutes = hours * 60 + two(text, minutes_at)?;
    // "-00:00" would be written as "+00:00": no style of ours, and rare.
    if hours > 23 || minutes - hours * 60 > 59 || (negative && minutes == 0) {
        return None;
    }
    Some((if negative { -minutes } else { minutes } as i16, colon, minutes_at + 2))
}

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// The number of a month that is named as in English, from 1.
fn month_of(name: &[u8]) -> Option<i64> {
    (1..).zip(MONTHS).find(|(_, month)| name == &month[..]).map(|(number, _)| number)
}

/// Reads `10/Oct/2000:13:55:36 -0700`; gives the offset in minutes too.
fn parse_clf(text: &[u8]) -> Option<(i64, i16)> {
    let [_, _, b'/', _, _, _, b'/', _, _, _, _, b':', _, _, b':', _, _, b':', _, _, b' ', b'+' | b'-', rest @ ..] =
        text
    else {
        return None;
    };
    let (year, month, day) = (two(text, 7)? * 100 + two(text, 9)?, month_of(&text[3..6])?, two(text, 0)?);
    let (offset, colon, end) = parse_offset(text, 21)?;
    if colon || end != text.len() || rest.len() != 4 {
        return None;
    }
    Some((civil_ns((year, month, day), (two(text, 12)?, two(text, 15)?, two(text, 18)?), offset)?, offset))
}

/// Nanoseconds since the epoch of a date and a time of day at an offset in minutes, when they can be.
fn civil_ns((year, month, day): (i64, i64, i64), (hour, minute, second): (i64, i64, i64), offset: i16) -> Option<i64> {
    let valid = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour <= 23
        && minute <= 59
        && second <= 59;
    let seconds =
        days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - i64::from(offset) * 60;
    seconds.checked_mul(1_000_000_000).filter(|_| valid)
}

/// Reads a time that has no year: `Oct 11 22:14:15` (syslog, RFC 3164) or `1011 22:14:15.123456` (klog), with or without
/// a fraction, in UTC. It is the last such moment that is not after `latest_ns`.
pub fn parse_without_year(text: &[u8], latest_ns: i64) -> Option<i64> {
    let (month, day, clock_at) = match text {
        [a, b, c, b' ', tens, ones, b' ', ..] => {
            let tens = if *tens == b' ' { b'0' } else { *tens };
            (month_of(&[*a, *b, *c])?, two(&[tens, *ones], 0)?, 7)
        }
        [b'0' | b'1', _, _, _, b' ', ..] => (two(text, 0)?, two(text, 2)?, 5),
        _ => return None,
    };
    let clock = text.get(clock_at..)?;
    let ([_, _, b':', _, _, b':', _, _] | [_, _, b':', _, _, b':', _, _, b'.', ..]) = clock else { return None };
    let fraction = clock.get(9..).unwrap_or_default();
    if fraction.len() > 9 || (clock.len() == 9) || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos = digits_value(fraction)? * 10i64.pow(9 - fraction.len() as u32);
    let time = (two(clock, 0)?, two(clock, 3)?, two(clock, 6)?);
    let (this_year, ..) = civil_from_days(latest_ns.div_euclid(86_400_000_000_000));
    // Four years back, for the 29th of February.
    let years = (this_year - 4..=this_year).rev();
    years.filter_map(|year| civil_ns((year, month, day), time, 0)).map(|ns| ns + nanos).find(|ns| *ns <= latest_ns)
}

/// Reads digits, with or without a fraction, as an epoch.
fn parse_epoch(text: &[u8]) -> Option<(i64, Option<Style>)> {
    let whole = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if whole == 0 || whole > 19 || (whole > 1 && text[0] == b'0') {
        return None;
    }
    let count = digits_value(&text[..whole])?;
    if whole == text.len() {
        let (ns, unit) = from_epoch(count)?;
        return Some((ns, Some(Style::Epoch(unit))));
    }
    let fraction = &text[whole + 1..];
    if text[whole] != b'.' || fraction.is_empty() || fraction.len() > 40 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let unit = Unit::of(count);
    let kept = &fraction[..fraction.len().min(9)];
    let nanos = digits_value(kept)? * 10i64.pow(9 - kept.len() as u32) / (1_000_000_000 / unit.nanos());
    let ns = count.checked_mul(unit.nanos())?.checked_add(nanos)?;
    let digits = match fraction.last() {
        Some(b'0') | None => Digits::Fixed(kept.len() as u8),
        Some(_) => Digits::Trimmed,
    };
    let exact = unit == Unit::Seconds && fraction.len() <= 9;
    Some((ns, exact.then_some(Style::EpochFraction(digits))))
}

fn digits_value(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0i64, |value, digit| value.checked_mul(10)?.checked_add(i64::from(*digit - b'0')))
}

/// The formats that are seen now and then: RFC 2822, that of C's asctime (Apache's errors), and what else jiff reads as a timestamp.
fn parse_rare(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok().filter(|text| (16..=64).contains(&text.len()))?;
    let parsed = text
        .parse::<jiff::Timestamp>()
        .or_else(|_| jiff::fmt::rfc2822::parse(text).map(|zoned| zoned.timestamp()))
        .or_else(|_| {
            let civil = jiff::civil::DateTime::strptime("%a %b %d %H:%M:%S%.f %Y", text);
            civil.and_then(|civil| civil.to_zoned(jiff::tz::TimeZone::UTC)).map(|zoned| zoned.timestamp())
        })
        .ok()?;
    i64::try_from(parsed.as_nanosecond()).ok()
}

/// Writes `ns` in `style`.
pub fn write(ns: i64, style: Style, out: &mut Vec<u8>) {
    match style {
        Style::Calendar(calendar) => write_calendar(ns, calendar, out),
        Style::Clf(offset) => write_clf(ns, offset, out),
        Style::Epoch(unit) => super::number::write_integer(ns.div_euclid(unit.nanos()), out),
        Style::EpochFraction(digits) => {
            super::number::write_integer(ns.div_euclid(1_000_000_000), out);
            write_fraction(ns.rem_euclid(1_000_000_000), b'.', digits, out);
        }
    }
}

fn write_calendar(ns: i64, style: Calendar, out: &mut Vec<u8>) {
    let offset_minutes = match style.zone {
        Zone::None | Zone::Utc => 0,
        Zone::Colon(minutes) | Zone::Compact(minutes) => i64::from(minutes),
        Zone::SpaceColon(minutes) | Zone::SpaceCompact(minutes) => i64::from(minutes),
    };
    let seconds = ns.div_euclid(1_000_000_000) + offset_minutes * 60;
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    write_two(year / 100, out);
    write_two(year % 100, out);
    out.push(style.date_separator);
    write_two(month, out);
    out.push(style.date_separator);
    write_two(day, out);
    out.push(style.separator);
    write_two(of_day / 3_600, out);
    out.push(b':');
    write_two(of_day / 60 % 60, out);
    out.push(b':');
    write_two(of_day % 60, out);
    write_fraction(ns.rem_euclid(1_000_000_000), style.point, style.digits, out);
    match style.zone {
        Zone::None => {}
        Zone::Utc => out.push(b'Z'),
        Zone::Colon(minutes) => write_offset(minutes, true, out),
        Zone::Compact(minutes) => write_offset(minutes, false, out),
        Zone::SpaceColon(minutes) => {
            out.push(b' ');
            write_offset(minutes, true, out);
        }
        Zone::SpaceCompact(minutes) => {
            out.push(b' ');
            write_offset(minutes, false, out);
        }
    }
}

fn write_offset(minutes: i16, colon: bool, out: &mut Vec<u8>) {
    out.push(if minutes < 0 { b'-' } else { b'+' });
    let minutes = i64::from(minutes.unsigned_abs());
    write_two(minutes / 60, out);
    if colon {
        out.push(b':');
    }
    write_two(minutes % 60, out);
}

fn write_clf(ns: i64, offset: i16, out: &mut Vec<u8>) {
    let seconds = ns.div_euclid(1_000_000_000) + i64::from(offset) * 60;
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    write_two(day, out);
    out.push(b'/');
    out.extend_from_slice(MONTHS[(month - 1) as usize]);
    out.push(b'/');
    write_two(year / 100, out);
    write_two(year % 100, out);
    for part in [of_day / 3_600, of_day / 60 % 60, of_day % 60] {
        out.push(b':');
        write_two(part, out);
    }
    out.push(b' ');
    write_offset(offset, false, out);
}

fn write_fraction(nanos: i64, point: u8, digits: Digits, out: &mut Vec<u8>) {
    let count = match digits {
        Digits::Fixed(count) => count,
        Digits::Trimmed => significant_digits(nanos),
    };
    if count > 0 {
        out.push(point);
        let mut unit = 100_000_000;
        for _ in 0..count {
            out.push(b'0' + (nanos / unit % 10) as u8);
            unit /= 10;
        }
    }
}

fn write_two(number: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]);
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since the epoch (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

impl Style {
    /// Appends the style's code, as shapes carry it; see `docs/format.md`.
    pub(super) fn write_code(self, out: &mut String) {
        let digits = |digits: Digits| match digits {
            Digits::Fixed(count) => char::from(b'0' + count),
            Digits::Trimmed => '*',
        };
        match self {
            Style::Epoch(Unit::Seconds) => out.push_str("es"),
            Style::Epoch(Unit::Millis) => out.push_str("em"),
            Style::Epoch(Unit::Micros) => out.push_str("eu"),
            Style::Epoch(Unit::Nanos) => out.push_str("en"),
            Style::EpochFraction(count) => out.extend(['e', 'f', digits(count)]),
            Style::Clf(offset) => out.push_str(&format!("c{offset:+}")),
            Style::Calendar(style) => {
                let separator = if style.separator == b' ' { '_' } else { 'T' };
                let (date, point) = (char::from(style.date_separator), char::from(style.point));
                out.extend(['t', date, separator, point, digits(style.digits)]);
                match style.zone {
                    Zone::None => {}
                    Zone::Utc => out.push('Z'),
                    Zone::Colon(minutes) => out.push_str(&format!("{minutes:+}:")),
                    Zone::Compact(minutes) => out.push_str(&format!("{minutes:+}")),
                    Zone::SpaceColon(minutes) => out.push_str(&format!("_{minutes:+}:")),
                    Zone::SpaceCompact(minutes) => out.push_str(&format!("_{minutes:+}")),
                }
            }
        }
    }

    /// The inverse of [`Style::write_code`].
    pub(super) fn parse_code(code: &str) -> Option<Style> {
        let digits = |byte: u8| match byte {
            b'*' => Some(Digits::Trimmed),
            b'0'..=b'9' => Some(Digits::Fixed(byte - b'0')),
            _ => None,
        };
        match code.as_bytes() {
            b"es" => Some(Style::Epoch(Unit::Seconds)),
            b"em" => Some(Style::Epoch(Unit::Millis)),
            b"eu" => Some(Style::Epoch(Unit::Micros)),
            b"en" => Some(Style::Epoch(Unit::Nanos)),
            [b'c', ..] => Some(Style::Clf(code[1..].parse().ok()?)),
            [b'e', b'f', count] => Some(Style::EpochFraction(digits(*count)?)),
            [b't', date_separator @ (b'-' | b'/'), separator @ (b'T' | b'_'), point @ (b'.' | b','), count, ..] => {
                let zone = match code.get(5..)? {
                    "" => Zone::None,
                    "Z" => Zone::Utc,
                    offset => match (offset.strip_prefix('_'), offset.strip_suffix(':')) {
                        (None, Some(minutes)) => Zone::Colon(minutes.parse().ok()?),
                        (None, None) => Zone::Compact(offset.parse().ok()?),
                        (Some(offset), None) => Zone::SpaceCompact(offset.parse().ok()?),
                        (Some(offset), Some(_)) => Zone::SpaceColon(offset.trim_end_matches(':').parse().ok()?),
                    },
                };
                let separator = if *separator == b'_' { b' ' } else { b'T' };
                let digits = digits(*count)?;
                Some(Style::Calendar(Calendar {
                    date_separator: *date_separator,
                    separator,
                    point: *point,
                    digits,
                    zone,
                }))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(ns: i64, style: Style) -> String {
        let mut out = Vec::new();
        write(ns, style, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_without_a_year() {
        // 2026-06-01T00:00:00Z
        let latest = 1_780_272_000_000_000_000;
        for (text, wanted) in [
            ("Jan  1 12:00:00", Some("2026-01-01T12:00:00Z")),
            ("Dec 31 23:59:59.5", Some("2025-12-31T23:59:59.5Z")),
            ("Feb 29 00:00:00", Some("2024-02-29T00:00:00Z")),
            ("0102 15:04:05.678901", Some("2026-01-02T15:04:05.678901Z")),
            ("0602 00:00:00", Some("2025-06-02T00:00:00Z")),
            ("Jan 32 12:00:00", None),
            ("Jon  1 12:00:00", None),
            ("1302 15:04:05", None),
            ("0102 15:04:05.", None),
            ("0102 15:04:05 x", None),
        ] {
            let found = parse_without_year(text.as_bytes(), latest).map(|ns| written(ns, RFC_3339));
            assert_eq!(found.as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn known_times() {
        for (text, ns) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-01-01T12:00:00Z", 1_767_268_800_000_000_000),
            ("2026-01-01T12:00:00.000000000Z", 1_767_268_800_000_000_000),
            ("2026-01-01 12:00:00,123", 1_767_268_800_123_000_000),
            ("2026/01/01 12:00:00", 1_767_268_800_000_000_000),
            ("2026-01-01T14:00:00.5+02:00", 1_767_268_800_500_000_000),
            ("2026-01-01T04:00:00-0800", 1_767_268_800_000_000_000),
            ("2026-01-01 13:00:00 +0100", 1_767_268_800_000_000_000),
            ("2026-01-01 10:30:00.25 -01:30", 1_767_268_800_250_000_000),
            ("01/Jan/2026:04:00:00 -0800", 1_767_268_800_000_000_000),
            ("1767268800", 1_767_268_800_000_000_000),
            ("1767268800000", 1_767_268_800_000_000_000),
            ("1767268800000001", 1_767_268_800_000_001_000),
            ("1767268800000000001", 1_767_268_800_000_000_001),
            ("1767268800.25", 1_767_268_800_250_000_000),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000_000_000),
            ("1969-12-31T23:59:59.75Z", -250_000_000),
        ] {
            let (found, style) = parse(text.as_bytes()).unwrap();
            assert_eq!(found, ns, "{text}");
            assert_eq!(written(found, style.unwrap()), text);
            assert_eq!(parse_as(text.as_bytes(), style.unwrap()), Some(ns));
            let mut code = String::new();
            style.unwrap().write_code(&mut code);
            assert_eq!(Style::parse_code(&code), style, "{code}");
        }
    }

    #[test]
    fn times_without_a_style() {
        let noon = 1_767_268_800_000_000_000;
        for (text, ns) in [
            ("Thu, 01 Jan 2026 12:00:00 +0000", Some(noon)),
            ("Thu Jan 01 12:00:00.25 2026", Some(noon + 250_000_000)),
            ("2026-01-01T12:00:00.1234567890Z", Some(noon + 123_456_789)),
            ("1767268800000.25", Some(noon + 250_000)),
            ("2026-13-01T12:00:00Z", None),
            ("2026-02-30T12:00:00Z", None),
            ("yesterday", None),
            ("", None),
            ("-5", None),
            ("007", None),
        ] {
            let found = parse(text.as_bytes());
            assert_eq!(found.map(|(ns, _)| ns), ns, "{text}");
            assert!(found.is_none_or(|(_, style)| style.is_none()), "{text}");
        }
    }

    #[test]
    fn a_style_fits_its_own_kind_only() {
        let trimmed = parse(b"2026-01-01T12:00:00.12Z").unwrap().1.unwrap();
        let fixed = parse(b"2026-01-01T12:00:00.120Z").unwrap().1.unwrap();
        assert!(parse_as(b"2026-01-01T12:00:00.1Z", trimmed).is_some());
        assert!(parse_as(b"2026-01-01T12:00:00Z", trimmed).is_some());
        assert!(parse_as(b"2026-01-01T12:00:00.10Z", trimmed).is_none());
        assert!(parse_as(b"2026-01-01T12:00:00.123Z", fixed).is_some());
        assert!(parse_as(b"2026-01-01T12:00:00.12Z", fixed).is_none());
        assert!(parse_as(b"2026-01-01T12:00:00.123+00:00", fixed).is_none());
    }

    proptest! {
        #[test]
        fn text_is_written_again(text in "[0-9]{4}[-/][01][0-9][-/][0-3][0-9][T ][0-2][0-9]:[0-5][0-9]:[0-5][0-9]([.,][0-9]{1,9})?(Z|[+-][0-2][0-9]:?[0-5][0-9])?") {
            if let Some((ns, Some(style))) = parse(text.as_bytes()) {
                prop_assert_eq!(written(ns, style), text.clone());
                prop_assert_eq!(parse_as(text.as_bytes(), style), Some(ns));
            }
        }

        #[test]
        fn epochs_are_written_again(text in "[0-9]{1,20}([.][0-9]{1,10})?") {
            if let Some((ns, Some(style))) = parse(text.as_bytes()) {
                prop_assert_eq!(written(ns, style), text.clone());
            }
        }

        #[test]
        fn never_panics(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&text);
        }
    }
}
