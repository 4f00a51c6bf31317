//! The public protocols.
