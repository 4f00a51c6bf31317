//! Tells on standard error how far a long command is: in place on a terminal, else a line every five seconds.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::size_text;

const EVERY_ON_TERMINAL: Duration = Duration::from_millis(200);
const EVERY: Duration = Duration::from_secs(5);

/// How far it is.
pub(super) struct Progress {
    verb: &'static str,
    terminal: bool,
    state: Mutex<State>,
}

struct State {
    told: Instant,
    files: u64,
    bytes: u64,
    bytes_total: u64,
    in_place: bool,
}

impl Progress {
    pub fn new(verb: &'static str, bytes_total: u64) -> Progress {
        let state = State { told: Instant::now(), files: 0, bytes: 0, bytes_total, in_place: false };
        Progress { verb, terminal: std::io::stderr().is_terminal(), state: Mutex::new(state) }
    }

    /// A file is done.
    pub fn done(&self, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.files += 1;
        state.bytes += bytes;
        if state.told.elapsed() < if self.terminal { EVERY_ON_TERMINAL } else { EVERY } {
            return;
        }
        state.told = Instant::now();
        state.in_place = self.terminal;
        let (done, total) = (size_text(state.bytes), size_text(state.bytes_total.max(state.bytes)));
        let text = format!("{}: {} files, {done} of {total}", self.verb, state.files);
        // Nobody may read it; the work goes on.
        let _ = match self.terminal {
            true => write!(std::io::stderr(), "\r\x1b[K{text}"),
            false => writeln!(std::io::stderr(), "{text}"),
        };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.state.get_mut().is_ok_and(|state| state.in_place) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
