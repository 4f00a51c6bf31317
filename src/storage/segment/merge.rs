//! Many segments made one: a merge of sorted files in bounded memory. Inputs are read in small batches, in the order of
//! segments; what goes out is collected until it is a row group.
//!
//! **Invariant**: the output holds exactly the inputs' records, but for those left out on purpose.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic;
use std::sync::atomic::AtomicBool;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampNanosecondType};

use parquet::file::statistics::Statistics;

use super::file::{FileWriter, Layout, Tier};
use super::open::{Columns, OpenSegment};
use super::{Error, IdForm, NS_PER_WINDOW, ROW_GROUP_ROWS_MAX, ROW_GROUP_ROWS_MIN, level_rank};
use crate::record::{batch, column, number};
use crate::storage::catalog::{Detail, History, Segment};
use crate::storage::{paths, schema};

/// Records read from an input at once, at most and at least.
const READ_ROWS_MAX: usize = 4_096;
const READ_ROWS_MIN: usize = 512;
/// Records read from all inputs at once, about.
const READ_ROWS_TOGETHER: usize = 32_768;
/// Part of a merge's memory that the records of a row group may take before they are sorted into a second copy; the rest
/// is for that copy, for what the file's writer holds, and for the index.
const GROUP_PARTS: usize = 3;

/// Which records of a batch are kept; `None`: all.
pub type Keep<'a> = dyn Fn(&RecordBatch) -> Option<BooleanArray> + 'a;

/// What a merge keeps to.
#[derive(Debug, Clone, Copy)]
pub struct MergeLimits {
    /// Columns of the output; the values of further fields go to the overflow.
    pub columns_max: usize,
    /// Memory of the row group that is being collected, about.
    pub memory_bytes_max: usize,
}

/// Writes one segment with the records of all inputs, which are of one tenant, day and class, without those that `keep`
/// leaves out. Complete and fsynced when this returns; live when the catalog says so. `None`: no record is left.
/// Holds `memory_bytes_max`, about: row groups are shorter where records are large.
///
/// **Errors**: [`Error::Read`] when an input is damaged, [`Error::Stopped`] soon after `stop` was set. What was half
/// written is the caller's to remove.
pub fn merge(
    root: &Path,
    inputs: &[Arc<Segment>],
    limits: MergeLimits,
    id: i64,
    keep: &Keep<'_>,
    stop: &AtomicBool,
) -> Result<Option<Segment>, Error> {
    let MergeLimits { columns_max, memory_bytes_max } = limits;
    let alike = |a: &Arc<Segment>, b: &Arc<Segment>| (&a.tenant, &a.day, &a.class) == (&b.tenant, &b.day, &b.class);
    assert!(inputs.iter().all(|input| alike(input, &inputs[0])), "a merge never crosses tenant, day or class");
    let open = inputs.iter().map(|input| OpenSegment::open(root, input)).collect::<Result<Vec<_>, _>>()?;
    let schema = unified(&open);
    let read_rows = (READ_ROWS_TOGETHER / open.len().max(1)).clamp(READ_ROWS_MIN, READ_ROWS_MAX);
    let mut sources =
        open.iter().map(|segment| Source::new(segment, &schema, keep, read_rows)).collect::<Result<Vec<_>, _>>()?;
    sources.retain(|source| source.head.is_some());
    let Some(first) = inputs.first().filter(|_| !sources.is_empty()) else { return Ok(None) };

    let path = paths::segment(&first.tenant, &first.day, first.class.as_str(), id);
    let mut output = Output {
        file: root.join(&path),
        ids: common_ids(&open, &schema),
        // The finest: the one with the smallest factor.
        time_unit: open
            .iter()
            .min_by_key(|segment| segment.nanoseconds())
            .map_or(TimeUnit::Nanosecond, OpenSegment::time_unit),
        moved: schema::beyond(&schema, columns_max),
        writer: None,
        summary: Summary::default(),
    };
    run(&mut sources, &mut output, memory_bytes_max / GROUP_PARTS, stop)?;
    let Some(writer) = output.writer else { return Ok(None) };
    let finished = writer.finish()?;
    let summary = output.summary;
    let services = summary.services.into_iter().collect::<Vec<_>>();
    Ok(Some(Segment {
        id,
        tenant: first.tenant.clone(),
        path,
        class: first.class.clone(),
        day: first.day.clone(),
        records: summary.records,
        bytes: finished.bytes,
        min_ts: summary.timestamps.0,
        max_ts: summary.timestamps.1,
        min_seq: summary.seqs.0,
        max_seq: summary.seqs.1,
        detail: Detail {
            fields: summary.fields.into_iter().map(Into::into).collect(),
            levels: summary.levels.into_iter().collect(),
            services: Some(services).filter(|services| services.len() <= super::SERVICES_LISTED_MAX),
            crc32: Some(finished.crc32),
            index_bytes: finished.index_bytes,
        },
        history: History::default(),
    }))
}

/// The columns that are ids of one form in all inputs that have them.
fn common_ids(open: &[OpenSegment], schema: &Schema) -> BTreeMap<String, IdForm> {
    let names = schema.fields().iter().map(|field| field.name());
    let form = |name: &String| {
        let mut forms = open.iter().filter(|segment| segment.column(name).is_some()).map(|found| {
            // A core column without a value has no form, and stands in no form's way.
            found.ids().get(name).copied()
        });
        let first = forms.next()??;
        forms.all(|other| other == Some(first)).then_some(first)
    };
    names.filter_map(|name| Some((name.clone(), form(name)?))).collect()
}

/// The schema that holds all inputs, without `_seq` and without hidden columns that no input has.
fn unified(open: &[OpenSegment]) -> SchemaRef {
    let schemas: Vec<SchemaRef> = open.iter().map(OpenSegment::schema).collect();
    let unified = batch::unified_schema(&schemas);
    let occurs = |name: &str| open.iter().any(|segment| segment.column(name).is_some());
    let kept = unified.fields().iter().filter(|field| {
        let name = field.name().as_str();
        name != column::SEQ && (!column::HIDDEN.contains(&name) || occurs(name))
    });
    let fields = kept.map(|field| match field.data_type() {
        DataType::Float64 if open.iter().any(|segment| has_large_integers(segment, field.name())) => {
            Arc::new(Field::new(field.name(), DataType::Utf8, true))
        }
        _ => field.clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Whether an integer column has, or may have, a value that no double holds exactly.
fn has_large_integers(segment: &OpenSegment, name: &str) -> bool {
    let Some(place) = segment.column(name) else { return false };
    let is_large = |value: Option<&i64>| value.is_none_or(|value| !number::is_exact(*value));
    segment.metadata().row_groups().iter().any(|group| match group.column(place).statistics() {
        Some(Statistics::Int64(found)) => {
            let all_null = found.null_count_opt() == u64::try_from(group.num_rows()).ok();
            !all_null && (is_large(found.min_opt()) || is_large(found.max_opt()))
        }
        _ => false,
    })
}

/// Records of one input with what they are ordered by.
struct Head {
    records: RecordBatch,
    seq: Int64Array,
    levels: Vec<u8>,
    services: StringArray,
    row: usize,
    /// Its place among the batches of the output, once a record of it went there.
    slot: Option<usize>,
}

impl Head {
    fn key(&self, row: usize) -> (i64, u8, Option<&str>, i64, i64) {
        let timestamp = self.records.column(0).as_primitive::<TimestampNanosecondType>().value(row);
        let service = self.services.is_valid(row).then(|| self.services.value(row));
        (timestamp.div_euclid(NS_PER_WINDOW), self.levels[row], service, timestamp, self.seq.value(row))
    }
}

/// One input, read in order.
struct Source<'a> {
    batches: Columns<'a>,
    schema: SchemaRef,
    keep: &'a Keep<'a>,
    head: Option<Head>,
}

impl<'a> Source<'a> {
    fn new(
        segment: &'a OpenSegment,
        schema: &SchemaRef,
        keep: &'a Keep<'a>,
        read_rows: usize,
    ) -> Result<Source<'a>, Error> {
        let batches = segment.read_all(read_rows)?;
        let mut source = Source { batches, schema: schema.clone(), keep, head: None };
        source.advance()?;
        Ok(source)
    }

    /// Reads the next batch that has records.
    fn advance(&mut self) -> Result<(), Error> {
        self.head = None;
        for read in self.batches.by_ref() {
            let mut records = read?;
            if let Some(kept) = (self.keep)(&records) {
                records = arrow::compute::filter_record_batch(&records, &kept)?;
            }
            if records.num_rows() == 0 {
                continue;
            }
            let seq = records.column_by_name(column::SEQ).expect("segments have it").as_primitive::<Int64Type>();
            let seq = seq.clone();
            let records = batch::conform(&records, &self.schema)?;
            let levels = records.column(1).as_string::<i32>().iter().map(level_rank).collect();
            let services = records.column(2).as_string::<i32>().clone();
            self.head = Some(Head { records, seq, levels, services, row: 0, slot: None });
            break;
        }
        Ok(())
    }
}

/// Takes the smallest record of all sources until none is left. Neighbours mostly come from one source, so the next
/// smallest of the others is looked up once for a run.
fn run(
    sources: &mut [Source<'_>],
    output: &mut Output,
    group_bytes_max: usize,
    stop: &AtomicBool,
) -> Result<(), Error> {
    let mut group = Group::default();
    while let Some(at) = smallest(sources, None) {
        let limit = smallest(sources, Some(at)).map(|other| {
            let head = sources[other].head.as_ref().expect("it has records");
            let (window, level, service, timestamp, seq) = head.key(head.row);
            (window, level, service.map(str::to_owned), timestamp, seq)
        });
        while let Some(head) = sources[at].head.as_mut() {
            let key = head.key(head.row);
            let beyond =
                limit.as_ref().is_some_and(|limit| key > (limit.0, limit.1, limit.2.as_deref(), limit.3, limit.4));
            if beyond {
                break;
            }
            if group.is_complete_before(key.0, group_bytes_max) {
                if stop.load(atomic::Ordering::Relaxed) {
                    return Err(Error::Stopped);
                }
                output.write(&mut group)?;
                sources.iter_mut().filter_map(|source| source.head.as_mut()).for_each(|head| head.slot = None);
                continue;
            }
            group.take(head, key.0);
            head.row += 1;
            if head.row == head.records.num_rows() {
                sources[at].advance()?;
            }
        }
    }
    if group.rows.is_empty() { Ok(()) } else { output.write(&mut group) }
}

fn smallest(sources: &[Source<'_>], except: Option<usize>) -> Option<usize> {
    let heads = sources.iter().enumerate().filter(|(at, _)| Some(*at) != except);
    let heads = heads.filter_map(|(at, source)| source.head.as_ref().map(|head| (at, head)));
    heads.min_by(|a, b| a.1.key(a.1.row).partial_cmp(&b.1.key(b.1.row)).unwrap_or(Ordering::Equal)).map(|(at, _)| at)
}

/// Records that will be a row group.
#[derive(Default)]
struct Group {
    batches: Vec<RecordBatch>,
    seqs: Vec<Int64Array>,
    /// Batch and row of each record.
    rows: Vec<(usize, usize)>,
    window: i64,
    /// Memory of the batches.
    bytes: usize,
}

impl Group {
    /// As `row_groups` cuts: at the end of a window, unless it is short; and where it is too long or too large.
    fn is_complete_before(&self, window: i64, bytes_max: usize) -> bool {
        let ends = window != self.window || self.bytes > bytes_max;
        self.rows.len() >= ROW_GROUP_ROWS_MAX || (self.rows.len() >= ROW_GROUP_ROWS_MIN && ends)
    }

    fn take(&mut self, head: &mut Head, window: i64) {
        let slot = *head.slot.get_or_insert_with(|| {
            self.bytes += memory_bytes(&head.records);
            self.batches.push(head.records.clone());
            self.seqs.push(head.seq.clone());
            self.batches.len() - 1
        });
        self.rows.push((slot, head.row));
        self.window = window;
    }
}

/// Memory of a batch without its dictionary, which it shares with its neighbours.
fn memory_bytes(records: &RecordBatch) -> usize {
    let columns = records.columns().iter();
    columns
        .map(|array| match array.as_dictionary_opt::<Int32Type>() {
            Some(shapes) => shapes.keys().get_array_memory_size(),
            None => array.get_array_memory_size(),
        })
        .sum()
}

/// What the catalog will say of the output.
#[derive(Default)]
struct Summary {
    records: u64,
    timestamps: (i64, i64),
    seqs: (i64, i64),
    levels: BTreeSet<Option<String>>,
    services: BTreeSet<Option<String>>,
    fields: BTreeMap<String, schema::FieldInfo>,
}

struct Output {
    file: std::path::PathBuf,
    ids: BTreeMap<String, IdForm>,
    time_unit: TimeUnit,
    /// Columns whose values go to the overflow.
    moved: Vec<String>,
    writer: Option<FileWriter>,
    summary: Summary,
}

impl Output {
    fn write(&mut self, group: &mut Group) -> Result<(), Error> {
        let schema = group.batches[0].schema();
        let Group { batches, seqs, rows, .. } = std::mem::take(group);
        // Column by column, each let go once it is copied: a row group is never in memory twice.
        let mut parts: Vec<Vec<ArrayRef>> = vec![Vec::with_capacity(batches.len()); schema.fields().len()];
        for batch in batches {
            let (_, columns, _) = batch.into_parts();
            parts.iter_mut().zip(columns).for_each(|(part, column)| part.push(column));
        }
        let gather = |part: Vec<ArrayRef>| -> Result<ArrayRef, Error> {
            let arrays: Vec<&ArrayRef> = part.iter().collect();
            Ok(batch::interleave(&arrays, &rows)?)
        };
        let columns = parts.into_iter().map(gather).collect::<Result<Vec<_>, _>>()?;
        let seqs: Vec<&dyn Array> = seqs.iter().map(|seq| seq as &dyn Array).collect();
        let seq = interleave(&seqs, &rows)?;
        let mut records = RecordBatch::try_new(schema, columns)?;
        if !self.moved.is_empty() {
            let moved: Vec<&str> = self.moved.iter().map(String::as_str).collect();
            records = schema::move_to_overflow(&records, &moved)?;
        }
        let mut fields: Vec<_> = records.schema().fields().iter().cloned().collect();
        fields.extend(batch::fixed_field(column::SEQ).map(Arc::new));
        let columns = records.columns().iter().cloned().chain([seq]).collect();
        let records = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        self.summarise(&records);
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let layout = Layout::new(self.ids.clone(), self.time_unit, &records, Tier::Merged);
                self.writer.insert(FileWriter::create(&self.file, records.schema(), layout)?)
            }
        };
        writer.write_row_group(&records)
    }

    fn summarise(&mut self, records: &RecordBatch) {
        let summary = &mut self.summary;
        let timestamps = records.column(0).as_primitive::<TimestampNanosecondType>();
        let seqs = records.column(records.num_columns() - 1).as_primitive::<Int64Type>();
        let (timestamps, seqs) =
            (super::bounds(timestamps.values().iter().copied()), super::bounds(seqs.values().iter().copied()));
        let join = |known: (i64, i64), new: (i64, i64), first: bool| {
            if first { new } else { (known.0.min(new.0), known.1.max(new.1)) }
        };
        let first = summary.records == 0;
        summary.timestamps = join(summary.timestamps, timestamps, first);
        summary.seqs = join(summary.seqs, seqs, first);
        summary.records += records.num_rows() as u64;
        let learn = |at: usize, known: &mut BTreeSet<Option<String>>| {
            let found = super::distinct_texts(records.column(at).as_string::<i32>());
            known.extend(found.into_iter().map(|value| value.map(str::to_owned)));
        };
        learn(1, &mut summary.levels);
        learn(2, &mut summary.services);
        for (name, info) in schema::fields_of(records) {
            summary.fields.entry(name).and_modify(|known| *known = known.and(info)).or_insert(info);
        }
    }
}
