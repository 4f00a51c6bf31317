//! OTLP logs: protobuf and JSON bodies of `/v1/logs`, and the message that gRPC hands over.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;

use super::{Decoded, Error, Options};

/// Decodes a protobuf `ExportLogsServiceRequest`. **Errors**: when the bytes are none, or it grows too large.
pub fn logs_protobuf(_body: &[u8], _options: &Options, _now_ns: i64) -> Result<Decoded, Error> {
    unimplemented!()
}

/// Decodes the JSON form. **Errors**: as [`logs_protobuf`].
pub fn logs_json(_body: &[u8], _options: &Options, _now_ns: i64) -> Result<Decoded, Error> {
    unimplemented!()
}

/// Takes a decoded message, as gRPC hands it over. **Errors**: when it grows too large.
pub fn logs_request(_request: &ExportLogsServiceRequest, _options: &Options, _now_ns: i64) -> Result<Decoded, Error> {
    unimplemented!()
}
