//! Request bodies: read, counted and decompressed within limits. It looks into no body.
//!
//! Invariant: all bodies together never count more bytes than the [`Budget`] has; a body that would grow past a limit is
//! dropped at that byte, however small it was before decompression.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::status::Error;
use crate::memory::{Ceiling, Purpose};

/// Bytes of one permit of the budget.
const UNIT: usize = 1024;
/// How much is decompressed between two looks at the limits.
const STEP: usize = 256 << 10;
/// A zstd frame may ask for a window of this many bits (32 MiB); more would be memory that no limit counts.
const ZSTD_WINDOW_BITS_MAX: u32 = 25;

/// The memory that all bodies, and what becomes of them, share.
#[derive(Debug, Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    bytes_max: usize,
    ceiling: Arc<Ceiling>,
}

impl Budget {
    /// A budget of `bytes_max`, in a process of this ceiling.
    pub fn new(bytes_max: usize, ceiling: Arc<Ceiling>) -> Self {
        Budget { units: Arc::new(Semaphore::new(bytes_max / UNIT)), bytes_max, ceiling }
    }

    /// The memory of the whole process.
    pub fn ceiling(&self) -> Arc<Ceiling> {
        self.ceiling.clone()
    }

    /// A share of nothing yet.
    pub fn lease(&self) -> Lease {
        Lease { budget: self.clone(), permit: None, bytes: 0, is_beyond: false }
    }

    /// A share that only the ceiling bounds, for the one append of each socket: those that wait for it hold shares of
    /// the budget, and could hold all of it.
    pub fn lease_beyond(&self) -> Lease {
        Lease { is_beyond: true, ..self.lease() }
    }

    /// Bytes that are taken now.
    pub fn used(&self) -> usize {
        self.bytes_max.saturating_sub(self.units.available_permits() * UNIT)
    }
}

/// One request's share of the budget; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    budget: Budget,
    permit: Option<OwnedSemaphorePermit>,
    bytes: usize,
    is_beyond: bool,
}

impl Lease {
    /// Holds `bytes` from now on, as what was read has become something else. **Errors**: as [`Lease::grow`].
    pub fn change_to(&mut self, bytes: usize) -> Result<(), Error> {
        // More than there is can only be had alone.
        let bytes = bytes.min(self.budget.bytes_max / UNIT * UNIT);
        if let Some(more) = bytes.checked_sub(self.bytes) {
            return self.grow(more);
        }
        self.bytes = bytes;
        if let Some(permit) = &mut self.permit {
            drop(permit.split(permit.num_permits() - bytes.div_ceil(UNIT)));
        }
        Ok(())
    }

    /// Takes `bytes` more. **Errors**: [`Error::Busy`] when the budget is spent; it never waits, so that requests that
    /// hold a part each can't wait for one another.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let needed = (self.bytes + bytes).div_ceil(UNIT).saturating_sub(held);
        let busy = || Error::Busy { what: "bytes", setting: "server.in_flight_bytes_max" };
        if needed > 0 {
            let full = |_| Error::Busy { what: "bytes", setting: "memory_max" };
            self.budget.ceiling.admit(Purpose::Request, bytes).map_err(full)?;
            if self.is_beyond {
                self.bytes += bytes;
                return Ok(());
            }
            let more = u32::try_from(needed).map_err(|_| busy())?;
            let more = self.budget.units.clone().try_acquire_many_owned(more).map_err(|_| busy())?;
            match &mut self.permit {
                Some(permit) => permit.merge(more),
                None => self.permit = Some(more),
            }
        }
        self.bytes += bytes;
        Ok(())
    }
}

/// How large a body may be, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// As it came.
    pub body_bytes_max: usize,
    /// The setting that gives `body_bytes_max`, for messages.
    pub body_setting: &'static str,
    /// After decompression.
    pub decompressed_bytes_max: usize,
    /// The setting that gives `decompressed_bytes_max`.
    pub decompressed_setting: &'static str,
    /// Time for it to arrive.
    pub timeout: Duration,
}

/// Reads a body as it came.
pub async fn read(headers: &HeaderMap, body: Body, limits: &Limits, lease: &mut Lease) -> Result<Bytes, Error> {
    let limit = limits.body_bytes_max;
    let too_large = || Error::TooLarge { what: "a body", limit, setting: limits.body_setting };
    let told = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|told| told > limit) {
        return Err(too_large());
    }
    let collect = async {
        let mut body = body;
        let mut whole = BytesMut::with_capacity(told.unwrap_or(0).min(limit));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Error::Invalid(format!("the body broke off: {error}")))?;
            let Ok(chunk) = frame.into_data() else { continue };
            if whole.len() + chunk.len() > limit {
                return Err(too_large());
            }
            lease.grow(chunk.len())?;
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    };
    tokio::time::timeout(limits.timeout, collect).await.map_err(|_| Error::BodyTimeout(limits.timeout))?
}

/// `Content-Encoding` of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// gzip, of one or more members.
    Gzip,
    /// zlib, or raw deflate, which some clients send under the same name.
    Deflate,
    /// zstd frames.
    Zstd,
    /// A snappy block or a snappy stream.
    Snappy,
}

impl Encoding {
    /// Reads the header. **Errors**: [`Error::Unsupported`] with the encodings that are known.
    pub fn of(headers: &HeaderMap) -> Result<Encoding, Error> {
        let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(Encoding::Identity) };
        let name = value.to_str().unwrap_or("").trim().to_ascii_lowercase();
        match name.as_str() {
            "" | "identity" => Ok(Encoding::Identity),
            "gzip" | "x-gzip" => Ok(Encoding::Gzip),
            "deflate" | "zlib" => Ok(Encoding::Deflate),
            "zstd" => Ok(Encoding::Zstd),
            "snappy" | "x-snappy-framed" => Ok(Encoding::Snappy),
            _ => Err(Error::Unsupported(format!(
                "content-encoding '{name}' is none of gzip, deflate, zstd, snappy, identity"
            ))),
        }
    }
}

/// Undoes an encoding. Takes CPU time: not for the async threads when the body is large.
pub fn decompress(body: Bytes, encoding: Encoding, limits: &Limits, lease: &mut Lease) -> Result<Bytes, Error> {
    match encoding {
        Encoding::Identity => Ok(body),
        Encoding::Gzip => drain(flate2::bufread::MultiGzDecoder::new(&body[..]), "gzip", limits, lease),
        Encoding::Deflate if has_zlib_header(&body) => {
            drain(flate2::bufread::ZlibDecoder::new(&body[..]), "deflate", limits, lease)
        }
        Encoding::Deflate => drain(flate2::bufread::DeflateDecoder::new(&body[..]), "deflate", limits, lease),
        Encoding::Zstd => {
            let broken = |error| Error::Invalid(format!("the body is not zstd: {error}"));
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&body[..]).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_BITS_MAX).map_err(broken)?;
            drain(decoder, "zstd", limits, lease)
        }
        // The stream identifier of snappy's framing format, §4.1.
        Encoding::Snappy if body.starts_with(b"\xff\x06\x00\x00sNaPpY") => {
            drain(snap::read::FrameDecoder::new(&body[..]), "snappy", limits, lease)
        }
        Encoding::Snappy => snappy_block(&body, limits, lease),
    }
}

/// Undoes snappy's block format, which tells its length first.
pub fn snappy_block(body: &[u8], limits: &Limits, lease: &mut Lease) -> Result<Bytes, Error> {
    if body.is_empty() {
        return Ok(Bytes::new());
    }
    let broken = |error| Error::Invalid(format!("the body is not snappy: {error}"));
    let length = snap::raw::decompress_len(body).map_err(broken)?;
    if length > limits.decompressed_bytes_max {
        return Err(decompressed_too_large(limits));
    }
    // Snappy copies at most 64 bytes per 3 bytes of input (format description, §2.2): a length beyond that is a lie,
    // found before any memory is taken for it.
    if length / 32 > body.len() {
        return Err(Error::Invalid(format!("the body is not snappy: {} bytes can't become {length}", body.len())));
    }
    lease.grow(length)?;
    snap::raw::Decoder::new().decompress_vec(body).map(Bytes::from).map_err(broken)
}

fn decompressed_too_large(limits: &Limits) -> Error {
    let limit = limits.decompressed_bytes_max;
    Error::TooLarge { what: "a decompressed body", limit, setting: limits.decompressed_setting }
}

/// Reads a decoder to its end, step by step within the limits.
fn drain(mut from: impl Read, name: &str, limits: &Limits, lease: &mut Lease) -> Result<Bytes, Error> {
    let mut whole = Vec::new();
    loop {
        let before = whole.len();
        let step = from.by_ref().take(STEP as u64).read_to_end(&mut whole);
        step.map_err(|error| Error::Invalid(format!("the body is not {name}: {error}")))?;
        let grown = whole.len() - before;
        if grown == 0 {
            return Ok(Bytes::from(whole));
        }
        if whole.len() > limits.decompressed_bytes_max {
            return Err(decompressed_too_large(limits));
        }
        lease.grow(grown)?;
    }
}

/// RFC 1950, §2.2: method 8, and the first two bytes are a multiple of 31.
fn has_zlib_header(body: &[u8]) -> bool {
    matches!(body, [first, second, ..] if first & 0x0f == 8 && (u16::from(*first) << 8 | u16::from(*second)) % 31 == 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LIMITS: Limits = Limits {
        body_bytes_max: 1 << 20,
        body_setting: "server.body_bytes_max",
        decompressed_bytes_max: 4 << 20,
        decompressed_setting: "server.decompressed_bytes_max",
        timeout: Duration::from_secs(5),
    };

    fn encoded(plain: &[u8], encoding: Encoding) -> Vec<u8> {
        match encoding {
            Encoding::Identity => plain.to_vec(),
            Encoding::Gzip => {
                let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                to.write_all(plain).unwrap();
                to.finish().unwrap()
            }
            Encoding::Deflate => {
                let mut to = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                to.write_all(plain).unwrap();
                to.finish().unwrap()
            }
            Encoding::Zstd => zstd::encode_all(plain, 1).unwrap(),
            Encoding::Snappy => snap::raw::Encoder::new().compress_vec(plain).unwrap(),
        }
    }

    const ENCODINGS: [Encoding; 5] =
        [Encoding::Identity, Encoding::Gzip, Encoding::Deflate, Encoding::Zstd, Encoding::Snappy];

    #[test]
    fn every_encoding_is_undone() {
        let budget = Budget::new(16 << 20, Ceiling::none());
        let plain = b"{\"msg\":\"hello\"}\n".repeat(40_000);
        for encoding in ENCODINGS {
            for plain in [&plain[..], &plain[..1]] {
                let mut lease = budget.lease();
                let body = Bytes::from(encoded(plain, encoding));
                assert_eq!(decompress(body, encoding, &LIMITS, &mut lease).unwrap(), plain, "{encoding:?}");
            }
        }
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        raw.write_all(&plain).unwrap();
        let body = Bytes::from(raw.finish().unwrap());
        assert_eq!(decompress(body, Encoding::Deflate, &LIMITS, &mut budget.lease()).unwrap(), plain);
        let mut framed = snap::write::FrameEncoder::new(Vec::new());
        framed.write_all(&plain).unwrap();
        let body = Bytes::from(framed.into_inner().unwrap());
        assert_eq!(decompress(body, Encoding::Snappy, &LIMITS, &mut budget.lease()).unwrap(), plain);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let budget = Budget::new(16 << 20, Ceiling::none());
        let bomb = vec![0u8; 64 << 20];
        for encoding in &ENCODINGS[1..] {
            let body = Bytes::from(encoded(&bomb, *encoding));
            let mut lease = budget.lease();
            let error = decompress(body, *encoding, &LIMITS, &mut lease).unwrap_err();
            assert!(error.to_string().contains("server.decompressed_bytes_max"), "{encoding:?}: {error}");
            assert!(budget.used() <= (4 << 20) + UNIT);
        }
    }

    #[test]
    fn broken_bytes_are_an_error() {
        let budget = Budget::new(16 << 20, Ceiling::none());
        let plain = b"some words, and some more words".repeat(100);
        for encoding in &ENCODINGS[1..] {
            let whole = encoded(&plain, *encoding);
            let cut = Bytes::from(whole[..whole.len() / 2].to_vec());
            let error = decompress(cut, *encoding, &LIMITS, &mut budget.lease()).unwrap_err();
            assert!(matches!(error, Error::Invalid(_)), "{encoding:?}: {error:?}");
        }
        // A snappy length of nearly 4 MiB before three bytes.
        let lie = Bytes::from_static(b"\xff\xff\xff\x01abc");
        assert!(matches!(decompress(lie, Encoding::Snappy, &LIMITS, &mut budget.lease()), Err(Error::Invalid(_))));
    }

    #[tokio::test]
    async fn bodies_are_read_within_their_limits() {
        let budget = Budget::new(2 << 20, Ceiling::none());
        let mut lease = budget.lease();
        let exact = read(&HeaderMap::new(), Body::from(vec![1; 1 << 20]), &LIMITS, &mut lease).await.unwrap();
        assert_eq!((exact.len(), budget.used()), (1 << 20, 1 << 20));
        let over = read(&HeaderMap::new(), Body::from(vec![1; (1 << 20) + 1]), &LIMITS, &mut budget.lease()).await;
        assert!(matches!(over, Err(Error::TooLarge { setting: "server.body_bytes_max", .. })));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, "999999999".parse().unwrap());
        assert!(matches!(
            read(&headers, Body::empty(), &LIMITS, &mut budget.lease()).await,
            Err(Error::TooLarge { .. })
        ));
        let mut second = budget.lease();
        second.grow(1 << 20).unwrap();
        let third = read(&HeaderMap::new(), Body::from("x"), &LIMITS, &mut budget.lease()).await;
        assert!(matches!(third, Err(Error::Busy { .. })));
        second.change_to(5 * UNIT - 1).unwrap();
        assert_eq!(budget.used(), (1 << 20) + 5 * UNIT);
        second.change_to(1 << 20).unwrap();
        assert!(matches!(second.change_to(3 << 20), Err(Error::Busy { .. })));
        drop(lease);
        second.change_to(3 << 20).unwrap();
        assert_eq!(budget.used(), 2 << 20);
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let stream = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        let budget = Budget::new(1 << 20, Ceiling::none());
        let limits = Limits { timeout: Duration::ZERO, ..LIMITS };
        let read = read(&HeaderMap::new(), Body::from_stream(stream), &limits, &mut budget.lease()).await;
        assert!(matches!(read, Err(Error::BodyTimeout(_))));
    }

    #[test]
    fn encodings_are_named() {
        let of = |name: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, name.parse().unwrap());
            Encoding::of(&headers)
        };
        assert_eq!(of("GZIP").unwrap(), Encoding::Gzip);
        assert_eq!(Encoding::of(&HeaderMap::new()).unwrap(), Encoding::Identity);
        assert!(of("br").unwrap_err().to_string().contains("'br'"));
    }
}
