//! What the store should hold: a list of records, each with what became of it. Everything that the store may answer
//! follows from it, and it knows nothing of logs, buffers, segments or indexes.
//!
//! **Invariant**: a record that was acknowledged is `Kept` until something that may remove it happened: its rule's time
//! is over, a deletion means it, or damage or the quota took the segment it lay in.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::checks::Filter;
use super::lines::{Facts, NS_PER_DAY, NS_PER_HOUR, NS_PER_SECOND};
use crate::query::TimeRange;
use crate::storage::Segment;
use crate::storage::retention::Rules;

pub(super) type Outcome<T = ()> = Result<T, String>;

/// Whose records there are.
pub(super) const TENANTS: [&str; 3] = ["default", "team-b", "c.3"];

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Sent, and not acknowledged: there or not, with all records of its batch. The next reading tells.
    Sent,
    /// Acknowledged: there.
    Kept,
    /// Hidden or removed by this deletion.
    Deleted(i64),
    /// Its deletion was cancelled, or the rules changed when its time was over: there or not. The next reading tells.
    Doubtful,
    /// Never to be seen again.
    Gone,
}

#[derive(Debug, Clone)]
pub(super) struct Record {
    pub tenant: usize,
    pub batch: usize,
    /// Its place in the batch.
    pub place: i64,
    pub ts: i64,
    pub line: String,
    pub facts: Facts,
    /// Learned from the first answer that has it; the same in all others.
    pub seq: Option<i64>,
    pub state: State,
}

#[derive(Debug, Clone)]
struct Batch {
    /// The highest number seen before it was sent: it has to get higher ones.
    after_seq: i64,
    first_seq: Option<i64>,
    records: std::ops::Range<usize>,
}

/// A deletion as it was acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Deletion {
    pub id: i64,
    pub tenant: usize,
    pub filter: Filter,
    pub range: Option<TimeRange>,
    /// It concerns records before this one.
    pub before: usize,
    pub cancelled: bool,
}

/// One rule of retention: levels and service that it matches (none: all), and how long it keeps.
type Rule = (&'static [&'static str], Option<&'static str>, Option<i64>);

/// The first rule of each set matches nothing; it makes the store look for what expired twice a second.
const NEVER: Rule = (&[], Some("never"), Some(NS_PER_SECOND));
const RULE_SETS: [&[Rule]; 3] = [
    &[NEVER],
    &[NEVER, (&["debug", "trace"], None, Some(12 * NS_PER_HOUR)), (&[], Some("api"), Some(20 * NS_PER_DAY))],
    &[NEVER, (&["error"], Some("web"), None), (&["info"], None, Some(2 * NS_PER_DAY))],
];
const DEFAULT_RULES: [Rule; 4] = [
    (&["error", "fatal"], None, Some(30 * NS_PER_DAY)),
    (&["warn"], None, Some(14 * NS_PER_DAY)),
    (&["debug", "trace"], None, Some(3 * NS_PER_DAY)),
    (&[], None, Some(7 * NS_PER_DAY)),
];

/// Which of the sets of rules is in force.
#[derive(Debug, Clone, Copy)]
pub(super) struct RuleSet(pub usize);

impl RuleSet {
    pub const COUNT: usize = RULE_SETS.len();

    pub fn rules(self) -> Arc<Rules> {
        let given = RULE_SETS[self.0].iter().map(|(levels, service, keep)| {
            let levels = (!levels.is_empty()).then(|| format!("level in (\"{}\")", levels.join("\", \"")));
            let service = service.map(|service| format!("service = \"{service}\""));
            let text = levels.into_iter().chain(service).collect::<Vec<_>>().join(" and ");
            (text, keep.map(|keep| Duration::from_nanos(keep.unsigned_abs())))
        });
        let given: Vec<(String, Option<Duration>)> = given.collect();
        let rules = Rules::new(given.iter().map(|(text, keep)| (text.as_str(), *keep)));
        Arc::new(rules.expect("the simulation's rules are rules"))
    }

    /// Whether the record's rule lets it go.
    fn is_over(self, record: &Record, now_ns: i64) -> bool {
        let matches = |(levels, service, _): &&Rule| {
            (levels.is_empty() || record.facts.level.is_some_and(|level| levels.contains(&level)))
                && service.is_none_or(|service| record.facts.service == Some(service))
        };
        let rule = RULE_SETS[self.0].iter().chain(&DEFAULT_RULES).find(matches);
        rule.and_then(|(.., keep)| *keep).is_some_and(|keep| record.ts < now_ns - keep)
    }
}

/// Which acknowledged records an answer may lack, beside those whose time is over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Allowance<'a> {
    Nothing,
    /// Those of these segments: all of them, when nothing else hides some.
    Segments(&'a [Arc<Segment>]),
    /// Those of one batch, all of them: its frame in the log was damaged.
    OneBatch,
}

/// A record as the store gives it.
pub(super) struct Row {
    pub seq: i64,
    pub ts: i64,
    pub level: Option<String>,
    pub service: Option<String>,
    pub trace: Option<String>,
    pub message: Option<String>,
    pub line: String,
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    pub records: Vec<Record>,
    pub deletions: Vec<Deletion>,
    pub rule_set: RuleSet,
    pub now_ns: i64,
    by_line: HashMap<(usize, String), usize>,
    batches: Vec<Batch>,
    /// The highest number seen.
    seq_max: i64,
}

impl Model {
    pub fn new(now_ns: i64) -> Model {
        Model {
            records: Vec::new(),
            deletions: Vec::new(),
            rule_set: RuleSet(0),
            now_ns,
            by_line: HashMap::new(),
            batches: Vec::new(),
            seq_max: 0,
        }
    }

    /// Adds a batch that is about to be sent; gives its number.
    pub fn send(&mut self, tenant: usize, lines: Vec<(String, Facts)>) -> usize {
        let (batch, first) = (self.batches.len(), self.records.len());
        for (place, (line, facts)) in (0..).zip(lines) {
            self.by_line.insert((tenant, line.clone()), self.records.len());
            let ts = facts.ts.unwrap_or(self.now_ns);
            self.records.push(Record { tenant, batch, place, ts, line, facts, seq: None, state: State::Sent });
        }
        let records = first..self.records.len();
        self.batches.push(Batch { after_seq: self.seq_max, first_seq: None, records });
        batch
    }

    /// The batch was acknowledged.
    pub fn acknowledge(&mut self, batch: usize) {
        for record in &mut self.records[self.batches[batch].records.clone()] {
            record.state = State::Kept;
        }
    }

    /// The records that are there.
    pub fn kept(&self, tenant: usize) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.tenant == tenant && record.state == State::Kept)
    }

    /// Other rules are in force; what was over by the former ones may have gone.
    pub fn change_rules(&mut self, rule_set: RuleSet) {
        for record in &mut self.records {
            let may_be_there = matches!(record.state, State::Kept | State::Sent);
            if may_be_there && self.rule_set.is_over(record, self.now_ns) {
                record.state = State::Doubtful;
            }
        }
        self.rule_set = rule_set;
    }

    /// The highest number seen among a tenant's records.
    pub fn seq_max(&self, tenant: usize) -> i64 {
        self.kept(tenant).filter_map(|record| record.seq).max().unwrap_or(0)
    }

    /// Whether records of a batch may go once they are in a segment.
    pub fn expires(&self, batch: usize) -> bool {
        let mut records = self.records[self.batches[batch].records.clone()].iter();
        records.any(|record| self.rule_set.is_over(record, self.now_ns))
    }

    /// Whether some record may go at any time.
    pub fn has_expiring(&self) -> bool {
        let may_go = |record: &&Record| record.state == State::Kept && self.rule_set.is_over(record, self.now_ns);
        self.records.iter().any(|record| may_go(&record))
    }

    /// A deletion was acknowledged: nobody sees its records from now on.
    pub fn delete(&mut self, id: i64, tenant: usize, filter: Filter, range: Option<TimeRange>) -> usize {
        let before = self.records.len();
        let deletion = Deletion { id, tenant, filter, range, before, cancelled: false };
        let mut count = 0;
        for record in &mut self.records {
            if matches!(record.state, State::Kept) && deletion.means(record) {
                record.state = State::Deleted(id);
                count += 1;
            }
        }
        self.deletions.push(deletion);
        count
    }

    /// A deletion was cancelled: what was not removed yet comes back, unless another one means it.
    pub fn cancel(&mut self, id: i64) {
        self.deletions.iter_mut().filter(|deletion| deletion.id == id).for_each(|found| found.cancelled = true);
        for at in 0..self.records.len() {
            if self.records[at].state != State::Deleted(id) {
                continue;
            }
            let record = &self.records[at];
            let means = |other: &&Deletion| !other.cancelled && at < other.before && other.means(record);
            let other = self.deletions.iter().find(means).map(|other| other.id);
            self.records[at].state = other.map_or(State::Doubtful, State::Deleted);
        }
    }

    /// The log lost its last frame, so its numbers are given again.
    pub fn forget_numbers(&mut self) {
        let kept = self.records.iter().filter(|record| record.state == State::Kept);
        self.seq_max = kept.filter_map(|record| record.seq).max().unwrap_or(0);
    }

    /// Compares a tenant's records above the number `after` with what the store gave, and learns what only it can tell:
    /// numbers, and what became of records that were in doubt. Gives the records that are missing.
    pub fn compare(&mut self, tenant: usize, after: i64, rows: &[Row]) -> Outcome<Vec<usize>> {
        let mut seen = HashSet::new();
        for row in rows {
            let found = self.by_line.get(&(tenant, row.line.clone()));
            let at = *found.ok_or_else(|| format!("nobody sent this line: {} {}", row.seq, shown(&row.line)))?;
            if !seen.insert(at) {
                return Err(format!("a record is there twice: {} {}", row.seq, shown(&row.line)));
            }
            self.compare_record(at, row)?;
        }
        let mut missing = Vec::new();
        for at in 0..self.records.len() {
            let record = &self.records[at];
            let concerned = record.tenant == tenant && record.seq.is_none_or(|seq| seq > after);
            if !concerned || seen.contains(&at) {
                continue;
            }
            match record.state {
                State::Kept => missing.push(at),
                State::Sent => self.one_for_all(at, &seen)?,
                State::Doubtful => self.records[at].state = State::Gone,
                State::Deleted(_) | State::Gone => {}
            }
        }
        Ok(missing)
    }

    fn compare_record(&mut self, at: usize, row: &Row) -> Outcome {
        let seq_max = &mut self.seq_max;
        let record = &mut self.records[at];
        let what = |what: &str, found: &dyn std::fmt::Debug, expected: &dyn std::fmt::Debug| {
            Err(format!("{what} of record {} is {found:?}, not {expected:?}: {}", row.seq, shown(&row.line)))
        };
        match record.state {
            State::Sent | State::Doubtful => record.state = State::Kept,
            State::Kept => {}
            State::Deleted(_) | State::Gone => return what("the state", &"there", &record.state),
        }
        let facts = &record.facts;
        if row.ts != record.ts {
            return what("the timestamp", &row.ts, &record.ts);
        }
        for (name, found, expected) in [
            ("the level", row.level.as_deref(), facts.level),
            ("the service", row.service.as_deref(), facts.service),
            ("the trace id", row.trace.as_deref(), facts.trace.as_deref()),
            ("the message", row.message.as_deref(), Some(facts.message.as_str())),
        ] {
            if found != expected {
                return what(name, &found.map(shown), &expected.map(shown));
            }
        }
        if record.seq.is_some_and(|known| known != row.seq) {
            return what("the number", &row.seq, &record.seq);
        }
        record.seq = Some(row.seq);
        let batch = &mut self.batches[record.batch];
        let first_seq = row.seq - record.place;
        if *batch.first_seq.get_or_insert(first_seq) != first_seq {
            return what("the number of the batch's first record, by that", &first_seq, &batch.first_seq);
        }
        if first_seq <= batch.after_seq {
            return what("the number of the batch's first record", &first_seq, &format!("above {}", batch.after_seq));
        }
        *seq_max = row.seq.max(*seq_max);
        Ok(())
    }

    /// A record of an unacknowledged batch is not there: then none of them is, but for those whose time is over.
    fn one_for_all(&mut self, at: usize, seen: &HashSet<usize>) -> Outcome {
        let batch = self.batches[self.records[at].batch].records.clone();
        let over = self.rule_set.is_over(&self.records[at], self.now_ns);
        if !over && batch.clone().any(|other| seen.contains(&other)) {
            return Err(format!(
                "only a part of an unacknowledged batch is there; {} is missing",
                shown(&self.records[at].line)
            ));
        }
        self.records[at].state = State::Gone;
        Ok(())
    }

    /// Whether these records may be missing; they are gone then.
    pub fn judge(&mut self, missing: &[usize], allowance: Allowance<'_>) -> Outcome {
        let mut covered = 0;
        let mut unexplained = Vec::new();
        for at in missing {
            let record = &self.records[*at];
            if matches!(allowance, Allowance::Segments(segments) if segments.iter().any(|found| covers(found, record)))
            {
                covered += 1;
            } else if !self.rule_set.is_over(record, self.now_ns) {
                unexplained.push(*at);
            }
        }
        if let Allowance::Segments(segments) = allowance {
            let records: u64 = segments.iter().map(|segment| segment.records).sum();
            if covered > records {
                return Err(format!("{covered} records are missing, and only {records} were in what was lost"));
            }
        }
        if matches!(allowance, Allowance::OneBatch) && self.is_one_batch(&unexplained) {
            unexplained.clear();
        }
        if let Some(first) = unexplained.first() {
            let record = &self.records[*first];
            let count = unexplained.len();
            return Err(format!(
                "{count} acknowledged records are lost, first: tenant {} batch {} seq {:?} ts {} {}",
                TENANTS[record.tenant],
                record.batch,
                record.seq,
                record.ts,
                shown(&record.line)
            ));
        }
        missing.iter().for_each(|at| self.records[*at].state = State::Gone);
        Ok(())
    }

    fn is_one_batch(&self, missing: &[usize]) -> bool {
        let Some(first) = missing.first() else { return true };
        let batch = &self.batches[self.records[*first].batch];
        let left = batch.records.clone().filter(|at| self.records[*at].state == State::Kept && !missing.contains(at));
        missing.iter().all(|at| batch.records.contains(at)) && left.count() == 0
    }
}

impl Deletion {
    fn means(&self, record: &Record) -> bool {
        record.tenant == self.tenant && in_range(record, self.range) && self.filter.matches(record)
    }
}

pub(super) fn in_range(record: &Record, range: Option<TimeRange>) -> bool {
    range.is_none_or(|range| range.from_ns <= record.ts && record.ts < range.to_ns)
}

fn covers(segment: &Segment, record: &Record) -> bool {
    segment.tenant.as_str() == TENANTS[record.tenant]
        && (segment.min_ts..=segment.max_ts).contains(&record.ts)
        && record.seq.is_none_or(|seq| (segment.min_seq..=segment.max_seq).contains(&seq))
}

/// The start of a text, for a message.
pub(super) fn shown(text: &str) -> String {
    let start: String = text.chars().take(200).collect();
    if start.len() < text.len() { format!("{start}… ({} bytes)", text.len()) } else { start }
}
