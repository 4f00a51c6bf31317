//! The Quiver data source's backend as Grafana starts it: a process that prints its address and serves gRPC.
//! Not here: what the services do (`plugin`). Invariant: nothing but the handshake goes to stdout.

mod client;
mod editor;
mod error;
mod export;
mod frame;
mod health;
mod model;
mod plugin;
mod query;
mod resource;
mod settings;
mod shutdown;
mod sql;
mod stream;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::prelude::*;

fn main() -> std::process::ExitCode {
    // Grafana says by this who it is; go-plugin calls it the magic cookie.
    if std::env::var_os("grafana_plugin_type").is_none_or(|kind| kind != "datasource") {
        eprintln!(
            "gpx_quiver_logs {} is the backend of the data source Quiver Logs. Grafana starts it by itself: put the \
             plugin's directory into Grafana's plugins directory, and restart Grafana.",
            env!("CARGO_PKG_VERSION")
        );
        return std::process::ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be built");
    match runtime.block_on(run()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the plugin cannot serve");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // Before the handshake, for after it Grafana may ask the process to end at any time.
    let terminate = signal(SignalKind::terminate())?;
    // The handshake has to be the first output.
    let listener = grafana_plugin_sdk::backend::initialize().await?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::registry().with(grafana_plugin_sdk::backend::layer()).with(filter).init();
    // A panic in a service reaches Grafana as a cancelled request, and its words nowhere else.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic: {}", panic.payload_as_str().unwrap_or("without words"));
    }));
    plugin::serve(listener, terminate).await?;
    Ok(())
}
