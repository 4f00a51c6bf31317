//! GELF messages that come in several datagrams, put together again. Pure: the time is a parameter.
//!
//! Invariant: what is incomplete takes no more bytes than it was given, and is forgotten after five seconds.
//! Source: Graylog's documentation, "GELF via UDP", Chunking.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// The first bytes of a chunk; then an id of eight bytes, its number from 0, and how many there are.
const MAGIC: [u8; 2] = [0x1e, 0x0f];
const HEADER_BYTES: usize = 12;
/// "A message MUST NOT consist of more than 128 chunks."
const CHUNKS_MAX: u8 = 128;
/// "All chunks MUST arrive within 5 seconds."
const AGE_MAX: Duration = Duration::from_secs(5);

/// Who sent it, and which of their messages it is.
type Id = (IpAddr, [u8; 8]);

struct Partial {
    parts: Vec<Option<Bytes>>,
    missing: usize,
    bytes: usize,
}

/// Messages of which chunks are missing.
pub(super) struct Chunks {
    bytes_max: usize,
    message_bytes_max: usize,
    bytes: usize,
    partial: HashMap<Id, Partial>,
    /// In the order in which they began; some may be complete already.
    order: VecDeque<(Instant, Id)>,
}

/// What came of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// A message, whole.
    Whole(Bytes),
    /// A part of one.
    Waiting,
    /// It can't be used; why.
    Bad(&'static str),
}

impl Chunks {
    /// Holds at most `bytes_max` of incomplete messages, each of `message_bytes_max` at most.
    pub fn new(bytes_max: usize, message_bytes_max: usize) -> Self {
        Chunks { bytes_max, message_bytes_max, bytes: 0, partial: HashMap::new(), order: VecDeque::new() }
    }

    /// Adds a datagram; one that is no chunk is a message.
    pub fn add(&mut self, from: IpAddr, datagram: &[u8], now: Instant) -> Added {
        self.forget_old(now);
        let Some(rest) = datagram.strip_prefix(&MAGIC) else { return Added::Whole(Bytes::copy_from_slice(datagram)) };
        let Some((id, [number, count, part @ ..])) = rest.split_first_chunk::<8>() else {
            return Added::Bad("a chunk without its header");
        };
        if *count == 0 || *count > CHUNKS_MAX || number >= count {
            return Added::Bad("a chunk whose number or count can't be");
        }
        let (id, count) = ((from, *id), usize::from(*count));
        if self.bytes + part.len() + HEADER_BYTES > self.bytes_max {
            return Added::Bad("a chunk for which there is no room; listen.queue_bytes_max is reached");
        }
        let partial = self.partial.entry(id).or_insert_with(|| {
            self.order.push_back((now, id));
            Partial { parts: vec![None; count], missing: count, bytes: 0 }
        });
        let is_of_it = partial.parts.len() == count;
        let Some(place @ None) = partial.parts.get_mut(usize::from(*number)).filter(|_| is_of_it) else {
            return Added::Bad("a chunk that came before, or of another count than the first one");
        };
        *place = Some(Bytes::copy_from_slice(part));
        partial.missing -= 1;
        partial.bytes += part.len();
        self.bytes += part.len();
        if partial.bytes > self.message_bytes_max {
            self.forget(id);
            return Added::Bad("chunks of more than listen.message_bytes_max");
        }
        if partial.missing > 0 {
            return Added::Waiting;
        }
        let parts = self.forget(id).map(|partial| partial.parts).unwrap_or_default();
        Added::Whole(parts.into_iter().flatten().flatten().collect())
    }

    fn forget(&mut self, id: Id) -> Option<Partial> {
        let partial = self.partial.remove(&id)?;
        self.bytes -= partial.bytes;
        Some(partial)
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((_, id)) = self.order.front().filter(|(began, _)| now.duration_since(*began) > AGE_MAX).copied()
        {
            self.order.pop_front();
            self.forget(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn chunk(id: u8, number: u8, count: u8, part: &str) -> Vec<u8> {
        [&MAGIC[..], &[id; 8], &[number, count], part.as_bytes()].concat()
    }

    fn whole(text: &str) -> Added {
        Added::Whole(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn chunks_come_in_any_order() {
        let mut chunks = Chunks::new(1_000, 100);
        let now = Instant::now();
        assert_eq!(chunks.add(HERE, b"{}", now), whole("{}"));
        assert_eq!(chunks.add(HERE, &chunk(1, 2, 3, "c"), now), Added::Waiting);
        assert_eq!(chunks.add(HERE, &chunk(2, 0, 1, "x"), now), whole("x"));
        assert_eq!(chunks.add(HERE, &chunk(1, 0, 3, "a"), now), Added::Waiting);
        assert!(matches!(chunks.add(HERE, &chunk(1, 0, 3, "a"), now), Added::Bad(_)));
        assert!(matches!(chunks.add(HERE, &chunk(1, 1, 4, "b"), now), Added::Bad(_)));
        assert_eq!(chunks.add(HERE, &chunk(1, 1, 3, "b"), now), whole("abc"));
        assert_eq!((chunks.bytes, chunks.partial.len()), (0, 0));
    }

    #[test]
    fn what_is_incomplete_has_limits() {
        let mut chunks = Chunks::new(60, 30);
        let now = Instant::now();
        for bad in [&chunk(1, 3, 3, "")[..], &chunk(1, 0, 0, ""), &chunk(1, 0, 129, ""), &MAGIC, &[0x1e, 0x0f, 1]] {
            assert!(matches!(chunks.add(HERE, bad, now), Added::Bad(_)), "{bad:02x?}");
        }
        assert_eq!(chunks.add(HERE, &chunk(1, 0, 3, &"a".repeat(20)), now), Added::Waiting);
        assert!(matches!(chunks.add(HERE, &chunk(1, 1, 3, &"a".repeat(20)), now), Added::Bad(_)));
        assert_eq!(chunks.add(HERE, &chunk(2, 0, 3, &"a".repeat(25)), now), Added::Waiting);
        assert_eq!(chunks.add(HERE, &chunk(3, 0, 3, &"a".repeat(20)), now), Added::Waiting);
        assert!(matches!(chunks.add(HERE, &chunk(4, 0, 3, &"a".repeat(20)), now), Added::Bad(_)));
        let later = now + AGE_MAX + Duration::from_millis(1);
        assert_eq!(chunks.add(HERE, &chunk(4, 0, 3, &"a".repeat(20)), later), Added::Waiting);
        assert_eq!((chunks.bytes, chunks.partial.len(), chunks.order.len()), (20, 1, 1));
    }

    proptest! {
        #[test]
        fn any_datagrams_are_survived(
            datagrams in prop::collection::vec((0u8..3, 0u8..5, 0u8..5, "[a-z]{0,9}"), 0..60),
            other in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut chunks = Chunks::new(50, 20);
            let now = Instant::now();
            let _ = chunks.add(HERE, &other, now);
            for (id, number, count, part) in datagrams {
                let _ = chunks.add(HERE, &chunk(id, number, count, &part), now);
                prop_assert_eq!(chunks.bytes, chunks.partial.values().map(|partial| partial.bytes).sum::<usize>());
                prop_assert!(chunks.bytes <= 50);
            }
        }
    }
}
