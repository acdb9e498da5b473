//! A second tenant beside one that attacks: how long its messages take, as a ratio to what they take alone.

use std::time::{Duration, Instant};

use super::{FixturePack, Message, Provider, Servers, Tenant, fresh_tenant};

/// How much slower a neighbour may become while another tenant attacks.
pub const MOST_SLOWDOWN: f64 = 2.0;

/// Messages of one measurement, one after the other.
const SAMPLES: usize = 25;
/// Measurements before a slowdown is believed: other tests run at the same time, so one of them may be unlucky.
const ROUNDS: usize = 4;
/// Shorter latencies count as this one: below it the scheduler of a busy machine decides, and not the worker.
const FLOOR: Duration = Duration::from_millis(10);

/// A tenant that sends one message after the other and waits for each reply.
///
/// ```ignore
/// let neighbour = Neighbour::new();
/// let worker = WorkerProcess::of(&servers).bindings(&attacker).bindings(neighbour.tenant()).start().await;
/// let mut neighbour = neighbour.connect(&servers).await;
/// let slowdown = neighbour.slowdown(async || attack().await, async || attack_is_over().await).await;
/// assert!(slowdown <= MOST_SLOWDOWN, "{slowdown}");
/// ```
pub struct Neighbour {
    tenant: Tenant,
}

/// A neighbour that talks to the worker.
pub struct ConnectedNeighbour {
    provider: Provider,
    _tenant: Tenant,
    sent: usize,
}

impl Neighbour {
    /// A tenant that is bound to a flow of one node.
    pub fn new() -> Self {
        let nodes = "a: {emit.message: {text: \"{{in.text}}\"}, routing: out}";
        Self::running(&FixturePack::of("neighbour", &[("main", nodes)]))
    }

    /// A tenant that is bound to the flow `main` of a pack, which replies once to each message.
    pub fn running(pack: &FixturePack) -> Self {
        Self {
            tenant: fresh_tenant().runs(pack, &["main"], ""),
        }
    }

    /// The tenant, to be bound by the worker.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// Connects it.
    pub async fn connect(self, servers: &Servers) -> ConnectedNeighbour {
        ConnectedNeighbour {
            provider: Provider::connect(servers, &self.tenant).await,
            _tenant: self.tenant,
            sent: 0,
        }
    }
}

impl ConnectedNeighbour {
    /// The median time from publish to reply of some messages, one after the other.
    pub async fn latency(&mut self) -> Duration {
        let mut took = Vec::with_capacity(SAMPLES);
        for _ in 0..SAMPLES {
            self.sent += 1;
            let message = Message::new("neighbour", &self.sent.to_string());
            let began = Instant::now();
            self.provider.send(&message).await;
            self.provider.expect_text(&self.sent.to_string()).await;
            took.push(began.elapsed());
        }
        took.sort_unstable();
        took[SAMPLES / 2]
    }

    /// The latency while an attack is under way, as a ratio to the latency alone: the lowest of some rounds, or the first
    /// that is low enough. `attack` returns once it is under way; `over` once its last effect has passed.
    pub async fn slowdown(
        &mut self,
        mut attack: impl AsyncFnMut(),
        mut over: impl AsyncFnMut(),
    ) -> f64 {
        // The first messages of a worker open connections and load scripts.
        self.latency().await;
        let mut lowest = f64::INFINITY;
        for round in 1..=ROUNDS {
            let alone = self.latency().await;
            attack().await;
            let beside = self.latency().await;
            over().await;
            let ratio = beside.max(FLOOR).div_duration_f64(alone.max(FLOOR));
            eprintln!("round {round}: alone {alone:?}, beside {beside:?}, ratio {ratio:.2}");
            lowest = lowest.min(ratio);
            if lowest <= MOST_SLOWDOWN {
                break;
            }
        }
        lowest
    }
}
