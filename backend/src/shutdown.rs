//! go-plugin's `GRPCController/Shutdown`, by which Grafana asks the process to end; nothing of the plugin's own work.
//! Written by hand, for the service is three lines of protocol. Without it Grafana kills the process after 2 s.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::watch;
use tonic_sdk::body::BoxBody;
use tonic_sdk::codegen::{Body, BoxFuture, Service, StdError, empty_body};
use tonic_sdk::server::{Grpc, NamedService, UnaryService};
use tonic_sdk::{Request, Response, Status};

/// The service; [`Controller::asked`] ends when Grafana has called it.
#[derive(Clone, Default)]
pub struct Controller {
    asked: Arc<watch::Sender<bool>>,
}

impl Controller {
    /// Waits until Grafana asks the process to end. Any number may wait.
    pub async fn asked(self) {
        let mut asked = self.asked.subscribe();
        asked.wait_for(|asked| *asked).await.expect("the sender lives as long as this controller");
    }
}

impl NamedService for Controller {
    const NAME: &'static str = "plugin.GRPCController";
}

impl<B> Service<http::Request<B>> for Controller
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<BoxBody>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let shutdown = Shutdown(Arc::clone(&self.asked));
        Box::pin(async move {
            if request.uri().path() != "/plugin.GRPCController/Shutdown" {
                let mut response = http::Response::new(empty_body());
                let unimplemented = http::HeaderValue::from(tonic_sdk::Code::Unimplemented as i32);
                response.headers_mut().insert("grpc-status", unimplemented);
                response.headers_mut().insert(http::header::CONTENT_TYPE, tonic_sdk::metadata::GRPC_CONTENT_TYPE);
                return Ok(response);
            }
            Ok(Grpc::new(tonic_sdk::codec::ProstCodec::default()).unary(shutdown, request).await)
        })
    }
}

struct Shutdown(Arc<watch::Sender<bool>>);

/// `Empty` in, `Empty` out: `()` is prost's empty message.
impl UnaryService<()> for Shutdown {
    type Response = ();
    type Future = BoxFuture<Response<()>, Status>;

    fn call(&mut self, _: Request<()>) -> Self::Future {
        self.0.send_replace(true);
        Box::pin(std::future::ready(Ok(Response::new(()))))
    }
}
