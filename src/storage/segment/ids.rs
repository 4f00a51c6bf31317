//! Ids in fewer bytes: a text column whose values are all hexadecimal of one length, or all UUIDs, lies in the file as
//! bytes of fixed length (half, and 16 of 36). Readers of segments get the text back; `quiver.ids` in the file's metadata
//! and the catalog say which columns these are.
//!
//! **Invariant**: [`IdForm::decode`] of [`IdForm::encode`] is the text that came, byte for byte.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, StringArray, StringViewBuilder};
use serde::{Deserialize, Serialize};

/// Shortest and longest id in bytes: shorter ones gain nothing, longer ones are no ids.
const BYTES_MIN: usize = 8;
const BYTES_MAX: usize = 32;
const UUID_TEXT_BYTES: usize = 36;
/// Where a UUID has its hyphens.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// How the ids of a column are written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdForm {
    /// Lower-case hexadecimal of this many bytes.
    Hex(u8),
    /// Lower-case `8-4-4-4-12`.
    Uuid,
}

impl IdForm {
    /// The form that all values of a text column have; `None` when there is none, or there are no values.
    pub fn of(texts: &StringArray) -> Option<IdForm> {
        let mut values = texts.iter().flatten();
        let form = IdForm::of_text(values.next()?)?;
        let mut bytes = [0; BYTES_MAX];
        let all = texts.iter().flatten().all(|text| form.parse(text, &mut bytes).is_some());
        all.then_some(form)
    }

    fn of_text(text: &str) -> Option<IdForm> {
        let half = text.len() / 2;
        let form = match text.len() {
            UUID_TEXT_BYTES => IdForm::Uuid,
            length if length.is_multiple_of(2) && (BYTES_MIN..=BYTES_MAX).contains(&half) => {
                IdForm::Hex(u8::try_from(half).ok()?)
            }
            _ => return None,
        };
        // All decimal digits: a number in a text column, which other columns may compare with.
        if matches!(form, IdForm::Hex(_)) && text.bytes().all(|byte| byte.is_ascii_digit()) && half == BYTES_MIN {
            return None;
        }
        form.parse(text, &mut [0; BYTES_MAX]).map(|_| form)
    }

    /// Length of an id in the file.
    pub fn bytes(self) -> usize {
        match self {
            IdForm::Hex(bytes) => usize::from(bytes),
            IdForm::Uuid => 16,
        }
    }

    /// The bytes of a text; `None` when it is not of this form.
    pub fn parse(self, text: &str, into: &mut [u8; BYTES_MAX]) -> Option<usize> {
        let text = text.as_bytes();
        let mut at = 0;
        match self {
            IdForm::Hex(_) if text.len() != 2 * self.bytes() => return None,
            IdForm::Uuid if text.len() != UUID_TEXT_BYTES || HYPHENS.iter().any(|place| text[*place] != b'-') => {
                return None;
            }
            _ => {}
        }
        // One test at the end instead of one for each digit: only a byte that is none sets the upper bits.
        let mut seen = 0;
        let mut take = |digits: &[u8]| {
            for pair in digits.as_chunks::<2>().0 {
                let (high, low) = (NIBBLES[usize::from(pair[0])], NIBBLES[usize::from(pair[1])]);
                seen |= high | low;
                into[at] = high << 4 | (low & 15);
                at += 1;
            }
        };
        if self == IdForm::Uuid {
            let mut start = 0;
            for end in HYPHENS.into_iter().chain([UUID_TEXT_BYTES]) {
                take(&text[start..end]);
                start = end + 1;
            }
        } else {
            take(text);
        }
        if seen > 15 {
            return None;
        }
        Some(at)
    }

    /// A text column as it lies in the file.
    pub fn encode(self, texts: &StringArray) -> ArrayRef {
        let mut ids = FixedSizeBinaryBuilder::with_capacity(texts.len(), self.bytes() as i32);
        let mut bytes = [0; BYTES_MAX];
        for text in texts {
            match text {
                None => ids.append_null(),
                Some(text) => {
                    let length = self.parse(text, &mut bytes).expect("the form was found over all values");
                    ids.append_value(&bytes[..length]).expect("an id has the length of its form");
                }
            }
        }
        Arc::new(ids.finish())
    }

    /// A column of the file as text views.
    pub fn decode(self, ids: &ArrayRef) -> ArrayRef {
        let ids = ids.as_fixed_size_binary();
        let mut texts = StringViewBuilder::with_capacity(ids.len());
        let (mut digits, mut uuid) = ([0; 2 * BYTES_MAX], [b'-'; UUID_TEXT_BYTES]);
        for id in ids.iter() {
            let Some(id) = id else {
                texts.append_null();
                continue;
            };
            for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(id) {
                *pair = PAIRS[usize::from(*byte)];
            }
            let text = match self {
                IdForm::Hex(_) => &digits[..2 * id.len()],
                IdForm::Uuid => {
                    let (mut start, mut from) = (0, 0);
                    for end in HYPHENS.into_iter().chain([UUID_TEXT_BYTES]) {
                        uuid[start..end].copy_from_slice(&digits[from..][..end - start]);
                        (start, from) = (end + 1, from + end - start);
                    }
                    &uuid[..]
                }
            };
            texts.append_value(std::str::from_utf8(text).expect("hexadecimal digits are ASCII"));
        }
        Arc::new(texts.finish())
    }
}

/// The value of a lower-case hexadecimal digit; [`NO_DIGIT`] for other bytes.
static NIBBLES: [u8; 256] = {
    let mut nibbles = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        nibbles[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    nibbles
};
const NO_DIGIT: u8 = 0xff;

/// The two digits of a byte.
static PAIRS: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    pairs
};

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[Option<&str>], expect: Option<IdForm>) {
        let texts = StringArray::from(values.to_vec());
        let form = IdForm::of(&texts);
        assert_eq!(form, expect, "{values:?}");
        if let Some(form) = form {
            let back = form.decode(&form.encode(&texts));
            assert_eq!(back.as_string_view().iter().collect::<Vec<_>>(), values, "{form:?}");
        }
    }

    #[test]
    fn ids_are_recognised_and_come_back() {
        check(&[Some("4bf92f3577b34da6a3ce929d0e0e4736"), None], Some(IdForm::Hex(16)));
        check(&[Some("00f067aa0ba902b7")], Some(IdForm::Hex(8)));
        check(&[Some("123e4567-e89b-42d3-a456-426614174000"), None], Some(IdForm::Uuid));
    }

    #[test]
    fn what_would_not_come_back_stays_text() {
        check(&[None], None);
        check(&[Some("4BF92F3577B34DA6")], None);
        check(&[Some("00f067aa0ba902b7"), Some("00f067aa0ba902b")], None);
        check(&[Some("123e4567-e89b-42d3-a456_426614174000")], None);
        check(&[Some("1234567890123456")], None);
        check(&[Some("deadbeef")], None);
    }
}
