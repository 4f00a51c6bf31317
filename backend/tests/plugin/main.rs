//! The plugin's binary, started as Grafana starts it and asked over its protocol; one way to start it for all tests.

mod process;
mod started;
mod tls;
