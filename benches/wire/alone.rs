//! What the worker costs by itself: at rest, and until it is ready.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::harness::{cpu_seconds, resident_bytes};
use crate::packs::{bench_tenant, many_packs};
use crate::stage::{Contender, Setup, Stage};
use crate::{Options, Part};

/// Tenants of a worker at rest.
const TENANTS: usize = 100;
/// Packs of a worker that starts.
const PACKS: usize = 200;
/// How long a worker comes to rest.
const SETTLING: Duration = Duration::from_secs(5);
/// How long it is watched.
const WATCHED: Duration = Duration::from_secs(10);

/// One figure of the worker alone.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What it is.
    pub what: String,
    /// Its unit.
    pub unit: &'static str,
    /// What was measured, one a round.
    pub values: Vec<f64>,
    /// What it should not exceed.
    pub at_most: f64,
}

/// Takes all figures that are asked for.
pub async fn figures(options: &Options) -> Vec<Figure> {
    let mut figures = Vec::new();
    if options.wants(Part::Idle) {
        figures.extend(idle(options).await);
    }
    if options.wants(Part::Start) {
        figures.push(start(options).await);
    }
    figures
}

async fn idle(options: &Options) -> [Figure; 2] {
    eprintln!("== idle: {TENANTS} tenants, watched for {WATCHED:?}");
    let setup = Setup {
        program: options.worker.clone(),
        tenants: (0..TENANTS).map(|_| bench_tenant()).collect(),
        settings: Vec::new(),
    };
    let (mut cores, mut megabytes) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds() {
        let mut stage = Stage::open().await;
        stage.start(Contender::Worker, &setup).await;
        sleep(SETTLING).await;
        let pid = stage.pids()[0];
        let (cpu, rss) = at_rest(pid).await;
        eprintln!("   round {round}: {cpu:.2}% of a core, {rss:.1} MB");
        cores.push(cpu);
        megabytes.push(rss);
    }
    let of = |what: &str| format!("idle with {TENANTS} tenants: {what}");
    [
        Figure {
            what: of("processor"),
            unit: "% of a core",
            values: cores,
            at_most: 1.0,
        },
        Figure {
            what: of("memory"),
            unit: "MB",
            values: megabytes,
            at_most: 40.0,
        },
    ]
}

/// The share of a core, in percent, that a process uses at rest, and its resident megabytes.
pub async fn at_rest(pid: u32) -> (f64, f64) {
    let used = || cpu_seconds(pid).unwrap_or(f64::NAN);
    let before = used();
    sleep(WATCHED).await;
    let cpu = (used() - before) / WATCHED.as_secs_f64() * 100.0;
    let rss = resident_bytes(pid).map_or(f64::NAN, |bytes| bytes as f64 / 1e6);
    (cpu, rss)
}

/// From starting the process to its being ready. The first start compiles what is to be compiled and does not count.
async fn start(options: &Options) -> Figure {
    eprintln!("== start: {PACKS} packs");
    let setup = Setup {
        program: options.worker.clone(),
        tenants: vec![many_packs(PACKS).0],
        settings: Vec::new(),
    };
    let mut millis = Vec::new();
    for round in 0..=options.rounds() {
        let mut stage = Stage::open().await;
        let began = Instant::now();
        stage.start(Contender::Worker, &setup).await;
        let took = began.elapsed().as_secs_f64() * 1e3;
        eprintln!("   round {round}: {took:.0} ms");
        if round > 0 {
            millis.push(took);
        }
    }
    Figure {
        what: format!("start to ready with {PACKS} packs"),
        unit: "ms",
        values: millis,
        at_most: 300.0,
    }
}
