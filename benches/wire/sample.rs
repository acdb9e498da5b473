//! One sample: a load held once, as figures.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::ledger::Faults;
use crate::load::{Closed, Heard, Line, Open, closed, drain, open, pile_up};
use crate::stage::{Contender, Cpu, Setup, Stage};
use crate::talk::{TURNS, Talk};

/// What a load came to.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Turns a second.
    pub turns_per_second: f64,
    /// How many turns that figure is of.
    pub turns: u64,
    /// From sending a message to the last of its replies; nothing for a backlog.
    pub latency: Option<Latency>,
    /// Processor time a turn, in microseconds.
    pub cpu: Cpu,
    /// The mean size of a reply's body.
    pub reply_bytes: f64,
    /// What went wrong.
    pub faults: Faults,
}

/// Latencies in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Half of the turns were faster.
    pub p50: f64,
    /// 90 of 100.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p999: f64,
    /// The slowest one.
    pub max: f64,
}

impl Latency {
    fn of(latency: &Histogram<u64>) -> Option<Self> {
        let millis = |micros: u64| micros as f64 / 1000.0;
        let at = |quantile| millis(latency.value_at_quantile(quantile));
        (!latency.is_empty()).then(|| Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(latency.max()),
        })
    }
}

impl Sample {
    fn of(heard: &Heard, stage: &Stage, before: Cpu) -> Self {
        let used = stage.cpu().since(before);
        if !heard.faults.none() {
            eprintln!("{}\n   {:?}", stage.logs(), heard.faults);
        }
        let micros = |seconds: f64| seconds * 1e6 / heard.answered.max(1) as f64;
        Self {
            turns_per_second: heard.turns as f64 / heard.seconds,
            turns: heard.turns,
            latency: Latency::of(&heard.latency),
            cpu: Cpu {
                contender: micros(used.contender),
                nats: micros(used.nats),
                redis: micros(used.redis),
                load: micros(used.load),
            },
            reply_bytes: heard.reply_bytes,
            faults: heard.faults,
        }
    }
}

/// A load to be held.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// See [`closed`].
    Closed(Closed),
    /// See [`open`].
    Open(Open),
    /// So many messages, sent before anyone pulls.
    Backlog(usize),
}

/// Who bears it.
#[derive(Clone, Copy)]
pub struct Cast<'a> {
    /// Worker or bare loop.
    pub contender: Contender,
    /// How many processes of it.
    pub processes: usize,
    /// What they serve.
    pub setup: &'a Setup,
    /// What is said to them.
    pub talk: &'a Talk,
}

/// Opens a stage of its own and takes one sample.
pub async fn take(load: Load, cast: Cast<'_>) -> Sample {
    let mut stage = Stage::open().await;
    stage.prepare(cast.setup).await;
    let mut line = Line::to(&stage.servers().nats_url).await;
    if let Load::Backlog(messages) = load {
        pile_up(line.client(), cast.talk, 0..messages / TURNS, true).await;
        // Whoever starts begins at once, so the first reply may come before it says that it is ready.
        let before = stage.cpu();
        let ((), heard) = tokio::join!(
            start(&mut stage, cast),
            drain(&mut line, cast.talk, messages as u64)
        );
        let sample = Sample::of(&heard, &stage, before);
        stage.close().await;
        return sample;
    }
    start(&mut stage, cast).await;
    let sample = take_on(&stage, &mut line, load, cast.talk).await;
    stage.close().await;
    sample
}

async fn start(stage: &mut Stage, cast: Cast<'_>) {
    for _ in 0..cast.processes {
        stage.start(cast.contender, cast.setup).await;
    }
}

/// Takes one sample on a stage that is open.
pub async fn take_on(stage: &Stage, line: &mut Line, load: Load, talk: &Talk) -> Sample {
    let before = stage.cpu();
    let heard = match load {
        Load::Closed(plan) => closed(line, talk, plan).await,
        Load::Open(plan) => open(line, talk, plan).await,
        Load::Backlog(messages) => drain(line, talk, messages as u64).await,
    };
    Sample::of(&heard, stage, before)
}

/// Says what a sample came to, for whoever watches.
pub fn tell(what: &str, sample: &Sample) {
    let latency = sample.latency.map_or(String::new(), |latency| {
        format!(", p50 {:.2} ms, p99 {:.2} ms", latency.p50, latency.p99)
    });
    let cpu = sample.cpu;
    eprintln!(
        "   {what}: {:.0} turns/s{latency}; a turn takes {:.0} us, nats-server {:.0}, Redis {:.0}, the load {:.0}",
        sample.turns_per_second, cpu.contender, cpu.nats, cpu.redis, cpu.load
    );
}

/// The middle one of some figures.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => figures[odd / 2],
        even => (figures[even / 2 - 1] + figures[even / 2]) / 2.0,
    }
}

/// How long a load is held.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    /// Before it counts.
    pub warm_up: Duration,
    /// While it counts.
    pub measured: Duration,
}
