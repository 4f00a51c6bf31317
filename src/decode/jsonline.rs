//! Lines as the body of a request (`/api/v1/ingest`): JSON lines, a JSON array of objects, or plain text.

use super::{Decoded, Error, Options};

/// Decodes JSON lines, or a JSON array when the first byte that is not blank is `[`. A line that is no JSON object is
/// rejected with the place in it. **Errors**: when the whole grows too large.
pub fn lines(_body: &[u8], _options: &Options, _now_ns: i64) -> Result<Decoded, Error> {
    unimplemented!()
}

/// Decodes text lines of any format: each is parsed where its format is known, else kept as plain text.
/// **Errors**: when the whole grows too large.
pub fn text(_body: &[u8], _options: &Options, _now_ns: i64) -> Result<Decoded, Error> {
    unimplemented!()
}
