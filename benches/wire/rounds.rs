//! Worker against bare loop, in rounds: A B A B, so that whatever else the machine does befalls both.

use serde::Serialize;

use crate::load::{Closed, Open};
use crate::packs::bench_tenant;
use crate::sample::{Cast, Lengths, Load, Sample, median, take, tell};
use crate::stage::{Contender, Setup};
use crate::talk::Talk;
use crate::{Options, Part};

/// The samples of one load that one contender bore, one a round.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// Which load.
    pub load: &'static str,
    /// Who bore it.
    pub contender: Contender,
    /// In how many processes.
    pub processes: usize,
    /// Messages a second, where that was fixed.
    pub rate: Option<f64>,
    /// The samples.
    pub samples: Vec<Sample>,
}

/// Holds all rounds that are asked for.
pub struct Rounds<'a> {
    options: &'a Options,
    lengths: Lengths,
    setup: Setup,
    talk: Talk,
    series: Vec<Series>,
}

impl<'a> Rounds<'a> {
    /// Holds them.
    pub async fn hold(options: &'a Options) -> Vec<Series> {
        let setup = Setup {
            program: options.worker.clone(),
            tenants: vec![bench_tenant()],
            settings: Vec::new(),
        };
        let mut rounds = Self {
            options,
            lengths: options.lengths(),
            talk: Talk::with(setup.ids()),
            setup,
            series: Vec::new(),
        };
        let mut closed = Vec::new();
        if options.wants(Part::Closed) || options.wants(Part::Two) {
            closed.extend([(Contender::BareLoop, 1), (Contender::Worker, 1)]);
        }
        if options.wants(Part::Two) {
            closed.extend([(Contender::BareLoop, 2), (Contender::Worker, 2)]);
        }
        let load = rounds.closed_loop();
        rounds.interleave("closed", load, &closed).await;
        let one = [(Contender::BareLoop, 1), (Contender::Worker, 1)];
        if options.wants(Part::Open) {
            let load = rounds.half_of_capacity().await;
            rounds.interleave("open", load, &one).await;
        }
        if options.wants(Part::Backlog) {
            let load = Load::Backlog(options.backlog());
            rounds.interleave("backlog", load, &one).await;
        }
        rounds.series
    }

    fn closed_loop(&self) -> Load {
        Load::Closed(Closed {
            conversations: self.options.conversations,
            warm_up: self.lengths.warm_up,
            measured: self.lengths.measured,
        })
    }

    /// Half of what the bare loop can do: measured already, or for this.
    async fn half_of_capacity(&self) -> Load {
        let bare = self.series.iter().find(|series| {
            (series.load, series.contender, series.processes) == ("closed", Contender::BareLoop, 1)
        });
        let capacity = match bare {
            Some(bare) => median(bare.samples.iter().map(|sample| sample.turns_per_second)),
            None => {
                let sample = take(self.closed_loop(), self.cast(Contender::BareLoop, 1)).await;
                sample.turns_per_second
            }
        };
        Load::Open(Open {
            rate: capacity / 2.0,
            warm_up: self.lengths.warm_up,
            measured: self.lengths.measured,
        })
    }

    async fn interleave(&mut self, name: &'static str, load: Load, who: &[(Contender, usize)]) {
        let rate = match load {
            Load::Open(plan) => Some(plan.rate),
            Load::Closed(_) | Load::Backlog(_) => None,
        };
        let mut series: Vec<Series> = who
            .iter()
            .map(|(contender, processes)| Series {
                load: name,
                contender: *contender,
                processes: *processes,
                rate,
                samples: Vec::new(),
            })
            .collect();
        if !series.is_empty() {
            eprintln!("== {name}: {load:?}");
        }
        for round in 1..=self.options.rounds() {
            for one in &mut series {
                let sample = take(load, self.cast(one.contender, one.processes)).await;
                let (contender, processes) = (one.contender, one.processes);
                tell(
                    &format!("round {round}, {contender:?} x{processes}"),
                    &sample,
                );
                one.samples.push(sample);
            }
        }
        self.series.append(&mut series);
    }

    fn cast(&self, contender: Contender, processes: usize) -> Cast<'_> {
        Cast {
            contender,
            processes,
            setup: &self.setup,
            talk: &self.talk,
        }
    }
}
