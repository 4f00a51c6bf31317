//! Quiver, the log store: what `quiver` (src/main.rs) and the integration tests are made of.
//!
//! The modules form a ladder; each knows only those before it:
//! `error`, `clock`, `memory` ← `record` ← `pipeline` ← `decode`, `wal` ← `storage` ← `query` ← `server` ← `client`,
//! with `kafka` (a client, on `error` alone), `backup` (on `storage`), `config` and `telemetry` beside; `simulation` drives all of it in tests.
//! ARCHITECTURE.md is the map; `tests/tidy.rs` keeps it true.

pub mod backup;
pub mod client;
pub mod clock;
pub mod config;
pub mod decode;
pub mod error;
pub mod import;
pub mod kafka;
pub mod memory;
pub mod parse;
pub mod pipeline;
pub mod query;
pub mod record;
pub mod server;
#[cfg(test)]
mod simulation;
pub mod storage;
pub mod telemetry;
pub mod wal;
