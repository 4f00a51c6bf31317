//! Loki's push protocol (`/loki/api/v1/push`): protobuf and JSON bodies, already decompressed.

use super::{Decoded, Error, Options};

/// Decodes a protobuf `PushRequest`. **Errors**: when the bytes are no `PushRequest`, or it grows too large.
pub fn push_protobuf(_body: &[u8], _options: &Options, _now_ns: i64) -> Result<Decoded, Error> {
    unimplemented!()
}

/// Decodes a JSON push body. **Errors**: as [`push_protobuf`].
pub fn push_json(_body: &[u8], _options: &Options, _now_ns: i64) -> Result<Decoded, Error> {
    unimplemented!()
}
