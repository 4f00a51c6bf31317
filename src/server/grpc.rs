//! The gRPC port: OTLP's LogsService, Arrow Flight SQL and the health service, behind the same way in as HTTP's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::flight_service_server::FlightServiceServer;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use prost::Message;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tracing::{debug, error, warn};

use super::flight::FlightSql;
use super::status::Error;
use super::tls::{Tls, TlsListener};
use super::{App, Caller, ingest};
use crate::decode;
use crate::telemetry::IngestOutcome;

/// Flight's handshake carries the credentials itself, and a probe has none.
const OPEN_PATHS: [&str; 2] = ["/arrow.flight.protocol.FlightService/Handshake", "/grpc.health.v1.Health/"];
/// How often the store is asked how it does.
const HEALTH_PERIOD: Duration = Duration::from_secs(1);
/// Enough for a batch of Flight's 2 MiB messages to be under way.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A statement with its parameters of protocol around it.
const FLIGHT_MESSAGE_BYTES_EXTRA: usize = 64 << 10;

/// Answers on a listener until `stop`, then lets running requests end.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    app: Arc<App>,
    health: HealthReporter,
    stop: CancellationToken,
) -> &'static str {
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_routes(routes(app, health));
    let stop = stop.cancelled_owned();
    let served = match tls {
        Some(tls) => {
            let listener = TlsListener::new(listener, tls);
            let next = async |mut listener: TlsListener| {
                let (stream, _) = listener.next().await;
                Some((Ok::<_, std::io::Error>(stream), listener))
            };
            let incoming = futures::stream::unfold(listener, next);
            server.serve_with_incoming_shutdown(incoming, stop).await
        }
        None => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            server.serve_with_incoming_shutdown(incoming, stop).await
        }
    };
    if let Err(error) = served {
        error!("the gRPC port failed: {error}");
    }
    "grpc"
}

/// Tells those who watch the health service what `/ready` tells, until `stop`.
pub(super) async fn follow_health(app: Arc<App>, mut health: HealthReporter, stop: CancellationToken) -> &'static str {
    let mut looks = tokio::time::interval(HEALTH_PERIOD);
    loop {
        let serves = app.parts().is_ok_and(|parts| parts.store.health().is_ok());
        let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        health.set_service_status("", status).await;
        tokio::select! {
            _ = looks.tick() => {}
            () = stop.cancelled() => break,
        }
    }
    // Ends the streams of those who watch it; they would hold the port open.
    health.clear_service_status("").await;
    "health"
}

fn routes(app: Arc<App>, health: HealthReporter) -> Routes {
    let health = HealthServer::new(HealthService::from_health_reporter(health));
    let logs = LogsServiceServer::new(Logs { app: app.clone() })
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(app.limits.body_bytes_max);
    let flight = FlightServiceServer::new(FlightSql::new(app.clone()))
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(app.sql_bytes_max * 2 + FLIGHT_MESSAGE_BYTES_EXTRA);
    let router = Routes::new(logs).add_service(flight).add_service(health).into_axum_router();
    Routes::from(router.layer(from_fn_with_state(app, admit)))
}

/// The way in of every call.
async fn admit(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    if OPEN_PATHS.iter().any(|open| path.starts_with(open)) {
        return next.run(request).await;
    }
    let (caller, place) = match app.admit(request.headers()) {
        Ok(admitted) => admitted,
        Err(error) => {
            debug!(path, "{error}");
            return Status::from(error).into_http();
        }
    };
    request.extensions_mut().insert(caller);
    let response = next.run(request).await;
    drop(place);
    if let Some(status) = Status::from_header_map(response.headers()) {
        match status.code() {
            Code::Ok => {}
            Code::Internal | Code::Unavailable | Code::DataLoss | Code::Unknown => warn!(path, "{}", status.message()),
            code => debug!(path, ?code, "{}", status.message()),
        }
    }
    response
}

/// Who calls, as [`admit`] found.
pub(super) fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, Error> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| Error::Internal("a call came in without being admitted".to_owned()))
}

/// OTLP's LogsService.
struct Logs {
    app: Arc<App>,
}

#[tonic::async_trait]
impl LogsService for Logs {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, Status> {
        let started = Instant::now();
        let caller = caller(&request)?;
        let headers = request.metadata().clone().into_headers();
        let message = request.into_inner();
        let bytes = message.encoded_len();
        let came = IngestOutcome { received_bytes: bytes, decoded_bytes: bytes, ..IngestOutcome::default() };
        let app = &self.app;
        let end = async {
            app.parts()?;
            let now_ns = app.clock.now_ns();
            app.rates.admit(&caller.tenant, now_ns)?;
            app.rates.charge(&caller.tenant, now_ns, bytes);
            let ids = ingest::Ids::of(app, &caller, "otlp_grpc", &headers)?;
            let mut lease = app.budget.lease();
            lease.grow(bytes)?;
            let options = app.decode_options(&caller.tenant);
            let decode = move |_: &App| decode::otlp::logs_request(&message, &options, now_ns);
            let decoded = app.offload(bytes, decode).await??;
            app.keep(&caller, "otlp_grpc", decoded, ids, &mut lease).await
        };
        let end = end.await;
        app.count(&caller, "otlp_grpc", started, came, end.as_ref());
        Ok(tonic::Response::new(ingest::export_response(&end?)))
    }
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::SqlInfo;
    use arrow_flight::sql::client::FlightSqlServiceClient;
    use futures::TryStreamExt;
    use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
    use tonic::transport::{Channel, Endpoint};
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;

    use super::super::Server;
    use super::*;
    use crate::clock::Clock;
    use crate::config::{Config, Flags};

    /// A server before its store is open: everything that needs no store can be asked.
    async fn start(set: &[&str]) -> (Server, Channel) {
        let flags = Flags {
            http: Some("127.0.0.1:0".into()),
            grpc: Some("127.0.0.1:0".into()),
            set: set.iter().map(|set| set.to_string()).collect(),
            ..Flags::default()
        };
        let server =
            Server::bind(Config::load(&flags, |_| None).unwrap(), Clock::System, crate::memory::Allocator::UNKNOWN)
                .await
                .unwrap();
        let channel = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap().connect().await.unwrap();
        (server, channel)
    }

    async fn sql_info(client: &mut FlightSqlServiceClient<Channel>) -> Result<usize, String> {
        let info = client.get_sql_info(vec![SqlInfo::FlightSqlServerName]).await.map_err(|error| error.to_string())?;
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let rows = client.do_get(ticket).await.map_err(|error| error.to_string())?;
        let batches: Vec<_> = rows.try_collect().await.map_err(|error| error.to_string())?;
        Ok(batches.iter().map(|batch| batch.num_rows()).sum())
    }

    #[tokio::test]
    async fn before_recovery_calls_say_so() {
        let (server, channel) = start(&[]).await;
        let health = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
        assert_eq!(health.into_inner().status(), ServingStatus::NotServing);
        let export = LogsServiceClient::new(channel.clone()).export(ExportLogsServiceRequest::default()).await;
        let status = export.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "the store is starting; try again"));
        let mut flight = FlightSqlServiceClient::new(channel);
        assert!(flight.execute("SELECT 1".into(), None).await.unwrap_err().to_string().contains("starting"));
        assert_eq!(sql_info(&mut flight).await, Ok(1));
        let update = flight.execute_update("DELETE FROM logs".into(), None).await.unwrap_err().to_string();
        assert!(update.contains("SQL is read-only here"), "{update}");
        drop(flight);
        server.close().await.unwrap();
    }

    #[tokio::test]
    async fn calls_want_credentials_and_a_handshake_gives_them() {
        let (server, channel) = start(&["server.auth.users=grafana:secret", "server.auth.tokens=token"]).await;
        let mut flight = FlightSqlServiceClient::new(channel.clone());
        assert!(sql_info(&mut flight).await.unwrap_err().contains("credentials are missing"));
        assert!(flight.handshake("grafana", "wrong").await.is_err());
        flight.handshake("grafana", "secret").await.unwrap();
        assert_eq!(sql_info(&mut flight).await, Ok(1));
        let mut flight = FlightSqlServiceClient::new(channel.clone());
        flight.set_token("token".into());
        assert_eq!(sql_info(&mut flight).await, Ok(1));
        let status = LogsServiceClient::new(channel).export(ExportLogsServiceRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        drop(flight);
        server.close().await.unwrap();
    }
}
