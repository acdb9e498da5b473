//! Which fault comes when: made from the seed alone, before anything runs.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use crate::proxy::Mode;
use crate::refusal::{self, Refusal};

/// How many workers there are.
pub const WORKERS: usize = 3;
/// How many tenants there are: all of them use the same ids for their users, conversations and messages.
pub const TENANTS: usize = 2;
/// The settings that faults are measured by.
pub const LEASE: Duration = Duration::from_secs(3);

/// Something of which only one fault at a time is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A worker process.
    Worker(usize),
    /// A server process.
    Server(Server),
    /// The way from a worker to a server.
    Link(usize, Server),
    /// The rules by which a server takes or refuses something.
    Rules(Server),
}

/// One of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Server {
    /// nats-server.
    Nats,
    /// redis-server.
    Redis,
}

/// What is done to a target; for how long, the plan says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL, then a new start.
    Kill,
    /// SIGTERM, then a new start.
    Term,
    /// SIGSTOP, then SIGCONT.
    Stop,
    /// All connections are closed once.
    Cut,
    /// The proxy misbehaves.
    Misbehave(Mode),
    /// Another server takes its place; the ways lead there a little later.
    Failover,
    /// The server is well and refuses something.
    Refuse(Refusal),
}

/// A fault of the plan.
#[derive(Clone, Debug)]
pub struct Fault {
    /// When, since the faults began.
    pub at: Duration,
    /// How long until the target is let go again.
    pub lasts: Duration,
    /// What is done to all targets.
    pub blow: Blow,
    /// To whom.
    pub targets: Vec<Target>,
    /// What kind it is counted as.
    pub kind: &'static str,
    /// Nothing else is wrong meanwhile, so that it shows who goes on.
    pub alone: bool,
}

/// The kinds of faults. A round of the plan has each once, so a short run meets all of them.
const KINDS: &[&str] = &[
    "worker SIGKILL",
    "worker SIGTERM",
    "worker SIGSTOP, shorter than the lease",
    "worker SIGSTOP, longer than the lease",
    "all workers SIGKILL",
    "nats SIGKILL",
    "nats SIGTERM",
    "nats SIGSTOP",
    "redis SIGKILL",
    "redis SIGTERM",
    "redis SIGSTOP",
    "nats link cut",
    "nats link refused",
    "nats link delayed",
    "nats link stalled",
    "nats link half-open",
    "nats link without answers",
    "redis link cut",
    "redis link refused",
    "redis link delayed",
    "redis link stalled",
    "redis link half-open",
    "redis link without answers",
    "redis failover",
];

/// The faults of a run of this length, of the kinds that hold one of these words; of all kinds if there are none.
pub fn plan(seed: u64, length: Duration, only: &[String]) -> Vec<Fault> {
    let mut kinds = [KINDS, refusal::KINDS].concat();
    kinds.retain(|kind| only.is_empty() || only.iter().any(|word| kind.contains(word)));
    let mut rng = Rng::with_seed(seed);
    let mut free_at: HashMap<Target, Duration> = HashMap::new();
    let mut faults = Vec::new();
    let mut deck: Vec<&'static str> = Vec::new();
    let mut at = Duration::from_secs(2);
    while at < length {
        if deck.is_empty() {
            deck.clone_from(&kinds);
            rng.shuffle(&mut deck);
        }
        let is_free = |kind: &&str, rng: &mut Rng| {
            Some(choose(kind, rng)).filter(|(targets, ..)| {
                targets
                    .iter()
                    .all(|target| free_at.get(target).is_none_or(|free| *free < at))
            })
        };
        // The next kind of the round whose targets are free; if none is, time goes on.
        let next = (0..deck.len()).find_map(|n| Some((n, is_free(&deck[n], &mut rng)?)));
        if let Some((n, (targets, blow, lasts))) = next {
            let alone = is_of_one_tenant(blow) && rng.bool();
            if alone {
                let all_free = free_at.values().max();
                at = at.max(all_free.copied().unwrap_or_default());
            }
            // A moment for the target to get going before it is hit again.
            let free = at + lasts + Duration::from_millis(rng.u64(300..1500));
            free_at.extend(targets.iter().map(|target| (*target, free)));
            let kind = deck.remove(n);
            faults.push(Fault {
                at,
                lasts,
                blow,
                targets,
                kind,
                alone,
            });
            at += if alone { lasts } else { Duration::ZERO };
        }
        at += Duration::from_millis(rng.u64(300..3200));
    }
    faults
}

fn is_of_one_tenant(blow: Blow) -> bool {
    matches!(blow, Blow::Refuse(refusal) if refusal.tenant().is_some())
}

fn choose(kind: &str, rng: &mut Rng) -> (Vec<Target>, Blow, Duration) {
    let millis = |rng: &mut Rng, range: std::ops::Range<u64>| Duration::from_millis(rng.u64(range));
    let lease = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
    let worker = Target::Worker(rng.usize(..WORKERS));
    let server = if kind.starts_with("nats") {
        Server::Nats
    } else {
        Server::Redis
    };
    let (who, what) = kind.split_once(' ').unwrap_or((kind, ""));
    let signal = |rng: &mut Rng, down| (millis(rng, down), what);
    if let Some(refusal) = Refusal::of_kind(kind, rng.usize(..TENANTS)) {
        let rules = vec![Target::Rules(refusal.server())];
        return (rules, Blow::Refuse(refusal), millis(rng, 1000..7000));
    }
    match who {
        "all" => {
            let all = (0..WORKERS).map(Target::Worker).collect();
            (all, Blow::Kill, millis(rng, 100..2500))
        }
        "worker" => {
            let (lasts, blow) = match what {
                "SIGKILL" => (millis(rng, 50..2500), Blow::Kill),
                "SIGTERM" => (millis(rng, 50..1500), Blow::Term),
                "SIGSTOP, shorter than the lease" => (millis(rng, 100..lease * 2 / 3), Blow::Stop),
                _ => (millis(rng, lease * 4 / 3..lease * 5 / 2), Blow::Stop),
            };
            (vec![worker], blow, lasts)
        }
        _ if what.starts_with("SIG") => {
            let (lasts, what) = signal(rng, 50..4000);
            let blow = match what {
                "SIGKILL" => Blow::Kill,
                "SIGTERM" => Blow::Term,
                _ => Blow::Stop,
            };
            (vec![Target::Server(server)], blow, lasts)
        }
        _ if what == "failover" => {
            let lasts = millis(rng, 100..3000);
            (vec![Target::Server(server)], Blow::Failover, lasts)
        }
        _ => {
            let links = if rng.u8(..10) < 3 {
                (0..WORKERS)
                    .map(|worker| Target::Link(worker, server))
                    .collect()
            } else {
                vec![Target::Link(rng.usize(..WORKERS), server)]
            };
            let lasts = millis(rng, 500..7000);
            let blow = match what {
                "link cut" => return (links, Blow::Cut, Duration::ZERO),
                "link refused" => Mode::Refuse,
                "link delayed" => Mode::Delay(millis(rng, 20..1200)),
                "link stalled" => Mode::Stall,
                "link half-open" => Mode::Swallow,
                _ => Mode::SwallowAnswers,
            };
            (links, Blow::Misbehave(blow), lasts)
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let targets: Vec<String> = if let Blow::Refuse(refusal) = self.blow {
            vec![refusal.to_string()]
        } else {
            self.targets.iter().map(Target::to_string).collect()
        };
        let (kind, lasts) = (self.kind, self.lasts.as_secs_f64());
        let alone = if self.alone { ", and nothing else" } else { "" };
        write!(f, "{kind} for {lasts:.1} s: {}{alone}", targets.join(", "))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(n) => write!(f, "worker {}", n + 1),
            Self::Server(server) => write!(f, "{server}"),
            Self::Rules(server) => write!(f, "the rules of {server}"),
            Self::Link(n, server) => write!(f, "worker {} to {server}", n + 1),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nats => "nats",
            Self::Redis => "redis",
        })
    }
}
