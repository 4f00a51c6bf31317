//! Retention classes: which records may share a segment, so that expiry per level is the unlinking of whole files.

/// Records that expire together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Levels error and fatal.
    Error,
    /// Level warn.
    Warn,
    /// Level info, and records without a level.
    Info,
    /// Levels debug and trace.
    Debug,
}

impl Class {
    /// All of them, the longest kept first.
    pub const ALL: [Class; 4] = [Class::Error, Class::Warn, Class::Info, Class::Debug];

    /// The class of a record by its normalised level.
    pub fn of_level(level: Option<&str>) -> Class {
        match level {
            Some("error" | "fatal") => Class::Error,
            Some("warn") => Class::Warn,
            Some("debug" | "trace") => Class::Debug,
            _ => Class::Info,
        }
    }

    /// Its name in paths and in the catalog.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Error => "error",
            Class::Warn => "warn",
            Class::Info => "info",
            Class::Debug => "debug",
        }
    }

    /// The class of that name.
    pub fn parse(name: &str) -> Option<Class> {
        Class::ALL.into_iter().find(|class| class.as_str() == name)
    }
}
