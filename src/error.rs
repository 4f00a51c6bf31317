//! What a caller can do about an error, and nothing about protocols: each module has its own `Error` enum and maps its
//! variants to a [`Kind`]; only `server` turns a kind into an HTTP or gRPC status.

/// The coarse kind of an error: one per thing that a caller would do differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong; the same request will fail again.
    Invalid,
    /// The thing asked for does not exist.
    NotFound,
    /// A limit was reached (rate, size, memory, rows); less, or later, may work.
    Limit,
    /// The deadline of the request passed.
    Deadline,
    /// The service cannot do this now (disk full, shutting down); the same request may work later.
    Unavailable,
    /// Stored bytes are damaged.
    Corrupt,
    /// A fault of our own.
    Internal,
}

impl Kind {
    /// The word that stands for the kind in JSON answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Invalid => "invalid",
            Kind::NotFound => "not_found",
            Kind::Limit => "limit",
            Kind::Deadline => "deadline",
            Kind::Unavailable => "unavailable",
            Kind::Corrupt => "corrupt",
            Kind::Internal => "internal",
        }
    }
}
