//! What a person at a panel can do about a failure, and the HTTP status that Grafana shows for it; no failure is made here.
//! Each module has its own enum with the words; this file only sorts them.

use crate::{client, frame, settings, sql};

/// The coarse kind of an error: one per thing that the reader would do differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The query, or a setting, is wrong: the same request will fail again.
    Invalid,
    /// The store wants to know who asks.
    Unauthenticated,
    /// The store knows who asks, and says no.
    Forbidden,
    /// The thing asked for does not exist.
    NotFound,
    /// A limit was reached: ask for less, or later.
    Limit,
    /// The store can't be reached, or what answers is not a store.
    Unreachable,
    /// The store can't answer now.
    Unavailable,
    /// It took too long.
    Deadline,
    /// A fault of the plugin or the store.
    Internal,
}

impl Kind {
    /// The HTTP status that stands for the kind in data and resource answers.
    pub fn status(self) -> u16 {
        match self {
            Kind::Invalid => 400,
            Kind::Unauthenticated => 401,
            Kind::Forbidden => 403,
            Kind::NotFound => 404,
            Kind::Limit => 429,
            Kind::Unreachable => 502,
            Kind::Unavailable => 503,
            Kind::Deadline => 504,
            Kind::Internal => 500,
        }
    }
}

/// Any failure of a request to the plugin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data source's settings do not fit together.
    #[error(transparent)]
    Settings(#[from] settings::Error),
    /// The query model does not become SQL.
    #[error(transparent)]
    Sql(#[from] sql::Error),
    /// The store did not answer, or answered with an error.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The answer does not become a frame.
    #[error(transparent)]
    Frame(#[from] frame::Error),
    /// The request of Grafana itself is not as it should be.
    #[error("{0}")]
    Request(String),
    /// Nothing is served under this path.
    #[error(
        "no resource '{0}'; there are fields, fields/values, functions, sql, edit-sql, builder, layout, check, \
             estimate, newest-line, links and export"
    )]
    NoResource(String),
    /// A bug of ours; the log has more.
    #[error("a fault in the plugin: {0}")]
    Fault(String),
}

impl Error {
    /// What the reader can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Settings(_) | Error::Sql(_) | Error::Request(_) => Kind::Invalid,
            Error::Frame(error) => error.kind(),
            Error::Client(error) => error.kind(),
            Error::NoResource(_) => Kind::NotFound,
            Error::Fault(_) => Kind::Internal,
        }
    }
}
