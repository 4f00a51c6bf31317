//! Where reading a partition begins. Pure: what the group committed, what was kept here, and what is wanted where neither is
//! known.
//!
//! Invariant: no record that may not have been kept is passed over, unless the newest were asked for and the group is new.

/// What a new group reads of partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// All that is there.
    Earliest,
    /// What comes from now on.
    Latest,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// At this record.
    Offset(i64),
    /// At the oldest that is there.
    Beginning,
    /// Behind the newest.
    End,
}

/// What a group committed of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The first record that was not read.
    pub offset: i64,
    /// What was said with it: of our own commits, which topic it was (a topic that was removed and made again has the same
    /// name and other records).
    pub note: String,
}

/// What stands before the id of the topic in our commits.
const NOTE: &str = "quiver topic=";

/// What we say with a commit.
pub fn note(topic_id: &str) -> String {
    format!("{NOTE}{topic_id}")
}

/// Where to begin with a partition of the topic `topic_id`; empty where brokers have no such ids. `kept` is where this store
/// is with this very topic; `is_known` says whether the group read anything of it before.
pub fn start_of(
    topic_id: &str,
    committed: Option<&Committed>,
    kept: Option<i64>,
    is_known: bool,
    start: Start,
) -> From {
    let of_this_topic = |one: &&Committed| {
        let said = one.note.strip_prefix(NOTE).unwrap_or_default();
        said.is_empty() || topic_id.is_empty() || said == topic_id
    };
    let valid = committed.filter(of_this_topic).map(|one| one.offset);
    match (valid.max(kept), start) {
        (Some(offset), _) => From::Offset(offset),
        // A partition that was added, or a topic that was made again, is new to a group that is not.
        (None, Start::Latest) if !is_known && committed.is_none() => From::End,
        (None, _) => From::Beginning,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_begins_where_nothing_is_lost_or_doubled() {
        let committed = |offset, note: &str| Some(Committed { offset, note: note.to_owned() });
        let own = note("id1");
        for (case, committed, kept, is_known, start, expected) in [
            ("a new group", None, None, false, Start::Earliest, From::Beginning),
            ("a new group that wants the newest", None, None, false, Start::Latest, From::End),
            ("a partition was added", None, None, true, Start::Latest, From::Beginning),
            ("another client's commit", committed(5, ""), None, true, Start::Latest, From::Offset(5)),
            ("the commit was lost", committed(5, &own), Some(9), true, Start::Earliest, From::Offset(9)),
            ("even the first one", None, Some(9), true, Start::Latest, From::Offset(9)),
            ("others went on", committed(12, &own), Some(9), true, Start::Earliest, From::Offset(12)),
            ("the topic was made again", committed(12, &note("id0")), None, true, Start::Latest, From::Beginning),
            ("… and begun", committed(12, &note("id0")), Some(3), true, Start::Latest, From::Offset(3)),
        ] {
            assert_eq!(start_of("id1", committed.as_ref(), kept, is_known, start), expected, "{case}");
        }
        let stale = committed(12, &note("id0"));
        assert_eq!(start_of("", stale.as_ref(), None, true, Start::Earliest), From::Offset(12), "brokers without ids");
    }
}
