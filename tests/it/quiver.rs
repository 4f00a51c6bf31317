//! A running store: started on port 0, asked over HTTP, ended by a signal. Its log is printed when the test fails.
//! Invariant: a process started here ends with the value that stands for it, by its own pid.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};

use crate::http::{self, Answer};

const READY_MAX: Duration = Duration::from_secs(60);
const EXIT_MAX: Duration = Duration::from_secs(60);
const LOG_LINES_MAX: usize = 80;

/// Rules by which nothing expires, and there are several classes.
pub const KEEP_BY_LEVEL: &str = r#"
[[retention]]
match = 'level = "error"'
keep = "forever"
[[retention]]
match = 'level = "warn"'
keep = "forever"
[[retention]]
match = 'level in ("debug", "trace")'
keep = "forever"
[[retention]]
match = ''
keep = "forever"
"#;

/// A store process.
pub struct Quiver {
    child: Child,
    log: NamedTempFile,
    pub http: String,
    pub grpc: String,
}

/// A fresh data directory.
pub fn data_dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

/// Top of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Waits until `found` gives something; fails the test when `at_most` has passed.
pub fn wait_for<T>(what: &str, at_most: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + at_most;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {at_most:?} in vain for {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

impl Quiver {
    /// Starts a store on `data_dir` and waits until it says that it is ready.
    pub fn start(data_dir: &Path, arguments: &[&str]) -> Quiver {
        Quiver::start_as(Command::new(binary()), data_dir, arguments, &[])
    }

    /// As [`Quiver::start`], with variables of the environment.
    pub fn start_with(data_dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Quiver {
        Quiver::start_as(Command::new(binary()), data_dir, arguments, variables)
    }

    /// As [`Quiver::start`], in a process that the system gives no more memory to write to than this.
    pub fn start_limited(data_dir: &Path, arguments: &[&str], bytes_max: u64) -> Quiver {
        let mut command = Command::new("sh");
        let limited = format!("ulimit -d {} && exec \"$0\" \"$@\"", bytes_max >> 10);
        command.args(["-c", &limited]).arg(binary());
        Quiver::start_as(command, data_dir, arguments, &[])
    }

    fn start_as(mut command: Command, data_dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Quiver {
        let log = NamedTempFile::new().expect("a temporary file can be made");
        command.args(["serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--log-format", "json", "--data-dir"]);
        command.arg(data_dir).args(arguments);
        // Settings of the environment, and the tests' own variables, are none of this store's.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QUIVER_")) {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied());
        let stderr = log.reopen().expect("the log can be opened");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("'{}' can't be started: {error}", binary().display()));
        let stdout = child.stdout.take().expect("stdout is piped");
        // From here on `Drop` ends the process, also when the line below never comes.
        let mut quiver = Quiver { child, log, http: String::new(), grpc: String::new() };
        let line = ready_line(stdout);
        let address = |name: &str| {
            let found = line.split(' ').find_map(|word| word.strip_prefix(name));
            found.unwrap_or_else(|| panic!("no '{name}' in the ready line {line:?}")).to_owned()
        };
        assert!(line.starts_with("quiver is ready: "), "the first line on stdout is {line:?}");
        (quiver.http, quiver.grpc) = (address("http="), address("grpc="));
        quiver
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process as a power cut would.
    pub fn kill9(mut self) {
        self.child.kill().expect("a running process can be killed");
        self.child.wait().expect("a killed process ends");
    }

    /// Asks the process to end, and waits for it.
    pub fn terminate(mut self) -> ExitStatus {
        self.ask_to_end();
        self.wait_for_exit()
    }

    /// SIGTERM, without waiting.
    pub fn ask_to_end(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success(), "SIGTERM could not be sent");
    }

    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_for("the store's end", EXIT_MAX, || child.try_wait().expect("a child can be waited for"))
    }

    /// What the store logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path()).expect("the log can be read")
    }

    /// Where a listener of `[listen]` listens, as the log tells it.
    pub fn listener(&self, name: &str) -> String {
        let log = self.log();
        let told = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut found = told.filter(|line| line["message"] == "listening" && line["listener"] == name);
        let line = found.next().unwrap_or_else(|| panic!("no listener '{name}' in the log:\n{log}"));
        line["address"].as_str().expect("an address is a text").to_owned()
    }

    pub fn get(&self, target: &str) -> Answer {
        answered(http::request(&self.http, "GET", target, &[], b""), target)
    }

    pub fn post(&self, target: &str, content_type: &str, body: &[u8]) -> Answer {
        answered(http::request(&self.http, "POST", target, &[("content-type", content_type)], body), target)
    }

    /// `POST /api/v1/sql`, answered in the format of `accept`.
    pub fn ask(&self, parameters: &str, accept: &str, sql: &str) -> Answer {
        let target = format!("/api/v1/sql{parameters}");
        answered(http::request(&self.http, "POST", &target, &[("accept", accept)], sql.as_bytes()), sql)
    }

    /// The rows of an answer that has to succeed.
    pub fn sql(&self, sql: &str) -> Vec<Value> {
        self.sql_with("", sql)
    }

    pub fn sql_with(&self, parameters: &str, sql: &str) -> Vec<Value> {
        let answer = self.ask(parameters, "application/x-ndjson", sql);
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
        let rows = answer.text().lines().map(|line| serde_json::from_str(line).expect("rows are JSON"));
        // What the store says of an answer that is not whole stands behind the rows; tests of that look at the answer.
        let rows: Vec<Value> = rows.filter(|row: &Value| row.get("notice").is_none()).collect();
        assert!(!rows.iter().any(|row| row.get("error").is_some()), "{sql}: {:?}", rows.last());
        rows
    }

    /// The only value of an answer.
    pub fn value(&self, sql: &str) -> Value {
        let rows = self.sql(sql);
        let values: Vec<&Value> = rows.iter().filter_map(Value::as_object).flat_map(|row| row.values()).collect();
        assert!(rows.len() == 1 && values.len() <= 1, "{sql} gave {rows:?}");
        values.first().map_or(Value::Null, |value| (*value).clone())
    }

    pub fn count(&self, sql: &str) -> u64 {
        self.value(sql).as_u64().unwrap_or_else(|| panic!("{sql} gave no count"))
    }

    /// Pushes lines with one set of labels and the times `first_ns`, `first_ns + 1`, …
    pub fn push_loki(&self, labels: &Value, first_ns: i64, lines: &[&str]) {
        let body = loki_push(labels, first_ns, lines);
        let answer = self.post("/loki/api/v1/push", "application/json", body.as_bytes());
        assert_eq!(answer.status, 204, "{}", answer.text());
        assert!(answer.body.is_empty(), "a 204 has no body");
    }

    /// Ingests JSON lines, each of which has to be accepted.
    pub fn ingest(&self, lines: &[&str]) {
        let answer = self.post("/api/v1/ingest", "application/x-ndjson", (lines.join("\n") + "\n").as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json(), json!({"accepted": lines.len(), "rejected": 0, "errors": []}));
    }

    /// A metric without labels.
    pub fn metric(&self, name: &str) -> f64 {
        let answer = self.get("/metrics");
        let line = answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let line = line.unwrap_or_else(|| panic!("no metric '{name}' in {}", answer.text()));
        line.parse().expect("a metric is a number")
    }
}

impl Drop for Quiver {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(LOG_LINES_MAX)..];
            eprintln!("--- log of the store (pid {}) ---\n{}", self.child.id(), tail.join("\n"));
        }
        // An error here means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of a Loki push in JSON.
pub fn loki_push(labels: &Value, first_ns: i64, lines: &[&str]) -> String {
    let values: Vec<Value> =
        (first_ns..).zip(lines).map(|(time_ns, line)| json!([time_ns.to_string(), line])).collect();
    json!({"streams": [{"stream": labels, "values": values}]}).to_string()
}

/// Nanoseconds since 1970.
pub fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is later than 1970");
    i64::try_from(since.as_nanos()).expect("it is earlier than 2262")
}

/// The program under test.
pub fn binary() -> PathBuf {
    let given = std::env::var_os("QUIVER_BIN").map(PathBuf::from);
    let built = option_env!("CARGO_BIN_EXE_quiver").map(PathBuf::from);
    given.or(built).expect("cargo builds the binary beside its tests; elsewhere QUIVER_BIN names it")
}

fn answered(answer: io::Result<Answer>, what: &str) -> Answer {
    answer.unwrap_or_else(|error| panic!("no answer to '{what}': {error}"))
}

fn ready_line(stdout: impl io::Read + Send + 'static) -> String {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines();
        // Nobody waits any more when the test has failed already.
        let _ = send.send(lines.next());
        lines.for_each(drop);
    });
    let first = receive.recv_timeout(READY_MAX).expect("the store says within a minute that it is ready");
    first.expect("the store prints a line before it ends").expect("stdout can be read")
}

/// Opens a file for appending that has to be there.
pub fn append_to(path: &Path) -> File {
    File::options().append(true).open(path).unwrap_or_else(|error| panic!("'{}': {error}", path.display()))
}
