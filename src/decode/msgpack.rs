//! MessagePack, as far as Fluent Forward needs it: where a value ends while its bytes still arrive, its tokens in place,
//! and the few values that are written. No tree is built, and no length is believed before its bytes are there.
//! Source: the MessagePack specification (spec.md in msgpack/msgpack).

/// Bytes that are no MessagePack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Fault {
    /// What is wrong.
    pub what: &'static str,
    /// Where, from 0.
    pub at: usize,
}

/// A value without what is inside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token<'a> {
    /// Nothing.
    Nil,
    /// A boolean.
    Boolean(bool),
    /// An integer.
    Integer(i64),
    /// An integer beyond 63 bits.
    Unsigned(u64),
    /// A float.
    Float(f64),
    /// A string; senders put any bytes into it.
    Text(&'a [u8]),
    /// Bytes.
    Binary(&'a [u8]),
    /// So many values follow.
    Array(u32),
    /// So many names, each with its value, follow.
    Map(u32),
    /// Bytes of an application's type.
    Extension(i8, &'a [u8]),
}

/// How a first byte goes on: what it stands for, bytes of its length or number, and how many bytes or values follow.
enum Head {
    /// The value is in the first byte.
    Whole,
    /// A number of so many bytes.
    Fixed(usize),
    /// A length of so many bytes, then as many bytes and `extra` (an extension's type).
    Sized { width: usize, extra: usize },
    /// So many bytes follow.
    Short(usize),
    /// So many values follow.
    Values(u64),
    /// A count of so many bytes, then `each` values for each.
    Counted { width: usize, each: u64 },
}

fn head(first: u8) -> Option<Head> {
    Some(match first {
        0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => Head::Whole,
        0x80..=0x8f => Head::Values(u64::from(first & 0x0f) * 2),
        0x90..=0x9f => Head::Values(u64::from(first & 0x0f)),
        0xa0..=0xbf => Head::Short(usize::from(first & 0x1f)),
        0xc1 => return None,
        0xc4..=0xc6 => Head::Sized { width: 1 << (first - 0xc4), extra: 0 },
        0xc7..=0xc9 => Head::Sized { width: 1 << (first - 0xc7), extra: 1 },
        0xca => Head::Fixed(4),
        0xcb => Head::Fixed(8),
        0xcc..=0xcf => Head::Fixed(1 << (first - 0xcc)),
        0xd0..=0xd3 => Head::Fixed(1 << (first - 0xd0)),
        0xd4..=0xd8 => Head::Short((1 << (first - 0xd4)) + 1),
        0xd9..=0xdb => Head::Sized { width: 1 << (first - 0xd9), extra: 0 },
        0xdc | 0xdd => Head::Counted { width: 2 << (first - 0xdc), each: 1 },
        0xde | 0xdf => Head::Counted { width: 2 << (first - 0xde), each: 2 },
    })
}

/// A big-endian number of at most eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Finds the end of one value in bytes that grow: each call goes on where the last one had to stop.
#[derive(Debug, Clone, Copy)]
pub struct Boundary {
    at: usize,
    /// Values that are still to come.
    pending: u64,
}

impl Default for Boundary {
    fn default() -> Self {
        Boundary { at: 0, pending: 1 }
    }
}

impl Boundary {
    /// Where the value ends, once its last byte is there. **Errors**: when the bytes are no MessagePack.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        while self.pending > 0 {
            let Some(first) = bytes.get(self.at) else { return Ok(None) };
            let Some(head) = head(*first) else { return Err(Fault { what: "a reserved byte", at: self.at }) };
            let rest = &bytes[self.at + 1..];
            let (length, values) = match head {
                Head::Whole => (0, 0),
                Head::Fixed(width) | Head::Short(width) => (width, 0),
                Head::Values(values) => (0, values),
                Head::Sized { width, extra } => match rest.get(..width) {
                    Some(length) => (width.saturating_add(number(length) as usize).saturating_add(extra), 0),
                    None => return Ok(None),
                },
                Head::Counted { width, each } => match rest.get(..width) {
                    Some(count) => (width, number(count) * each),
                    None => return Ok(None),
                },
            };
            if rest.len() < length {
                return Ok(None);
            }
            self.at += 1 + length;
            self.pending = self.pending - 1 + values;
        }
        Ok(Some(self.at))
    }
}

/// Reads tokens from whole bytes.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the first byte on.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let taken = self.rest().get(..length).ok_or(Fault { what: "the value is cut off", at: self.at })?;
        self.at += length;
        Ok(taken)
    }

    /// The next token; of an array or a map its length, with the values to be read next.
    pub fn token(&mut self) -> Result<Token<'a>, Fault> {
        let start = self.at;
        let first = self.take(1)?[0];
        let head = head(first).ok_or(Fault { what: "a reserved byte", at: start })?;
        Ok(match head {
            Head::Whole => match first {
                0xc0 => Token::Nil,
                0xc2 | 0xc3 => Token::Boolean(first == 0xc3),
                _ => Token::Integer(i64::from(first as i8)),
            },
            Head::Values(values) if first < 0x90 => Token::Map(values as u32 / 2),
            Head::Values(values) => Token::Array(values as u32),
            Head::Fixed(width) => fixed(first, self.take(width)?),
            Head::Short(length) => {
                let bytes = self.take(length)?;
                if first < 0xc0 { Token::Text(bytes) } else { Token::Extension(bytes[0] as i8, &bytes[1..]) }
            }
            Head::Sized { width, extra } => {
                let length = number(self.take(width)?) as usize;
                let bytes = self.take(length.saturating_add(extra))?;
                match first {
                    0xc4..=0xc6 => Token::Binary(bytes),
                    0xc7..=0xc9 => Token::Extension(bytes[0] as i8, &bytes[1..]),
                    _ => Token::Text(bytes),
                }
            }
            Head::Counted { width, each } => {
                let count = number(self.take(width)?) as u32;
                if each == 1 { Token::Array(count) } else { Token::Map(count) }
            }
        })
    }

    /// Passes over one whole value; gives its bytes.
    pub fn skip(&mut self) -> Result<&'a [u8], Fault> {
        let place = |fault: Fault| Fault { at: fault.at + self.at, ..fault };
        match Boundary::default().find(self.rest()).map_err(place)? {
            Some(length) => self.take(length),
            None => Err(Fault { what: "the value is cut off", at: self.at }),
        }
    }
}

fn fixed<'a>(first: u8, bytes: &[u8]) -> Token<'a> {
    let value = number(bytes);
    match first {
        0xca => Token::Float(f64::from(f32::from_bits(value as u32))),
        0xcb => Token::Float(f64::from_bits(value)),
        0xcc..=0xcf => i64::try_from(value).map_or(Token::Unsigned(value), Token::Integer),
        // Sign-extended from the number's own width.
        _ => {
            let unused = 64 - 8 * bytes.len() as u32;
            Token::Integer((value << unused) as i64 >> unused)
        }
    }
}

/// Appends the head of an array of at most 15 values.
pub fn write_array(count: u8, out: &mut Vec<u8>) {
    out.push(0x90 | count);
}

/// Appends the head of a map of at most 15 members.
pub fn write_map(count: u8, out: &mut Vec<u8>) {
    out.push(0x80 | count);
}

/// Appends a boolean.
pub fn write_boolean(value: bool, out: &mut Vec<u8>) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

/// Appends a string.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    write_sized(text.as_bytes(), [0xd9, 0xda, 0xdb], out);
}

/// Appends bytes.
pub fn write_binary(bytes: &[u8], out: &mut Vec<u8>) {
    write_sized(bytes, [0xc4, 0xc5, 0xc6], out);
}

fn write_sized(bytes: &[u8], heads: [u8; 3], out: &mut Vec<u8>) {
    match bytes.len() {
        length @ 0..=0xff => out.extend([heads[0], length as u8]),
        length @ 0x100..=0xffff => {
            out.push(heads[1]);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(heads[2]);
            out.extend((length as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens() {
        let long = [&[0xd9, 40][..], &[b'x'; 40]].concat();
        let cases: [(&[u8], Token<'_>); 24] = [
            (&[0x7f], Token::Integer(127)),
            (&[0xff], Token::Integer(-1)),
            (&[0xe0], Token::Integer(-32)),
            (&[0xcc, 0xff], Token::Integer(255)),
            (&[0xcd, 1, 0], Token::Integer(256)),
            (&[0xce, 0xff, 0xff, 0xff, 0xff], Token::Integer(4_294_967_295)),
            (&[0xcf, 0xff, 0, 0, 0, 0, 0, 0, 0], Token::Unsigned(0xff00_0000_0000_0000)),
            (&[0xd0, 0x80], Token::Integer(-128)),
            (&[0xd1, 0x80, 0], Token::Integer(-32_768)),
            (&[0xd3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], Token::Integer(-2)),
            (&[0xc0], Token::Nil),
            (&[0xc3], Token::Boolean(true)),
            (&[0xca, 0x3f, 0x80, 0, 0], Token::Float(1.0)),
            (&[0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0], Token::Float(1.5)),
            (&[0xa2, b'h', b'i'], Token::Text(b"hi")),
            (&long, Token::Text(&[b'x'; 40])),
            (&[0xc4, 1, 9], Token::Binary(&[9])),
            (&[0xd7, 0, 1, 2, 3, 4, 5, 6, 7, 8], Token::Extension(0, &[1, 2, 3, 4, 5, 6, 7, 8])),
            (&[0xc7, 2, 5, 1, 2], Token::Extension(5, &[1, 2])),
            (&[0xd4, 0xff, 7], Token::Extension(-1, &[7])),
            (&[0x92], Token::Array(2)),
            (&[0xdc, 1, 0], Token::Array(256)),
            (&[0x81], Token::Map(1)),
            (&[0xde, 0, 3], Token::Map(3)),
        ];
        for (bytes, token) in cases {
            let mut reader = Reader::new(bytes);
            assert_eq!(reader.token(), Ok(token), "{bytes:02x?}");
            assert!(reader.rest().is_empty(), "{bytes:02x?}");
            for cut in 0..bytes.len() {
                assert!(Reader::new(&bytes[..cut]).token().is_err(), "{bytes:02x?} cut at {cut}");
            }
        }
        assert_eq!(Reader::new(&[0xc1]).token(), Err(Fault { what: "a reserved byte", at: 0 }));
        assert_eq!(Reader::new(&[0x91, 0xc1]).skip(), Err(Fault { what: "a reserved byte", at: 1 }));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        write_array(4, &mut out);
        write_text("HELO", &mut out);
        write_binary(&[1; 300], &mut out);
        write_map(0, &mut out);
        write_boolean(false, &mut out);
        let mut reader = Reader::new(&out);
        let tokens: Vec<Token<'_>> = (0..5).map(|_| reader.token().unwrap()).collect();
        let expected =
            [Token::Array(4), Token::Text(b"HELO"), Token::Binary(&[1; 300]), Token::Map(0), Token::Boolean(false)];
        assert_eq!(tokens, expected);
    }

    proptest! {
        #[test]
        fn an_end_is_found_however_the_bytes_arrive(
            bytes in prop::collection::vec(any::<u8>(), 0..64), steps in prop::collection::vec(1usize..9, 64),
        ) {
            let whole = Boundary::default().find(&bytes);
            let mut found = Boundary::default();
            let mut there = 0;
            let mut end = found.find(&[]);
            for step in steps {
                there = (there + step).min(bytes.len());
                if end == Ok(None) {
                    end = found.find(&bytes[..there]);
                }
            }
            prop_assert_eq!(end, whole);
            prop_assert_eq!(Reader::new(&bytes).skip().ok().map(<[u8]>::len), whole.ok().flatten());
        }
    }
}
