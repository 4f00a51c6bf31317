//! The plugin's process as Grafana starts it: handshake, go-plugin's services, and what it answers when there is no
//! store, or something else in its place. With a store it is tested by tests/host.

use std::collections::HashMap;
use std::time::Duration;

use grafana_plugin_sdk::pluginv2;
use pluginv2::check_health_response::HealthStatus;
use pluginv2::data_client::DataClient;
use pluginv2::resource_client::ResourceClient;
use pluginv2::stream_client::StreamClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use tonic_sdk::client::Grpc;
use tonic_sdk::codec::ProstCodec;
use tonic_sdk::transport::Channel;

use crate::started::{Plugin, context};

fn query(ref_id: &str, json: &str) -> pluginv2::DataQuery {
    let time_range = Some(pluginv2::TimeRange { from_epoch_ms: 0, to_epoch_ms: 60_000 });
    let (ref_id, json) = (ref_id.to_owned(), json.as_bytes().to_vec());
    pluginv2::DataQuery { ref_id, json, time_range, interval_ms: 1000, max_data_points: 100, ..Default::default() }
}

/// An address where nobody listens.
async fn closed_address() -> String {
    TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound").to_string()
}

#[tokio::test]
async fn go_plugin_finds_it_serving_and_ends_it() {
    let mut plugin = Plugin::start(&[]).await;
    let mut health = tonic_health_sdk::pb::health_client::HealthClient::new(plugin.channel.clone());
    let request = tonic_health_sdk::pb::HealthCheckRequest { service: "plugin".to_owned() };
    let answer = health.check(request).await.expect("an answer").into_inner();
    assert_eq!(answer.status(), tonic_health_sdk::ServingStatus::Serving.into());

    let mut controller = Grpc::new(plugin.channel.clone());
    controller.ready().await.expect("connected");
    let codec: ProstCodec<(), ()> = ProstCodec::default();
    let shutdown = http::uri::PathAndQuery::from_static("/plugin.GRPCController/Shutdown");
    controller.unary(tonic_sdk::Request::new(()), shutdown, codec).await.expect("an answer");
    // The server ends when its connections have; Grafana closes its own.
    drop((
        controller,
        health,
        std::mem::replace(&mut plugin.channel, Channel::from_static("http://[::1]:1").connect_lazy()),
    ));
    let ended = tokio::time::timeout(Duration::from_secs(10), plugin.process.wait()).await;
    assert!(ended.expect("it ends by itself").expect("it ran").success());
}

#[tokio::test]
async fn sigterm_ends_it_too() {
    let mut plugin = Plugin::start(&[]).await;
    let pid = plugin.process.id().expect("running").to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.expect("a signal").success());
    let ended = tokio::time::timeout(Duration::from_secs(10), plugin.process.wait()).await;
    assert!(ended.expect("it ends").expect("it ran").success(), "in good order, though a connection is open");
}

#[tokio::test]
async fn started_by_hand_it_says_what_it_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_gpx_quiver_logs")).env_remove("grafana_plugin_type").output().await;
    let output = output.expect("it runs");
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "no handshake");
    assert!(String::from_utf8_lossy(&output.stderr).contains("Grafana starts it by itself"));
}

#[tokio::test]
async fn save_and_test_says_what_is_wrong() {
    let plugin = Plugin::start(&[]).await;
    let closed = closed_address().await;
    // Answers everything with a page, as the store's HTTP port does.
    let pages = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let pages_address = pages.local_addr().expect("bound");
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = pages.accept().await.expect("a connection");
            let mut request = [0; 1024];
            if stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                let page = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                // Whether the plugin is still there does not matter.
                let _ = stream.write_all(page).await;
            }
        }
    });
    for (url, json, expect) in [
        (String::new(), "{}", "the URL of the store is missing"),
        ("ftp://x".to_owned(), "{}", "unknown scheme 'ftp'"),
        (format!("http://{closed}"), "{}", "connection refused; is the store running"),
        ("http://no-such-host.invalid:4317".to_owned(), "{}", "the name 'no-such-host.invalid' cannot be resolved"),
        (format!("http://{pages_address}"), "{}", "is not the gRPC port of a Quiver store"),
        (format!("https://{pages_address}"), "{}", "does not speak TLS on this port; use http://"),
        (format!("https://{closed}"), r#"{"tlsAuth":true}"#, "the client certificate is missing"),
        (format!("http://{closed}"), "[]", "the settings cannot be read"),
    ] {
        let (status, message) = plugin.health(context(&url, json, &[])).await;
        assert_eq!(status, HealthStatus::Error, "{url}: {message}");
        assert!(message.contains(expect), "{url}: {message}");
    }
    server.abort();
}

#[tokio::test]
async fn each_query_fails_alone_with_its_status() {
    let plugin = Plugin::start(&[]).await;
    let url = format!("http://{}", closed_address().await);
    let queries = vec![
        query("A", "{}"),
        query("B", r#"{"editor":"sql","sql":"SELECT $__nothing"}"#),
        query("C", "not JSON"),
        query("D", r#"{"builder":{"aggregate":{"function":"sum"}}}"#),
    ];
    let plugin_context = Some(context(&url, "{}", &[]));
    let request = pluginv2::QueryDataRequest { plugin_context, headers: HashMap::new(), queries };
    let answer = DataClient::new(plugin.channel.clone()).query_data(request).await.expect("an answer").into_inner();
    for (ref_id, status, expect) in [
        ("A", 502, "cannot connect to the store"),
        ("B", 400, "no macro named '$__nothing'"),
        ("C", 400, "the query is not JSON"),
        ("D", 400, "choose the field for 'sum'"),
    ] {
        let response = &answer.responses[ref_id];
        assert_eq!(response.status, status, "{ref_id}: {}", response.error);
        assert!(response.error.contains(expect), "{ref_id}: {}", response.error);
        assert!(response.frames.is_empty());
    }
}

#[tokio::test]
async fn an_alert_on_lines_is_told_what_to_do() {
    let plugin = Plugin::start(&[]).await;
    let headers = HashMap::from([("FromAlert".to_owned(), "true".to_owned())]);
    let plugin_context = Some(context("http://127.0.0.1:1", "{}", &[]));
    let request = pluginv2::QueryDataRequest { plugin_context, headers, queries: vec![query("A", "{}")] };
    let answer = DataClient::new(plugin.channel.clone()).query_data(request).await.expect("an answer").into_inner();
    let response = &answer.responses["A"];
    assert_eq!(response.status, 400);
    assert!(response.error.contains("choose an aggregate such as 'count'"), "{}", response.error);
}

#[tokio::test]
async fn resources_show_sql_without_a_store() {
    let plugin = Plugin::start(&[]).await;
    let mut client = ResourceClient::new(plugin.channel.clone());
    let mut call = async |path: &str, body: &str| {
        let request = pluginv2::CallResourceRequest {
            plugin_context: Some(context("http://127.0.0.1:1", "{}", &[])),
            path: path.to_owned(),
            method: "POST".to_owned(),
            url: path.to_owned(),
            body: body.to_owned().into_bytes().into(),
            ..Default::default()
        };
        let mut answers = client.call_resource(request).await.expect("an answer").into_inner();
        let answer = answers.message().await.expect("readable").expect("one");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        (answer.code, body)
    };
    let ask = r#"{"query":{"builder":{"limit":5}},"range":{"from":0,"to":1000},"intervalMs":1000}"#;
    let (code, body) = call("sql", ask).await;
    assert_eq!(code, 200, "{body}");
    assert!(body["sql"].as_str().expect("text").ends_with("LIMIT 5"), "{body}");
    let (code, body) = call("sql", "{").await;
    assert_eq!(code, 400, "{body}");
    let (code, body) = call("nothing", "").await;
    assert_eq!(
        (code, body["message"].as_str().expect("text").contains("no resource 'nothing'")),
        (404, true),
        "{body}"
    );
    let (code, body) = call("fields", "").await;
    assert_eq!(code, 502, "{body}");
}

#[tokio::test]
async fn a_panel_follows_its_query_by_the_channel_in_its_frame() {
    let plugin = Plugin::start(&[]).await;
    let plugin_context = Some(context("http://127.0.0.1:1", "{}", &[]));
    let tail = vec![query("A", r#"{"purpose":"tail"}"#)];
    let request = pluginv2::QueryDataRequest { plugin_context, headers: HashMap::new(), queries: tail };
    let answer = DataClient::new(plugin.channel.clone()).query_data(request).await.expect("an answer").into_inner();
    let frame = String::from_utf8_lossy(&answer.responses["A"].frames[0]).into_owned();
    let at = frame.find("ds/quiver/tail/").expect("a channel");
    let path = frame[at + "ds/quiver/".len()..].split('"').next().expect("its end").to_owned();

    let mut streams = StreamClient::new(plugin.channel.clone());
    let mut subscribe = async |path: &str, data: &str| {
        let plugin_context = Some(context("http://127.0.0.1:1", "{}", &[]));
        let (path, data) = (path.to_owned(), data.to_owned().into_bytes().into());
        let request = pluginv2::SubscribeStreamRequest { plugin_context, path, data };
        streams.subscribe_stream(request).await.map(|answer| answer.into_inner().status())
    };
    use pluginv2::subscribe_stream_response::Status;
    assert_eq!(subscribe(&path, "").await.expect("an answer"), Status::Ok);
    assert_eq!(subscribe("tail/unknown", "").await.expect("an answer"), Status::NotFound);
    assert_eq!(subscribe("tail/x", r#"{"builder":{}}"#).await.expect("an answer"), Status::Ok);
    let error = subscribe("tail/x", r#"{"editor":"sql","sql":"SELECT 1"}"#).await.expect_err("no lines");
    assert!(error.message().contains("live tail needs a query that"), "{}", error.message());
}
