//! Names that are recognised at the door, and what each stands for. The lists are [`Options`]' own.

use std::borrow::Cow;

use hashbrown::HashMap;

use super::Options;
use super::outer::TAKEN_SUFFIX;
use crate::record::column;

/// What a recognised field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Timestamp,
    Level,
    Service,
    Message,
    TraceId,
    SpanId,
}

impl Role {
    /// How many roles there are; a role is an index below it.
    pub const COUNT: usize = 6;
}

/// A role, and how well the name tells it: lower is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recognised {
    pub role: Role,
    pub rank: u16,
}

/// Ranks from here are names that only hint at the service: the name of a container or a job.
pub(super) const RANK_HINT: u16 = 1_000;

/// Longest name that is looked up.
const NAME_BYTES_MAX: usize = 64;

/// The names as a map, lower-case.
#[derive(Debug)]
pub(super) struct Names(HashMap<Box<[u8]>, Recognised>);

impl Names {
    pub fn of(options: &Options) -> Self {
        let mut map = HashMap::new();
        let lists = [
            (Role::Timestamp, &options.timestamp_names, 0),
            (Role::Level, &options.level_names, 0),
            (Role::Service, &options.service_names, 0),
            (Role::Service, &options.service_hint_names, RANK_HINT),
            (Role::Message, &options.message_names, 0),
            (Role::TraceId, &options.trace_id_names, 0),
            (Role::SpanId, &options.span_id_names, 0),
        ];
        for (role, names, first) in lists {
            for (rank, name) in (first..).zip(names) {
                let lower = name.to_ascii_lowercase().into_bytes().into_boxed_slice();
                map.entry(lower).or_insert(Recognised { role, rank });
            }
        }
        Names(map)
    }

    /// What the name stands for, in any ASCII case.
    pub fn recognise(&self, name: &str) -> Option<Recognised> {
        let mut lower = [0u8; NAME_BYTES_MAX];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        self.0.get(&*lower).copied()
    }
}

/// The name under which a field lies in the overflow: there, too, none stands for one of our own columns.
pub(super) fn in_overflow(name: &str) -> Cow<'_, str> {
    if is_reserved(name) { format!("{name}{TAKEN_SUFFIX}").into() } else { name.into() }
}

/// Whether a field of this name would be taken for one of our own columns.
pub(super) fn is_reserved(name: &str) -> bool {
    column::CORE.contains(&name) || column::HIDDEN.contains(&name) || name == column::SEQ || name == column::LINE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_case() {
        let names = Names::of(&Options::default());
        let role = |name: &str| names.recognise(name).map(|found| found.role);
        assert_eq!(role("traceId"), Some(Role::TraceId));
        assert_eq!(role("otelTraceID"), Some(Role::TraceId));
        assert_eq!(role("dd.trace_id"), Some(Role::TraceId));
        assert_eq!(role("SeverityText"), Some(Role::Level));
        assert_eq!(role("@timestamp"), Some(Role::Timestamp));
        assert_eq!(role("msg"), Some(Role::Message));
        assert_eq!(role("user_id"), None);
        assert!(names.recognise("service").unwrap().rank < names.recognise("job").unwrap().rank);
        assert_eq!(role(&"x".repeat(100)), None);
    }
}
