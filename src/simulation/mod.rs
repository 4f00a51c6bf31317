//! A seeded simulation: the real store, decoder and query engine against a simple model, over appends, flushes, merges,
//! expiry, deletions, quotas, crashes, torn logs, damaged files, a full disk, a catalog that refuses commits, and an object
//! store that fails; and the real answers against the model's. Only the clock and all choices are the seed's. Threads and the disk stay real, so a seed repeats what is done, not to the
//! microsecond when: a failure may need its seed more than once.
//!
//! `QUIVER_SIM_SECONDS` says how long fresh seeds follow the fixed ones (until 20 s after the start), `QUIVER_SEED` runs
//! one seed, `QUIVER_SIM_STEPS` says how many steps each has, `QUIVER_SIM_KEEP` leaves the directories of a failure.

use std::collections::BTreeMap;
use std::env;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

mod checks;
mod faults;
mod lines;
mod model;
mod random;
mod steps;
mod world;

use model::Outcome;
use world::World;

/// Seeds that every run starts with.
const SEEDS_FIXED: [u64; 3] = [1, 2, 3];
const SECONDS_DEFAULT: u64 = 20;
/// Steps of a seed: few in a short run, which is to see several.
const STEPS_SHORT: u64 = 60;
const STEPS_LONG: u64 = 400;
/// A run of this length is a long one.
const SECONDS_LONG: u64 = 300;

/// What was done, by step.
#[derive(Default)]
struct Done {
    steps: BTreeMap<String, u64>,
    records: usize,
}

fn setting(name: &str) -> Option<u64> {
    let given = env::var(name).ok().filter(|text| !text.is_empty());
    given.map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Runs one seed to its end, or until `deadline`.
async fn run(seed: u64, steps: u64, deadline: Option<Instant>, done: &mut Done) -> Outcome {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut world = World::new(seed, dir.path().to_owned()).await?;
    for step in 0..steps {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
        match world.step().await {
            Ok(step) => *done.steps.entry(format!("{step:?}")).or_default() += 1,
            Err(error) => {
                let notes = world.notes.iter().map(|note| format!("  {note}\n")).collect::<String>();
                world.drop_live();
                let kept = env::var_os("QUIVER_SIM_KEEP").map(|_| format!(" in {:?}", dir.keep())).unwrap_or_default();
                return Err(format!("QUIVER_SEED={seed}, step {step}{kept}: {error}\nthe last steps:\n{notes}"));
            }
        }
    }
    world
        .read_all(model::Allowance::Nothing)
        .await
        .map_err(|error| format!("QUIVER_SEED={seed}, at the end: {error}"))?;
    done.records += world.model.records.len();
    world.close().await.map(drop)
}

#[test]
fn the_store_does_what_a_list_of_records_would() {
    let seconds = setting("QUIVER_SIM_SECONDS").unwrap_or(SECONDS_DEFAULT);
    let is_long = seconds >= SECONDS_LONG || setting("QUIVER_SEED").is_some();
    let steps = setting("QUIVER_SIM_STEPS").unwrap_or(if is_long { STEPS_LONG } else { STEPS_SHORT });
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_nanos() as u64;
    let seeds: Box<dyn Iterator<Item = u64>> = match setting("QUIVER_SEED") {
        Some(seed) => Box::new(std::iter::once(seed)),
        None => Box::new(SEEDS_FIXED.into_iter().chain((0..).map(|more| fresh.wrapping_add(more)))),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .build()
        .expect("threads can be started");
    let (started, mut done) = (Instant::now(), Done::default());
    let end = started + Duration::from_secs(seconds);
    for (at, seed) in seeds.enumerate() {
        let deadline = (at >= SEEDS_FIXED.len()).then_some(end);
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
        eprintln!("simulation: QUIVER_SEED={seed}");
        if let Err(error) = runtime.block_on(run(seed, steps, deadline, &mut done)) {
            runtime.shutdown_background();
            panic!("{error}");
        }
    }
    runtime.shutdown_background();
    let (all, elapsed) = (done.steps.values().sum::<u64>(), started.elapsed());
    let per_second = all as f64 / elapsed.as_secs_f64();
    eprintln!("simulation: {all} steps ({per_second:.0}/s), {} records, {elapsed:?}: {:?}", done.records, done.steps);
}
