//! The composition root: connect, build the adapters, start the worker, drain.

mod assembly;
mod bounds;
mod load;
mod reload;
mod unserved;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use load::{LeftOut, Loaded, Loader, load};
pub(crate) use load::{load_with, prepare};
use reload::Reloading;
use tokio::net::TcpListener;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use crate::adapters::bus::{Bus, Published};
use crate::adapters::http::{self, Endpoint, Listen};
#[cfg(feature = "it")]
use crate::adapters::kill_points::{Fuse, KillAt, Mortal};
use crate::adapters::memory::MemoryStore;
use crate::adapters::nats::{self, Nats};
use crate::adapters::redis::{self, RedisStore};
use crate::adapters::system::{RandomIds, SystemClock};
use crate::model::{Problems, TenantId};
use crate::ports::{Inbound, Publisher, StoreError, TransportError, TurnStore};
use crate::registry::Live;
use crate::settings::Settings;
use crate::telemetry::{Health, Metrics, Refused};
use crate::turn::{self, Outage, RefusedPart, RetryPolicy, Server, Turns};
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
    #[error("cannot listen on {address} (`http.listen`): {source}")]
    Listen {
        /// The address in the settings.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// A worker with everything connected and bound, ready to run. Its turns go through the ports `I`, `S` and `P`.
pub struct App<I = Nats, S = RedisStore, P = Nats> {
    worker: Worker<I, S, P>,
    nats: Arc<Nats>,
    redis: Arc<RedisStore>,
    http: Option<TcpListener>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    outage: Outage,
    reloading: Reloading,
    unserved_every: Duration,
}

impl App {
    /// Connects to NATS and Redis, makes or checks the streams, and binds the endpoint. Nothing is pulled yet. What was
    /// loaded runs first; from then on the loader looks for changes.
    pub async fn build(
        settings: &Settings,
        loader: Loader,
        loaded: Loaded,
    ) -> Result<Self, StartError> {
        let ports = |nats: &Arc<Nats>, redis: &Arc<RedisStore>| Ports {
            inbound: Arc::clone(nats),
            store: Arc::clone(redis),
            publisher: Arc::clone(nats),
        };
        Self::build_on(settings, (loader, loaded), ports).await
    }
}

#[cfg(feature = "it")]
impl App<Mortal<Nats>, Mortal<RedisStore>, Mortal<Nats>> {
    /// As [`App::build`], but dies when it is told to.
    pub async fn build_mortal(
        settings: &Settings,
        (loader, loaded): (Loader, Loaded),
        kill_at: KillAt,
    ) -> Result<Self, StartError> {
        let fuse = Fuse::new(kill_at);
        let ports = |nats: &Arc<Nats>, redis: &Arc<RedisStore>| Ports {
            inbound: Mortal::new(nats, &fuse),
            store: Mortal::new(redis, &fuse),
            publisher: Mortal::new(nats, &fuse),
        };
        Self::build_on(settings, (loader, loaded), ports).await
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
        ports: impl FnOnce(&Arc<Nats>, &Arc<RedisStore>) -> Ports<I, S, P>,
    ) -> Result<Self, StartError> {
        let (nats, redis) = tokio::join!(
            Nats::connect(&settings.nats),
            RedisStore::connect(&settings.redis)
        );
        let (nats, redis) = (Arc::new(nats?), Arc::new(redis?));
        for warning in redis.warnings().await {
            tracing::warn!("{warning}");
        }
        let tenants = loaded.registry.tenants().into_iter().cloned().collect();
        let tenants: Vec<TenantId> = tenants;
        report(nats.prepare(&tenants).await?)?;
        report(redis.prepare(&settings.environment, &tenants).await?)?;
        let http = listen(settings.http.listen).await?;
        if let Some(address) = http.as_ref().and_then(|http| http.local_addr().ok()) {
            loaded.components.keep_from(address);
        }

        let health = Arc::new(Health::new(settings.http.stalled_after));
        let metrics = Arc::new(
            Metrics::new(Arc::clone(&health))
                .with_components(loader.counted())
                .with_memory(loader.memory()),
        );
        let outage = Outage::default();
        let Ports {
            inbound,
            store,
            publisher,
        } = ports(&nats, &redis);
        let memory = loader.memory().clone();
        let loader = Arc::new(loader);
        let live = Arc::new(loader.put_in_force(loaded.registry));
        let turns = Turns {
            store,
            publisher,
            registry: Arc::clone(&live),
            components: loaded.components,
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            outage: outage.clone(),
            config: turn_config(settings),
        };
        let config = worker_config(settings, &tenants);
        let worker = Worker::new(inbound, turns, Arc::clone(&metrics), config).within(memory);
        let reloading = Reloading {
            loader,
            live,
            nats: Arc::clone(&nats),
            redis: Arc::clone(&redis),
            env: settings.environment.clone(),
            served: worker.served(),
            limits: TenantLimits::of(settings),
            metrics: Arc::clone(&metrics),
            every: settings.reload.every,
            seen: loaded.seen,
            left_out: loaded.left_out,
        };
        Ok(Self {
            worker,
            nats,
            redis,
            http,
            health,
            metrics,
            outage,
            reloading,
            unserved_every: settings.nats.unserved_every,
        })
    }

    /// Works until `stop` is cancelled, then drains and closes the connections. Each `hangup` makes it load its bindings
    /// again.
    pub async fn run(self, stop: CancellationToken, hangup: Signal) -> Drained {
        let Self {
            worker,
            nats,
            redis,
            http,
            health,
            metrics,
            outage,
            reloading,
            unserved_every,
        } = self;
        let over = CancellationToken::new();
        let unserved = unserved::watch(
            Arc::clone(&nats),
            Arc::clone(&reloading.live),
            Arc::clone(&metrics),
            unserved_every,
        );
        tokio::spawn(stop.clone().run_until_cancelled_owned(unserved));
        if let Some(listener) = http {
            let endpoint = Endpoint {
                health: Arc::clone(&health),
                metrics: Arc::clone(&metrics),
            };
            let shutdown = over.clone().cancelled_owned();
            tokio::spawn(async move { http::serve(listener, endpoint, shutdown).await });
        }
        let look = Look {
            nats: Arc::clone(&nats),
            redis,
            outage,
            health: Arc::clone(&health),
            metrics: Arc::clone(&metrics),
            served: worker.served(),
        }
        .on();
        tokio::spawn(over.clone().run_until_cancelled_owned(look));
        let draining = {
            let (stop, health) = (stop.clone(), Arc::clone(&health));
            async move {
                stop.cancelled().await;
                health.draining();
            }
        };
        tokio::spawn(draining);
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(reloading.run(hangup)),
        );
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

/// Tells what is not as the settings want it; errors stop the start.
fn report(problems: Problems) -> Result<(), StartError> {
    if problems.has_errors() {
        return Err(StartError::Streams(problems));
    }
    for warning in problems {
        tracing::warn!("{warning}");
    }
    Ok(())
}

async fn listen(listen: Listen) -> Result<Option<TcpListener>, StartError> {
    let Listen::At(address) = listen else {
        return Ok(None);
    };
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tracing::info!(http = %bound, "listening");
    Ok(Some(listener))
}

/// What readiness depends on.
struct Look {
    nats: Arc<Nats>,
    redis: Arc<RedisStore>,
    outage: Outage,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    served: tokio::sync::watch::Sender<worker::Served>,
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

fn turn_config(settings: &Settings) -> turn::Config {
    let worker = &settings.worker;
    turn::Config {
        env: settings.environment.clone(),
        payload_bytes: settings.limits.payload_bytes.get(),
        retry: RetryPolicy {
            attempts: worker.attempts.get(),
            initial: worker.retry.initial,
            max: worker.retry.max,
        },
        turn_timeout: worker.turn_timeout,
        lease_ttl: worker.lease_ttl,
        wait_ttl: worker.wait_ttl,
        bounds: bounds::bounds(settings),
    }
}

fn worker_config(settings: &Settings, tenants: &[TenantId]) -> worker::Config {
    worker::Config {
        slots: settings.worker.slots.get(),
        tenant_queue: settings.worker.tenant_queue,
        tenants: TenantLimits::of(settings).served(tenants),
        progress_every: settings.nats.ack_wait / 3,
        drain_timeout: settings.worker.drain_timeout,
        apology: settings.worker.apology.clone(),
    }
}

/// How many turns of a tenant may be in flight.
struct TenantLimits {
    everyone: usize,
    own: BTreeMap<TenantId, usize>,
}

impl TenantLimits {
    fn of(settings: &Settings) -> Self {
        let worker = &settings.worker;
        let own = settings.tenants.iter().filter_map(|(id, tenant)| {
            let most = tenant.max_in_flight?;
            Some((id.clone(), most.get()))
        });
        Self {
            everyone: worker.tenant_slots.unwrap_or(worker.slots).get(),
            own: own.collect(),
        }
    }

    fn served(&self, tenants: &[TenantId]) -> worker::Served {
        let limit = |tenant: &TenantId| self.own.get(tenant).copied().unwrap_or(self.everyone);
        let served = tenants.iter().map(|tenant| (tenant.clone(), limit(tenant)));
        served.collect()
    }
}

/// A worker inside this process, on the in-process bus and in-memory sessions: what `chat` talks to without a server.
pub struct Embedding {
    /// Where activities go in.
    pub bus: Bus,
    /// What comes back.
    pub published: UnboundedReceiver<Published>,
    /// The tenants that can be talked to.
    pub tenants: Vec<TenantId>,
}

impl Embedding {
    /// Starts it with what was loaded; it ends with the process.
    pub fn start(settings: &Settings, loaded: Loaded) -> Self {
        let (bus, published) = Bus::new();
        let tenants: Vec<TenantId> = loaded.registry.tenants().into_iter().cloned().collect();
        let turns = Turns {
            store: Arc::new(MemoryStore::new(SystemClock, settings.redis.dedupe_window)),
            publisher: Arc::new(bus.clone()),
            registry: Arc::new(Live::from(loaded.registry)),
            components: loaded.components,
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            outage: Outage::default(),
            config: turn_config(settings),
        };
        let metrics = Arc::new(Metrics::new(Arc::new(Health::new(
            settings.http.stalled_after,
        ))));
        let worker = Worker::new(
            Arc::new(bus.clone()),
            turns,
            metrics,
            worker_config(settings, &tenants),
        );
        tokio::spawn(worker.run(CancellationToken::new()));
        Self {
            bus,
            published,
            tenants,
        }
    }
}
