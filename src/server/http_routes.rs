//! The HTTP port: which path is answered by what, the way in for every request, and how errors leave.
//! What the endpoints do stands in `ingest` and `query_routes`.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{debug, error, warn};

use super::status::{Error, Style, render};
use super::tls::Tls;
use super::{App, admin, connections, deletions, elastic, ingest, query_routes, receivers, splunk};

/// What stands at `/`.
const INDEX: &str = "\
Quiver, a log store for Grafana

  POST /loki/api/v1/push            Loki push (protobuf, JSON)
  POST /v1/logs                     OTLP logs (protobuf, JSON)
  POST /api/v1/ingest               JSON lines, a JSON array, or text lines
  POST /_bulk                       Elasticsearch (also /{index}/_bulk, /{index}/_doc, and below /elasticsearch)
  POST /services/collector/event    Splunk's event collector (also /raw)
  POST /api/v2/logs                 Datadog's intake
  POST /aws/firehose                Amazon Data Firehose, CloudWatch Logs
  POST /gelf                        GELF
  POST /upload                      systemd-journal-upload
  POST /api/v1/sql                  SQL in the body; ?from= &to= &limit= &timeout=
                                    Accept: application/x-ndjson, text/csv, text/plain (a table),
                                    application/vnd.apache.arrow.stream
  GET  /api/v1/fields               names and types of the fields; ?from= &to=
  GET  /api/v1/fields/{name}/values values of a field; ?from= &to= &filter= &contains= &limit=
  POST /api/v1/admin/flush          writes what is in memory to segments
  POST /api/v1/admin/compact        flushes, and merges small segments to the end
  POST /api/v1/delete               delete records: a JSON object of filter (SQL), from, to; GET lists,
                                    DELETE /api/v1/delete/{id} cancels
  GET  /ready                       200 when requests are served
  GET  /metrics                     Prometheus metrics

Times are RFC 3339, digits since the epoch (s, ms, us, ns), or a duration before now such as 15m.
The tenant is named by the header X-Scope-OrgID. The gRPC port speaks OTLP and Arrow Flight SQL.
";

const PATHS: [&str; 18] = [
    "/loki/api/v1/push",
    "/v1/logs",
    "/api/v1/ingest",
    "/_bulk",
    "/services/collector/event",
    "/api/v2/logs",
    "/aws/firehose",
    "/gelf",
    "/upload",
    "/api/v1/sql",
    "/api/v1/fields",
    "/api/v1/fields/{name}/values",
    "/api/v1/admin/flush",
    "/api/v1/admin/compact",
    "/api/v1/delete",
    "/api/v1/delete/{id}",
    "/ready",
    "/metrics",
];

/// Answers on a listener until `stop`, then lets running requests end.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    app: Arc<App>,
    stop: CancellationToken,
) -> &'static str {
    let limits = app.connections;
    connections::serve(listener, tls, router(app), limits, stop).await;
    "http"
}

fn router(app: Arc<App>) -> Router {
    let guarded = Router::new()
        .route("/loki/api/v1/push", post(ingest::loki_push))
        .route("/api/prom/push", post(ingest::loki_push))
        .route("/v1/logs", post(ingest::otlp_logs))
        .route("/otlp/v1/logs", post(ingest::otlp_logs))
        .route("/api/v1/ingest", post(ingest::lines))
        .route("/api/v1/sql", post(query_routes::sql))
        .route("/api/v1/fields", get(query_routes::fields))
        .route("/api/v1/fields/{name}/values", get(query_routes::field_values))
        .route("/api/v1/admin/flush", post(admin::flush))
        .route("/api/v1/admin/compact", post(admin::compact))
        .route("/api/v1/delete", post(deletions::request).get(deletions::list))
        .route("/api/v1/delete/{id}", delete(deletions::cancel))
        .route("/metrics", get(metrics))
        .merge(elastic::routes())
        .nest("/elasticsearch", elastic::routes())
        .merge(splunk::routes())
        .merge(receivers::routes())
        .route_layer(from_fn_with_state(app.clone(), admit));
    Router::new()
        .route("/", get(index))
        .route("/elasticsearch", get(elastic::root))
        .route("/elasticsearch/", get(elastic::root))
        .route("/ready", get(ready))
        .merge(splunk::open_routes())
        .merge(guarded)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        // Bodies are read by `body`, with the limits of the config.
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(render_errors))
        .with_state(app)
}

/// The way in of every endpoint that reads or writes.
async fn admit(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    match app.admit(request.headers()) {
        Err(error) => error.into_response(),
        Ok((caller, place)) => {
            request.extensions_mut().insert(caller);
            let response = next.run(request).await;
            drop(place);
            response
        }
    }
}

/// The way out of every error.
async fn render_errors(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let style = Style::of(&parts);
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let mut response = next.run(Request::from_parts(parts, body)).await;
    let Some(error) = response.extensions_mut().remove::<Arc<Error>>() else { return response };
    match error.http_status() {
        // A missed deadline is the query's doing, and counted.
        StatusCode::GATEWAY_TIMEOUT => debug!(%method, path, "{error}"),
        status if status.is_server_error() => warn!(%method, path, %status, "{error}"),
        status => debug!(%method, path, %status, "{error}"),
    }
    render(&error, style)
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    error!("a request panicked: {}", text.unwrap_or("without a message"));
    Error::Internal("a fault of the server's own; its log has the cause".to_owned()).into_response()
}

/// `/` is asked by people and by clients of Elasticsearch.
async fn index(headers: HeaderMap) -> Response {
    if elastic::is_reader(&headers) { INDEX.into_response() } else { elastic::root().await }
}

async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, Error> {
    app.parts()?.store.health()?;
    Ok("ready\n")
}

async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Error> {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, content_type)], app.metrics_text()?).into_response())
}

pub(super) async fn not_found(request: Request) -> Error {
    let path = request.uri().path();
    Error::NotFound(format!("nothing is at '{path}'{}", hint(path)))
}

async fn method_not_allowed(request: Request) -> Error {
    let (method, path) = (request.method(), request.uri().path());
    let other = if method == http::Method::POST { "GET" } else { "POST" };
    Error::MethodNotAllowed(format!("'{path}' is asked by {other}, not by {method}"))
}

/// The path that was probably meant, or where the paths are told.
fn hint(path: &str) -> String {
    let scored = PATHS.iter().map(|known| (strsim::normalized_damerau_levenshtein(path, known), known));
    match scored.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, known)) if score > 0.6 => format!("; did you mean '{known}'?"),
        _ => "; GET / lists what is here".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt;

    use super::*;
    use crate::clock::Clock;
    use crate::config::{Config, Flags};

    fn app(set: &[&str]) -> Router {
        let flags = Flags { set: set.iter().map(|set| set.to_string()).collect(), ..Flags::default() };
        let app = App::new(&Config::load(&flags, |_| None).unwrap(), Clock::System, crate::memory::Ceiling::none());
        router(Arc::new(app.unwrap()))
    }

    async fn ask(router: Router, method: &str, path: &str, token: &str) -> (StatusCode, String) {
        let mut request = http::Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn the_index_names_every_path() {
        for path in PATHS {
            assert!(INDEX.contains(path), "{path}");
        }
    }

    #[tokio::test]
    async fn before_recovery_everything_but_the_index_says_so() {
        assert_eq!(ask(app(&[]), "GET", "/", "").await.0, StatusCode::OK);
        assert_eq!(ask(app(&[]), "GET", "/metrics", "").await.0, StatusCode::OK);
        let cases = [
            ("GET", "/ready"),
            ("POST", "/api/v1/admin/flush"),
            ("POST", "/api/v1/admin/compact"),
            ("POST", "/loki/api/v1/push"),
            ("POST", "/api/v1/sql"),
            ("GET", "/api/v1/fields"),
        ];
        for (method, path) in cases {
            let (status, body) = ask(app(&[]), method, path, "").await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert!(body.contains("the store is starting"), "{path}: {body}");
        }
    }

    #[tokio::test]
    async fn wrong_paths_and_methods_get_a_hint() {
        let (status, body) = ask(app(&[]), "GET", "/loki/api/v1/pusch", "").await;
        assert_eq!(
            (status, body.as_str()),
            (StatusCode::NOT_FOUND, "nothing is at '/loki/api/v1/pusch'; did you mean '/loki/api/v1/push'?\n")
        );
        let (status, body) = ask(app(&[]), "GET", "/nowhere", "").await;
        assert!(status == StatusCode::NOT_FOUND && body.contains("GET / lists"), "{body}");
        let (status, body) = ask(app(&[]), "GET", "/api/v1/sql", "").await;
        assert!(status == StatusCode::METHOD_NOT_ALLOWED && body.contains("asked by POST"), "{body}");
    }

    #[tokio::test]
    async fn guarded_paths_want_credentials() {
        let set = ["server.auth.tokens=secret"];
        assert_eq!(ask(app(&set), "GET", "/", "").await.0, StatusCode::OK);
        assert_eq!(ask(app(&set), "GET", "/ready", "").await.0, StatusCode::SERVICE_UNAVAILABLE);
        for path in ["/metrics", "/api/v1/fields"] {
            let (status, body) = ask(app(&set), "GET", path, "").await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
            assert!(body.contains("\"kind\":\"unauthenticated\""), "{body}");
            assert_eq!(ask(app(&set), "GET", path, "wrong").await.0, StatusCode::UNAUTHORIZED);
        }
        assert_eq!(ask(app(&set), "GET", "/metrics", "secret").await.0, StatusCode::OK);
    }
}
