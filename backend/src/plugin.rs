//! The plugin's gRPC services: Grafana's messages in, the modules' answers out; what an answer is made of is theirs.
//! Invariant: one data source, one open client; a failing or panicking query fails alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use grafana_plugin_sdk::backend::async_trait;
use grafana_plugin_sdk::pluginv2;
use pluginv2::check_health_response::HealthStatus;
use pluginv2::diagnostics_server::{Diagnostics, DiagnosticsServer};
use tokio::net::TcpListener;
use tonic_sdk::transport::server::TcpIncoming;
use tonic_sdk::{Request, Response, Status};

use crate::client::Client;
use crate::error::Error;
use crate::settings::{Raw, Settings};
use crate::shutdown::Controller;
use crate::health;

/// Serves until Grafana asks to end.
pub async fn serve(listener: TcpListener) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let plugin = Arc::new(Plugin::default());
    let controller = Controller::default();
    let (mut reporter, health) = tonic_health_sdk::server::health_reporter();
    // go-plugin asks for the service of this name before it takes the plugin for started.
    reporter.set_service_status("plugin", tonic_health_sdk::ServingStatus::Serving).await;
    let incoming = TcpIncoming::from_listener(listener, true, None)?;
    tonic_sdk::transport::Server::builder()
        .add_service(health)
        .add_service(controller.clone())
        .add_service(DiagnosticsServer::from_arc(plugin))
        .serve_with_incoming_shutdown(incoming, controller.asked())
        .await?;
    Ok(())
}

/// The open data sources.
#[derive(Default)]
struct Plugin {
    instances: Mutex<HashMap<(i64, String), Instance>>,
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
            // The form's test of a data source that was never saved comes without a time.
            && source.last_updated_ms != 0
        {
            return Ok(Arc::clone(&instance.client));
        }
        let settings = Settings::parse(&Raw {
            url: &source.url,
            basic_auth: source.basic_auth_enabled,
            basic_auth_user: &source.basic_auth_user,
            json: &source.json_data,
            secrets: Some(&source.decrypted_secure_json_data),
        })?;
        let client = Arc::new(Client::new(settings)?);
        instances.insert(key, Instance { updated_ms: source.last_updated_ms, client: Arc::clone(&client) });
        Ok(client)
    }
}

#[async_trait]
impl Diagnostics for Plugin {
    async fn check_health(
        &self,
        request: Request<pluginv2::CheckHealthRequest>,
    ) -> Result<Response<pluginv2::CheckHealthResponse>, Status> {
        let request = request.into_inner();
        let checked = match self.client(request.plugin_context.as_ref()) {
            Ok(client) => health::check(&client).await.map_err(Error::from),
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
