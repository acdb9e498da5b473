//! Servers, workers and the ways between them, and what can be done to them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greentic_worker::pack;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::harness::{
    DEADLINE, NatsServer, RedisServer, Servers, Tenant, WorkerProcess, fresh_tenant,
};
use crate::plan::{Blow, Fault, LEASE, Server, Target, WORKERS};
use crate::proxy::{Mode, Proxy};
use crate::record::Record;

/// How many tenants there are: all of them use the same ids for their users, conversations and messages.
pub const TENANTS: usize = 2;

/// How long the supervisor waits before it starts a worker again that ended by itself.
const PAUSE: Duration = Duration::from_millis(500);

/// Everything that faults are done to.
pub struct World {
    pub nats_url: String,
    pub redis_url: String,
    /// Whether nats-server syncs before it answers; versions before 2.10 cannot.
    pub nats_syncs: bool,
    pub tenants: Vec<Tenant>,
    /// How many workers ended though nobody ended them.
    pub ended_by_themselves: AtomicUsize,
    nats: Mutex<NatsServer>,
    redis: Mutex<RedisServer>,
    links: Vec<Link>,
    workers: Vec<Mutex<Worker>>,
    record: Arc<Record>,
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
        let (nats, nats_syncs) = NatsServer::start_own_syncing().await;
        let redis = RedisServer::start_own_with(&["--appendfsync", appendfsync]).await;
        let mut links = Vec::new();
        for _ in 0..WORKERS {
            links.push(Link {
                nats: Proxy::to(nats.port()).await.expect("a free port"),
                redis: Proxy::to(redis.port()).await.expect("a free port"),
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
            redis_url: redis.url(),
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
            .map(|target| self.suffer_at(*target, fault.blow, fault.lasts));
        futures_util::future::join_all(all).await;
    }

    async fn suffer_at(&self, target: Target, blow: Blow, lasts: Duration) {
        match target {
            Target::Worker(n) => self.hit_worker(n, blow, lasts).await,
            Target::Server(Server::Nats) => {
                let mut nats = self.nats.lock().await;
                match blow {
                    Blow::Kill => nats.kill().await,
                    Blow::Term => nats.stop().await,
                    Blow::Stop | Blow::Cut | Blow::Misbehave(_) => nats.pause(),
                }
                sleep(lasts).await;
                match blow {
                    Blow::Kill | Blow::Term => nats.start_again().await,
                    Blow::Stop | Blow::Cut | Blow::Misbehave(_) => nats.resume(),
                }
            }
            Target::Server(Server::Redis) => {
                let mut redis = self.redis.lock().await;
                match blow {
                    Blow::Kill => redis.kill().await,
                    Blow::Term => redis.stop().await,
                    Blow::Stop | Blow::Cut | Blow::Misbehave(_) => redis.pause(),
                }
                sleep(lasts).await;
                match blow {
                    Blow::Kill | Blow::Term => redis.start_again().await,
                    Blow::Stop | Blow::Cut | Blow::Misbehave(_) => redis.resume(),
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
