//! Own logs and metrics.
