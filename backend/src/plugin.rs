//! The plugin's gRPC services: Grafana's messages in, the modules' answers out; what an answer is made of is theirs.
//! Invariant: one data source, one open client; a failing or panicking query fails alone.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use grafana_plugin_sdk::backend::async_trait;
use grafana_plugin_sdk::pluginv2;
use http::HeaderValue;
use pluginv2::check_health_response::HealthStatus;
use pluginv2::data_server::{Data, DataServer};
use pluginv2::diagnostics_server::{Diagnostics, DiagnosticsServer};
use pluginv2::resource_server::{Resource, ResourceServer};
use pluginv2::stream_server::{Stream as Streams, StreamServer};
use pluginv2::{publish_stream_response, subscribe_stream_response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::Signal;
use tonic_sdk::transport::server::TcpIncoming;
use tonic_sdk::{Code, Request, Response, Status};

use crate::client::Client;
use crate::error::{Error, Kind};
use crate::query::{Ask, Caller};
use crate::settings::{self, PROXY_PREFIX, Raw, Settings};
use crate::shutdown::Controller;
use crate::stream::Channels;
use crate::{export, frame, health, query, resource, stream};

/// A request of Grafana: models are small, and a resource call's body is one of them.
const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Grafana kills the process 2 s after it has asked it to end.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(1_500);
/// Data sources held open; more than an installation has.
const INSTANCES_MAX: usize = 1_000;

/// Serves until Grafana asks to end, by a call or by a signal.
pub async fn serve(
    listener: TcpListener,
    mut terminate: Signal,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let plugin = Arc::new(Plugin::default());
    let controller = Controller::default();
    let ended = async {
        tokio::select! {
            () = controller.clone().asked() => {}
            _ = terminate.recv() => {}
        }
    };
    let ended = ended.shared();
    let (mut reporter, health) = tonic_health_sdk::server::health_reporter();
    // go-plugin asks for the service of this name before it takes the plugin for started.
    reporter.set_service_status("plugin", tonic_health_sdk::ServingStatus::Serving).await;
    let incoming = TcpIncoming::from_listener(listener, true, None)?;
    let server = tonic_sdk::transport::Server::builder()
        .add_service(health)
        .add_service(controller.clone())
        .add_service(DiagnosticsServer::from_arc(Arc::clone(&plugin)))
        .add_service(DataServer::from_arc(Arc::clone(&plugin)).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(ResourceServer::from_arc(Arc::clone(&plugin)).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(StreamServer::from_arc(plugin).max_decoding_message_size(REQUEST_BYTES_MAX))
        .serve_with_incoming_shutdown(incoming, ended.clone());
    // Requests that are under way may end; a live tail never would.
    let overdue = async {
        ended.await;
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };
    tokio::select! {
        served = server => served?,
        () = overdue => tracing::debug!("ended with requests under way"),
    }
    Ok(())
}

/// The open data sources, and the channels that panels follow.
#[derive(Default)]
struct Plugin {
    instances: Mutex<HashMap<(i64, String), Instance>>,
    channels: Channels,
}

struct Instance {
    updated_ms: i64,
    client: Arc<Client>,
}

impl Plugin {
    /// The open client of the request's data source; made anew when its settings were changed.
    fn client(&self, context: Option<&pluginv2::PluginContext>) -> Result<Arc<Client>, Error> {
        let no_source = || Error::Request("the request names no data source".to_owned());
        let context = context.ok_or_else(no_source)?;
        let source = context.data_source_instance_settings.as_ref().ok_or_else(no_source)?;
        let key = (context.org_id, source.uid.clone());
        let mut instances = self.instances.lock().expect("no code panics under this lock");
        if let Some(instance) = instances.get(&key)
            && instance.updated_ms == source.last_updated_ms
            // A data source that was never saved comes without a time, and may be another one each time.
            && source.last_updated_ms != 0
        {
            return Ok(Arc::clone(&instance.client));
        }
        let settings = Settings::parse(&Raw {
            uid: &source.uid,
            name: &source.name,
            url: &source.url,
            basic_auth: source.basic_auth_enabled,
            basic_auth_user: &source.basic_auth_user,
            json: &source.json_data,
            secrets: Some(&source.decrypted_secure_json_data),
            proxy: proxy_variables(),
        })?;
        let client = Arc::new(Client::new(settings)?);
        if instances.len() >= INSTANCES_MAX {
            // Running queries keep theirs; the others are opened again when they are next needed.
            instances.clear();
        }
        instances.insert(key, Instance { updated_ms: source.last_updated_ms, client: Arc::clone(&client) });
        Ok(client)
    }

    /// Opens a file with everything a query matches.
    async fn export(
        &self,
        context: Option<&pluginv2::PluginContext>,
        parameters: &str,
        headers: &Headers<'_>,
    ) -> Result<BoxStream<pluginv2::CallResourceResponse>, Error> {
        let client = self.client(context)?;
        let parameters = form_urlencoded::parse(parameters.as_bytes()).into_owned().collect();
        let (ask, format) = export::ask(&parameters)?;
        let caller = headers.caller(&client, context);
        let pieces = export::file(client, ask, format, &caller).await?;
        // Grafana reads status and headers from the first piece alone.
        let pieces = pieces.map(move |piece| {
            let headers = response_headers(&format.headers());
            pluginv2::CallResourceResponse { code: 200, headers, body: piece.into() }
        });
        Ok(pieces.map(Ok).boxed())
    }

    async fn answer(
        &self,
        client: &Arc<Client>,
        uid: &str,
        query: &pluginv2::DataQuery,
        caller: &Caller,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let model: Value = serde_json::from_slice(&query.json)
            .map_err(|error| Error::Request(format!("the query is not JSON: {error}")))?;
        if model["purpose"] == "tail" {
            stream::check(&model, client)?;
            let channel = format!("ds/{uid}/{}", self.channels.remember(model));
            let frame = frame::of_channel(&query.ref_id, &channel);
            return Ok(vec![frame.to_ipc().map_err(frame::Error::from)?]);
        }
        let range = query.time_range.unwrap_or_default();
        let ask = Ask {
            ref_id: query.ref_id.clone(),
            model,
            from_ms: range.from_epoch_ms,
            to_ms: range.to_epoch_ms,
            interval_ms: u64::try_from(query.interval_ms).unwrap_or(0),
            points_max: u64::try_from(query.max_data_points).unwrap_or(0),
        };
        query::run(client, &ask, caller).await
    }
}

#[async_trait]
impl Data for Plugin {
    async fn query_data(
        &self,
        request: Request<pluginv2::QueryDataRequest>,
    ) -> Result<Response<pluginv2::QueryDataResponse>, Status> {
        let request = request.into_inner();
        let context = request.plugin_context.as_ref();
        let uid = uid(context);
        let client = self.client(context);
        let headers = Headers(&request.headers);
        let answers = request.queries.iter().map(|query| async {
            let answer = match &client {
                Err(error) => Err((error.kind(), error.to_string())),
                Ok(client) => {
                    let caller = headers.caller(client, context);
                    let answer = AssertUnwindSafe(self.answer(client, uid, query, &caller)).catch_unwind().await;
                    // The panic hook has logged what happened.
                    let answer = answer.unwrap_or_else(|_| Err(Error::Fault("see Grafana's log".to_owned())));
                    answer.map_err(|error| (error.kind(), error.to_string()))
                }
            };
            (query.ref_id.clone(), data_response(&query.ref_id, answer))
        });
        // Not spawned: when Grafana cancels, this future is dropped, and every query with it.
        let responses = futures::future::join_all(answers).await.into_iter().collect();
        Ok(Response::new(pluginv2::QueryDataResponse { responses }))
    }
}

/// What Grafana's environment says about its secure socks proxy.
fn proxy_variables() -> HashMap<String, String> {
    let named = |(name, value): (String, String)| Some((name.strip_prefix(PROXY_PREFIX)?.to_owned(), value));
    std::env::vars().filter_map(named).collect()
}

fn uid(context: Option<&pluginv2::PluginContext>) -> &str {
    context.and_then(|context| context.data_source_instance_settings.as_ref()).map_or("", |source| &source.uid)
}

/// A channel's name: paths are only unique within a data source, and uids within an organisation.
fn channel(context: Option<&pluginv2::PluginContext>, path: &str) -> String {
    format!("{}/{}/{path}", context.map_or(0, |context| context.org_id), uid(context))
}

fn data_response(ref_id: &str, answer: Result<Vec<Vec<u8>>, (Kind, String)>) -> pluginv2::DataResponse {
    let json_meta = Vec::new();
    match answer {
        Ok(frames) => pluginv2::DataResponse { frames, error: String::new(), json_meta, status: 200 },
        Err((kind, error)) => {
            tracing::info!(ref_id, ?kind, error, "query failed");
            pluginv2::DataResponse { frames: Vec::new(), error, json_meta, status: kind.status().into() }
        }
    }
}

/// Headers of the user's request, as Grafana hands them on: HTTP ones with a prefix.
struct Headers<'a>(&'a HashMap<String, String>);

impl Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let fits = |key: &str| key.strip_prefix("http_").unwrap_or(key).eq_ignore_ascii_case(name);
        self.0.iter().find(|(key, _)| fits(key)).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn caller(&self, client: &Client, context: Option<&pluginv2::PluginContext>) -> Caller {
        let is_set = |name| self.get(name).is_some_and(|value| !value.eq_ignore_ascii_case("false"));
        let user = context.and_then(|context| context.user.as_ref()).map(|user| user.login.as_str());
        let parts = [
            ("dashboard", self.get("X-Dashboard-Uid")),
            ("title", self.get("X-Dashboard-Title")),
            ("panel", self.get("X-Panel-Id")),
            ("panel-title", self.get("X-Panel-Title")),
            ("user", user.filter(|login| !login.is_empty())),
            ("alert", is_set("FromAlert").then_some("true")),
        ];
        let parts: Vec<_> =
            parts.iter().filter_map(|(key, value)| value.map(|value| format!("{key}={}", plain(value)))).collect();
        let authorization = client.settings().forward_oauth.then(|| self.get("Authorization")).flatten();
        let authorization = authorization.and_then(|text| HeaderValue::from_str(text).ok());
        Caller {
            alert: is_set("FromAlert"),
            numbers_only: is_set("FromAlert") || is_set("X-Grafana-From-Expr"),
            source: (!parts.is_empty()).then(|| parts.join(";")),
            authorization,
            cookies: self.get("Cookie").and_then(|text| HeaderValue::from_str(text).ok()),
        }
    }
}

/// What a gRPC header can carry, and what does not end the part it stands in.
fn plain(text: &str) -> String {
    let fits = |c: char| (c.is_ascii_graphic() || c == ' ') && c != ';';
    text.chars().map(|c| if fits(c) { c } else { '_' }).collect()
}

#[async_trait]
impl Diagnostics for Plugin {
    async fn check_health(
        &self,
        request: Request<pluginv2::CheckHealthRequest>,
    ) -> Result<Response<pluginv2::CheckHealthResponse>, Status> {
        let request = request.into_inner();
        let context = request.plugin_context.as_ref();
        let checked = match self.client(context) {
            Ok(client) => {
                let caller = Headers(&request.headers).caller(&client, context);
                health::check(&client, &caller).await.map_err(Error::from)
            }
            Err(error) => Err(error),
        };
        let (status, message) = match checked {
            Ok(message) => (HealthStatus::Ok, message),
            Err(error) => {
                tracing::warn!(%error, "health check failed");
                (HealthStatus::Error, error.to_string())
            }
        };
        let json_details = b"{}".to_vec();
        Ok(Response::new(pluginv2::CheckHealthResponse { status: status.into(), message, json_details }))
    }

    async fn collect_metrics(
        &self,
        _: Request<pluginv2::CollectMetricsRequest>,
    ) -> Result<Response<pluginv2::CollectMetricsResponse>, Status> {
        Ok(Response::new(pluginv2::CollectMetricsResponse { metrics: None }))
    }
}

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl Resource for Plugin {
    type CallResourceStream = BoxStream<pluginv2::CallResourceResponse>;

    async fn call_resource(
        &self,
        request: Request<pluginv2::CallResourceRequest>,
    ) -> Result<Response<Self::CallResourceStream>, Status> {
        let request = request.into_inner();
        let context = request.plugin_context.as_ref();
        let one = |list: &pluginv2::StringList| list.values.first().cloned().unwrap_or_default();
        let headers: HashMap<_, _> = request.headers.iter().map(|(name, list)| (name.clone(), one(list))).collect();
        // `url` has the query string, `path` has not; which of them starts with a slash depends on Grafana.
        let parameters = request.url.split_once('?').map_or("", |(_, parameters)| parameters);
        let target = format!("{}?{parameters}", request.path);
        if request.path.trim_matches('/') == "export" {
            let opened = self.export(context, parameters, &Headers(&headers)).await;
            return Ok(Response::new(opened.unwrap_or_else(|error| one_response(&request.path, Err(error)))));
        }
        let answer = match self.client(context) {
            // Asked by the form of settings that are not saved yet, or are saved and wrong.
            _ if request.path.trim_matches('/') == "links" => settings::tried(&request.body).map_err(Error::Request),
            Err(error) => Err(error),
            Ok(client) => {
                let caller = Headers(&headers).caller(&client, context);
                let call = AssertUnwindSafe(resource::call(&client, &target, &request.body, &caller));
                call.catch_unwind().await.unwrap_or_else(|_| Err(Error::Fault("see Grafana's log".to_owned())))
            }
        };
        Ok(Response::new(one_response(&request.path, answer)))
    }
}

/// An answer in one piece, of JSON.
fn one_response(path: &str, answer: Result<Value, Error>) -> BoxStream<pluginv2::CallResourceResponse> {
    let (code, body) = match answer {
        Ok(body) => (200, body),
        Err(error) => {
            tracing::info!(path, %error, "resource call failed");
            (error.kind().status().into(), json!({"message": error.to_string()}))
        }
    };
    let headers = response_headers(&[("Content-Type", "application/json")]);
    let response = pluginv2::CallResourceResponse { code, headers, body: body.to_string().into_bytes().into() };
    futures::stream::once(std::future::ready(Ok(response))).boxed()
}

fn response_headers(headers: &[(&str, &str)]) -> HashMap<String, pluginv2::StringList> {
    let list = |value: &str| pluginv2::StringList { values: vec![value.to_owned()] };
    headers.iter().map(|(name, value)| ((*name).to_owned(), list(value))).collect()
}

#[async_trait]
impl Streams for Plugin {
    type RunStreamStream = BoxStream<pluginv2::StreamPacket>;

    async fn subscribe_stream(
        &self,
        request: Request<pluginv2::SubscribeStreamRequest>,
    ) -> Result<Response<pluginv2::SubscribeStreamResponse>, Status> {
        let request = request.into_inner();
        let status = match self.channels.model(&request.path, &request.data) {
            None => subscribe_stream_response::Status::NotFound,
            Some(model) => {
                let context = request.plugin_context.as_ref();
                let client = self.client(context).map_err(|error| status(&error))?;
                stream::check(&model, &client).map_err(|error| status(&error))?;
                let caller = Headers(&HashMap::new()).caller(&client, context);
                // Where there is no answer, the stream itself waits for the store.
                if let Ok(seq) = stream::newest_seq(&client, &caller).await {
                    self.channels.subscribe(&channel(context, &request.path), seq);
                }
                subscribe_stream_response::Status::Ok
            }
        };
        Ok(Response::new(pluginv2::SubscribeStreamResponse { status: status.into(), data: Vec::new() }))
    }

    async fn run_stream(
        &self,
        request: Request<pluginv2::RunStreamRequest>,
    ) -> Result<Response<Self::RunStreamStream>, Status> {
        let request = request.into_inner();
        let model = self.channels.model(&request.path, &request.data);
        let model = model.ok_or_else(|| Status::not_found(format!("no query behind '{}'", request.path)))?;
        let context = request.plugin_context.as_ref();
        let client = self.client(context).map_err(|error| status(&error))?;
        let caller = Headers(&HashMap::new()).caller(&client, context);
        let begin_seq = self.channels.begin(&channel(context, &request.path));
        let packets = stream::follow(client, &model, &caller, begin_seq);
        let packets = packets.map_ok(|data| pluginv2::StreamPacket { data }).map_err(|error| status(&error));
        Ok(Response::new(packets.boxed()))
    }

    /// Lines come from services, not from pages.
    async fn publish_stream(
        &self,
        _: Request<pluginv2::PublishStreamRequest>,
    ) -> Result<Response<pluginv2::PublishStreamResponse>, Status> {
        let status = publish_stream_response::Status::PermissionDenied.into();
        Ok(Response::new(pluginv2::PublishStreamResponse { status, data: Vec::new() }))
    }
}

fn status(error: &Error) -> Status {
    let code = match error.kind() {
        Kind::Invalid => Code::InvalidArgument,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Forbidden => Code::PermissionDenied,
        Kind::NotFound => Code::NotFound,
        Kind::Limit => Code::ResourceExhausted,
        Kind::Unreachable | Kind::Unavailable => Code::Unavailable,
        Kind::Deadline => Code::DeadlineExceeded,
        Kind::Internal => Code::Internal,
    };
    Status::new(code, error.to_string())
}
