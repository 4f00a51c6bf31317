//! Runs statements: on threads apart from the network's, a bounded number at once, each with a deadline and a limit of
//! rows, all within one limit of memory. A stream that is dropped ends its query.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider, SchemaProvider,
    TableProvider,
};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::memory_pool::TrackConsumersPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SQLOptions, SessionConfig, col, lit};
use datafusion::sql::parser::Statement;
use futures::{Stream, StreamExt};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout_at;
use tokio_util::task::AbortOnDropHandle;

use super::admission::Admission;
use super::compare::LooseTypes;
use super::counted::AnswerWithoutRecords;
use super::history::{self, History, MetricsTable};
use super::plan::{self, FieldNames, TABLE};
use super::pool::QueryPool;
use super::runs::GroupRuns;
use super::scan::NewestFirst;
use super::table::{Columns, LogsTable, ScanCounts};
use super::yielding::JoinsYield;
use super::{
    Error, Field, FieldValue, FieldValuesRequest, Options, Request, Stats, TimeRange, buckets, failure, output,
    percentile,
};
use crate::record::{FieldType, Tenant, column};
use crate::storage::{Snapshot, Store};

/// Batches that may wait for a slow reader of an answer, and the part of all queries' memory that those of all answers may
/// take; a batch alone may be larger.
const BATCHES_QUEUED_MAX: usize = 4;
const QUEUED_PARTS: usize = 8;
/// Bytes of one permit of it.
const QUEUED_UNIT: usize = 1024;
/// Consumers of memory named in a message about too much of it.
const CONSUMERS_NAMED: usize = 3;

/// Answers queries on a store.
pub struct Engine {
    pub(super) store: Arc<Store>,
    options: Options,
    state: SessionState,
    /// What runs queries; it knows of no table, so one serves all.
    context: Arc<TaskContext>,
    threads: Mutex<Option<Runtime>>,
    handle: tokio::runtime::Handle,
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
    history: Arc<History>,
}

#[derive(Debug)]
struct Metrics {
    queries: Counter,
    failed: Counter,
    running: Gauge,
    seconds: Histogram,
    rows: Counter,
    bytes: Counter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let seconds = Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let (queries, failed, running, rows, bytes) = Default::default();
        Metrics { queries, failed, running, seconds, rows, bytes }
    }
}

impl Engine {
    /// Makes an engine with its own threads.
    pub fn new(store: Arc<Store>, options: Options) -> Result<Arc<Engine>, Error> {
        let internal = |what: &str, error: &dyn std::fmt::Display| Error::Internal(format!("{what}: {error}"));
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.threads.max(1))
            .thread_name("quiver-query")
            .on_thread_start(give_way)
            .enable_all()
            .build()
            .map_err(|error| internal("no threads for queries", &error))?;
        let environment = environment(&store, &options).map_err(|error| internal("no room for queries", &error))?;
        let state = base_state(&options, environment);
        Ok(Arc::new(Engine {
            context: state.task_ctx(),
            state,
            handle: threads.handle().clone(),
            threads: Mutex::new(Some(threads)),
            admission: Arc::new(Admission::new(options.concurrency_max)),
            metrics: Arc::default(),
            history: Arc::default(),
            store,
            options,
        }))
    }

    /// Parses and plans; the answer's schema is known then, nothing has been read yet.
    ///
    /// **Errors**: [`Error::Invalid`] when the statement is wrong, with the place in it.
    pub async fn prepare(self: &Arc<Self>, request: Request) -> Result<Prepared, Error> {
        let snapshot = self.store.snapshot(&request.tenant);
        self.prepare_on(snapshot, request, self.options.scan_bytes_max).await
    }

    /// As [`Engine::prepare`], on records of the caller's choice, which may be read up to so many bytes (0: all).
    pub(super) async fn prepare_on(
        self: &Arc<Self>,
        snapshot: Arc<Snapshot>,
        request: Request,
        scan_bytes_max: u64,
    ) -> Result<Prepared, Error> {
        let engine = self.clone();
        let counts = Arc::new(ScanCounts::within(scan_bytes_max));
        let planned = self.handle.spawn(async move { engine.plan(snapshot, request, counts).await }).await;
        planned.map_err(|error| ended(&error))?
    }

    /// As [`Engine::prepare`] and then [`Prepared::run`], without a change of threads between them: on a question that
    /// takes less than a millisecond that change is a tenth of the time.
    ///
    /// **Errors**: as [`Engine::prepare`].
    pub async fn start(self: &Arc<Self>, request: Request) -> Result<Rows, Error> {
        let (engine, snapshot) = (self.clone(), self.store.snapshot(&request.tenant));
        let counts = Arc::new(ScanCounts::within(self.options.scan_bytes_max));
        let (tell, told) = oneshot::channel();
        let task = AbortOnDropHandle::new(self.handle.spawn(async move {
            let (begun, work) = match engine.plan(snapshot, request, counts).await {
                Ok(prepared) => prepared.begin(),
                Err(error) => return drop(tell.send(Err(error))),
            };
            if tell.send(Ok(begun)).is_ok() {
                work.await;
            }
        }));
        match told.await {
            Ok(begun) => Ok(Rows::of(begun?, task.detach())),
            Err(_) => Err(task.await.err().map_or(Error::Closed, |error| ended(&error))),
        }
    }

    async fn plan(
        &self,
        snapshot: Arc<Snapshot>,
        request: Request,
        counts: Arc<ScanCounts>,
    ) -> Result<Prepared, Error> {
        let started = Instant::now();
        let fields = field_names(&snapshot);
        let read = plan::read(&request.sql, &fields)?;
        let columns = if read.about_schema { Columns::All } else { Columns::Named(&read.names, read.wildcard) };
        let mut table = LogsTable::new(self.store.clone(), snapshot.clone(), &columns, request.range, counts.clone());
        table.hide(self.hidden(&table, &snapshot, &fields)?);
        let state = self.state_with(table, request.range);

        let wrong = |error: &_| failure::of_planning(error, &request.sql, &fields, || function_names(&state));
        let statement = Statement::Statement(Box::new(read.statement));
        let logical = state.statement_to_plan(statement).await.map_err(|error| wrong(&error))?;
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        read_only.verify_plan(&logical).map_err(|error| wrong(&error))?;
        let logical = limited(logical, request.limit).map_err(|error| wrong(&error))?;
        let physical = state.create_physical_plan(&logical).await.map_err(|error| wrong(&error))?;
        Ok(Prepared {
            _snapshot: snapshot,
            schema: output::plain_schema(physical.schema().as_ref()),
            physical,
            context: self.context.clone(),
            counts,
            started,
            deadline: request.timeout.unwrap_or(self.options.timeout_max).min(self.options.timeout_max),
            rows_max: self.options.rows_max,
            queued_units_max: queued_units(&self.options),
            handle: self.handle.clone(),
            tenant: request.tenant,
            admission: self.admission.clone(),
            metrics: self.metrics.clone(),
        })
    }

    /// What records satisfy that no active deletion is about.
    fn hidden(&self, table: &LogsTable, snapshot: &Snapshot, fields: &FieldNames) -> Result<Vec<Expr>, Error> {
        let mut hidden = Vec::new();
        for deletion in snapshot.deletions.iter() {
            let read = match plan::read_condition(&deletion.wanted.filter, fields) {
                Ok(read) => read,
                // It names a field that no record has any more: it matches none.
                Err(Error::Invalid(reason)) => {
                    tracing::debug!(id = deletion.id, reason, "a deletion matches nothing now");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let known = read.names.iter().filter_map(|name| table.field(name)).collect::<Vec<_>>();
            let schema = DFSchema::try_from(Schema::new(known)).map_err(|error| Error::Internal(error.to_string()))?;
            let condition = match self.state.create_logical_expr(&read.condition, &schema) {
                Ok(condition) => condition,
                Err(error) => {
                    tracing::debug!(id = deletion.id, %error, "a deletion matches nothing now");
                    continue;
                }
            };
            let at = |ns| lit(ScalarValue::TimestampNanosecond(Some(ns), Some("UTC".into())));
            let mut meant = condition.and(col(column::SEQ).lt(lit(deletion.cutoff_seq)));
            if deletion.wanted.from_ns != i64::MIN {
                meant = meant.and(col(column::TIMESTAMP).gt_eq(at(deletion.wanted.from_ns)));
            }
            if deletion.wanted.to_ns != i64::MAX {
                meant = meant.and(col(column::TIMESTAMP).lt(at(deletion.wanted.to_ns)));
            }
            hidden.push(meant.is_not_true());
        }
        Ok(hidden)
    }

    /// The session with one tenant's table in it, and the store's own.
    fn state_with(&self, table: LogsTable, range: Option<TimeRange>) -> SessionState {
        let schema = MemorySchemaProvider::new();
        let metrics = MetricsTable { history: self.history.clone(), range };
        let tables: [(&str, Arc<dyn TableProvider>); 2] =
            [(TABLE, Arc::new(table)), (history::TABLE, Arc::new(metrics))];
        for (name, table) in tables {
            schema.register_table(name.into(), table).expect("a new schema has no such table yet");
        }
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema("public", Arc::new(schema)).expect("a memory catalog takes schemas");
        let catalogs = MemoryCatalogProviderList::new();
        datafusion::catalog::CatalogProviderList::register_catalog(&catalogs, "quiver".into(), Arc::new(catalog));
        let mut state = self.state.clone();
        // From here on `now()` stands still for this statement.
        state.mark_start_execution();
        state.register_catalog_list(Arc::new(catalogs));
        state
    }

    /// The fields of a tenant, core columns first, then by name. With a range: only those of batches and segments that
    /// overlap it.
    pub async fn fields(&self, tenant: &Tenant, range: Option<TimeRange>) -> Result<Vec<Field>, Error> {
        let snapshot = self.store.snapshot(tenant);
        let core = column::CORE.iter().map(|name| Field {
            name: (*name).to_owned(),
            r#type: if *name == column::TIMESTAMP { "time" } else { "string" },
        });
        let known = snapshot.fields.iter().filter(|(name, _)| range.is_none_or(|range| occurs(&snapshot, name, range)));
        let others = known.map(|(name, info)| Field { name: name.clone(), r#type: type_word(info.r#type) });
        Ok(core.chain(others).collect())
    }

    /// The values of a field, most frequent first.
    ///
    /// **Errors**: [`Error::Invalid`] when there is no such field, or the filter is wrong.
    pub async fn field_values(self: &Arc<Self>, request: FieldValuesRequest) -> Result<Vec<FieldValue>, Error> {
        let known = field_names(&self.store.snapshot(&request.tenant));
        if !known.contains(&request.field) {
            return Err(Error::Invalid(plan::no_field(&request.field, &known)));
        }
        let name = format!("\"{}\"", request.field.replace('"', "\"\""));
        let mut conditions = vec![format!("{name} IS NOT NULL")];
        conditions.extend(request.filter.map(|filter| format!("({filter})")));
        conditions.extend(request.contains.map(|part| {
            format!("contains(lower(CAST({name} AS VARCHAR)), '{}')", part.to_lowercase().replace('\'', "''"))
        }));
        let sql = format!(
            "SELECT CAST({name} AS VARCHAR) AS value, count(*) AS records FROM {TABLE} WHERE {} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {}",
            conditions.join(" AND "),
            request.limit
        );
        let request = Request { tenant: request.tenant, sql, range: request.range, limit: None, timeout: None };
        let mut rows = self.start(request).await?;
        let mut values = Vec::new();
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let (texts, counts) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Int64Type>());
            values.extend(
                (0..batch.num_rows())
                    .map(|row| FieldValue { value: texts.value(row).to_owned(), count: counts.value(row) }),
            );
        }
        Ok(values)
    }

    /// Waits for running queries, at most `grace`, then ends the threads.
    pub async fn close(&self, grace: Duration) {
        if tokio::time::timeout(grace, self.admission.idle()).await.is_err() {
            tracing::warn!(?grace, "queries still run and are cancelled");
        }
        self.admission.close();
        let threads = self.threads.lock().expect("nothing panics with the lock held").take();
        if let Some(threads) = threads {
            let ended = tokio::task::spawn_blocking(move || threads.shutdown_timeout(Duration::from_secs(1))).await;
            ended.expect("ending threads does not panic");
        }
    }

    /// What the table `metrics` shows; its samples are recorded there.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Registers the engine's metrics.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("quiver_query");
        registry.register("queries", "Queries started", self.metrics.queries.clone());
        registry.register("failed", "Queries that ended with an error", self.metrics.failed.clone());
        registry.register("running", "Queries running now", self.metrics.running.clone());
        registry.register("rows", "Rows returned", self.metrics.rows.clone());
        let help = "Bytes read from segments, as they are packed, and from the buffer";
        registry.register_with_unit("scanned", help, Unit::Bytes, self.metrics.bytes.clone());
        let help = "Time from plan to last row";
        registry.register_with_unit("duration", help, Unit::Seconds, self.metrics.seconds.clone());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A runtime must not be dropped where async code runs, unless told not to wait.
        if let Some(threads) = self.threads.get_mut().ok().and_then(Option::take) {
            threads.shutdown_background();
        }
    }
}

/// Where there is too little CPU for both, logs that come in go first: a query may wait, a log must not be refused. Five
/// steps of niceness make that four parts of five.
fn give_way() {
    use thread_priority::unix::{NormalThreadSchedulePolicy::Other, ThreadSchedulePolicy, thread_schedule_policy};
    use thread_priority::{ThreadPriority, set_current_thread_priority};
    // From 0 to 99; a niceness of 5.
    let priority = ThreadPriority::Crossplatform(34_u8.try_into().expect("it is below 100"));
    // Who runs us under another policy knows what goes first.
    if thread_schedule_policy() == Ok(ThreadSchedulePolicy::Normal(Other))
        && let Err(error) = set_current_thread_priority(priority)
    {
        tracing::debug!(%error, "threads of queries keep the priority of the process");
    }
}

/// Why planning did not end.
fn ended(error: &JoinError) -> Error {
    if error.is_cancelled() { Error::Closed } else { Error::Internal(format!("the query can't be planned: {error}")) }
}

fn environment(store: &Store, options: &Options) -> datafusion::error::Result<Arc<RuntimeEnv>> {
    let named = std::num::NonZeroUsize::new(CONSUMERS_NAMED).expect("it is not zero");
    let pool = TrackConsumersPool::new(QueryPool::new(options.memory_bytes_max, options.ceiling.clone()), named);
    let environment =
        RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).with_temp_file_path(store.spill_dir()).build_arc()?;
    Ok(environment)
}

fn base_state(options: &Options, environment: Arc<RuntimeEnv>) -> SessionState {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema("quiver", "public")
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(options.threads.max(1));
    let settings = config.options_mut();
    settings.sql_parser.enable_ident_normalization = false;
    // A scan has as many partitions as it can use; and under a cross join (55.2) a round-robin exchange panics.
    settings.optimizer.enable_round_robin_repartition = false;
    settings.execution.time_zone = Some("UTC".into());
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(environment)
        .with_default_features()
        .with_optimizer_rule(Arc::new(AnswerWithoutRecords))
        .with_physical_optimizer_rule(Arc::new(NewestFirst))
        .with_physical_optimizer_rule(Arc::new(GroupRuns))
        .with_physical_optimizer_rule(Arc::new(JoinsYield))
        .build();
    let planners: Vec<_> =
        std::iter::once(Arc::new(LooseTypes) as _).chain(state.expr_planners().iter().cloned()).collect();
    state = SessionStateBuilder::new_from_existing(state).with_expr_planners(planners).build();
    let replaced = state.register_udaf(percentile::approx_percentile_cont());
    debug_assert!(replaced.is_ok_and(|replaced| replaced.is_some()), "DataFusion has a function of that name");
    let replaced = state.register_udf(buckets::date_bin());
    debug_assert!(replaced.is_ok_and(|replaced| replaced.is_some()), "DataFusion has a function of that name");
    state
}

fn limited(plan: LogicalPlan, limit: Option<usize>) -> datafusion::error::Result<LogicalPlan> {
    match (limit, &plan) {
        (None, _) | (_, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_)) => Ok(plan),
        (Some(limit), _) => LogicalPlanBuilder::from(plan).limit(0, Some(limit))?.build(),
    }
}

fn field_names(snapshot: &Snapshot) -> FieldNames {
    let hidden = column::HIDDEN.iter().chain([&column::SEQ, &column::LINE]);
    let own = snapshot.fields.keys().map(String::as_str);
    FieldNames::new(column::CORE.iter().chain(hidden).copied().chain(own))
}

fn function_names(state: &SessionState) -> FieldNames {
    let names = state.scalar_functions().keys().chain(state.aggregate_functions().keys());
    FieldNames::new(names.chain(state.window_functions().keys()).map(String::as_str))
}

fn occurs(snapshot: &Snapshot, name: &str, range: TimeRange) -> bool {
    let overlaps = |min: i64, max: i64| min < range.to_ns && range.from_ns <= max;
    let in_segments = snapshot.segments.iter().any(|segment| {
        overlaps(segment.min_ts, segment.max_ts) && segment.detail.fields.iter().any(|field| field.name == name)
    });
    in_segments
        || snapshot.buffer.iter().any(|batch| {
            overlaps(batch.min_ts, batch.max_ts)
                && (batch.batch.column_by_name(name).is_some() || batch.fields().contains_key(name))
        })
}

fn type_word(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Integer => "integer",
        FieldType::Float => "float",
        FieldType::Boolean => "boolean",
        FieldType::Text => "string",
    }
}

/// A planned query.
pub struct Prepared {
    /// Held so that the files of its segments stay until the query has ended.
    _snapshot: Arc<Snapshot>,
    schema: SchemaRef,
    physical: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    counts: Arc<ScanCounts>,
    started: Instant,
    deadline: Duration,
    rows_max: usize,
    /// Permits of the batches that wait for the reader.
    queued_units_max: u32,
    handle: tokio::runtime::Handle,
    tenant: Tenant,
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
}

impl Prepared {
    /// Schema of the answer. **Shape**: plain types only (no views, no dictionaries).
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Starts it. Dropping the stream cancels the query.
    pub fn run(self) -> Rows {
        let handle = self.handle.clone();
        let (begun, work) = self.begin();
        Rows::of(begun, handle.spawn(work))
    }

    /// What the reader gets, and the work that must be run for it.
    fn begin(self) -> (Begun, impl Future<Output = ()> + Send + use<>) {
        let (batches, receiver) = mpsc::channel(BATCHES_QUEUED_MAX);
        let progress = Arc::new(Progress {
            ended_us: AtomicU64::new(0),
            truncated: AtomicBool::new(false),
            started: self.started,
        });
        let (schema, counts, deadline) = (self.schema.clone(), self.counts.clone(), self.deadline);
        (Begun { schema, receiver, counts, progress: progress.clone(), deadline }, drive(self, batches, progress))
    }
}

/// A query whose rows are on their way.
struct Begun {
    schema: SchemaRef,
    receiver: mpsc::Receiver<Queued>,
    counts: Arc<ScanCounts>,
    progress: Arc<Progress>,
    deadline: Duration,
}

#[derive(Debug)]
struct Progress {
    started: Instant,
    /// Duration when it ended; 0 while it runs.
    ended_us: AtomicU64,
    truncated: AtomicBool,
}

/// Counts a query as running for as long as it lives, however it ends.
struct Running {
    metrics: Arc<Metrics>,
    counts: Arc<ScanCounts>,
    started: Instant,
}

impl Running {
    fn new(query: &Prepared) -> Running {
        query.metrics.queries.inc();
        query.metrics.running.inc();
        Running { metrics: query.metrics.clone(), counts: query.counts.clone(), started: query.started }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.metrics.running.dec();
        self.metrics.bytes.inc_by(self.counts.bytes());
        self.metrics.seconds.observe(self.started.elapsed().as_secs_f64());
    }
}

/// Permits of one answer.
fn queued_units(options: &Options) -> u32 {
    let bytes = options.memory_bytes_max / QUEUED_PARTS / options.concurrency_max.max(1);
    u32::try_from((bytes / QUEUED_UNIT).clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX)
}

/// A batch on its way to the reader, and what it holds of the room for such.
type Queued = Result<(RecordBatch, OwnedSemaphorePermit), Error>;
type Batches = mpsc::Sender<Queued>;

async fn drive(query: Prepared, batches: Batches, progress: Arc<Progress>) {
    let until = tokio::time::Instant::from_std(query.started + query.deadline);
    let _running = Running::new(&query);
    let outcome = match timeout_at(until, answer(&query, &batches, &progress)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::Deadline(query.deadline)),
    };
    let took = query.started.elapsed().as_micros().max(1);
    progress.ended_us.store(u64::try_from(took).unwrap_or(u64::MAX), Ordering::Relaxed);
    if let Err(error) = outcome {
        query.metrics.failed.inc();
        // A reader that went away does not need the error.
        let _ = batches.send(Err(error)).await;
    }
}

async fn answer(query: &Prepared, batches: &Batches, progress: &Progress) -> Result<(), Error> {
    let _place = query.admission.enter(&query.tenant).await.ok_or(Error::Closed)?;
    let failed = |error: &_| failure::of_execution(error);
    let mut stream = execute_stream(query.physical.clone(), query.context.clone()).map_err(|error| failed(&error))?;
    let mut rows_left = query.rows_max;
    let room = Arc::new(Semaphore::new(query.queued_units_max as usize));
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(|error| failed(&error))?;
        let cut = batch.slice(0, batch.num_rows().min(rows_left));
        rows_left -= cut.num_rows();
        query.metrics.rows.inc_by(cut.num_rows() as u64);
        progress.truncated.store(cut.num_rows() < batch.num_rows(), Ordering::Relaxed);
        let plain = output::plain_batch(&cut, &query.schema).map_err(|error| Error::Internal(error.to_string()))?;
        let units = u32::try_from(plain.get_array_memory_size() / QUEUED_UNIT).unwrap_or(u32::MAX);
        let permit = room.clone().acquire_many_owned(units.clamp(1, query.queued_units_max)).await;
        let permit = permit.map_err(|_| Error::Closed)?;
        let ended = batches.send(Ok((plain, permit))).await.is_err() || progress.truncated.load(Ordering::Relaxed);
        if ended {
            break;
        }
    }
    Ok(())
}

/// The rows of a running query, as batches in its schema.
pub struct Rows {
    schema: SchemaRef,
    receiver: mpsc::Receiver<Queued>,
    task: Option<JoinHandle<()>>,
    counts: Arc<ScanCounts>,
    progress: Arc<Progress>,
    deadline: Duration,
    /// Also here, for the reader must hear of the deadline even while an operator keeps its thread to itself.
    timer: Pin<Box<tokio::time::Sleep>>,
}

impl Rows {
    fn of(begun: Begun, task: JoinHandle<()>) -> Rows {
        let Begun { schema, receiver, counts, progress, deadline } = begun;
        let timer = Box::pin(tokio::time::sleep_until(tokio::time::Instant::from_std(progress.started + deadline)));
        Rows { schema, receiver, task: Some(task), counts, progress, deadline, timer }
    }

    /// Schema of the answer. **Shape**: plain types only (no views, no dictionaries).
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Why the answer lacks records, where it does; complete after the stream's end.
    pub(super) fn left_out(&self) -> Vec<String> {
        self.counts.notices()
    }

    /// What it cost so far; complete after the stream's end.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            segments_scanned: self.counts.segments_scanned.load(Ordering::Relaxed),
            segments_pruned: self.counts.segments_pruned.load(Ordering::Relaxed),
            rows_scanned: self.counts.rows.load(Ordering::Relaxed),
            bytes_scanned: self.counts.bytes(),
            notices: self.counts.notices(),
            truncated: self.progress.truncated.load(Ordering::Relaxed),
            ..Stats::default()
        };
        let elapsed = match self.progress.ended_us.load(Ordering::Relaxed) {
            0 => self.progress.started.elapsed(),
            micros => Duration::from_micros(micros),
        };
        stats.elapsed_ms = elapsed.as_secs_f64() * 1000.0;
        if stats.truncated {
            stats
                .notices
                .push("the answer was cut at the store's limit of rows; add a LIMIT or narrow the query".into());
        }
        stats
    }
}

impl Stream for Rows {
    type Item = Result<RecordBatch, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.receiver.poll_recv(cx) {
            Poll::Ready(None) => {}
            Poll::Ready(batch) => return Poll::Ready(batch.map(|queued| queued.map(|(batch, _)| batch))),
            Poll::Pending if self.task.is_some() && self.timer.as_mut().poll(cx).is_ready() => {
                self.task.take().inspect(JoinHandle::abort);
                self.receiver.close();
                return Poll::Ready(Some(Err(Error::Deadline(self.deadline))));
            }
            Poll::Pending => return Poll::Pending,
        }
        // The task is over: it told its errors itself, unless it panicked or was cancelled.
        let Some(task) = self.task.as_mut() else { return Poll::Ready(None) };
        let Poll::Ready(ended) = Pin::new(task).poll(cx) else { return Poll::Pending };
        self.task = None;
        Poll::Ready(ended.err().map(|error| {
            Err(if error.is_cancelled() {
                Error::Closed
            } else {
                Error::Internal(format!("the query failed: {error}"))
            })
        }))
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
