//! The composition root: connect, build the adapters, start the worker, drain.

mod assembly;
mod backlog;
mod bounds;
mod config;
mod control;
mod embedding;
mod left_out;
mod limits;
mod load;
mod reload;
mod threads;
mod unserved;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use config::{TenantLimits, turn_config, worker_config};
pub use control::Control;
pub use embedding::Embedding;
pub use left_out::{Effect, LeftOut, Unusable};
pub use load::{Loaded, Loader, load};
pub(crate) use load::{load_with, prepare};
pub use reload::Reloading;
pub use threads::TurnThreads;

use crate::adapters::compute::ComputePool;
#[cfg(feature = "it")]
use crate::adapters::kill_points::{Fuse, KillAt, Mortal};
use crate::adapters::nats::{self, Nats, UNREADABLE_HEADERS};
use crate::adapters::patience::wait_for;
use crate::adapters::redis::{self, RedisStore};
use crate::adapters::system::{RandomIds, SystemClock};
use crate::model::{Problems, TenantId};
use crate::ports::{Inbound, Publisher, StoreError, TransportError, TurnStore};
use crate::registry::Live;
use crate::settings::Settings;
use crate::telemetry::{HEARTBEAT, Health, Metrics, Refused};
use crate::turn::{AwaitedPacks, Outage, RefusedPart, Server, Turns};
use crate::worker::{self, Drained, Worker};

/// How often the connections are looked at for readiness.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a stopping worker waits for its last acks to leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a worker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no way to NATS.
    #[error(transparent)]
    Nats(#[from] nats::ConnectError),
    /// NATS stopped answering while the streams were looked at.
    #[error("the streams cannot be made or checked: {0}")]
    Prepare(#[from] TransportError),
    /// The servers are not what the worker needs.
    #[error("{0}")]
    Streams(Problems),
    /// Redis stopped answering while the scripts were tried out.
    #[error("the scripts cannot be tried out: {0}")]
    Scripts(#[from] StoreError),
    /// There is no way to Redis.
    #[error(transparent)]
    Redis(#[from] redis::ConnectError),
    /// The operator's endpoint cannot be opened.
    #[error(
        "cannot listen on {address}; set `http.listen` to a free address, or to port 0 for any free port"
    )]
    Listen {
        /// The address in the settings.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// There are no threads for runs that compute for long.
    #[error("the compute threads cannot be started (`worker.compute_threads`): {0}")]
    Compute(#[source] io::Error),
}

/// A worker with everything connected and bound, ready to run. Its turns go through the ports `I`, `S` and `P`.
pub struct App<I = Nats, S = RedisStore, P = Nats> {
    worker: Worker<I, S, P>,
    nats: Arc<Nats>,
    redis: Arc<RedisStore>,
    health: Arc<Health>,
    outage: Outage,
    metrics: Arc<Metrics>,
    live: Arc<Live>,
    stopped: watch::Sender<Vec<TenantId>>,
    unserved_every: Duration,
    backlog_every: Duration,
}

impl App {
    /// Connects to NATS and Redis, and makes or checks the streams. Nothing is pulled yet. What was loaded runs first; what
    /// comes beside the worker looks for changes.
    pub async fn build(
        settings: &Settings,
        loaded: (Loader, Loaded),
        control: &Control,
    ) -> Result<(Self, Reloading), StartError> {
        let ports = |nats: &Arc<Nats>, redis: &Arc<RedisStore>| Ports {
            inbound: Arc::clone(nats),
            store: Arc::clone(redis),
            publisher: Arc::clone(nats),
        };
        Self::build_on(settings, loaded, control, ports).await
    }
}

#[cfg(feature = "it")]
impl App<Mortal<Nats>, Mortal<RedisStore>, Mortal<Nats>> {
    /// As [`App::build`], but dies when it is told to.
    pub async fn build_mortal(
        settings: &Settings,
        loaded: (Loader, Loaded),
        control: &Control,
        kill_at: KillAt,
    ) -> Result<(Self, Reloading), StartError> {
        let fuse = Fuse::new(kill_at);
        let ports = |nats: &Arc<Nats>, redis: &Arc<RedisStore>| Ports {
            inbound: Mortal::new(nats, &fuse),
            store: Mortal::new(redis, &fuse),
            publisher: Mortal::new(nats, &fuse),
        };
        Self::build_on(settings, loaded, control, ports).await
    }
}

/// What a worker's turns go through.
struct Ports<I, S, P> {
    inbound: Arc<I>,
    store: Arc<S>,
    publisher: Arc<P>,
}

impl<I: Inbound, S: TurnStore, P: Publisher> App<I, S, P> {
    async fn build_on(
        settings: &Settings,
        (loader, loaded): (Loader, Loaded),
        control: &Control,
        ports: impl FnOnce(&Arc<Nats>, &Arc<RedisStore>) -> Ports<I, S, P>,
    ) -> Result<(Self, Reloading), StartError> {
        let (nats, redis) = tokio::join!(
            Nats::connect(&settings.nats, &settings.environment),
            RedisStore::connect(&settings.redis)
        );
        let (nats, redis) = (Arc::new(nats?), Arc::new(redis?));
        for warning in redis.warnings().await {
            tracing::warn!(problems = %warning, "this is legal, but perhaps not meant");
        }
        let tenants = loaded.registry.tenants().into_iter().cloned().collect();
        let tenants: Vec<TenantId> = tenants;
        report(nats.prepare(&tenants).await?)?;
        report(settings.validate_streams(&nats.windows()))?;
        report(try_scripts(&redis, settings, &tenants).await?)?;
        let (health, metrics) = (Arc::clone(&control.health), Arc::clone(&control.metrics));
        let compute = metrics.compute().clone();
        let compute = ComputePool::start(settings.worker.compute_threads, compute);
        let outage = Outage::default();
        let Ports {
            inbound,
            store,
            publisher,
        } = ports(&nats, &redis);
        let memory = loader.memory().clone();
        let loader = Arc::new(loader);
        loaded.left_out.show(&loaded.registry, &metrics, &health);
        let live = Arc::new(loader.put_in_force(loaded.registry));
        let turns = Turns {
            store,
            publisher,
            registry: Arc::clone(&live),
            components: loaded.components,
            clock: Arc::new(SystemClock),
            compute: Arc::new(compute.map_err(StartError::Compute)?),
            ids: Arc::new(RandomIds),
            outage: outage.clone(),
            awaited: AwaitedPacks::default(),
            config: turn_config(settings),
        };
        let config = worker_config(settings, &tenants);
        let stopped = watch::Sender::new(loaded.left_out.stopped().cloned().collect());
        let worker = Worker::new(inbound, turns, Arc::clone(&metrics), config).within(memory);
        let reloading = Reloading {
            loader,
            live: Arc::clone(&live),
            nats: Arc::clone(&nats),
            redis: Arc::clone(&redis),
            env: settings.environment.clone(),
            served: worker.served(),
            limits: TenantLimits::of(settings),
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            stopped: stopped.clone(),
            every: settings.reload.every,
            seen: loaded.seen,
            owners: loaded.owners,
            left_out: loaded.left_out,
        };
        let app = Self {
            worker,
            nats,
            redis,
            health,
            outage,
            metrics,
            live,
            stopped,
            unserved_every: settings.nats.unserved_every,
            backlog_every: settings.nats.backlog_every,
        };
        Ok((app, reloading))
    }

    /// Works until `stop` is cancelled, then drains and closes the connections.
    pub async fn run(self, stop: CancellationToken) -> Drained {
        let Self {
            worker,
            nats,
            redis,
            health,
            outage,
            metrics,
            live,
            stopped,
            unserved_every,
            backlog_every,
        } = self;
        let over = CancellationToken::new();
        let backlog = backlog::watch(
            Arc::clone(&nats),
            Arc::clone(&live),
            Arc::clone(&metrics),
            backlog_every,
        );
        let (running, shown) = (stop.clone(), Arc::clone(&metrics));
        tokio::spawn(async move {
            running.run_until_cancelled_owned(backlog).await;
            shown.backlog().clear();
        });
        let unserved = unserved::watch(
            Arc::clone(&nats),
            live,
            Arc::clone(&metrics),
            stopped,
            unserved_every,
        );
        tokio::spawn(stop.clone().run_until_cancelled_owned(unserved));
        let look = Look {
            nats: Arc::clone(&nats),
            redis,
            outage,
            health: Arc::clone(&health),
            metrics,
            served: worker.served(),
        }
        .on();
        tokio::spawn(over.clone().run_until_cancelled_owned(look));
        let beat = beat(Arc::clone(&health));
        tokio::spawn(over.clone().run_until_cancelled_owned(beat));
        health.started();
        tracing::info!("started");
        let drained = worker.run(stop).await;
        if let Err(error) = nats.close(CLOSE_TIMEOUT).await {
            tracing::warn!(%error, "the last acks may not have left; their messages come again and change nothing");
        }
        over.cancel();
        drained
    }
}

/// Tries out the scripts for as long as a start waits for Redis: a server that takes no writes, for its memory or its disk is full
/// or another one is in charge, may take them again.
async fn try_scripts(
    redis: &RedisStore,
    settings: &Settings,
    tenants: &[TenantId],
) -> Result<Problems, StoreError> {
    let patience = settings.redis.connect_timeout;
    let tried = wait_for("Redis", patience, async || {
        match redis.prepare(&settings.environment, tenants).await {
            Err(error @ StoreError::Unavailable(_)) => Ok(Err(error)),
            answer => answer.map(Ok),
        }
    });
    tried.await?
}

/// Tells what is not as the settings want it; errors stop the start.
fn report(problems: Problems) -> Result<(), StartError> {
    if problems.has_errors() {
        return Err(StartError::Streams(problems));
    }
    for warning in problems {
        tracing::warn!(problems = %warning, "this is legal, but perhaps not meant");
    }
    Ok(())
}

/// What readiness depends on.
struct Look {
    nats: Arc<Nats>,
    redis: Arc<RedisStore>,
    outage: Outage,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    served: watch::Sender<worker::Served>,
}

impl Look {
    /// Keeps readiness true to the facts: both servers answer, no turn waits for them, and somebody is served.
    async fn on(self) {
        let (outage, health) = (&self.outage, &self.health);
        loop {
            health.nats_up(!outage.is_away(Server::Nats) && self.nats.is_connected());
            let answers = !outage.is_away(Server::Redis) && self.redis.probe().await.is_ok();
            health.redis_up(answers);
            self.refusals();
            self.metrics.replies_dropped(self.nats.dropped_replies());
            for (tenant, waits) in self.redis.expired_waits() {
                self.metrics.waits_expired(&tenant, waits);
            }
            for (tenant, messages) in self.nats.dead_lettered() {
                self.metrics
                    .dead_lettered(&tenant, UNREADABLE_HEADERS, messages);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn refusals(&self) {
        let refusals = self.outage.refusals();
        let is_stopped = |tenant: &TenantId| {
            let mut of_tenant = refusals.iter().filter(|refused| refused.tenant == *tenant);
            of_tenant.any(|refused| refused.part.stops_the_tenant())
        };
        let served = self.served.borrow();
        let nobody = !served.is_empty() && served.iter().all(|(tenant, _)| is_stopped(tenant));
        drop(served);
        let told = |refused: &RefusedPart| Refused {
            tenant: refused.tenant.to_string(),
            part: refused.part.as_str(),
            reason: refused.reason.as_str(),
            detail: refused.detail.clone(),
        };
        let refused: Vec<Refused> = refusals.iter().map(told).collect();
        self.metrics.refused(&refused);
        self.health.refused(refused, nobody);
    }
}

/// Shows that the threads that turns run on come round.
async fn beat(health: Arc<Health>) {
    loop {
        health.heartbeat();
        tokio::time::sleep(HEARTBEAT).await;
    }
}
