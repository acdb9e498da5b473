//! Servers, workers and the ways between them, and what can be done to them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use greentic_worker::pack;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::harness::{DEADLINE, NatsServer, Servers, Tenant, WorkerProcess, fresh_tenant};
use crate::plan::{Blow, Fault, LEASE, Server, TENANTS, Target, WORKERS};
use crate::proxy::{Mode, Proxy};
use crate::record::Record;
use crate::redis_pair::{RedisPair, USER};
use crate::rules;

/// How long the supervisor waits before it starts a worker again that ended by itself.
const PAUSE: Duration = Duration::from_millis(500);

/// Everything that faults are done to.
pub struct World {
    pub nats_url: String,
    /// Whether nats-server syncs before it answers; versions before 2.10 cannot.
    pub nats_syncs: bool,
    pub tenants: Vec<Tenant>,
    /// How many workers ended though nobody ended them.
    pub ended_by_themselves: AtomicUsize,
    pub(crate) nats: Mutex<NatsServer>,
    pub(crate) redis: Mutex<RedisPair>,
    links: Vec<Link>,
    workers: Vec<Mutex<Worker>>,
    pub(crate) record: Arc<Record>,
    _pack: TempDir,
}

/// One worker's ways to the servers.
struct Link {
    nats: Proxy,
    redis: Proxy,
}

struct Worker {
    process: Option<WorkerProcess>,
    log: PathBuf,
}

impl World {
    /// Starts all of it and waits until it is ready.
    pub async fn start(logs: &Path, appendfsync: &str, record: Arc<Record>) -> Self {
        let (nats, nats_syncs) = NatsServer::start_own_syncing(&rules::nats_rules(&[])).await;
        let mut redis = RedisPair::start(appendfsync).await;
        let mut links = Vec::new();
        for _ in 0..WORKERS {
            links.push(Link {
                nats: Proxy::to(nats.port()).await.expect("a free port"),
                redis: Proxy::to(redis.primary().port())
                    .await
                    .expect("a free port"),
            });
        }
        let (pack_dir, binding) = build_pack();
        let bind = |_| {
            let tenant = fresh_tenant();
            let text = format!("tenant: {}\n{binding}", tenant.id);
            tenant.file("chaos.gtbind", &text)
        };
        let world = Self {
            nats_url: nats.url(),
            nats_syncs,
            tenants: (0..TENANTS).map(bind).collect(),
            ended_by_themselves: AtomicUsize::new(0),
            nats: Mutex::new(nats),
            redis: Mutex::new(redis),
            links,
            workers: (1..=WORKERS)
                .map(|n| {
                    Mutex::new(Worker {
                        process: None,
                        log: logs.join(format!("worker-{n}.txt")),
                    })
                })
                .collect(),
            record,
            _pack: pack_dir,
        };
        for n in 0..WORKERS {
            let mut worker = world.workers[n].lock().await;
            world.start_worker(n, &mut worker).await;
            let process = worker.process.as_mut().expect("just started");
            process.ready(DEADLINE).await;
        }
        world
    }

    /// Starts workers again that end by themselves, as a supervisor would. Runs for ever.
    pub async fn supervise(&self) {
        loop {
            for (n, worker) in self.workers.iter().enumerate() {
                // One that is locked is in the hands of a fault.
                let Ok(mut worker) = worker.try_lock() else {
                    continue;
                };
                let code = worker.process.as_ref().and_then(WorkerProcess::exit_code);
                if let Some(code) = code {
                    self.ended_by_themselves.fetch_add(1, Ordering::Relaxed);
                    self.record
                        .note(format!("worker {} ended by itself with {code}", n + 1));
                    sleep(PAUSE).await;
                    self.start_worker(n, &mut worker).await;
                }
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Does what the fault says and makes it good again when its time is over.
    pub async fn suffer(&self, fault: &Fault) {
        let all = fault
            .targets
            .iter()
            .map(|target| self.suffer_at(*target, fault));
        futures_util::future::join_all(all).await;
    }

    async fn suffer_at(&self, target: Target, fault: &Fault) {
        let Fault { blow, lasts, .. } = *fault;
        let ends_it = matches!(blow, Blow::Kill | Blow::Term);
        match target {
            Target::Worker(n) => self.hit_worker(n, blow, lasts).await,
            Target::Server(Server::Nats) => {
                let mut nats = self.nats.lock().await;
                match blow {
                    Blow::Kill => nats.kill().await,
                    Blow::Term => nats.stop().await,
                    Blow::Stop
                    | Blow::Cut
                    | Blow::Misbehave(_)
                    | Blow::Failover
                    | Blow::Refuse(_) => nats.pause(),
                }
                sleep(lasts).await;
                if ends_it {
                    nats.start_again().await;
                } else {
                    nats.resume();
                }
            }
            Target::Server(Server::Redis) if blow == Blow::Failover => self.fail_over(lasts).await,
            Target::Server(Server::Redis) => {
                let mut pair = self.redis.lock().await;
                let redis = pair.primary();
                match blow {
                    Blow::Kill => redis.kill().await,
                    Blow::Term => redis.stop().await,
                    Blow::Stop
                    | Blow::Cut
                    | Blow::Misbehave(_)
                    | Blow::Failover
                    | Blow::Refuse(_) => redis.pause(),
                }
                sleep(lasts).await;
                if ends_it {
                    redis.start_again().await;
                } else {
                    redis.resume();
                }
            }
            Target::Rules(_) => {
                if let Blow::Refuse(refusal) = blow {
                    match fault.alone {
                        true => self.refuse_alone(refusal, lasts).await,
                        false => self.refuse(refusal, lasts).await,
                    }
                }
            }
            Target::Link(n, server) => {
                let proxy = match server {
                    Server::Nats => &self.links[n].nats,
                    Server::Redis => &self.links[n].redis,
                };
                if let Blow::Misbehave(mode) = blow {
                    proxy.set(mode);
                    sleep(lasts).await;
                    proxy.set(Mode::Pass);
                } else {
                    proxy.cut();
                }
            }
        }
    }

    /// Makes the replica of Redis the primary; the ways lead to it after a while.
    async fn fail_over(&self, lasts: Duration) {
        let port = self.redis.lock().await.fail_over().await;
        sleep(lasts).await;
        for link in &self.links {
            link.redis.lead_to(port);
        }
    }

    /// The URL of the Redis server that is the primary.
    pub async fn redis_url(&self) -> String {
        self.redis.lock().await.primary().url()
    }

    /// What the JetStream section of nats-server's configuration says.
    pub(crate) fn nats_syncing(&self) -> &'static str {
        match self.nats_syncs {
            true => "sync_interval: always",
            false => "",
        }
    }

    /// A new connection to NATS that may do everything.
    pub async fn jetstream(&self) -> jetstream::Context {
        let options = async_nats::ConnectOptions::new()
            .retry_on_initial_connect()
            .ping_interval(Duration::from_secs(1))
            .reconnect_delay_callback(|_| Duration::from_millis(100));
        let client = options.connect(&self.nats_url).await;
        let mut jetstream = jetstream::new(client.expect("NATS is there"));
        jetstream.set_timeout(Duration::from_secs(2));
        jetstream
    }

    async fn hit_worker(&self, n: usize, blow: Blow, lasts: Duration) {
        let mut worker = self.workers[n].lock().await;
        let process = worker.process.as_ref().expect("it was started");
        if process.exit_code().is_some() {
            // It has just ended by itself; the supervisor sees to it.
            return;
        }
        if blow == Blow::Stop {
            process.pause();
            sleep(lasts).await;
            process.resume();
            return;
        }
        process.signal(if blow == Blow::Term { "TERM" } else { "KILL" });
        process.exited(DEADLINE).await;
        sleep(lasts).await;
        self.start_worker(n, &mut worker).await;
    }

    /// Starts a worker in the place of the one before, whose log is kept.
    async fn start_worker(&self, n: usize, worker: &mut Worker) {
        worker.keep_log();
        let through = |proxy: &Proxy, scheme| format!("{scheme}://{}", proxy.address());
        let servers = Servers {
            nats_url: through(&self.links[n].nats, "nats"),
            redis_url: through(&self.links[n].redis, "redis"),
        };
        let lease = format!("{}ms", LEASE.as_millis());
        let mut builder = WorkerProcess::of(&servers).without_waiting();
        for tenant in &self.tenants {
            builder = builder.bindings(tenant);
        }
        let started = builder
            .setting("NATS__USER", USER)
            .setting("NATS__PASSWORD", USER)
            .setting("REDIS__USERNAME", USER)
            .setting("REDIS__PASSWORD", USER)
            .setting("WORKER__LEASE_TTL", &lease)
            .setting("WORKER__TURN_TIMEOUT", "2s")
            .setting("WORKER__DRAIN_TIMEOUT", "2s")
            .setting("NATS__ACK_WAIT", &lease)
            .setting("NATS__CONNECT_TIMEOUT", "60s")
            .setting("NATS__REQUEST_TIMEOUT", "2s")
            .setting("NATS__PING_INTERVAL", "1s")
            .setting("NATS__RECONNECT_DELAY", "300ms")
            .setting("REDIS__CONNECT_TIMEOUT", "60s")
            .setting("REDIS__RESPONSE_TIMEOUT", "1s")
            .start();
        worker.process = Some(started.await);
    }

    /// Keeps the logs of the workers that still run.
    pub async fn keep_logs(&self) {
        for worker in &self.workers {
            worker.lock().await.keep_log();
        }
    }
}

impl Worker {
    fn keep_log(&mut self) {
        let Some(process) = &self.process else { return };
        let file = File::options().create(true).append(true).open(&self.log);
        let mut file = file.expect("a log can be kept");
        let log = process.log();
        write!(file, "{log}\n---- its end ----\n").expect("a log can be kept");
    }
}

/// The archive in a folder of its own, and a gtbind for it that still lacks its tenant.
fn build_pack() -> (TempDir, String) {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chaos/pack");
    let built = pack::build(&sources).unwrap_or_else(|problems| panic!("{problems}"));
    let dir = tempfile::tempdir().expect("a folder can be made");
    let archive = dir.path().join(built.file_name());
    fs::write(&archive, &built.bytes).expect("an archive can be written");
    let binding = format!(
        "pack_id: {}\npack_ref: file://{}\nflows:\n  - id: main\n",
        built.id,
        archive.display()
    );
    (dir, binding)
}
