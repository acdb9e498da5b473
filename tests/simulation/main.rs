//! The real turns and workers over simulated servers, whose every fault follows from a seed. One thread, virtual time:
//! the same seed is always the same run.
//!
//! `SIM_SEED=7` runs one seed and shows what happened; `SIM_SEEDS=100000` runs as many, from `SIM_SEED` on. See
//! `docs/exactly-once.md`.
//!
//! - `world`: chance, time, ids and the record of events.
//! - `process`: a worker's process, which dies and stands still, and its wire, which loses and delays.
//! - `store`, `net`: the servers behind that wire.
//! - `flows`, `users`, `operator`: what runs, who talks to it, and who replays dead letters.
//! - `run`: a run from its first message to its rest.
//! - `check`, `serial`: what must hold then, told from outside.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails by panicking, and tells how far it is"
)]

mod check;
mod flows;
mod net;
mod operator;
mod process;
mod run;
mod serial;
mod store;
mod users;
mod world;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use check::Findings;
use run::Outcome;
use world::{Plan, Tally};

/// How many seeds every run of the tests has.
const SEEDS: u64 = 320;

/// Runs a seed, its plan changed; what is wrong comes with it.
fn simulate(seed: u64, change: fn(&mut Plan)) -> (Outcome, Vec<String>) {
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a thread can have a tokio");
    tokio.block_on(async {
        let outcome = run::run(seed, change, serial::registries()).await;
        let wrong = Findings::of(&outcome).await;
        (outcome, wrong)
    })
}

fn as_drawn(_: &mut Plan) {}

#[track_caller]
fn check(seed: u64) -> Tally {
    let again = format!("./dev simulate --seed {seed} --seeds 1");
    check_changed(seed, as_drawn, &again)
}

#[track_caller]
fn check_changed(seed: u64, change: fn(&mut Plan), again: &str) -> Tally {
    let (outcome, wrong) = simulate(seed, change);
    if wrong.is_empty() {
        return outcome.world.tally();
    }
    let (events, wrong) = (outcome.world.events().join("\n"), wrong.join("\n  "));
    panic!("{events}\n\nseed {seed} is wrong:\n  {wrong}\n\nAgain: {again}");
}

fn setting(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "tests have no settings file")]
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("SIM_SEED and SIM_SEEDS are numbers"))
}

// Four tests, so that they run beside each other.

#[test]
fn the_first_quarter_holds() {
    check_all(0..SEEDS / 4);
}

#[test]
fn the_second_quarter_holds() {
    check_all(SEEDS / 4..SEEDS / 2);
}

#[test]
fn the_third_quarter_holds() {
    check_all(SEEDS / 2..SEEDS / 4 * 3);
}

#[test]
fn the_fourth_quarter_holds() {
    check_all(SEEDS / 4 * 3..SEEDS);
}

#[track_caller]
fn check_all(seeds: Range<u64>) {
    for seed in seeds {
        check(seed);
    }
}

#[test]
fn a_seed_is_always_the_same_run() {
    for seed in 0..20 {
        let run = || simulate(seed, as_drawn).0.world;
        let (once, again) = (run(), run());
        assert_eq!(once.events(), again.events(), "seed {seed}");
        assert_eq!(once.fingerprint(), again.fingerprint());
    }
}

/// What runs beside a message that kills its worker is not put aside with it.
#[test]
fn poison_costs_only_itself() {
    for seed in 0..40 {
        let again = "cargo test --test simulation poison_costs_only_itself";
        check_changed(seed, Plan::poison, again);
    }
}

/// A fault of one tenant delays no other tenant beyond its own slots.
#[test]
fn a_refused_tenant_delays_nobody_and_loses_nothing() {
    let mut refused = 0;
    for seed in 0..60 {
        let again = "cargo test --test simulation a_refused_tenant_delays_nobody_and_loses_nothing";
        let tally = check_changed(seed, Plan::refusal, again);
        refused += u64::from(tally.contains_key("publishes refused"));
    }
    assert!(refused > 40, "{refused} of 60 seeds had a refusal");
}

/// Answers that come to a worker without the pack of their conversation are left to one that has it.
#[test]
fn a_roll_out_loses_nothing() {
    let mut mixed = 0;
    for seed in 0..60 {
        let again = "cargo test --test simulation a_roll_out_loses_nothing";
        let tally = check_changed(seed, Plan::roll_out, again);
        let both = ["turns of the old version", "turns of the new version"];
        mixed += u64::from(both.iter().all(|turns| tally.contains_key(turns)));
    }
    assert!(mixed > 40, "{mixed} of 60 seeds had turns of both versions");
}

/// Nobody doubles a reply that the stream no longer recognises.
#[test]
fn those_who_are_held_up_for_longer_than_the_window_double_nothing() {
    let mut happened = Tally::new();
    for seed in 0..80 {
        let again = "cargo test --test simulation those_who_are_held_up";
        add(
            &mut happened,
            check_changed(seed, Plan::short_window, again),
        );
    }
    for what in [
        "publishes that were late",
        "outages of the streams",
        "late replies that were there",
        "late replies that were not there",
    ] {
        assert!(happened.contains_key(what), "never: {what}; {happened:#?}");
    }
}

/// What the faults are for does happen.
#[test]
fn the_seeds_are_not_idle() {
    let mut happened = Tally::new();
    for seed in 0..60 {
        add(&mut happened, simulate(seed, as_drawn).0.world.tally());
    }
    for what in [
        "workers died",
        "commits over a quota",
        "workers stood still",
        "requests lost",
        "requests late",
        "answers lost",
        "messages sent twice",
        "messages under the id of another one",
        "dead letters replayed",
        "calls of a backend that is down",
        "redeliveries",
        "turns begun that were applied",
        "turns begun on a busy conversation",
        "commits in conflict",
        "commits that were applied",
        "copies that a stream dropped",
    ] {
        assert!(happened.contains_key(what), "never: {what}; {happened:#?}");
    }
}

/// As many as `SIM_SEEDS` says, from `SIM_SEED` on; none without them.
#[test]
fn chosen_seeds_hold() {
    let (from, seeds) = (setting("SIM_SEED"), setting("SIM_SEEDS"));
    let count = seeds.unwrap_or(u64::from(from.is_some()));
    let from = from.unwrap_or_default();
    let (next, happened) = (AtomicU64::new(from), Mutex::new(Tally::new()));
    let work = || {
        let _stop = StopAll(&next, from + count);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + count {
                return;
            }
            let tally = check(seed);
            add(&mut world::locked(&happened), tally);
            if (seed - from + 1).is_multiple_of(1_000) {
                eprintln!("{} of {count} seeds", seed - from + 1);
            }
        }
    };
    // Each run has one thread; runs share nothing.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(count as usize) {
            scope.spawn(work);
        }
    });
    for (what, times) in happened.into_inner().unwrap() {
        eprintln!("{times:>12} {what}");
    }
}

/// One seed that is wrong is enough: the other threads stop, too.
struct StopAll<'a>(&'a AtomicU64, u64);

impl Drop for StopAll<'_> {
    fn drop(&mut self) {
        self.0.fetch_max(self.1, Ordering::Relaxed);
    }
}

fn add(all: &mut Tally, more: Tally) {
    for (what, times) in more {
        *all.entry(what).or_default() += times;
    }
}
