//! What the server answers instead of a result: one [`Error`], and the only place where a [`Kind`] becomes an HTTP or a
//! gRPC status. How an answer looks follows the protocol that was spoken ([`Style`]); what it says does not.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode, request};
use prost::Message;
use tonic::Code;

use super::auth;
use crate::clock::Clock;
use crate::decode;
use crate::error::Kind;
use crate::query;
use crate::storage;

/// A stream becomes idle some time; nobody has to ask each second whether one did.
const STREAMS_RETRY_S: u64 = 30;

/// Why a request, or the whole server, did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port can't be opened.
    #[error("cannot listen on '{address}' ({flag}): {source}")]
    Bind {
        /// The flag that chooses another.
        flag: &'static str,
        /// The address asked for.
        address: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// No, wrong or malformed credentials.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The way in is right, what it asks for may not be done.
    #[error("{0}")]
    Forbidden(&'static str),
    /// Nothing is here.
    #[error("{0}")]
    NotFound(String),
    /// Something is here, but not for this method.
    #[error("{0}")]
    MethodNotAllowed(String),
    /// None of the formats that the caller accepts.
    #[error("{0}")]
    NotAcceptable(String),
    /// A body in a format or encoding that is not understood.
    #[error("{0}")]
    Unsupported(String),
    /// The body did not arrive in time.
    #[error("the body did not arrive within {0:?}")]
    BodyTimeout(Duration),
    /// The body is over a limit.
    #[error("{what} of more than {limit} bytes; the limit is '{setting}'")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Bytes that would be taken.
        limit: usize,
        /// The setting that gives the limit.
        setting: &'static str,
    },
    /// Too much at once; later will do.
    #[error("too many {what} at once; the limit is '{setting}'; try again")]
    Busy {
        /// Of what there is too much.
        what: &'static str,
        /// The setting that gives the limit.
        setting: &'static str,
    },
    /// A tenant sends faster than it may.
    #[error("the tenant sends too fast; the limit is 'limits.bytes_per_second' with 'limits.burst_bytes'; try again")]
    TooFast {
        /// When it may again.
        retry_after: Duration,
    },
    /// All that came is of new streams, and the tenant has as many as it may.
    #[error("the tenant has as many active streams as it may; the limit is 'limits.streams_max'; try again")]
    TooManyStreams,
    /// A request of this id is being kept at this moment.
    #[error("a request of the same batch id is being kept; try again")]
    BeingKept,
    /// Too many requests of all kinds.
    #[error("too many requests at once; the limit is 'server.requests_max'; try again")]
    Overloaded,
    /// The server is starting or closing.
    #[error("the store is {0}; try again")]
    NotReady(&'static str),
    /// Bytes that can't be decoded.
    #[error(transparent)]
    Decode(#[from] decode::Error),
    /// Storage said no.
    #[error(transparent)]
    Store(#[from] storage::Error),
    /// The query failed.
    #[error(transparent)]
    Query(#[from] query::Error),
    /// A fault of our own.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Invalid(_)
            | Error::Unauthenticated(_)
            | Error::Forbidden(_)
            | Error::MethodNotAllowed(_)
            | Error::NotAcceptable(_)
            | Error::Unsupported(_) => Kind::Invalid,
            Error::NotFound(_) => Kind::NotFound,
            Error::BodyTimeout(_) => Kind::Deadline,
            Error::TooLarge { .. } | Error::Busy { .. } | Error::TooFast { .. } | Error::TooManyStreams => Kind::Limit,
            Error::Bind { .. } | Error::Overloaded | Error::NotReady(_) | Error::BeingKept => Kind::Unavailable,
            Error::Decode(error) => error.kind(),
            Error::Store(error) => error.kind(),
            Error::Query(error) => error.kind(),
            Error::Internal(_) => Kind::Internal,
        }
    }

    /// The word for it in JSON answers and metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Error::Unauthenticated(_) => "unauthenticated",
            Error::Forbidden(_) => "forbidden",
            Error::TooLarge { .. } => "too_large",
            _ => self.kind().as_str(),
        }
    }

    /// HTTP's word for it.
    pub fn http_status(&self) -> StatusCode {
        match self {
            Error::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Error::Forbidden(_) => StatusCode::FORBIDDEN,
            Error::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Error::NotAcceptable(_) => StatusCode::NOT_ACCEPTABLE,
            Error::Unsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Error::BodyTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Error::TooLarge { .. } | Error::Decode(decode::Error::TooLarge(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            _ => match self.kind() {
                Kind::Invalid => StatusCode::BAD_REQUEST,
                Kind::NotFound => StatusCode::NOT_FOUND,
                Kind::Limit => StatusCode::TOO_MANY_REQUESTS,
                Kind::Deadline => StatusCode::GATEWAY_TIMEOUT,
                Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
                Kind::Corrupt | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }

    /// gRPC's word for it.
    pub fn grpc_code(&self) -> Code {
        match self {
            Error::Unauthenticated(_) => Code::Unauthenticated,
            Error::Forbidden(_) => Code::PermissionDenied,
            _ => match self.kind() {
                Kind::Invalid => Code::InvalidArgument,
                Kind::NotFound => Code::NotFound,
                Kind::Limit => Code::ResourceExhausted,
                Kind::Deadline => Code::DeadlineExceeded,
                Kind::Unavailable => Code::Unavailable,
                Kind::Corrupt => Code::DataLoss,
                Kind::Internal => Code::Internal,
            },
        }
    }

    /// Whether the very same request may work a little later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Error::Query(_) | Error::TooLarge { .. } | Error::Decode(_) => false,
            _ => matches!(self.kind(), Kind::Limit | Kind::Unavailable),
        }
    }

    /// The same after a while: for how long, in whole seconds.
    fn retry_after_s(&self) -> Option<u64> {
        match self {
            Error::TooFast { retry_after } => Some(retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0)),
            Error::TooManyStreams => Some(STREAMS_RETRY_S),
            _ => self.is_passing().then_some(1),
        }
    }

    /// Elasticsearch's name for it.
    pub fn elastic_type(&self) -> &'static str {
        match self.http_status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "security_exception",
            StatusCode::NOT_FOUND => "resource_not_found_exception",
            StatusCode::PAYLOAD_TOO_LARGE => "content_too_long_exception",
            StatusCode::TOO_MANY_REQUESTS => "es_rejected_execution_exception",
            StatusCode::SERVICE_UNAVAILABLE => "unavailable_shards_exception",
            status if status.is_server_error() => "exception",
            _ => "illegal_argument_exception",
        }
    }

    /// The code of Splunk's event collector, with the status that goes with it ("Troubleshoot HTTP Event Collector").
    fn splunk_code(&self) -> (StatusCode, u8) {
        match self {
            Error::Unauthenticated(reason) if *reason == auth::MISSING => (StatusCode::UNAUTHORIZED, 2),
            Error::Unauthenticated(reason) if *reason == auth::WRONG => (StatusCode::FORBIDDEN, 4),
            Error::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, 3),
            _ => match self.http_status() {
                StatusCode::PAYLOAD_TOO_LARGE => (StatusCode::PAYLOAD_TOO_LARGE, 27),
                status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => (status, 6),
                status @ (StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) => (status, 9),
                status => (status, 8),
            },
        }
    }

    /// The error object of JSON answers: `{"error":{"kind":…,"message":…}}`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "error": { "kind": self.word(), "message": self.to_string() } })
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        let (code, message) = (error.grpc_code(), error.to_string());
        let Some(seconds) = error.retry_after_s() else { return tonic::Status::new(code, message) };
        let status =
            RpcStatus { code: code as i32, message: message.clone(), details: vec![Any::retry_after(seconds)] };
        tonic::Status::with_details(code, message, status.encode_to_vec().into())
    }
}

impl IntoResponse for Error {
    /// An empty answer that carries the error to [`render`], which knows the protocol's style.
    fn into_response(self) -> Response {
        let mut response = self.http_status().into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// Where Firehose delivers.
pub const FIREHOSE_PATH: &str = "/aws/firehose";

/// How errors look in the protocol that is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Style {
    /// `{"error":{…}}`
    Json,
    /// Loki's plain text.
    Text,
    /// OTLP: a protobuf `google.rpc.Status`.
    OtlpProtobuf,
    /// OTLP: a JSON `google.rpc.Status`.
    OtlpJson,
    /// Elasticsearch's `{"error":{"type":…,"reason":…},"status":…}`.
    Elastic,
    /// Splunk's `{"text":…,"code":…}`.
    Splunk,
    /// Firehose's `{"requestId":…,"timestamp":…,"errorMessage":…}`, with the id of the request.
    Firehose(String),
}

/// What Elasticsearch's clients look for in every answer.
pub const ELASTIC_PRODUCT: (&str, &str) = ("x-elastic-product", "Elasticsearch");
/// The header with the id of a delivery by Firehose.
pub const FIREHOSE_REQUEST_ID: &str = "x-amz-firehose-request-id";

impl Style {
    /// The style of the endpoint that a request asks for.
    pub fn of(request: &request::Parts) -> Style {
        let path = request.uri.path();
        if path.starts_with("/loki/") || path.starts_with("/api/prom/") {
            return Style::Text;
        }
        if path.starts_with("/services/") {
            return Style::Splunk;
        }
        if path == FIREHOSE_PATH {
            let id = request.headers.get(FIREHOSE_REQUEST_ID).and_then(|id| id.to_str().ok());
            return Style::Firehose(id.unwrap_or_default().to_owned());
        }
        let ends = ["/_bulk", "/_doc", "/_create"].iter().any(|end| path.contains(end));
        if path.starts_with("/elasticsearch") || path.starts_with("/_") || ends {
            return Style::Elastic;
        }
        if path == "/v1/logs" || path.starts_with("/otlp/") {
            let json = is_media_type(&request.headers, "application/json");
            return if json { Style::OtlpJson } else { Style::OtlpProtobuf };
        }
        Style::Json
    }
}

/// Whether `content-type` is `media_type`, whatever its parameters.
pub fn is_media_type(headers: &HeaderMap, media_type: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(media_type)
}

/// `google.rpc.Status`, as OTLP over HTTP answers errors (opentelemetry-proto, docs/specification.md, "Failures").
#[derive(Clone, PartialEq, Message)]
pub struct RpcStatus {
    /// gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// For programs.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    /// Which message it is.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// Its bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `google.rpc.RetryInfo`; without it a client of OTLP must take RESOURCE_EXHAUSTED for final, and drops its records
/// (opentelemetry-proto, docs/specification.md, "OTLP/gRPC Throttling").
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`, of whole seconds.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

impl Any {
    fn retry_after(seconds: u64) -> Any {
        let retry_delay = Some(Delay { seconds: i64::try_from(seconds).unwrap_or(i64::MAX) });
        let value = RetryInfo { retry_delay }.encode_to_vec();
        Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value }
    }
}

/// Writes an error in a protocol's style.
pub fn render(error: &Error, style: Style) -> Response {
    let text = error.to_string();
    let code = error.grpc_code() as i32;
    let mut status = error.http_status();
    let is_elastic = style == Style::Elastic;
    let (content_type, body) = match style {
        Style::Json => ("application/json", Body::from(format!("{}\n", error.to_json()))),
        Style::Text => ("text/plain; charset=utf-8", Body::from(format!("{text}\n"))),
        Style::OtlpProtobuf => {
            let details = error.retry_after_s().map(Any::retry_after).into_iter().collect();
            ("application/x-protobuf", Body::from(RpcStatus { code, message: text, details }.encode_to_vec()))
        }
        Style::OtlpJson => {
            ("application/json", Body::from(serde_json::json!({ "code": code, "message": text }).to_string()))
        }
        Style::Elastic => {
            let cause = serde_json::json!({ "type": error.elastic_type(), "reason": text });
            let mut whole = cause.clone();
            whole["root_cause"] = serde_json::json!([cause]);
            let body = serde_json::json!({ "error": whole, "status": status.as_u16() });
            ("application/json", Body::from(body.to_string()))
        }
        Style::Splunk => {
            let code;
            (status, code) = error.splunk_code();
            ("application/json", Body::from(serde_json::json!({ "text": text, "code": code }).to_string()))
        }
        Style::Firehose(id) => {
            let now_ms = Clock::System.now_ns() / 1_000_000;
            let body = serde_json::json!({ "requestId": id, "timestamp": now_ms, "errorMessage": text });
            ("application/json", Body::from(body.to_string()))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(seconds) = error.retry_after_s() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if is_elastic {
        headers.insert(ELASTIC_PRODUCT.0, HeaderValue::from_static(ELASTIC_PRODUCT.1));
    }
    if matches!(error, Error::Unauthenticated(_)) {
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"quiver\", charset=\"UTF-8\""));
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"quiver\""));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_follow_the_kind() {
        let too_large = Error::TooLarge { what: "a body", limit: 10, setting: "server.body_bytes_max" };
        let cases = [
            (Error::Invalid("x".into()), 400, Code::InvalidArgument, false),
            (Error::Unauthenticated("x"), 401, Code::Unauthenticated, false),
            (Error::Forbidden("x"), 403, Code::PermissionDenied, false),
            (Error::NotFound("x".into()), 404, Code::NotFound, false),
            (Error::BodyTimeout(Duration::from_secs(1)), 408, Code::DeadlineExceeded, false),
            (too_large, 413, Code::ResourceExhausted, false),
            (Error::Decode(decode::Error::Malformed("x".into())), 400, Code::InvalidArgument, false),
            (Error::Decode(decode::Error::TooLarge(1)), 413, Code::ResourceExhausted, false),
            (Error::Busy { what: "bytes", setting: "s" }, 429, Code::ResourceExhausted, true),
            (Error::TooFast { retry_after: Duration::from_millis(1_500) }, 429, Code::ResourceExhausted, true),
            (Error::TooManyStreams, 429, Code::ResourceExhausted, true),
            (Error::Overloaded, 503, Code::Unavailable, true),
            (Error::NotReady("starting"), 503, Code::Unavailable, true),
            (Error::Query(query::Error::Invalid("x".into())), 400, Code::InvalidArgument, false),
            (Error::Query(query::Error::Limit("x".into())), 429, Code::ResourceExhausted, false),
            (Error::Query(query::Error::Deadline(Duration::ZERO)), 504, Code::DeadlineExceeded, false),
            (Error::Internal("x".into()), 500, Code::Internal, false),
        ];
        for (error, status, code, passing) in cases {
            let answer = render(&error, Style::Json);
            assert_eq!(answer.status().as_u16(), status, "{error:?}");
            assert_eq!(answer.headers().contains_key(RETRY_AFTER), passing, "{error:?}");
            assert_eq!(error.grpc_code(), code, "{error:?}");
            let in_s = error.retry_after_s().map(|seconds| seconds as i64);
            let told = tonic::Status::from(error);
            assert_eq!(told.code(), code);
            let details = RpcStatus::decode(told.details()).unwrap().details;
            let delay = details.first().map(|detail| RetryInfo::decode(&*detail.value).unwrap().retry_delay.unwrap());
            assert_eq!(delay.map(|delay| delay.seconds), in_s);
        }
    }

    #[tokio::test]
    async fn the_body_follows_the_style() {
        let error = Error::Invalid("no field named 'x'".into());
        let body = async |style| {
            let response = render(&error, style);
            axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap()
        };
        assert_eq!(body(Style::Text).await, "no field named 'x'\n");
        assert_eq!(body(Style::Json).await, "{\"error\":{\"kind\":\"invalid\",\"message\":\"no field named 'x'\"}}\n");
        assert_eq!(body(Style::OtlpJson).await, "{\"code\":3,\"message\":\"no field named 'x'\"}");
        assert_eq!(
            body(Style::Elastic).await,
            "{\"error\":{\"reason\":\"no field named 'x'\",\"root_cause\":[{\"reason\":\"no field named 'x'\",\"type\":\
             \"illegal_argument_exception\"}],\"type\":\"illegal_argument_exception\"},\"status\":400}"
        );
        assert_eq!(body(Style::Splunk).await, "{\"code\":6,\"text\":\"no field named 'x'\"}");
        let status = RpcStatus::decode(body(Style::OtlpProtobuf).await).unwrap();
        assert_eq!((status.code, status.message.as_str()), (3, "no field named 'x'"));
    }

    #[test]
    fn the_style_is_the_endpoints() {
        let style = |path: &str, content_type: &str| {
            let request = http::Request::builder().uri(path).header(CONTENT_TYPE, content_type).body(()).unwrap();
            Style::of(&request.into_parts().0)
        };
        assert_eq!(style("/loki/api/v1/push", "application/json"), Style::Text);
        assert_eq!(style("/v1/logs", "application/x-protobuf"), Style::OtlpProtobuf);
        assert_eq!(style("/v1/logs", "Application/JSON; charset=utf-8"), Style::OtlpJson);
        assert_eq!(style("/api/v1/sql", "text/plain"), Style::Json);
        for path in ["/_bulk", "/logs-web/_bulk", "/elasticsearch/x/_doc/1", "/_license"] {
            assert_eq!(style(path, ""), Style::Elastic, "{path}");
        }
        assert_eq!(style("/services/collector/event", ""), Style::Splunk);
        assert_eq!(style("/aws/firehose", ""), Style::Firehose(String::new()));
        assert_eq!(style("/otlp/v1/logs", ""), Style::OtlpProtobuf);
        assert_eq!(style("/v1/input", ""), Style::Json);
    }

    #[test]
    fn a_tenant_that_is_too_fast_is_told_when_it_may_again() {
        let error = Error::TooFast { retry_after: Duration::from_millis(1_500) };
        for style in [Style::Json, Style::Elastic, Style::Splunk, Style::Text] {
            let answer = render(&error, style);
            assert_eq!((answer.status().as_u16(), &answer.headers()[RETRY_AFTER]), (429, &HeaderValue::from(2)));
        }
    }

    #[test]
    fn splunks_codes_follow_the_reason() {
        for (error, status, code) in [
            (Error::Unauthenticated(auth::MISSING), 401, 2),
            (Error::Unauthenticated(auth::WRONG), 403, 4),
            (Error::Unauthenticated("malformed"), 401, 3),
            (Error::Overloaded, 503, 9),
            (Error::Internal("x".into()), 500, 8),
        ] {
            assert_eq!(error.splunk_code(), (StatusCode::from_u16(status).unwrap(), code), "{error:?}");
        }
    }
}
