//! How `memory_max` is shared out: what there is, and how much of it buffers, requests, open segments and queries get.
//! It gives out numbers; keeping to them is the work of those who get them.
//!
//! Invariant: the parts and what they bring with them (the copies of a flush and a merge, and what a process of this
//! kind takes anyway) come to `memory_max` at most.

use std::fs;
use std::path::Path;

use super::file::{File, Share, size};
use super::{Error, setting};

const MIB: usize = 1 << 20;
/// Less leaves no room for work.
const MEMORY_MIN: usize = 256 * MIB;
/// What code, threads, catalog and the allocator take: 50 MiB when nothing has come in yet.
const FIXED_BYTES: usize = 64 * MIB;
/// Larger buffers make no better segments: compaction does.
const FLUSH_BYTES_MAX: usize = 64 * MIB;
const IN_FLIGHT_BYTES_MAX: usize = 256 * MIB;
const BODY_BYTES_MAX: usize = 32 * MIB;
const DECOMPRESSED_BYTES_MAX: usize = 128 * MIB;
const OPEN_BYTES_MAX: usize = 128 * MIB;
const PAGE_CACHE_BYTES_MAX: usize = 128 * MIB;
/// A buffer and its flush, which sorts a copy; so many times the size at which it is flushed.
const BUFFER_PARTS: usize = 3;

/// Chooses the sizes that were not typed; gives `memory_max`.
pub(super) fn share_out(typed: &mut File, available: impl FnOnce() -> usize) -> Result<usize, Error> {
    let memory_max = match typed.memory_max {
        Share::Bytes(bytes) if bytes < MEMORY_MIN => {
            let message = format!("must be at least {}, or \"auto\"", size::print(MEMORY_MIN));
            return Err(setting("memory_max", message));
        }
        Share::Bytes(bytes) => bytes,
        Share::Auto => whole_mib(available() / 2).max(MEMORY_MIN),
    };
    typed.memory_max = Share::Bytes(memory_max);
    let rest = memory_max - FIXED_BYTES;
    // Queues that leave nothing are told when the sum is checked.
    let shared = rest.saturating_sub(typed.listen.queues_bytes_max());
    let part = |of: usize, at_most: usize| whole_mib(shared / of).min(at_most);

    let (server, storage) = (&mut typed.server, &mut typed.storage);
    let in_flight = server.in_flight_bytes_max.settle(part(8, IN_FLIGHT_BYTES_MAX));
    server.body_bytes_max.settle(whole_mib(in_flight / 5).min(BODY_BYTES_MAX));
    server.decompressed_bytes_max.settle(whole_mib(in_flight / 5 * 4).min(DECOMPRESSED_BYTES_MAX));
    // A batch is held with its frame for the log, which takes half of it at most.
    typed.ingest.batch_bytes_max.settle(in_flight / 3 * 2);
    let flush = storage.flush_bytes_max.settle(part(12, FLUSH_BYTES_MAX));
    storage.buffer_bytes_max.settle(part(12, FLUSH_BYTES_MAX).max(flush).saturating_mul(BUFFER_PARTS));
    storage.open_bytes_max.settle(part(16, OPEN_BYTES_MAX));
    storage.page_cache_bytes_max.settle(part(16, PAGE_CACHE_BYTES_MAX));
    let left = rest.saturating_sub(beside_queries(typed));
    typed.query.memory_bytes_max.settle(part(4, usize::MAX).max(whole_mib(left / 2)));
    Ok(memory_max)
}

/// Checks that everything fits. **Errors**: what was typed is too much together.
pub(super) fn check_sum(settled: &File, memory_max: usize) -> Result<(), Error> {
    let queries = settled.query.memory_bytes_max.bytes();
    let sum = FIXED_BYTES.saturating_add(beside_queries(settled)).saturating_add(queries);
    if sum <= memory_max {
        return Ok(());
    }
    let parts = [
        ("query.memory_bytes_max", queries),
        ("storage.buffer_bytes_max", settled.storage.buffer_bytes_max.bytes()),
        ("storage.flush_bytes_max", settled.storage.flush_bytes_max.bytes()),
        ("storage.open_bytes_max", settled.storage.open_bytes_max.bytes()),
        ("storage.page_cache_bytes_max", settled.storage.page_cache_bytes_max.bytes()),
        ("server.in_flight_bytes_max", settled.server.in_flight_bytes_max.bytes()),
        ("listen.queue_bytes_max", settled.listen.queues_bytes_max()),
    ];
    let (name, bytes) = parts.into_iter().max_by_key(|(_, bytes)| *bytes).expect("there are seven");
    let (max, bytes, sum) = (size::print(memory_max), size::print(bytes), size::print(sum.next_multiple_of(MIB)));
    let message = format!("{max} has no room for {name} = {bytes} beside the other parts; together they need {sum}");
    Err(setting("memory_max", message))
}

/// What all but queries may take: the buffer, the sorted copy of a flush, a merge, open segments, requests and the queues
/// of sockets.
fn beside_queries(settled: &File) -> usize {
    let (storage, flush) = (&settled.storage, settled.storage.flush_bytes_max.bytes());
    let parts = [
        storage.buffer_bytes_max.bytes(),
        flush.saturating_mul(3) / 2,
        merge_bytes_max(flush),
        storage.open_bytes_max.bytes(),
        storage.page_cache_bytes_max.bytes(),
        settled.server.in_flight_bytes_max.bytes(),
        settled.listen.queues_bytes_max(),
    ];
    parts.into_iter().fold(0, usize::saturating_add)
}

/// Memory of a merge, where the buffer is flushed at this size.
fn merge_bytes_max(flush_bytes_max: usize) -> usize {
    flush_bytes_max.saturating_mul(3) / 2
}

fn whole_mib(bytes: usize) -> usize {
    bytes / MIB * MIB
}

/// Memory that this process can have: the machine's, or less where a cgroup limits it.
pub(super) fn available() -> usize {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let machine = machine_bytes(&read(Path::new("/proc/meminfo")));
    let limits = cgroup_files(&read(Path::new("/proc/self/cgroup")));
    // A limit that is none is "max", or larger than any machine.
    let limits = limits.iter().filter_map(|path| read(Path::new(path)).trim().parse::<usize>().ok());
    limits.fold(machine, usize::min)
}

/// `MemTotal` of /proc/meminfo; a machine that does not tell is taken for a small one.
fn machine_bytes(meminfo: &str) -> usize {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<usize>().ok());
    kib.map_or(MEMORY_MIN, |kib| kib.saturating_mul(1024))
}

/// Files that may hold the limit of a process with this /proc/self/cgroup: its groups' and those above them, of both
/// versions. (In a container the names may be those of the host, and only the top is there.)
fn cgroup_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (top, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let above = Path::new(path).ancestors().filter_map(Path::to_str);
        files.extend(above.map(|path| format!("{top}{}/{name}", path.trim_end_matches('/'))));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(memory: &str) -> File {
        let mut typed: File = toml::from_str(super::super::DEFAULTS).unwrap();
        typed.memory_max = Share::Bytes(size::parse(memory).unwrap() as usize);
        share_out(&mut typed, || 0).unwrap();
        typed
    }

    #[test]
    fn parts_fit_into_any_memory() {
        for memory in ["256MiB", "400MiB", "512MiB", "1GiB", "3GiB", "16GiB", "1TiB"] {
            let typed = shared(memory);
            let memory_max = typed.memory_max.bytes();
            check_sum(&typed, memory_max).unwrap_or_else(|error| panic!("{memory}: {error}"));
            let (server, storage) = (&typed.server, &typed.storage);
            let bodies = server.body_bytes_max.bytes() + server.decompressed_bytes_max.bytes();
            assert!(bodies <= server.in_flight_bytes_max.bytes(), "{memory}");
            assert!(server.body_bytes_max.bytes() >= 4 * MIB, "{memory}: agents send up to 4 MiB");
            assert!(storage.flush_bytes_max.bytes() * BUFFER_PARTS <= storage.buffer_bytes_max.bytes(), "{memory}");
            assert!(typed.query.memory_bytes_max.bytes() >= (memory_max - FIXED_BYTES) / 4 - MIB, "{memory}");
        }
        let large = shared("16GiB");
        assert_eq!(large.storage.flush_bytes_max.bytes(), FLUSH_BYTES_MAX);
        assert!(large.query.memory_bytes_max.bytes() > 7 << 30);
    }

    #[test]
    fn queues_of_sockets_have_a_part() {
        let with = |socket: &str, queue: &str| {
            let mut typed: File = toml::from_str(super::super::DEFAULTS).unwrap();
            typed.memory_max = Share::Bytes(256 * MIB);
            typed.listen.syslog.udp = socket.to_owned();
            typed.listen.gelf.udp = socket.to_owned();
            typed.listen.queue_bytes_max = size::parse(queue).unwrap() as usize;
            share_out(&mut typed, || 0).unwrap();
            let queries = typed.query.memory_bytes_max.bytes();
            (queries, check_sum(&typed, 256 * MIB).map_err(|error| error.to_string()))
        };
        let (all, few) = (with("", "4MiB"), with("0.0.0.0:514", "4MiB"));
        assert!(few.1.is_ok() && few.0 < all.0, "{few:?} {all:?}");
        // A queue, and one with its chunks.
        let told = with("0.0.0.0:514", "65MiB").1.unwrap_err();
        assert!(told.contains("listen.queue_bytes_max = 195MiB"), "{told}");
    }

    #[test]
    fn auto_is_half_of_what_there_is() {
        for (available, wanted) in [(8 << 30, 4 << 30), (300 * MIB, MEMORY_MIN), (0, MEMORY_MIN)] {
            let mut typed: File = toml::from_str(super::super::DEFAULTS).unwrap();
            assert_eq!(share_out(&mut typed, || available).unwrap(), wanted);
        }
        assert!(available() > 64 * MIB);
    }

    #[test]
    fn limits_are_looked_up_in_both_versions() {
        assert_eq!(machine_bytes("MemTotal:       24683604 kB\nMemFree: 1 kB\n"), 24_683_604 << 10);
        assert_eq!(machine_bytes(""), MEMORY_MIN);
        let files = cgroup_files("9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n");
        let wanted = [
            "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(files, wanted);
    }
}
