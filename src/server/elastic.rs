//! Elasticsearch's API as far as those who send logs use it: bulk requests, single documents, and what clients ask
//! before they send (versions, licences, templates), which is answered politely and changes nothing.
//!
//! Invariant: an item's status is 201 only when its document was kept; what a client may send again is 429, what it
//! must not is 400.
//! Source: how answers are read, in libbeat/outputs/elasticsearch/client.go (Beats), lib/logstash/outputs/elasticsearch
//! (Logstash), plugins/out_es/es.c (Fluent Bit: `errors` and `items` side by side), elasticsearch-py's helpers.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use axum::{Extension, Router};
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::ingest::{JSON, Received, take_with};
use super::status::{ELASTIC_PRODUCT, Error};
use super::{App, Caller, body};
use crate::decode::elastic::{self, Action, Bulk, Item, Outcome};
use crate::record::Seen;
use crate::storage::BatchId;

/// What Elasticsearch's own clients of the last years accept: Beats and Logstash 7, 8 and 9, clients with a product check.
const VERSION: &str = "8.19.0";
const LUCENE_VERSION: &str = "9.12.2";
/// Where clients look first, besides `/`.
const HANDSHAKES: [&str; 25] = [
    "/_license",
    "/_xpack",
    "/_xpack/{*rest}",
    "/_cluster/{*rest}",
    "/_nodes",
    "/_nodes/{*rest}",
    "/_cat",
    "/_cat/{*rest}",
    "/_index_template",
    "/_index_template/{name}",
    "/_component_template",
    "/_component_template/{name}",
    "/_template",
    "/_template/{name}",
    "/_ilm/policy",
    "/_ilm/policy/{name}",
    "/_ilm/status",
    "/_ingest/pipeline",
    "/_ingest/pipeline/{name}",
    "/_data_stream",
    "/_data_stream/{name}",
    "/_refresh",
    "/_flush",
    "/{index}/_refresh",
    "/{index}/_flush",
];

/// The routes, to stand at the root and below `/elasticsearch`.
pub(super) fn routes() -> Router<Arc<App>> {
    let sending = Router::new()
        .route("/_bulk", post(bulk).put(bulk))
        .route("/{index}/_bulk", post(bulk).put(bulk))
        .route("/{index}/_doc", post(document))
        .route("/{index}/_doc/{id}", post(document).put(document))
        .route("/{index}/_create/{id}", post(document).put(document))
        .route("/{index}", any(index));
    HANDSHAKES
        .iter()
        .fold(sending, |router, path| router.route(path, any(handshake)))
        .layer(from_fn(|request: Request, next: Next| async { as_product(next.run(request).await) }))
}

fn as_product(mut response: Response) -> Response {
    response.headers_mut().insert(ELASTIC_PRODUCT.0, HeaderValue::from_static(ELASTIC_PRODUCT.1));
    response
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, JSON)], body.to_string()).into_response()
}

/// Whether somebody at `/` wants to read, and is no client of Elasticsearch: a browser, or a person with curl.
pub(super) fn is_reader(headers: &HeaderMap) -> bool {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let agent = header(USER_AGENT);
    header(ACCEPT).contains("text/") || agent.starts_with("curl/") || agent.starts_with("Wget/")
}

/// `/`: who is here, as Elasticsearch says it.
pub(super) async fn root() -> Response {
    as_product(answer(
        StatusCode::OK,
        &json!({
            "name": "quiver", "cluster_name": "quiver", "cluster_uuid": "quiver",
            "version": {
                "number": VERSION, "build_flavor": "default", "build_type": "docker", "build_hash": "quiver",
                "build_date": "2025-01-01T00:00:00Z", "build_snapshot": false, "lucene_version": LUCENE_VERSION,
                "minimum_wire_compatibility_version": "7.17.0", "minimum_index_compatibility_version": "7.0.0",
            },
            "tagline": "You Know, for Search",
        }),
    ))
}

/// `POST /_bulk`, `POST /{index}/_bulk`.
async fn bulk(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    index: Option<Path<String>>,
    request: Request,
) -> Result<Response, Error> {
    let started = Instant::now();
    let is_brief = query_of(&request).any(|(name, _)| name == "filter_path");
    let index = index.map(|Path(index)| index);
    let decoder = move |received: &mut Received, app: &App, now_ns| {
        let (body, options) = (received.decompress(app)?, received.options.clone());
        let Bulk { decoded, items } =
            elastic::bulk(&body, index.as_deref(), &mut known_to(received), &options, now_ns)?;
        Ok((decoded, items))
    };
    let (_, items) = take_with(&app, &caller, "elastic", request, decoder).await?;
    if items.is_empty() {
        return Err(Error::Invalid("request body is required".to_owned()));
    }
    let first_id = app.clock.now_ns();
    let errors = items.iter().any(|item| matches!(item.outcome, Outcome::Refused(_)));
    let mut text = format!("{{\"took\":{},\"errors\":{errors},\"items\":[", started.elapsed().as_millis());
    for (place, item) in items.iter().enumerate() {
        let comma = if place > 0 { "," } else { "" };
        let told = tell(item, first_id, place, is_brief);
        // Writing to a string can't fail.
        let _ = write!(text, "{comma}{{\"{}\":{told}}}", item.action.as_str());
    }
    text.push_str("]}");
    Ok(([(CONTENT_TYPE, JSON)], text).into_response())
}

/// What is known of a document's id; a new one is claimed for this request.
fn known_to(received: &mut Received) -> impl FnMut(&[&[u8]]) -> Seen + '_ {
    |parts| received.ids.claim.add(BatchId::of(parts))
}

/// `POST /{index}/_doc`, `PUT /{index}/_doc/{id}`, `PUT /{index}/_create/{id}`.
async fn document(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(named): Path<Vec<String>>,
    request: Request,
) -> Result<Response, Error> {
    let creates = request.uri().path().contains("/_create/")
        || query_of(&request).any(|(name, value)| name == "op_type" && value == "create");
    let action = if creates { Action::Create } else { Action::Index };
    let decoder = move |received: &mut Received, app: &App, now_ns| {
        let (body, options) = (received.decompress(app)?, received.options.clone());
        let index = named.first().map(String::as_str).unwrap_or_default();
        let target = (action, index, named.get(1).map(String::as_str));
        let Bulk { decoded, items } = elastic::document(&body, target, &mut known_to(received), &options, now_ns)?;
        Ok((decoded, items))
    };
    let (_, items) = take_with(&app, &caller, "elastic", request, decoder).await?;
    let item = items.first().ok_or_else(|| Error::Internal("a document has no item".to_owned()))?;
    let told = tell(item, app.clock.now_ns(), 0, false);
    let status = told["status"].as_u64().and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok());
    Ok(answer(status.unwrap_or(StatusCode::OK), &told))
}

/// An item of a bulk answer; where no id was given, one is made up of time and place, as it is used for nothing.
fn tell(item: &Item, first_id: i64, place: usize, is_brief: bool) -> Value {
    let (result, status) = match &item.outcome {
        Outcome::Created => ("created", 201),
        Outcome::Repeated => ("updated", 200),
        Outcome::Refused(fault) => {
            let (kind, status) = fault.kind.told();
            let mut told = json!({ "status": status, "error": { "type": kind, "reason": fault.reason } });
            if !is_brief {
                (told["_index"], told["_id"]) = (json!(item.index), json!(item.id));
            }
            return told;
        }
    };
    if is_brief {
        return json!({ "status": status });
    }
    let id = item.id.clone().unwrap_or_else(|| format!("{first_id:016x}{place:04x}"));
    json!({
        "_index": item.index, "_id": id, "_version": 1, "result": result,
        "_shards": { "total": 1, "successful": 1, "failed": 0 }, "_seq_no": 0, "_primary_term": 1, "status": status,
    })
}

/// The parameters of a request's query.
pub(super) fn query_of(request: &Request) -> impl Iterator<Item = (String, String)> + use<> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    pairs.into_iter()
}

/// `HEAD /{index}` and `PUT /{index}`: an index is where somebody says it is.
async fn index(State(app): State<Arc<App>>, Path(index): Path<String>, request: Request) -> Result<Response, Error> {
    match *request.method() {
        Method::HEAD if !index.starts_with('_') => Ok(StatusCode::OK.into_response()),
        Method::PUT if !index.starts_with('_') => {
            read_through(&app, request).await?;
            let body = json!({ "acknowledged": true, "shards_acknowledged": true, "index": index });
            Ok(answer(StatusCode::OK, &body))
        }
        _ => Err(super::http_routes::not_found(request).await),
    }
}

/// Templates are large; one that is left unread breaks the connection.
async fn read_through(app: &App, request: Request) -> Result<(), Error> {
    let (parts, body) = request.into_parts();
    body::read(&parts.headers, body, &app.limits, &mut app.budget.lease()).await.map(drop)
}

/// What clients ask and set before they send. There are no templates, policies and pipelines here: whoever looks for one
/// is told so, and whoever brings one is thanked.
async fn handshake(State(app): State<Arc<App>>, request: Request) -> Result<Response, Error> {
    let path = request.uri().path().to_owned();
    let path = path.strip_prefix("/elasticsearch").unwrap_or(&path);
    let (first, rest) = path.trim_matches('/').split_once('/').unwrap_or((path.trim_matches('/'), ""));
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1").to_owned();
    let is_json = query_of(&request).any(|(name, value)| name == "format" && value == "json");
    let is_question = matches!(*request.method(), Method::GET | Method::HEAD);
    read_through(&app, request).await?;
    let found = match (first, rest) {
        ("_license", _) => license(),
        ("_xpack", _) => json!({
            "build": {}, "license": { "type": "basic", "mode": "basic", "status": "active" },
            "features": { "ilm": { "available": true, "enabled": true } }, "tagline": "You know, for X",
        }),
        ("_cluster", "settings") => json!({ "persistent": {}, "transient": {}, "acknowledged": true }),
        ("_cluster", _) => health(),
        ("_nodes", _) => nodes(&host),
        ("_cat", _) if is_json => json!([]),
        ("_cat", _) => return Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], "").into_response()),
        (_, "_refresh" | "_flush") | ("_refresh" | "_flush", _) => {
            json!({ "_shards": { "total": 1, "successful": 1, "failed": 0 } })
        }
        ("_ilm", "status") => json!({ "operation_mode": "RUNNING" }),
        _ if !is_question => json!({ "acknowledged": true }),
        ("_index_template", "") => json!({ "index_templates": [] }),
        ("_component_template", "") => json!({ "component_templates": [] }),
        ("_data_stream", "") => json!({ "data_streams": [] }),
        (_, "" | "policy" | "pipeline") => json!({}),
        _ => return Err(Error::NotFound(format!("there is no '{path}': what is sent is taken without it"))),
    };
    Ok(answer(StatusCode::OK, &found))
}

fn license() -> Value {
    json!({ "license": {
        "status": "active", "uid": "quiver", "type": "basic", "issue_date": "2025-01-01T00:00:00.000Z",
        "issue_date_in_millis": 1_735_689_600_000_i64, "max_nodes": 1_000, "issued_to": "quiver", "issuer": "elasticsearch",
        "start_date_in_millis": -1,
    } })
}

fn health() -> Value {
    json!({
        "cluster_name": "quiver", "status": "green", "timed_out": false, "number_of_nodes": 1,
        "number_of_data_nodes": 1, "active_primary_shards": 1, "active_shards": 1, "relocating_shards": 0,
        "initializing_shards": 0, "unassigned_shards": 0, "number_of_pending_tasks": 0,
        "active_shards_percent_as_number": 100.0,
    })
}

/// One node, at the address by which it was asked: clients that sniff go on with what they find here.
fn nodes(host: &str) -> Value {
    json!({
        "_nodes": { "total": 1, "successful": 1, "failed": 0 }, "cluster_name": "quiver",
        "nodes": { "quiver": {
            "name": "quiver", "version": VERSION, "build_flavor": "default", "roles": ["data", "ingest", "master"],
            "http": { "bound_address": [host], "publish_address": host },
        } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::elastic::{Fault, Kind};

    #[test]
    fn items_are_told_as_clients_read_them() {
        let item = |outcome| Item { action: Action::Create, index: "i".into(), id: None, outcome };
        let fault = Outcome::Refused(Fault { kind: Kind::Unparsed, reason: "no object".into() });
        assert_eq!(tell(&item(Outcome::Created), 1, 2, true), json!({ "status": 201 }));
        assert_eq!(tell(&item(Outcome::Repeated), 1, 2, true), json!({ "status": 200 }));
        let error = json!({ "type": "document_parsing_exception", "reason": "no object" });
        assert_eq!(tell(&item(fault.clone()), 1, 2, true), json!({ "status": 400, "error": error }));
        assert_eq!(tell(&item(fault), 1, 2, false)["_index"], "i");
        let kept = tell(&item(Outcome::Created), 1, 2, false);
        assert_eq!((&kept["_id"], &kept["result"]), (&json!("00000000000000010002"), &json!("created")));
    }

    #[test]
    fn people_and_clients_are_told_apart() {
        let reads = |name: &'static str, value: &str| {
            is_reader(&HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]))
        };
        assert!(reads("accept", "text/html,application/xhtml+xml") && reads("user-agent", "curl/8.5.0"));
        assert!(!reads("accept", "application/vnd.elasticsearch+json; compatible-with=9"));
        assert!(!reads("accept", "*/*") && !reads("user-agent", "Manticore 0.9.1"));
    }
}
