//! Who reads which partition: Kafka's "range" and "roundrobin", as its own clients share out, since any of them may be in the
//! group. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Partition;

/// The names under which they are known, the better one first.
pub(super) const STRATEGIES: [&str; 2] = ["roundrobin", "range"];

/// A member, and the topics it wants, in order of members' ids.
pub(super) type Members = BTreeMap<String, Vec<String>>;

/// Shares partitions out by the strategy of this name; `counts` has the number of partitions of each topic.
pub(super) fn share_out(
    strategy: &str,
    members: &Members,
    counts: &BTreeMap<Arc<str>, i32>,
) -> BTreeMap<String, Vec<Partition>> {
    let mut shares: BTreeMap<String, Vec<Partition>> = members.keys().map(|member| (member.clone(), vec![])).collect();
    let mut turn = 0;
    for (topic, count) in counts {
        let wanting: Vec<&String> =
            members.iter().filter(|(_, topics)| topics.iter().any(|one| **one == **topic)).map(|(id, _)| id).collect();
        if wanting.is_empty() {
            continue;
        }
        for number in 0..*count {
            let member = if strategy == "range" {
                wanting[range_of(number as usize, *count as usize, wanting.len())]
            } else {
                // Members that do not want the topic are passed over.
                let ids: Vec<&String> = members.keys().collect();
                let at = (0..ids.len()).map(|step| (turn + step) % ids.len()).find(|at| wanting.contains(&ids[*at]));
                let at = at.unwrap_or(0);
                turn = at + 1;
                ids[at]
            };
            if let Some(share) = shares.get_mut(member) {
                share.push(Partition { topic: topic.clone(), number });
            }
        }
    }
    shares
}

/// Which of `members` reads a partition of `count`: the first ones read one more where it does not come out even.
fn range_of(number: usize, count: usize, members: usize) -> usize {
    let (each, more) = (count / members, count % members);
    let at = number.checked_div(each + 1).filter(|at| *at < more);
    at.unwrap_or_else(|| more + (number - more * (each + 1)) / each.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(strategy: &str, members: &[(&str, &[&str])], counts: &[(&str, i32)]) -> String {
        let members =
            members.iter().map(|(id, topics)| (id.to_string(), topics.iter().map(|topic| topic.to_string()).collect()));
        let counts = counts.iter().map(|(topic, count)| (Arc::from(*topic), *count)).collect();
        let shares = share_out(strategy, &members.collect(), &counts);
        let text = |(id, share): (&String, &Vec<Partition>)| {
            let share: Vec<String> = share.iter().map(|one| format!("{}{}", one.topic, one.number)).collect();
            format!("{id}:{}", share.join(","))
        };
        shares.iter().map(text).collect::<Vec<_>>().join(" ")
    }

    /// The examples of Kafka's RangeAssignor and RoundRobinAssignor.
    #[test]
    fn partitions_are_shared_out_as_kafka_s_clients_do() {
        let both: &[(&str, &[&str])] = &[("A", &["s", "t"]), ("B", &["s", "t"])];
        let mixed: &[(&str, &[&str])] = &[("A", &["s"]), ("B", &["s", "t"]), ("C", &["s", "t", "u"])];
        for (strategy, members, counts, expected) in [
            ("range", both, &[("s", 3), ("t", 3)][..], "A:s0,s1,t0,t1 B:s2,t2"),
            ("roundrobin", both, &[("s", 3), ("t", 3)], "A:s0,s2,t1 B:s1,t0,t2"),
            ("roundrobin", mixed, &[("s", 1), ("t", 2), ("u", 3)], "A:s0 B:t0 C:t1,u0,u1,u2"),
            ("range", both, &[("s", 1)], "A:s0 B:"),
            ("range", &[("A", &["s"]), ("B", &["s"]), ("C", &["s"])], &[("s", 5)], "A:s0,s1 B:s2,s3 C:s4"),
            ("range", both, &[("absent", 4)], "A: B:"),
            ("roundrobin", &[], &[("s", 1)], ""),
        ] {
            assert_eq!(shared(strategy, members, counts), expected, "{strategy} {counts:?}");
        }
    }
}
