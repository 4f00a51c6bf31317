//! A running plugin process, and the requests that every test makes of it.

use std::collections::HashMap;
use std::process::Stdio;

use grafana_plugin_sdk::pluginv2;
use pluginv2::check_health_response::HealthStatus;
use pluginv2::diagnostics_client::DiagnosticsClient;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tonic_sdk::transport::Channel;

/// A plugin after its handshake; it ends with this.
pub struct Plugin {
    pub process: Child,
    pub channel: Channel,
}

impl Plugin {
    /// Starts it with these variables besides Grafana's.
    pub async fn start(variables: &[(String, String)]) -> Plugin {
        let mut process = Command::new(env!("CARGO_BIN_EXE_gpx_quiver_logs"))
            .env("grafana_plugin_type", "datasource")
            .envs(variables.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the plugin starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).await.expect("a first line");
        let parts: Vec<_> = line.trim().split('|').collect();
        assert!(matches!(parts.as_slice(), ["1", "2", "tcp", _, "grpc"]), "{line}");
        let channel = Channel::from_shared(format!("http://{}", parts[3])).expect("an address");
        Plugin { process, channel: channel.connect().await.expect("it listens") }
    }

    /// Save & test.
    pub async fn health(&self, context: pluginv2::PluginContext) -> (HealthStatus, String) {
        let request = pluginv2::CheckHealthRequest { plugin_context: Some(context), headers: HashMap::new() };
        let mut client = DiagnosticsClient::new(self.channel.clone());
        let answer = client.check_health(request).await.expect("an answer").into_inner();
        (answer.status(), answer.message)
    }
}

/// A data source named quiver with this address, `jsonData` and secrets.
pub fn context(url: &str, json: &str, secrets: &[(&str, &str)]) -> pluginv2::PluginContext {
    let source = pluginv2::DataSourceInstanceSettings {
        uid: "quiver".to_owned(),
        url: url.to_owned(),
        json_data: json.as_bytes().to_vec(),
        decrypted_secure_json_data: secrets
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..Default::default()
    };
    pluginv2::PluginContext { org_id: 1, data_source_instance_settings: Some(source), ..Default::default() }
}
