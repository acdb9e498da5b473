//! How cost grows: one thing is varied, everything else stays as it is.

use std::fmt::Write;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;

use crate::Options;
use crate::alone::at_rest;
use crate::chart::{self, Line};
use crate::load::Closed;
use crate::packs::{bench_tenant, chain, chorus, many_packs};
use crate::report::{figure, machine, save};
use crate::sample::{Cast, Load, Sample, median, take, take_on, tell};
use crate::stage::{Contender, Setup, Stage};
use crate::talk::Talk;
use crate::waits;

/// What is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Curve {
    /// Conversations that are parked.
    Waits,
    /// Tenants with gtbinds.
    Tenants,
    /// Packs bound for a tenant.
    Packs,
    /// Nodes that run in a turn.
    Nodes,
    /// The size of a message's body, in bytes.
    Body,
    /// Replies to a turn.
    Replies,
    /// Workers.
    Replicas,
}

/// What was found at one point of a curve.
#[derive(Debug, Serialize)]
pub struct Point {
    /// How much of it there was.
    pub at: usize,
    /// The samples, one a round.
    pub samples: Vec<Sample>,
    /// Other figures of this point, by name.
    pub more: Vec<(&'static str, f64)>,
}

impl Curve {
    fn points(self, quick: bool) -> &'static [usize] {
        match self {
            Self::Waits if quick => &[0, 1_000, 10_000],
            Self::Waits => &[0, 1_000, 10_000, 100_000, 1_000_000],
            Self::Tenants | Self::Packs if quick => &[1, 10, 100],
            Self::Tenants | Self::Packs => &[1, 10, 100, 1_000],
            Self::Nodes => &[2, 10, 50, 100, 200, 500],
            Self::Body => &[200, 600, 2_048, 8_192, 32_768, 131_072, 262_144],
            Self::Replies => &[1, 2, 5, 10, 20, 50],
            Self::Replicas => &[1, 2, 3, 4],
        }
    }

    fn name(self) -> String {
        let value = self.to_possible_value();
        value
            .expect("every curve can be asked for")
            .get_name()
            .to_owned()
    }

    fn title(self) -> &'static str {
        match self {
            Self::Waits => "Parked conversations",
            Self::Tenants => "Tenants",
            Self::Packs => "Bound packs",
            Self::Nodes => "Nodes run in a turn",
            Self::Body => "Bytes of a body",
            Self::Replies => "Replies to a turn",
            Self::Replicas => "Replicas",
        }
    }

    /// Those served, and what is said to them, at a point.
    fn scene(self, at: usize, options: &Options) -> (Setup, Talk) {
        let tenants = match self {
            Self::Tenants => (0..at).map(|_| bench_tenant()).collect(),
            Self::Nodes => vec![chain(at)],
            Self::Replies => vec![chorus(at)],
            Self::Waits | Self::Packs | Self::Body | Self::Replicas => vec![bench_tenant()],
        };
        let mut setup = Setup {
            program: options.worker.clone(),
            tenants,
            settings: Vec::new(),
        };
        let mut talk = Talk::with(setup.ids());
        match self {
            Self::Packs => {
                let (tenant, packs) = many_packs(at);
                talk = Talk::with([tenant.id.clone()]).naming(packs);
                setup.tenants = vec![tenant];
            }
            Self::Body => talk = talk.of_bytes(at),
            Self::Replies => talk = talk.answered_by(at),
            Self::Waits | Self::Tenants | Self::Nodes | Self::Replicas => {}
        }
        (setup, talk)
    }
}

/// Draws one curve.
pub async fn draw(curve: Curve, options: &Options) -> std::io::Result<bool> {
    eprintln!("== {}: {:?}", curve.title(), curve.points(options.quick));
    let mut points: Vec<Point> = curve
        .points(options.quick)
        .iter()
        .map(|at| Point {
            at: *at,
            samples: Vec::new(),
            more: Vec::new(),
        })
        .collect();
    for round in 1..=options.rounds() {
        if curve == Curve::Waits {
            waits::round(&mut points, options, load(options)).await;
            continue;
        }
        for point in &mut points {
            let (setup, talk) = curve.scene(point.at, options);
            let processes = if curve == Curve::Replicas {
                point.at
            } else {
                1
            };
            let cast = Cast {
                contender: Contender::Worker,
                processes,
                setup: &setup,
                talk: &talk,
            };
            let sample = take(load(options), cast).await;
            tell(&format!("round {round}, {}", point.at), &sample);
            point.samples.push(sample);
            if round == 1 && matches!(curve, Curve::Tenants | Curve::Packs) {
                point.more = resting(&setup).await;
            }
        }
    }
    publish(curve, &points, options)
}

fn load(options: &Options) -> Load {
    let lengths = options.lengths();
    Load::Closed(Closed {
        conversations: options.conversations,
        warm_up: lengths.warm_up,
        measured: lengths.measured,
    })
}

/// What a worker costs that has nothing to do.
async fn resting(setup: &Setup) -> Vec<(&'static str, f64)> {
    let mut stage = Stage::open().await;
    let began = tokio::time::Instant::now();
    stage.start(Contender::Worker, setup).await;
    let start = began.elapsed().as_secs_f64() * 1e3;
    let (cpu, rss) = at_rest(stage.pids()[0]).await;
    vec![
        ("start to ready, ms", start),
        ("idle, % of a core", cpu),
        ("idle, MB", rss),
    ]
}

fn publish(curve: Curve, points: &[Point], options: &Options) -> std::io::Result<bool> {
    let of = |metric: fn(&Sample) -> f64| -> Vec<f64> {
        let middle = |point: &Point| median(point.samples.iter().map(metric));
        points.iter().map(middle).collect()
    };
    let mut lines = vec![
        Line {
            what: "turns/s",
            values: of(|sample| sample.turns_per_second),
        },
        Line {
            what: "p50, ms",
            values: of(|sample| sample.latency.map_or(f64::NAN, |latency| latency.p50)),
        },
        Line {
            what: "p99, ms",
            values: of(|sample| sample.latency.map_or(f64::NAN, |latency| latency.p99)),
        },
        Line {
            what: "worker, us a turn",
            values: of(|sample| sample.cpu.contender),
        },
        Line {
            what: "Redis, us a turn",
            values: of(|sample| sample.cpu.redis),
        },
    ];
    let more = points.first().map_or(&[][..], |point| &point.more);
    for (n, (what, _)) in more.iter().enumerate() {
        let value = |point: &Point| point.more.get(n).map_or(f64::NAN, |(_, value)| *value);
        let values = points.iter().map(value).collect();
        lines.push(Line { what, values });
    }
    let places: Vec<String> = points.iter().map(|point| point.at.to_string()).collect();
    println!("\n{}", table(curve, &places, &lines));
    let json = json!({ "machine": machine(), "curve": curve, "points": points });
    let name = format!("curve-{}", curve.name());
    let svg = chart::curve(curve.title(), &places, &lines);
    save(&options.folders(), &name, &json, &svg)?;
    let right = |point: &Point| point.samples.iter().all(|sample| sample.faults.none());
    let right = points.iter().all(right);
    if !right {
        println!("replies were lost, doubled or wrong: the figures above do not count");
    }
    Ok(right)
}

fn table(curve: Curve, places: &[String], lines: &[Line<'_>]) -> String {
    let mut table = format!("{:<24}", curve.title());
    // Writing to a text cannot fail.
    for place in places {
        let _ = write!(table, "{place:>10}");
    }
    for line in lines {
        let _ = write!(table, "\n{:<24}", line.what);
        for value in &line.values {
            let _ = write!(table, "{:>10}", figure(*value));
        }
    }
    table
}

/// Takes a sample of a stage that goes on with what is parked there.
pub async fn amid(stage: &Stage, setup: &Setup, load: Load) -> Sample {
    let mut line = crate::load::Line::to(&stage.servers().nats_url).await;
    take_on(stage, &mut line, load, &Talk::with(setup.ids())).await
}
