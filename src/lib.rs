//! Quiver: the log store.
