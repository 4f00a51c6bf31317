//! Samples of the store's own metrics for the SQL table `metrics`: what `/metrics` shows, taken now and then. How they are
//! kept is `query`'s.
//!
//! A histogram becomes its count and the percentiles of what was observed since the sample before. Names of tenants stay
//! out, for every tenant may read the table; what is counted per tenant is added up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::App;
use crate::query::Sample;

/// What histograms become, beside their count.
const PERCENTILES: [(&str, f64); 3] = [("_p50", 0.5), ("_p95", 0.95), ("_p99", 0.99)];

/// Samples until `stop`.
pub(super) async fn run(app: Arc<App>, every: Duration, stop: CancellationToken) -> &'static str {
    let mut looks = tokio::time::interval(every);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sampler = Sampler::default();
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = stop.cancelled() => return "sampling",
        }
        match (app.parts(), app.metrics_text()) {
            (Ok(parts), Ok(text)) => parts.engine.history().record(app.clock.now_ns(), sampler.sample(&text)),
            (Err(_), _) => {}
            (_, Err(error)) => warn!("the store's metrics can't be sampled: {error}"),
        }
    }
}

/// A series: name and labels.
type Key = (String, String);

/// Upper bounds of a histogram's buckets, rising, with how much was observed up to each.
type Buckets = Vec<(f64, f64)>;

/// Turns the text of `/metrics` into samples; remembers histograms from one text to the next.
#[derive(Debug, Default)]
struct Sampler {
    before: HashMap<Key, Buckets>,
}

impl Sampler {
    fn sample(&mut self, text: &str) -> Vec<Sample> {
        let mut kind = "";
        let mut sums: BTreeMap<Key, (bool, f64)> = BTreeMap::new();
        let mut histograms: BTreeMap<Key, Buckets> = BTreeMap::new();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix('#') {
                let mut words = comment.split_whitespace();
                if words.next() == Some("TYPE") {
                    kind = words.nth(1).unwrap_or_default();
                }
                continue;
            }
            let Some((name, labels, value)) = parts_of(line) else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            if let (Some(name), "histogram") = (name.strip_suffix("_bucket"), kind) {
                let bound = labels.iter().find(|(key, _)| *key == "le").and_then(|(_, bound)| bound.parse().ok());
                let buckets = histograms.entry((name.to_owned(), shown(&labels))).or_default();
                buckets.extend(bound.map(|bound| (bound, value)));
            } else if matches!(kind, "counter" | "gauge") || name.ends_with("_count") {
                let (_, sum) = sums.entry((name.to_owned(), shown(&labels))).or_insert((kind != "gauge", 0.0));
                *sum += value;
            }
        }
        let plain =
            sums.into_iter().map(|((name, labels), (is_counter, value))| Sample { name, labels, is_counter, value });
        let mut samples: Vec<Sample> = plain.collect();
        for ((name, labels), buckets) in &histograms {
            let since = since(buckets, self.before.get(&(name.clone(), labels.clone())));
            samples.extend(PERCENTILES.iter().filter_map(|(suffix, part)| {
                let value = percentile(&since, *part)?;
                Some(Sample { name: format!("{name}{suffix}"), labels: labels.clone(), is_counter: false, value })
            }));
        }
        self.before = histograms.into_iter().collect();
        samples
    }
}

type Labels<'a> = Vec<(&'a str, &'a str)>;

/// Name, labels and value of a line such as `name{key="value"} 1`.
fn parts_of(line: &str) -> Option<(&str, Labels<'_>, &str)> {
    let (series, value) = line.rsplit_once(' ')?;
    let Some((name, labels)) = series.split_once('{') else { return Some((series, Vec::new(), value)) };
    let mut rest = labels.strip_suffix('}')?;
    let mut found = Vec::new();
    while let Some((key, quoted)) = rest.split_once("=\"") {
        let is_end = |(at, _): &(usize, &str)| {
            let slashes = quoted[..*at].bytes().rev().take_while(|byte| *byte == b'\\').count();
            slashes.is_multiple_of(2)
        };
        let (end, _) = quoted.match_indices('"').find(is_end)?;
        found.push((key, &quoted[..end]));
        rest = quoted[end + 1..].trim_start_matches(',');
    }
    Some((name, found, value))
}

/// The labels by which series are told apart in the table.
fn shown(labels: &[(&str, &str)]) -> String {
    let kept = labels.iter().filter(|(key, _)| !matches!(*key, "le" | "tenant"));
    kept.map(|(key, value)| format!("{key}=\"{value}\"")).collect::<Vec<_>>().join(",")
}

/// What was observed since the buckets were read before.
fn since(now: &Buckets, before: Option<&Buckets>) -> Buckets {
    let counted = |index: usize| before.and_then(|before| before.get(index)).map_or(0.0, |(_, count)| *count);
    now.iter().enumerate().map(|(index, (bound, count))| (*bound, count - counted(index))).collect()
}

/// The value below which this part of what was observed lies, as even within its bucket; `None`: nothing was observed.
fn percentile(buckets: &Buckets, part: f64) -> Option<f64> {
    let (_, all) = buckets.last().filter(|(_, all)| *all > 0.0)?;
    let rank = part * all;
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, upto) in buckets {
        if *upto >= rank {
            // Past the last bound nothing is known but that.
            let within = (rank - below) / (upto - below);
            return Some(if bound.is_finite() { low + (bound - low) * within } else { low });
        }
        (low, below) = (*bound, *upto);
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(samples: &[Sample]) -> Vec<String> {
        let of = |sample: &Sample| {
            let sign = if sample.is_counter { "+" } else { "=" };
            format!("{}{{{}}} {sign} {}", sample.name, sample.labels, sample.value)
        };
        samples.iter().map(of).collect()
    }

    #[test]
    fn a_text_becomes_samples() {
        let text = "# HELP a A.\n# TYPE a counter\na_total{protocol=\"loki\",tenant=\"x\\\",} y\"} 1\n\
                    a_total{protocol=\"loki\",tenant=\"z\"} 2\n# TYPE b gauge\nb 1.5\n# TYPE c info\nc_info{v=\"1\"} 1\n\
                    # TYPE d histogram\nd_sum{e=\"h\"} 9\nd_count{e=\"h\"} 4\nd_bucket{le=\"1.0\",e=\"h\"} 2\n\
                    d_bucket{le=\"2.0\",e=\"h\"} 4\nd_bucket{le=\"+Inf\",e=\"h\"} 4\n# EOF\n";
        let mut sampler = Sampler::default();
        let first = sampler.sample(text);
        let expect = [
            "a_total{protocol=\"loki\"} + 3",
            "b{} = 1.5",
            "d_count{e=\"h\"} + 4",
            "d_p50{e=\"h\"} = 1",
            "d_p95{e=\"h\"} = 1.9",
            "d_p99{e=\"h\"} = 1.98",
        ];
        assert_eq!(told(&first), expect);
        let second = sampler.sample(text);
        assert_eq!(told(&second), expect[..3], "nothing was observed since");
    }

    #[test]
    fn percentiles_lie_within_their_bucket() {
        let buckets = |counts: [f64; 3]| [1.0, 2.0, f64::INFINITY].into_iter().zip(counts).collect::<Buckets>();
        for (counts, part, expect) in [
            ([4.0, 4.0, 4.0], 0.5, Some(0.5)),
            ([0.0, 4.0, 4.0], 0.5, Some(1.5)),
            ([0.0, 0.0, 4.0], 0.5, Some(2.0)),
            ([1.0, 2.0, 2.0], 0.99, Some(1.98)),
            ([0.0, 0.0, 0.0], 0.5, None),
        ] {
            assert_eq!(percentile(&buckets(counts), part), expect, "{counts:?} {part}");
        }
    }
}
