//! What a condition asks of an index: which values or pieces of text a record must have.

use super::terms::Needle;

/// What every matching record satisfies, as far as an index can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Search {
    /// Nothing is known.
    Any,
    /// The column's text holds the needle.
    Text {
        /// The column.
        column: String,
        /// The text in it.
        needle: Needle,
    },
    /// The column is exactly this.
    Equals {
        /// The column.
        column: String,
        /// Its value.
        value: String,
    },
    /// All of them hold.
    All(Vec<Search>),
    /// One of them holds.
    OneOf(Vec<Search>),
}

impl Search {
    /// All of `parts`, without those that say nothing.
    pub fn all(parts: impl IntoIterator<Item = Search>) -> Search {
        let mut known = Vec::new();
        for part in parts {
            match part {
                Search::Any => {}
                Search::All(inner) => known.extend(inner),
                other => known.push(other),
            }
        }
        match known.len() {
            0 => Search::Any,
            1 => known.remove(0),
            _ => Search::All(known),
        }
    }

    /// One of `parts`; if one says nothing, all say nothing.
    pub fn one_of(parts: Vec<Search>) -> Search {
        if parts.contains(&Search::Any) { Search::Any } else { Search::OneOf(parts) }
    }
}
