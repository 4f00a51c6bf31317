//! The store from outside: the real `quiver` binary is started on free ports and spoken to by its public protocols.
//! Nothing of the `quiver` library is used here, so a test can only see what a user sees.
//!
//! Environment: `QUIVER_BIN` (another binary), `QUIVER_PYTHON` (default `.venv/bin/python`), `QUIVER_KILLS` (default
//! 100) and `QUIVER_SEED` for the kill test.

mod backup;
mod certificates;
mod clients;
mod deletion;
mod elastic;
mod formats;
mod forward_clients;
mod http;
mod ingest;
mod kafka;
mod kills;
mod lifecycle;
mod limits;
mod listeners;
mod memory;
mod object_store;
mod parsing;
mod quiver;
mod receivers;
mod recovery;
mod repeats;
mod segments;
mod sql;
mod syslog_daemons;
mod tls;
