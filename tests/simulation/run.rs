//! One run: workers come and go, users talk, then the faults end and everything must come to rest.

use std::sync::Arc;
use std::time::Duration;

use greentic_worker::adapters::compute::InlineCompute;
use greentic_worker::adapters::memory::{Act, PlayedComponents};
use greentic_worker::model::{EnvId, TenantId};
use greentic_worker::ports::{ComponentError, ComponentOutput, NewId, Publisher, TurnStore};
use greentic_worker::registry::Live;
use greentic_worker::telemetry::{Health, Metrics};
use greentic_worker::turn::{self, AwaitedPacks, Outage, RetryPolicy, Turns};
use greentic_worker::worker::{self, Worker};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::flows::{Registries, TENANTS};
use super::net::{Net, NetPort};
use super::operator::Operator;
use super::process::Process;
use super::store::{Store, StorePort};
use super::users::{Kind, Sendings, Sent, Talk};
use super::world::{ACK_WAIT, ATTEMPTS, DUPLICATE_WINDOW, LEASE, Plan, SimClock, SimIds, World};

/// How long everything may take to come to rest once nothing fails any more.
const REST: Duration = Duration::from_secs(900);
/// How often an operator replays what was dead-lettered, at the most.
const REPLAYS: usize = 5;
/// How long a message may be without its pack: longer than a run takes, in which there always is a worker with each.
const GONE_AFTER: Duration = Duration::from_secs(24 * 3_600);
const WAIT_TTL: Duration = Duration::from_secs(7 * 24 * 3_600);

/// What is left of a run for the checks.
pub struct Outcome {
    pub world: Arc<World>,
    pub net: Arc<Net>,
    pub store: Arc<Store<SimClock>>,
    pub sent: Vec<Sent>,
    pub at_rest: bool,
}

/// Runs a seed to its end, its plan changed.
pub async fn run(seed: u64, change: fn(&mut Plan), registries: &Registries) -> Outcome {
    let world = Arc::new(World::new(seed, change));
    world.note(format!("{:?}", world.plan));
    let net = Net::new(Arc::clone(&world));
    let store = Store::new(SimClock(Arc::clone(&world)));
    let over = CancellationToken::new();
    let mut keepers = JoinSet::new();
    for slot in 0..world.plan.workers {
        let place = Workplace {
            world: Arc::clone(&world),
            net: Arc::clone(&net),
            store: Arc::clone(&store),
            // A roll-out has reached all but the first.
            registry: Arc::clone(&registries.alone[usize::from(world.plan.roll_out && slot > 0)]),
        };
        keepers.spawn(place.keep_manned(slot, over.clone()));
    }
    let sendings = talk(&world, &net).await;
    world.end_faults();
    let mut at_rest = rest(&net).await;

    // What comes again when the streams have forgotten it must still be known to the store.
    sleep(DUPLICATE_WINDOW + LEASE).await;
    let sent = sendings.all();
    for message in sent.iter().filter(|sent| sent.kind == Kind::Plain) {
        if world.odds(200) {
            message.send(&net);
        }
    }
    at_rest &= rest(&net).await;
    at_rest &= replay(&world, &net).await;
    sleep(LEASE + ACK_WAIT).await;
    over.cancel();
    while keepers.join_next().await.is_some() {}
    Outcome {
        world,
        net,
        store,
        sent,
        at_rest,
    }
}

/// All conversations of a run.
async fn talk(world: &Arc<World>, net: &Arc<Net>) -> Arc<Sendings> {
    let sendings = Arc::new(Sendings::default());
    let mut talks = JoinSet::new();
    for tenant in &TENANTS[..world.plan.tenants] {
        for number in 0..world.plan.conversations {
            let talk = Talk {
                world: Arc::clone(world),
                net: Arc::clone(net),
                sendings: Arc::clone(&sendings),
                tenant: TenantId::new(tenant).expect("a tenant"),
                number,
            };
            talks.spawn(talk.run());
        }
    }
    while talks.join_next().await.is_some() {}
    // Copies may still be on their way.
    sleep(Duration::from_secs(8)).await;
    sendings
}

/// Has dead letters replayed until nothing is left of them that a replay could mend; tells whether everything came to rest.
async fn replay(world: &Arc<World>, net: &Arc<Net>) -> bool {
    let mut operator = Operator::new(world, net);
    for _ in 0..REPLAYS {
        // A claim may still be on the wire that was made when the message was dead-lettered already.
        sleep(LEASE + ACK_WAIT).await;
        if !operator.replay() {
            return true;
        }
        if !rest(net).await {
            return false;
        }
    }
    world.note("there is always something to replay");
    false
}

/// Waits until all messages are settled; tells whether they are.
async fn rest(net: &Net) -> bool {
    let settled = async {
        while net.unsettled() > 0 {
            sleep(Duration::from_millis(500)).await;
        }
    };
    timeout(REST, settled).await.is_ok()
}

/// Where a worker runs, and another one after it.
struct Workplace {
    world: Arc<World>,
    net: Arc<Net>,
    store: Arc<Store<SimClock>>,
    registry: Arc<Live>,
}

impl Workplace {
    /// Starts a worker, ends it in one way or another while there are faults, and starts the next.
    async fn keep_manned(self, slot: usize, over: CancellationToken) {
        let world = Arc::clone(&self.world);
        for generation in 0.. {
            let process = Process::new(slot + 10 * generation, Arc::clone(&world));
            let stop = CancellationToken::new();
            let mut working = tokio::spawn(self.worker(&process).run(stop.clone()));
            let life = sleep(world.millis(100..60_000));
            tokio::select! {
                biased;
                () = process.dead.cancelled() => {}
                () = over.cancelled() => {
                    stop.cancel();
                    let _ = timeout(REST, working).await;
                    return;
                }
                () = self.end_some_time(life, &process, &stop) => {
                    // It drains, unless it dies meanwhile.
                    tokio::select! {
                        biased;
                        () = process.dead.cancelled() => {}
                        drained = &mut working => world.note(format!("worker {} is drained: {drained:?}", process.number)),
                    }
                }
            }
            sleep(world.millis(50..3_000)).await;
        }
    }

    /// Ends a worker when its time has come: stops it or kills it; for ever if nothing fails any more.
    async fn end_some_time(
        &self,
        life: impl Future<Output = ()>,
        process: &Process,
        stop: &CancellationToken,
    ) {
        life.await;
        if !self
            .world
            .chance(if self.world.plan.crash > 0 { 700 } else { 0 })
        {
            return std::future::pending().await;
        }
        if self.world.odds(500) {
            self.world
                .note(format!("worker {} is told to stop", process.number));
            stop.cancel();
        } else {
            process.die("at its time");
            std::future::pending().await
        }
    }

    fn worker(&self, process: &Arc<Process>) -> Worker<NetPort, StorePort<SimClock>, NetPort> {
        let (net, process) = (Arc::clone(&self.net), Arc::clone(process));
        let port = || NetPort {
            process: Arc::clone(&process),
            net: Arc::clone(&net),
        };
        let store = StorePort {
            process: Arc::clone(&process),
            store: Arc::clone(&self.store),
        };
        let world = Arc::clone(&self.world);
        let clock = Arc::new(SimClock(Arc::clone(&world)));
        let mut turns = turns(
            Arc::new(store),
            port(),
            &self.registry,
            clock,
            Arc::new(SimIds(Arc::clone(&world))),
        );
        turns.components = Arc::new(backend(&world));
        turns.config.bounds.quotas.waits_per_user = world.plan.waits_per_user;
        let tenants = TENANTS.map(|tenant| (TenantId::new(tenant).expect("a tenant"), 8));
        let config = worker::Config {
            slots: 8,
            tenant_queue: 8,
            tenants: tenants[..world.plan.tenants].to_vec(),
            progress_every: ACK_WAIT / 3,
            drain_timeout: Duration::from_secs(1),
            apology: None,
        };
        let health = Arc::new(Health::new(Duration::from_secs(60)));
        let metrics = Arc::new(Metrics::new(health));
        Worker::new(Arc::new(port()), turns, metrics, config)
    }
}

/// What stands for the components: a backend that is mostly down for as long as there are faults.
fn backend(world: &Arc<World>) -> PlayedComponents {
    let world = Arc::clone(world);
    PlayedComponents::new(move |call, _| {
        let is_down = world.chance(900);
        world.count(match is_down {
            true => "calls of a backend that is down",
            false => "calls of a backend",
        });
        match is_down {
            true => Act::Fail(ComponentError::Trap {
                component: call.invocation.component.clone(),
                reason: "the backend is down".to_owned(),
            }),
            false => answered(),
        }
    })
}

fn answered() -> Act {
    Act::Done(ComponentOutput {
        value: serde_json::json!({}),
        state: Vec::new(),
    })
}

/// The turns, on any ports, with a backend that is there.
pub fn turns<S: TurnStore, P: Publisher, C: greentic_worker::ports::Clock>(
    store: Arc<S>,
    publisher: P,
    registry: &Arc<Live>,
    clock: Arc<C>,
    ids: Arc<dyn NewId>,
) -> Turns<S, P> {
    Turns {
        store,
        publisher: Arc::new(publisher),
        registry: Arc::clone(registry),
        components: Arc::new(PlayedComponents::new(|_, _| answered())),
        compute: Arc::new(InlineCompute),
        clock,
        ids,
        outage: Outage::default(),
        awaited: AwaitedPacks::default(),
        config: turn::Config {
            env: EnvId::new("dev").expect("an environment"),
            payload_bytes: 1024 * 1024,
            retry: RetryPolicy {
                attempts: ATTEMPTS,
                initial: Duration::from_millis(100),
                max: Duration::from_secs(1),
            },
            turn_timeout: Duration::from_secs(10),
            lease_ttl: LEASE,
            wait_ttl: WAIT_TTL,
            gone_after: GONE_AFTER,
            bounds: turn::Bounds::default(),
        },
    }
}
