//! Segments that are open: footers and indexes are read once, and the least recently used go when there are too many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::segment::{OpenSegment, ReadError};

/// File handles kept open at most; two for each segment.
const SEGMENTS_MAX: usize = 256;

/// Open segments by id, bounded by their memory.
#[derive(Debug)]
pub(super) struct Opened {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    segments: HashMap<i64, Entry>,
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    open: Arc<OpenSegment>,
    bytes: usize,
    used: u64,
}

impl Opened {
    pub fn new(bytes_max: usize) -> Opened {
        Opened { bytes_max, kept: Mutex::default() }
    }

    /// The segment of this id; `open` is called when it is not there. Two at once may both open it.
    pub fn get(
        &self,
        id: i64,
        open: impl FnOnce() -> Result<OpenSegment, ReadError>,
    ) -> Result<Arc<OpenSegment>, ReadError> {
        if let Some(found) = self.kept().touch(id) {
            return Ok(found);
        }
        let open = Arc::new(open()?);
        let mut kept = self.kept();
        let bytes = open.memory_bytes();
        kept.forget(id);
        kept.clock += 1;
        let used = kept.clock;
        kept.segments.insert(id, Entry { open: open.clone(), bytes, used });
        kept.bytes += bytes;
        while kept.segments.len() > 1 && (kept.bytes > self.bytes_max || kept.segments.len() > SEGMENTS_MAX) {
            let oldest = kept.segments.iter().min_by_key(|(_, entry)| entry.used).map(|(id, _)| *id);
            kept.forget(oldest.expect("it is not empty"));
        }
        Ok(open)
    }

    /// Whether nobody reads a segment; it is closed then.
    pub fn close_idle(&self, id: i64) -> bool {
        let mut kept = self.kept();
        let idle = kept.segments.get(&id).is_none_or(|entry| Arc::strong_count(&entry.open) == 1);
        if idle {
            kept.forget(id);
        }
        idle
    }

    /// Closes a segment, once its last reader is done.
    pub fn forget(&self, id: i64) {
        self.kept().forget(id);
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().expect("nothing panics with the lock held")
    }
}

impl Kept {
    fn touch(&mut self, id: i64) -> Option<Arc<OpenSegment>> {
        self.clock += 1;
        let used = self.clock;
        let entry = self.segments.get_mut(&id)?;
        entry.used = used;
        Some(entry.open.clone())
    }

    fn forget(&mut self, id: i64) {
        if let Some(entry) = self.segments.remove(&id) {
            self.bytes -= entry.bytes;
        }
    }
}
