//! The `quiver` program: its commands and the life of the process. What the commands do stands in the library.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use quiver::clock::Clock;
use quiver::config::{self, Config};
use quiver::memory::Allocator;
use quiver::server::{self, Server};
use quiver::{backup, client, import, parse, telemetry};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// Batches come and go in megabytes on many threads: this allocator gives their pages back within seconds (see
/// .cargo/config.toml), where the system's kept three times as much.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Bytes of memory that the allocator holds.
fn held() -> usize {
    use tikv_jemalloc_ctl::{epoch, stats};
    epoch::advance().and_then(|_| stats::resident::read()).unwrap_or_default()
}

/// Gives free pages back: those the allocator would keep for a while go at once when it is told to keep none.
fn give_back() {
    use tikv_jemalloc_ctl::{Access, AsName, arenas};
    for arena in 0..arenas::narenas::read().unwrap_or_default() {
        let name = format!("arena.{arena}.dirty_decay_ms\0");
        let time: Result<isize, _> = name.name().read();
        // An arena that no thread has used yet has none.
        let _ = time.and_then(|time| name.name().write(0_isize).and_then(|()| name.name().write(time)));
    }
}

/// Threads for decoding, files and formats; each has its own limit of work, this is the sum.
const BLOCKING_THREADS_MAX: usize = 64;

const ABOUT: &str = "Quiver, a log store for Grafana: takes logs by Loki push, OTLP and JSON lines, keeps them as Parquet, answers SQL.";

const EXAMPLES: &str = "\
Examples:
  quiver serve
      starts the store: HTTP on 127.0.0.1:3100, gRPC on 127.0.0.1:4317, files in ./quiver-data
  curl http://127.0.0.1:3100/api/v1/ingest \\
    -d '{\"level\":\"error\",\"service\":\"shop\",\"msg\":\"card declined\"}'
      writes a line
  quiver sql \"SELECT timestamp, level, message FROM logs ORDER BY timestamp DESC LIMIT 10\"
      reads the newest lines
  quiver sql --from 1h --format csv \"SELECT service, count(*) FROM logs GROUP BY service\"
      counts the lines of the last hour
  quiver backup --to /mnt/backup/quiver
      copies everything, also while the store runs; 'quiver restore' brings it back
  quiver check --defaults > quiver.toml
      writes a documented config file to start from";

#[derive(Parser)]
#[command(name = "quiver", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 120, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the store
    ///
    /// Prints one line on standard output when it is ready, and its own logs on standard error. SIGTERM or Ctrl-C
    /// lets running requests end, writes everything to segments, and exits 0; a second one ends at once (nothing
    /// acknowledged is lost then either: the next start recovers it).
    Serve {
        #[command(flatten)]
        flags: config::Flags,
    },
    /// Check the settings and print what is in force, as TOML
    Check {
        #[command(flatten)]
        flags: config::Flags,
        /// Print the documented defaults instead
        #[arg(long)]
        defaults: bool,
    },
    /// Ask a running store
    #[command(after_help = "\
Examples:
  quiver sql \"SELECT * FROM logs ORDER BY timestamp DESC LIMIT 10\"
  quiver sql --from 2026-01-01T00:00:00Z --to 2026-01-02T00:00:00Z \"SELECT count(*) FROM logs\"
  quiver sql --format arrow \"SELECT * FROM logs\" > logs.arrow
  quiver sql - < question.sql

The table is 'logs': timestamp, level, service, message, trace_id, span_id, and every other field as a column of its
own (quote names with dots or capitals: \"http.status\"). SHOW FUNCTIONS lists the functions.")]
    Sql(client::Arguments),
    /// Have a running store delete records, for good
    ///
    /// They are hidden from queries at once, and removed from the files soon after. Records that come later are kept.
    #[command(after_help = "\
Examples:
  quiver delete \"user_id = 'u1'\" --wait
  quiver delete --from 2026-01-01T00:00:00Z --to 2026-01-02T00:00:00Z \"service = 'shop' AND message LIKE '%card=%'\"
  quiver delete --list
  quiver delete --cancel 7")]
    Delete(client::delete::Arguments),
    /// Copy everything to a directory or to S3, also while the store runs
    ///
    /// Has every record that was acknowledged before it began. Segments that are in the target already are not copied
    /// again. Run one backup at a time into a target, and give each store a target of its own.
    #[command(after_help = "\
Examples:
  quiver backup --data-dir /var/lib/quiver --to /mnt/backup/quiver
  AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… AWS_REGION=eu-central-1 \\
    quiver backup --data-dir /var/lib/quiver --to s3://backups/quiver --keep 14
  AWS_ENDPOINT_URL=http://127.0.0.1:9000 quiver backup --to s3://backups/quiver")]
    Backup(backup::BackupArguments),
    /// Make a data directory of a backup
    #[command(after_help = "\
Examples:
  quiver restore --from /mnt/backup/quiver --data-dir /var/lib/quiver
  quiver restore --from s3://backups/quiver --backup 20261121T134422.123Z --data-dir ./restored")]
    Restore(backup::RestoreArguments),
    /// Check that a data directory or a backup is whole
    ///
    /// Reads and decodes everything. Exits 1, with a line for each damaged file, when something is not as it was written.
    #[command(after_help = "\
Examples:
  quiver verify --data-dir /var/lib/quiver
  quiver verify --from s3://backups/quiver")]
    Verify(backup::VerifyArguments),
    /// List the live segments
    #[command(after_help = "\
Examples:
  quiver segments --data-dir /var/lib/quiver
  quiver segments --tenant default --format json | jq -s 'map(.bytes) | add'")]
    Segments(backup::SegmentsArguments),
    /// Show what becomes of lines, without a store
    ///
    /// Exits 1 when a line would be rejected.
    #[command(after_help = "\
Examples:
  tail -1000 /var/log/app.log | quiver parse
      what is recognised without any configuration
  quiver parse --config quiver.toml --label app=nginx --explain < lines
      what each stage of the pipelines does, and the records
  quiver parse --json lines.log | jq .level
  quiver parse --measure lines.log
      how long decoding takes, per GB")]
    Parse(parse::Arguments),
    /// Make pipelines of another program's configuration
    ///
    /// Prints TOML; what has no equal is told in a comment where it stood. Exits 1 when there is such.
    #[command(after_help = "\
Examples:
  quiver import promtail.yaml > pipelines.toml
  quiver parse --config pipelines.toml --label job=varlogs < lines")]
    Import(import::Arguments),
    /// Print the version
    Version,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    #[error(transparent)]
    Server(#[from] server::Error),
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Backup(#[from] backup::Error),
    #[error(transparent)]
    Parse(#[from] parse::Error),
    #[error(transparent)]
    Import(#[from] import::Error),
    #[error("cannot start: {0}")]
    Process(#[from] std::io::Error),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve { flags } => run_serve(&flags),
        Command::Check { defaults: true, .. } => print(config::DEFAULTS),
        Command::Check { flags, .. } => check(&flags),
        Command::Sql(arguments) => ask(&arguments),
        Command::Delete(arguments) => ask_to_delete(&arguments),
        Command::Backup(arguments) => on_disk(async { Ok((backup::backup(&arguments).await?, ExitCode::SUCCESS)) }),
        Command::Restore(arguments) => on_disk(async { Ok((backup::restore(&arguments).await?, ExitCode::SUCCESS)) }),
        Command::Verify(arguments) => on_disk(async {
            let report = backup::verify(&arguments).await?;
            Ok((report.text(), if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
        }),
        Command::Segments(arguments) => on_disk(async { Ok((backup::segments(&arguments).await?, ExitCode::SUCCESS)) }),
        Command::Parse(arguments) => show_parsed(&arguments),
        Command::Import(arguments) => show_imported(&arguments),
        Command::Version => print(&format!("quiver {}\n", env!("CARGO_PKG_VERSION"))),
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("quiver: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn show_parsed(arguments: &parse::Arguments) -> Result<ExitCode, Failure> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match parse::run(arguments, &mut out).and_then(|summary| out.flush().map(|()| summary).map_err(Into::into)) {
        Ok(summary) => {
            let parse::Summary { lines, kept, dropped, rejected } = summary;
            eprintln!("{lines} lines: {kept} records, {dropped} dropped, {rejected} rejected");
            Ok(if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        // The reader has seen enough: `quiver parse … | head`.
        Err(parse::Error::Write(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.into()),
    }
}

fn show_imported(arguments: &import::Arguments) -> Result<ExitCode, Failure> {
    let imported = import::run(arguments)?;
    print(&imported.toml)?;
    Ok(if imported.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn load(flags: &config::Flags) -> Result<Config, Failure> {
    let config = Config::load(flags, |name| std::env::var(name).ok())?;
    telemetry::check(&config.log)?;
    server::check(&config)?;
    Ok(config)
}

fn check(flags: &config::Flags) -> Result<ExitCode, Failure> {
    print(&load(flags)?.to_toml())
}

fn ask(arguments: &client::Arguments) -> Result<ExitCode, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(client::run(arguments))?;
    Ok(ExitCode::SUCCESS)
}

fn ask_to_delete(arguments: &client::delete::Arguments) -> Result<ExitCode, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    print(&runtime.block_on(client::delete::run(arguments))?)
}

/// Runs a command that works on files, and prints its answer.
fn on_disk(command: impl Future<Output = Result<(String, ExitCode), backup::Error>>) -> Result<ExitCode, Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (text, code) = runtime.block_on(command)?;
    print(&text)?;
    Ok(code)
}

fn run_serve(flags: &config::Flags) -> Result<ExitCode, Failure> {
    let config = load(flags)?;
    telemetry::start(&config.log)?;
    let runtime: Runtime =
        Builder::new_multi_thread().enable_all().max_blocking_threads(BLOCKING_THREADS_MAX).build()?;
    let done = runtime.block_on(serve(config));
    // What is still running then (a broken-off request, or everything after a second signal) is not waited for.
    runtime.shutdown_background();
    done
}

/// Runs the store until the first signal has been obeyed, or the second came.
async fn serve(config: Config) -> Result<ExitCode, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut signalled = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let data_dir = config.storage.data_dir.display().to_string();
    let mut server = Server::bind(config, Clock::System, Allocator { held, give_back }).await?;
    tokio::select! {
        opened = server.open() => opened?,
        () = signalled() => {
            info!("stopped before the store was open");
            return Ok(ExitCode::SUCCESS);
        }
    }
    print(&format!("quiver is ready: http={} grpc={} data={data_dir}\n", server.http, server.grpc))?;
    signalled().await;
    info!("closing: running requests may end, then everything is written to segments");
    tokio::select! {
        closed = server.close() => closed?,
        () = signalled() => {
            eprintln!("quiver: ended at once; the next start recovers what was not yet in segments");
            return Ok(ExitCode::from(130));
        }
    }
    Ok(ExitCode::SUCCESS)
}
