//! Everything that can happen to the store in a run: one closed list, each step a function that does it to the store and
//! to the model, and fails when the two differ.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use tokio::task::JoinHandle;

use super::checks::{Filter, missing_are_all_of};
use super::faults::{self, Blocked};
use super::lines::{self, Body, NS_PER_DAY, NS_PER_HOUR, NS_PER_SECOND};
use super::model::{Allowance, Outcome, TENANTS};
use super::world::{World, eventually, tenant_of};
use crate::decode::{self, jsonline};
use crate::query::TimeRange;
use crate::storage::deletion::{State as DeletionState, Wanted};
use crate::storage::{self, Segment, paths};
use crate::wal;

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Append,
    /// Several at once: group commits.
    AppendMany,
    /// The client goes away before it has its answer.
    AppendCancelled,
    Flush,
    Compact,
    Tick,
    /// Days pass: records expire.
    Leap,
    Check,
    CheckAll,
    Hold,
    Release,
    BeginDeletion,
    FinishDeletion,
    CancelDeletion,
    Restart,
    Crash,
    /// A frame of the log that was acknowledged is damaged.
    DamageLog,
    DamageIndexes,
    DamageSegment,
    /// A segment's file is away at a start, and back at the next.
    HideSegment,
    /// A segment's file goes while the store runs.
    RemoveSegment,
    /// Segments can't be written for a while.
    BlockSegments,
    /// The object store takes and gives nothing for a while.
    BlockObjects,
    /// The disk is full where segments are written, for a while.
    FillDisk,
    /// The catalog refuses to make segments live for a while.
    RefuseCommits,
    /// The log can't go on in a new file for a while.
    BlockLog,
    Quota,
}

const STEPS: [(u64, Step); 27] = [
    (260, Step::Append),
    (40, Step::AppendMany),
    (20, Step::AppendCancelled),
    (50, Step::Flush),
    (30, Step::Compact),
    (50, Step::Tick),
    (8, Step::Leap),
    (330, Step::Check),
    (10, Step::CheckAll),
    (40, Step::Hold),
    (40, Step::Release),
    (18, Step::BeginDeletion),
    (14, Step::FinishDeletion),
    (4, Step::CancelDeletion),
    (14, Step::Restart),
    (36, Step::Crash),
    (4, Step::DamageLog),
    (8, Step::DamageIndexes),
    (6, Step::DamageSegment),
    (5, Step::HideSegment),
    (3, Step::RemoveSegment),
    (7, Step::BlockSegments),
    (12, Step::BlockObjects),
    (6, Step::FillDisk),
    (8, Step::RefuseCommits),
    (5, Step::BlockLog),
    (4, Step::Quota),
];

/// Flushes until one has to succeed, once the directory is back.
const FLUSH_TRIES_MAX: usize = 3;

/// A batch on its way.
struct Sending {
    batch: usize,
    tenant: usize,
    records: RecordBatch,
}

impl Step {
    /// Whether it can happen to a store with or without an object store. With one, a file that is away is no damage.
    fn fits(self, has_objects: bool) -> bool {
        match self {
            Step::BlockObjects => has_objects,
            Step::DamageSegment | Step::HideSegment | Step::RemoveSegment | Step::BlockSegments | Step::Quota => {
                !has_objects
            }
            _ => true,
        }
    }
}

impl World {
    /// Does one thing of the seed's choice.
    pub async fn step(&mut self) -> Outcome<Step> {
        let mut step = self.random.weighted(&STEPS);
        while !step.fits(self.has_objects) {
            step = self.random.weighted(&STEPS);
        }
        self.note(format!("{step:?}"));
        match step {
            Step::Append => self.append().await,
            Step::AppendMany => self.append_many().await,
            Step::AppendCancelled => self.append_cancelled().await,
            Step::Flush => self.flush().await,
            Step::Compact => self.compact().await,
            Step::Tick => {
                let by = self.random.pick(&[1_000, NS_PER_SECOND, 70 * NS_PER_SECOND, 2 * NS_PER_HOUR]);
                self.set_now(self.model.now_ns + by);
                Ok(())
            }
            Step::Leap => {
                let by = self.random.between(NS_PER_HOUR, 3 * NS_PER_DAY);
                self.set_now(self.model.now_ns + by);
                Ok(())
            }
            Step::Check => self.check().await,
            Step::CheckAll => {
                self.settle().await?;
                self.read_all(Allowance::Nothing).await
            }
            Step::Hold => self.hold().await,
            Step::Release => self.release().await,
            Step::BeginDeletion => self.begin_deletion().await,
            Step::FinishDeletion => self.finish_deletion().await,
            Step::CancelDeletion => self.cancel_deletion().await,
            Step::Restart => self.restart().await,
            Step::Crash => self.crash().await,
            Step::DamageLog => self.damage_log().await,
            Step::DamageIndexes => self.damage_indexes().await,
            Step::DamageSegment => self.damage_segment().await,
            Step::HideSegment => self.hide_segment().await,
            Step::RemoveSegment => self.remove_segment().await,
            Step::BlockSegments => self.block(paths::segments_dir(&self.dir())).await,
            Step::BlockObjects => self.block(self.dir().join(faults::OBJECTS)).await,
            Step::FillDisk => self.fill_disk().await,
            Step::RefuseCommits => self.refuse_commits().await,
            Step::BlockLog => self.block_log().await,
            Step::Quota => self.quota().await,
        }?;
        Ok(step)
    }

    /// Makes lines and has them decoded; the model knows them from here on.
    fn batch(&mut self) -> Outcome<Sending> {
        let random = &mut self.random;
        let tenant = random.weighted(&[(3, 0), (2, 1), (1, 2)]);
        let count = match random.below(100) {
            0..70 => 1 + random.below(12),
            70..98 => 1 + random.below(60),
            98 => 600 + random.below(1_000),
            _ => 1,
        };
        let body = if random.percent(60) { Body::JsonLines } else { Body::Text };
        let mut sent = Vec::new();
        for _ in 0..count {
            sent.push(lines::line(random, body, self.next_n, self.model.now_ns));
            self.next_n += 1;
        }
        let separator = random.pick(&["\n", "\r\n", "\n\n"]);
        let text = sent.iter().map(|(line, _)| line.as_str()).collect::<Vec<_>>().join(separator);
        let decode = if body == Body::JsonLines { jsonline::lines } else { jsonline::text };
        let options = decode::Options { columns_max: random.pick(&[10, 1_000]), ..decode::Options::default() };
        let decoded = decode(text.as_bytes(), &options, self.model.now_ns).map_err(|error| error.to_string())?;
        if decoded.accepted() != sent.len() {
            return Err(format!(
                "{} of {} lines were accepted: {:?}",
                decoded.accepted(),
                sent.len(),
                decoded.rejected
            ));
        }
        self.note(format!("  {} lines for tenant {tenant}", sent.len()));
        let batch = self.model.send(tenant, sent);
        self.unsettled |= self.model.expires(batch);
        Ok(Sending { batch, tenant, records: decoded.batch })
    }

    async fn append(&mut self) -> Outcome {
        let sending = self.batch()?;
        let appended = self.store().append(&tenant_of(sending.tenant), sending.records).await;
        appended.map_err(|error| format!("an append failed: {error}"))?;
        self.model.acknowledge(sending.batch);
        Ok(())
    }

    async fn append_many(&mut self) -> Outcome {
        let mut running = Vec::new();
        for _ in 0..2 + self.random.below(5) {
            let Sending { batch, tenant, records } = self.batch()?;
            let store = self.store().clone();
            running.push((batch, tokio::spawn(async move { store.append(&tenant_of(tenant), records).await })));
        }
        for (batch, append) in running {
            let appended = append.await.map_err(|error| error.to_string())?;
            appended.map_err(|error| format!("an append failed: {error}"))?;
            self.model.acknowledge(batch);
        }
        Ok(())
    }

    async fn append_cancelled(&mut self) -> Outcome {
        let Sending { batch, tenant, records } = self.batch()?;
        let wait = Duration::from_micros(self.random.below(1_500));
        let store = self.store().clone();
        if let Ok(appended) = tokio::time::timeout(wait, store.append(&tenant_of(tenant), records)).await {
            appended.map_err(|error| format!("an append failed: {error}"))?;
            self.model.acknowledge(batch);
            return Ok(());
        }
        // Requests are taken in order, so behind this one it is decided; the next reading tells.
        self.append().await?;
        self.read_new(tenant).await
    }

    async fn compact(&self) -> Outcome {
        self.store().compact().await.map(drop).map_err(|error| format!("the merges failed: {error}"))
    }

    async fn begin_deletion(&mut self) -> Outcome {
        let tenant = self.random.place(TENANTS.len());
        // What an expiry takes may have been the last that has the field.
        self.settle().await?;
        let filter = Filter::choose(&mut self.random, &self.model, tenant);
        let range = (matches!(filter, Filter::All) || self.random.percent(30)).then(|| self.range());
        let sql = filter.sql(&mut self.random);
        let checked = self.engine().check_filter(&tenant_of(tenant), &sql).await;
        let checked = checked.map_err(|error| format!("no condition, {sql}: {error}"))?;
        let TimeRange { from_ns, to_ns } = range.unwrap_or(TimeRange { from_ns: i64::MIN, to_ns: i64::MAX });
        let wanted = Wanted { tenant: tenant_of(tenant), filter: checked, from_ns, to_ns };
        let begun = self.store().begin_deletion(wanted, self.model.now_ns).await.map_err(|error| error.to_string())?;
        let id = begun.id;
        let count = self.model.delete(id, tenant, filter, range);
        self.note(format!("  deletion {id}, {count} records of tenant {tenant} {range:?}: {sql}"));
        self.active.push(begun);
        Ok(())
    }

    async fn finish_deletion(&mut self) -> Outcome {
        self.carry_out_deletions().await?;
        // A segment may be over without the records that it lost.
        self.unsettled = true;
        self.settle().await
    }

    async fn carry_out_deletions(&mut self) -> Outcome {
        for deletion in std::mem::take(&mut self.active) {
            let id = deletion.id;
            match self.engine().carry_out(&deletion).await.map_err(|error| format!("deletion {id}: {error}"))? {
                // It fails when no record has the field any more.
                state @ (DeletionState::Done | DeletionState::Waiting | DeletionState::Failed) => {
                    self.note(format!("  deletion {id} is {}", state.as_str()));
                }
                state => return Err(format!("deletion {id} is {}", state.as_str())),
            }
        }
        Ok(())
    }

    async fn cancel_deletion(&mut self) -> Outcome {
        let Some(deletion) = self.active.pop() else { return Ok(()) };
        let ended = self.store().end_deletion(deletion.id, DeletionState::Cancelled, None).await;
        ended.map_err(|error| error.to_string())?.ok_or_else(|| format!("deletion {} is not active", deletion.id))?;
        self.model.cancel(deletion.id);
        // A deletion that was begun later is named in the model, in whatever order they ended.
        self.read_all(Allowance::Nothing).await?;
        self.unsettled = true;
        Ok(())
    }

    async fn restart(&mut self) -> Outcome {
        let dir = self.close().await?;
        self.open(dir, |_| {}).await?;
        self.read_all(Allowance::Nothing).await
    }

    /// Appends, flushes, merges and rewrites run; the directory as it is at some moment is all that is left.
    async fn crash(&mut self) -> Outcome {
        let acknowledged = faults::log_end(&self.dir())?;
        let mut appends = Vec::new();
        for _ in 0..self.random.below(4) {
            let Sending { batch, tenant, records } = self.batch()?;
            let store = self.store().clone();
            let append = async move { store.append(&tenant_of(tenant), records).await };
            appends.push((batch, tokio::spawn(append)));
        }
        let background = self.background();
        // The moment of the crash is what is tested, so it is a time and not a condition.
        tokio::time::sleep(Duration::from_micros(self.random.pick(&[0, 300, 1_000, 3_000, 8_000, 20_000]))).await;
        for (batch, append) in appends.extract_if(.., |(_, append)| append.is_finished()) {
            append.await.map_err(|error| error.to_string())?.map_err(|error| format!("an append failed: {error}"))?;
            self.model.acknowledge(batch);
        }
        let some_acknowledged_now = faults::log_end(&self.dir())? != acknowledged;
        let dir = self.next_dir();
        let from = self.dir();
        let pictured = tokio::task::spawn_blocking({
            let dir = dir.clone();
            move || faults::picture(&from, &dir)
        });
        pictured.await.map_err(|error| error.to_string())??;
        let tasks = background.into_iter().chain(appends.into_iter().map(|(_, append)| drop_answer(append)));
        tasks.for_each(|task| task.abort());
        self.drop_live();
        if self.random.percent(50) {
            // What was acknowledged since then lies further on.
            let safe = if some_acknowledged_now { faults::log_end(&dir)? } else { acknowledged };
            let torn = faults::tear(&mut self.random, &dir, &safe)?;
            self.note(format!("  the log is torn: {torn}"));
        }
        self.open(dir, |_| {}).await?;
        self.read_all(Allowance::Nothing).await
    }

    /// Work that a crash interrupts.
    fn background(&mut self) -> Vec<JoinHandle<()>> {
        let mut tasks = Vec::new();
        let (store, engine) = (self.store().clone(), self.engine().clone());
        if self.random.percent(50) {
            let store = store.clone();
            tasks.push(tokio::spawn(async move { drop(store.flush().await) }));
        }
        if self.random.percent(40) {
            let store = store.clone();
            tasks.push(tokio::spawn(async move { drop(store.compact().await) }));
        }
        if let Some(deletion) = self.active.first().cloned() {
            tasks.push(tokio::spawn(async move { drop(engine.carry_out(&deletion).await) }));
        }
        tasks
    }

    async fn damage_log(&mut self) -> Outcome {
        self.settle().await?;
        for tenant in 0..TENANTS.len() {
            self.read_new(tenant).await?;
        }
        let dir = self.next_dir();
        faults::picture(&self.dir(), &dir)?;
        self.drop_live();
        let what = faults::flip_in_log(&mut self.random, &dir)?;
        self.note(format!("  {what}"));
        self.open(dir, |_| {}).await?;
        self.read_all(Allowance::OneBatch).await?;
        self.model.forget_numbers();
        Ok(())
    }

    async fn damage_indexes(&mut self) -> Outcome {
        let dir = self.close().await?;
        for path in faults::segment_files(&dir, paths::INDEX_SUFFIX)? {
            let what = match self.random.below(4) {
                0 => fs::remove_file(&path)
                    .map(|()| format!("removed '{}'", path.display()))
                    .map_err(|e| e.to_string())?,
                1 => faults::cut(&mut self.random, &path)?,
                2 => faults::flip(&mut self.random, &path)?,
                _ => continue,
            };
            self.note(format!("  {what}"));
        }
        self.open(dir, |_| {}).await?;
        for _ in 0..3 {
            self.check().await?;
        }
        self.read_all(Allowance::Nothing).await?;
        match self.quarantined().iter().find(|_| !self.damaged) {
            Some(segment) => Err(format!("a damaged index made '{}' unreadable", segment.path)),
            None => Ok(()),
        }
    }

    /// Closes the store with everything in segments that nothing is missing of; gives one of their files.
    async fn close_and_choose(&mut self) -> Outcome<(PathBuf, Option<(i64, PathBuf)>)> {
        self.settle().await?;
        self.flush().await?;
        self.read_all(Allowance::Nothing).await?;
        let lost: HashSet<i64> = self.quarantined().iter().map(|segment| segment.id).collect();
        let dir = self.close().await?;
        let mut files = faults::segment_files(&dir, paths::SEGMENT_SUFFIX)?;
        let id = |path: &PathBuf| path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        files.retain(|path| id(path).is_some_and(|id: i64| !lost.contains(&id)));
        let chosen = (!files.is_empty()).then(|| files.swap_remove(self.random.place(files.len())));
        Ok((dir, chosen.and_then(|path| Some((id(&path)?, path)))))
    }

    async fn damage_segment(&mut self) -> Outcome {
        let (dir, chosen) = self.close_and_choose().await?;
        let Some((id, path)) = chosen else { return self.open(dir, |_| {}).await };
        let what = match self.random.below(3) {
            0 => fs::remove_file(&path).map(|()| format!("removed '{}'", path.display())).map_err(|e| e.to_string())?,
            1 => faults::cut(&mut self.random, &path)?,
            _ => faults::flip(&mut self.random, &path)?,
        };
        self.note(format!("  {what}"));
        self.damaged = true;
        self.open(dir, |_| {}).await?;
        self.lose(id).await
    }

    /// A segment was damaged: the store has to find out, to say so, and to lack its records only.
    async fn lose(&mut self, id: i64) -> Outcome {
        let mut told = false;
        for tenant in 0..TENANTS.len() {
            let (_, notices) = self.read(tenant, 0).await?;
            told |= notices.iter().any(|notice| notice.contains(&format!("{id:012}")));
        }
        let is_live = self.segments().iter().any(|segment| segment.id == id);
        let is_lost = self.quarantined().iter().any(|segment| segment.id == id);
        if (is_live || is_lost) && !told {
            return Err(format!("segment {id} is damaged, and no answer says so"));
        }
        if told {
            eventually("the damaged segment's quarantine", || {
                let is_it = |segment: &Arc<Segment>| segment.id == id;
                self.quarantined().iter().any(is_it) || !self.segments().iter().any(is_it)
            })
            .await?;
        }
        let lost: Vec<Arc<Segment>> = self.quarantined().into_iter().filter(|segment| segment.id == id).collect();
        self.read_all(Allowance::Segments(&lost)).await
    }

    async fn hide_segment(&mut self) -> Outcome {
        let (dir, chosen) = self.close_and_choose().await?;
        let Some((id, path)) = chosen else { return self.open(dir, |_| {}).await };
        let was_damaged = std::mem::replace(&mut self.damaged, true);
        let aside = dir.join("hidden");
        fs::rename(&path, &aside).map_err(|error| error.to_string())?;
        self.note(format!("  hid '{}'", path.display()));
        // Nothing expires meanwhile, and nothing is merged: what comes back has to be what went.
        let still = |options: &mut storage::Options| {
            options.rules = Arc::new(storage::retention::Rules::new([("", None)]).expect("it is a rule"));
            options.merge_limits.inputs_max = 1;
        };
        self.open(dir.clone(), still).await?;
        // So there is nothing to wait for, either.
        self.unsettled = false;
        let before = self.model.clone();
        let mut missing = Vec::new();
        for tenant in 0..TENANTS.len() {
            missing.extend(self.read(tenant, 0).await?.0);
        }
        let lost: Vec<Arc<Segment>> = self.quarantined().into_iter().filter(|segment| segment.id == id).collect();
        if lost.is_empty() {
            return Err(format!("segment {id} is away, and not quarantined"));
        }
        missing_are_all_of(self, &missing, &lost)?;
        self.model.judge(&missing, Allowance::Segments(&lost))?;
        let mut deletion = None;
        if self.random.percent(60) {
            self.begin_deletion().await?;
            self.carry_out_deletions().await?;
            deletion = self.model.deletions.last().cloned();
        }
        self.close().await?;
        self.model = before;
        if let Some(begun) = deletion {
            self.model.delete(begun.id, begun.tenant, begun.filter, begun.range);
        }
        fs::rename(&aside, &path).map_err(|error| error.to_string())?;
        self.damaged = was_damaged;
        self.open(dir, still).await?;
        self.read_all(Allowance::Nothing).await?;
        self.restart().await
    }

    async fn remove_segment(&mut self) -> Outcome {
        self.settle().await?;
        self.flush().await?;
        self.read_all(Allowance::Nothing).await?;
        self.release().await?;
        let segments = self.segments();
        if segments.is_empty() {
            return Ok(());
        }
        let chosen = segments[self.random.place(segments.len())].clone();
        drop(segments);
        let path = self.store().segments_dir().join(&chosen.path);
        // A merge may have been first.
        let _ = fs::remove_file(&path);
        self.note(format!("  removed '{}' while the store runs", path.display()));
        self.damaged = true;
        for tenant in 0..TENANTS.len() {
            let missing = self.read(tenant, 0).await?.0;
            self.model.clone().judge(&missing, Allowance::Segments(std::slice::from_ref(&chosen)))?;
        }
        self.restart_without(chosen).await
    }

    /// Restarts once a segment's file is away; its records may be missing from then on.
    async fn restart_without(&mut self, segment: Arc<Segment>) -> Outcome {
        let dir = self.close().await?;
        self.open(dir, |_| {}).await?;
        self.read_all(Allowance::Segments(&[segment])).await
    }

    /// Nothing is written to a directory, or read from it, for a while.
    async fn block(&mut self, dir: PathBuf) -> Outcome {
        // What runs by itself would make the directory again while it is moved.
        self.settle().await?;
        self.flush().await?;
        self.compact().await?;
        self.release().await?;
        let blocked = Blocked::new(dir)?;
        for _ in 0..1 + self.random.below(4) {
            self.append().await?;
        }
        let failed = self.store().flush().await;
        for tenant in 0..TENANTS.len() {
            // A segment that is not open, or not here, can't be read; that has to be an error, not an answer without its records.
            let found = self.ask(tenant, "SELECT _line FROM logs", None).await;
            let expected = self.model.kept(tenant).count();
            if let Some(found) = found.ok().filter(|found| found.rows.len() != expected) {
                return Err(format!("{} records instead of {expected}, and no error", found.rows.len()));
            }
        }
        blocked.free()?;
        if failed.is_ok() {
            return Err("a flush succeeded without a directory to write to".to_owned());
        }
        self.recover_flush().await
    }

    /// What stood in the way of flushes is gone: they have to succeed, and nothing may be missing or doubled.
    async fn recover_flush(&mut self) -> Outcome {
        // A try that began before may still fail.
        let mut tries = 1;
        while let Err(error) = self.flush().await {
            if tries == FLUSH_TRIES_MAX {
                return Err(error);
            }
            tries += 1;
        }
        self.compact().await?;
        self.read_all(Allowance::Nothing).await
    }

    async fn fill_disk(&mut self) -> Outcome {
        self.append().await?;
        self.flush().await?;
        self.compact().await?;
        let links = faults::leave_no_room(&self.dir()).await?;
        self.append().await?;
        let failed = self.store().flush().await.err();
        self.note(format!("  the flush: {failed:?}"));
        // What failed has given its room back; a merge may do without the rest.
        let _ = self.store().compact().await;
        self.read_all(Allowance::Nothing).await?;
        faults::make_room(&links)?;
        self.recover_flush().await
    }

    async fn refuse_commits(&mut self) -> Outcome {
        self.settle().await?;
        self.flush().await?;
        let dir = self.dir();
        let how = faults::refuse_commits(&mut self.random, &dir).await?;
        self.note(format!("  {how}"));
        self.append().await?;
        let flushed = self.store().flush().await;
        if flushed.is_ok() {
            return Err("a flush succeeded though the catalog refused it".to_owned());
        }
        // Some of the refusals concern merges too.
        let _ = self.store().compact().await;
        self.append().await?;
        self.read_all(Allowance::Nothing).await?;
        if self.random.percent(40) {
            self.crash().await?;
        }
        faults::accept_commits(&self.dir()).await?;
        self.recover_flush().await
    }

    async fn block_log(&mut self) -> Outcome {
        let blocked = Blocked::new(paths::wal_dir(&self.dir()))?;
        self.append().await?;
        let flushed = self.flush().await;
        let appended = self.append().await;
        blocked.free()?;
        flushed.and(appended)?;
        self.append().await?;
        self.crash().await
    }

    /// The disk has room for a part of the segments: the oldest go, no more than have to.
    async fn quota(&mut self) -> Outcome {
        self.settle().await?;
        self.flush().await?;
        let dir = self.close().await?;
        self.open(dir.clone(), |options| options.merge_limits.inputs_max = 1).await?;
        self.settle().await?;
        let mut before: Vec<Arc<Segment>> = self.segments().into_iter().chain(self.quarantined()).collect();
        before.sort_by_key(|segment| (segment.max_ts, segment.id));
        self.close().await?;
        let log_bytes = wal::disk_bytes(&paths::wal_dir(&dir));
        let used: u64 = before.iter().map(|segment| segment.disk_bytes()).sum::<u64>() + log_bytes;
        let bytes_max = 1 + used * self.random.below(110) / 100;
        let rule_set = self.model.rule_set;
        let limit = |options: &mut storage::Options| {
            options.merge_limits.inputs_max = 1;
            options.disk_bytes_max = bytes_max;
            options.rules = rule_set.rules();
        };
        self.open(dir, limit).await?;
        self.model.rule_set = rule_set;
        let left =
            |world: &World| -> Vec<Arc<Segment>> { world.segments().into_iter().chain(world.quarantined()).collect() };
        let bytes = |segments: &[Arc<Segment>]| segments.iter().map(|segment| segment.disk_bytes()).sum::<u64>();
        // A new file of the log has a header.
        let log_slack = log_bytes + 64;
        eventually("the quota to be kept", || {
            let left = left(self);
            left.is_empty() || bytes(&left) <= bytes_max
        })
        .await?;
        let ids: HashSet<i64> = left(self).iter().map(|segment| segment.id).collect();
        let (kept, gone): (Vec<_>, Vec<_>) = before.iter().cloned().partition(|segment| ids.contains(&segment.id));
        self.note(format!("  quota {bytes_max} of {used}: {} segments went, {} are left", gone.len(), kept.len()));
        if before.iter().zip(&gone).any(|(first, gone)| first.id != gone.id) {
            return Err("the quota did not take the oldest segments".to_owned());
        }
        if let Some(last) = gone.last().filter(|last| bytes(&kept) + last.disk_bytes() + log_slack <= bytes_max) {
            return Err(format!("the quota took '{}', and there was room for it", last.path));
        }
        self.read_all(Allowance::Segments(&gone)).await?;
        self.restart().await
    }
}

fn drop_answer(append: JoinHandle<Result<(), storage::Error>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        append.abort();
        drop(append.await);
    })
}
