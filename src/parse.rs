//! `quiver parse`: what becomes of lines, without a store: by a config's pipelines and names, or by what is recognised
//! anyway. It reads a file or standard input, and prints records, stages, or how fast lines are decoded.
//!
//! Invariant: what it prints is what `quiver serve` would keep of the same lines under the same config.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use arrow::array::{Array, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::clock::Clock;
use crate::config::{self, Config};
use crate::decode::{self, Decoded, jsonline};
use crate::pipeline::{Entry, Field, Outcome, Value};
use crate::record::shape::render_lines;
use crate::record::{Tenant, column};
use crate::server;

/// Bytes of lines that are decoded together: as a large push.
const CHUNK_BYTES: usize = 1 << 20;
/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Why lines could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings can't be used.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A pipeline can't be.
    #[error(transparent)]
    Settings(#[from] server::Error),
    /// The input can't be read.
    #[error("cannot read '{}': {source}", path.display())]
    Read {
        /// The file, or `-`.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The output can't be written.
    #[error("cannot write: {0}")]
    Write(#[from] std::io::Error),
    /// A flag that can't be.
    #[error("{0}")]
    Flag(String),
    /// Lines that can't be taken together.
    #[error(transparent)]
    Decode(#[from] decode::Error),
}

/// `quiver parse`
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Lines; standard input when absent or '-'
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Config file with [[pipeline]] and names; without one, what is recognised anyway
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A label around each line, as senders give them; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Whose lines they are
    #[arg(long, value_name = "TENANT", default_value = "default")]
    tenant: String,
    /// Print a JSON object for each record
    #[arg(long)]
    json: bool,
    /// Print what each stage of the pipelines does to each line
    #[arg(long, conflicts_with = "json")]
    explain: bool,
    /// Print nothing but how long decoding takes, per GB of lines
    #[arg(long, conflicts_with_all = ["json", "explain"])]
    measure: bool,
}

/// What became of the lines.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Lines read.
    pub lines: usize,
    /// Records that would be kept.
    pub kept: usize,
    /// Lines that pipelines drop.
    pub dropped: usize,
    /// Lines that would be rejected.
    pub rejected: usize,
}

impl Summary {
    /// Whether no line would be rejected.
    pub fn is_clean(&self) -> bool {
        self.rejected == 0
    }
}

/// Reads lines and prints what becomes of them to `out`; rejected lines and progress go to standard error.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> Result<Summary, Error> {
    let flags = config::Flags { config: arguments.config.clone(), ..config::Flags::default() };
    let config = Config::load(&flags, |_| None)?;
    let tenant = Tenant::parse(&arguments.tenant)
        .ok_or_else(|| Error::Flag(format!("--tenant: '{}' can't be a tenant", arguments.tenant)))?;
    let options = decode::Options { tenant: Some(tenant), ..server::decode_options(&config)? };
    let labels = arguments.label.iter().map(|pair| {
        let pair = pair.split_once('=').ok_or_else(|| Error::Flag(format!("--label: '{pair}' is not NAME=VALUE")))?;
        Ok((pair.0.to_string(), pair.1.to_string()))
    });
    let labels = labels.collect::<Result<Vec<_>, Error>>()?;
    let path = arguments.file.clone().unwrap_or_else(|| "-".into());
    let read = |source| Error::Read { path: path.clone(), source };
    let input: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(&path).map_err(read)?),
    };
    let mut work = Work { arguments, options, labels, now_ns: Clock::System.now_ns(), summary: Summary::default() };
    let (mut input, mut chunk) = (BufReader::with_capacity(CHUNK_BYTES, input), Vec::new());
    let mut progress = Progress::start(arguments.measure || !std::io::stderr().is_terminal());
    let (mut bytes, mut spent) = (0usize, Duration::ZERO);
    loop {
        chunk.clear();
        while chunk.len() < CHUNK_BYTES && input.read_until(b'\n', &mut chunk).map_err(read)? > 0 {}
        if chunk.is_empty() {
            break;
        }
        bytes += chunk.len();
        let before = cpu_time();
        let decoded = work.decode(&chunk)?;
        spent += cpu_time().saturating_sub(before);
        work.print(&chunk, decoded, out)?;
        progress.tell(bytes, work.summary.lines);
    }
    if arguments.measure {
        let per_gb = spent.as_secs_f64() * 1e9 / (bytes.max(1) as f64);
        writeln!(out, "{per_gb:.2} CPU-seconds per GB: {} lines, {bytes} bytes, {spent:?}", work.summary.lines)?;
    }
    Ok(work.summary)
}

struct Work<'a> {
    arguments: &'a Arguments,
    options: decode::Options,
    labels: Vec<(String, String)>,
    now_ns: i64,
    summary: Summary,
}

impl Work<'_> {
    fn decode(&self, chunk: &[u8]) -> Result<Decoded, Error> {
        Ok(jsonline::labelled(chunk, &self.labels, &self.options, self.now_ns)?)
    }

    fn print(&mut self, chunk: &[u8], decoded: Decoded, out: &mut impl Write) -> Result<(), Error> {
        for rejected in &decoded.rejected {
            eprintln!("line {}: {}", self.summary.lines + rejected.line, rejected.reason);
        }
        self.summary.lines += chunk.split_inclusive(|byte| *byte == b'\n').count();
        self.summary.kept += decoded.accepted();
        self.summary.dropped += decoded.dropped;
        self.summary.rejected += decoded.rejected_count;
        if self.arguments.measure {
            return Ok(());
        }
        if self.arguments.explain {
            self.explain(chunk, out)?;
        }
        let tenant = self.options.tenant.clone().unwrap_or_else(Tenant::default_tenant);
        let batches = std::iter::once((tenant.clone(), decoded.batch)).chain(decoded.others);
        for (of, batch) in batches {
            for row in 0..batch.num_rows() {
                let values = row_values(&batch, row);
                match self.arguments.json {
                    true => print_json(&batch, row, &values, out)?,
                    false => print_block(&values, (of != tenant).then_some(&of), out)?,
                }
            }
        }
        Ok(())
    }

    fn explain(&self, chunk: &[u8], out: &mut impl Write) -> Result<(), Error> {
        let Some(pipelines) = &self.options.pipelines else { return Ok(()) };
        let fields = self.labels.iter().map(|(name, value)| Field {
            name: name.clone(),
            value: Value::Text(value.clone()),
            of_line: false,
        });
        let around = Entry { fields: fields.collect(), tenant: self.options.tenant.clone(), ..Entry::default() };
        let mut waiting: Option<(Entry, usize)> = None;
        let text = String::from_utf8_lossy(chunk);
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            if let Some((entry, lines)) = &mut waiting
                && pipelines.joins(entry, *lines, line)
            {
                entry.line.push('\n');
                entry.line.push_str(line);
                *lines += 1;
                continue;
            }
            let entry = Entry { line: line.to_string(), ..around.clone() };
            let ready = waiting.replace((entry, 1));
            self.explain_one(ready, out)?;
        }
        self.explain_one(waiting, out)
    }

    fn explain_one(&self, entry: Option<(Entry, usize)>, out: &mut impl Write) -> Result<(), Error> {
        let (Some(pipelines), Some((mut entry, _))) = (&self.options.pipelines, entry) else { return Ok(()) };
        writeln!(out, "> {}", entry.line.replace('\n', "\n> "))?;
        let (outcome, told) = pipelines.explain(&mut entry, self.now_ns);
        for stage in told {
            let changes = if stage.changes.is_empty() { "nothing".to_string() } else { stage.changes.join("; ") };
            writeln!(out, "  {}: {changes}", stage.stage)?;
        }
        if outcome == Outcome::Kept {
            writeln!(out, "  then it is decoded")?;
        }
        Ok(())
    }
}

/// The values of a record, as text, hidden columns left out.
fn row_values(batch: &RecordBatch, row: usize) -> Vec<(String, serde_json::Value)> {
    let options = FormatOptions::default();
    let shown = batch.schema_ref().fields().iter().zip(batch.columns());
    let shown = shown.filter(|(field, array)| {
        let hidden = field.name() == column::SHAPE || field.name() == column::RAW;
        !hidden && array.is_valid(row)
    });
    shown
        .filter_map(|(field, array)| {
            use arrow::datatypes::DataType;
            let text = ArrayFormatter::try_new(array, &options).ok()?.value(row).to_string();
            let value = match array.data_type() {
                DataType::Int64 | DataType::Float64 | DataType::Boolean => serde_json::from_str(&text).ok()?,
                _ => text.into(),
            };
            Some((field.name().clone(), value))
        })
        .collect()
}

fn print_json(
    batch: &RecordBatch,
    row: usize,
    values: &[(String, serde_json::Value)],
    out: &mut impl Write,
) -> Result<(), Error> {
    let mut object: serde_json::Map<_, _> = values.iter().cloned().collect();
    let line = render_lines(&batch.slice(row, 1)).ok().map(|lines| lines.value(0).to_string());
    object.extend(line.map(|line| (column::LINE.to_string(), line.into())));
    writeln!(out, "{}", serde_json::Value::Object(object))?;
    Ok(())
}

/// A record as a block: time, level and service, message, then a line for each field.
fn print_block(
    values: &[(String, serde_json::Value)],
    tenant: Option<&Tenant>,
    out: &mut impl Write,
) -> Result<(), Error> {
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let core = |name: &str| values.iter().find(|(known, _)| known == name).map(|(_, value)| text(value));
    let mut head = core(column::TIMESTAMP).unwrap_or_default();
    for value in [core(column::LEVEL), core(column::SERVICE), tenant.map(|tenant| format!("(tenant {tenant})"))] {
        let _ = write!(head, "  {}", value.unwrap_or_else(|| "-".to_string()));
    }
    writeln!(out, "{}", head.trim_end_matches("  -"))?;
    if let Some(message) = core(column::MESSAGE) {
        writeln!(out, "    {}", message.replace('\n', "\n    "))?;
    }
    let told = [column::TIMESTAMP, column::LEVEL, column::SERVICE, column::MESSAGE];
    let fields = values.iter().filter(|(name, _)| !told.contains(&name.as_str()));
    for (name, value) in fields {
        writeln!(out, "      {name} = {}", text(value).replace('\n', "\n        "))?;
    }
    Ok(())
}

/// What this thread has computed so far (proc(5), schedstat); where the system does not tell, the time that passes.
fn cpu_time() -> Duration {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|text| text.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| START.elapsed(), Duration::from_nanos)
}

/// Tells on a terminal how far it is.
struct Progress {
    silent: bool,
    told: Instant,
}

impl Progress {
    fn start(silent: bool) -> Progress {
        Progress { silent, told: Instant::now() }
    }

    fn tell(&mut self, bytes: usize, lines: usize) {
        if !self.silent && self.told.elapsed() >= PROGRESS_EVERY {
            self.told = Instant::now();
            eprintln!("{lines} lines, {} MB", bytes / 1_000_000);
        }
    }
}
