//! Private servers, and on them the worker or the bare loop: fresh ones for each sample, so that none finds what another
//! left behind.

use std::path::{Path, PathBuf};
use std::process::Command;

use greentic_worker::adapters::nats::{Config, Nats};
use greentic_worker::model::TenantId;
use serde::Serialize;
use tempfile::TempDir;

use crate::harness::{
    DEADLINE, Guarded, NatsServer, RedisServer, Servers, Tenant, WorkerProcess, cpu_seconds, poll,
    scratch,
};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Contender {
    /// The job without anything that a worker is for.
    BareLoop,
    /// The worker as released.
    Worker,
}

/// Whom the worker serves, and which build of it.
pub struct Setup {
    /// The worker's program.
    pub program: PathBuf,
    /// The tenants with their gtbinds; the bare loop serves the first one.
    pub tenants: Vec<Tenant>,
    /// Settings that differ from the defaults, as variables without their prefix.
    pub settings: Vec<(&'static str, String)>,
}

impl Setup {
    /// The tenants' ids.
    pub fn ids(&self) -> impl Iterator<Item = String> {
        self.tenants.iter().map(|tenant| tenant.id.clone())
    }
}

/// Servers and what runs on them.
pub struct Stage {
    processes: Vec<Process>,
    nats: NatsServer,
    redis: RedisServer,
}

enum Process {
    BareLoop { process: Guarded, _log: TempDir },
    Worker(WorkerProcess),
}

impl Process {
    fn pid(&self) -> u32 {
        match self {
            Self::BareLoop { process, .. } => process.pid(),
            Self::Worker(process) => process.pid(),
        }
    }
}

/// Processor time, in seconds, by who used it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cpu {
    /// The worker or the bare loop, all processes of it.
    pub contender: f64,
    /// nats-server.
    pub nats: f64,
    /// Redis.
    pub redis: f64,
    /// This process.
    pub load: f64,
}

impl Cpu {
    /// What was used since.
    pub fn since(self, before: Self) -> Self {
        Self {
            contender: self.contender - before.contender,
            nats: self.nats - before.nats,
            redis: self.redis - before.redis,
            load: self.load - before.load,
        }
    }
}

impl Stage {
    /// Starts servers: JetStream on files, Redis in memory alone, whose append-only file would be the first thing measured.
    pub async fn open() -> Self {
        let no_file = ["--appendonly", "no"];
        let (nats, redis) = tokio::join!(
            NatsServer::start_own(),
            RedisServer::start_own_with(&no_file)
        );
        Self {
            processes: Vec::new(),
            nats,
            redis,
        }
    }

    /// The servers' addresses.
    pub fn servers(&self) -> Servers {
        Servers::own(&self.nats, &self.redis)
    }

    /// Makes the streams and consumers that the worker would make.
    pub async fn prepare(&self, setup: &Setup) {
        let tenants: Vec<TenantId> = setup
            .ids()
            .map(|id| id.parse().expect("a tenant"))
            .collect();
        let config = Config {
            url: self.nats.url(),
            ..Config::default()
        };
        let nats = Nats::connect(&config, &"dev".parse().expect("an environment"))
            .await
            .expect("NATS is there");
        let problems = nats.prepare(&tenants).await.expect("NATS answers");
        assert!(problems.is_empty(), "{problems}");
    }

    /// Starts one more process and waits until it is ready.
    pub async fn start(&mut self, contender: Contender, setup: &Setup) {
        let servers = self.servers();
        let process = match contender {
            Contender::BareLoop => bare_loop(&servers, &setup.tenants[0].id).await,
            Contender::Worker => Process::Worker(worker(&servers, setup).await),
        };
        self.processes.push(process);
    }

    /// The ends of the logs of what is measured.
    pub fn logs(&self) -> String {
        let end = |process: &Process| {
            let log = match process {
                Process::BareLoop { process, .. } => process.log(),
                Process::Worker(process) => process.log(),
            };
            let lines: Vec<_> = log.lines().collect();
            lines[lines.len().saturating_sub(20)..].join("\n")
        };
        let ends: Vec<_> = self.processes.iter().map(end).collect();
        ends.join("\n")
    }

    /// Ends the workers in good order, as a roll-out would: what they were built to write at their end is written.
    pub async fn close(self) {
        for process in &self.processes {
            if let Process::Worker(worker) = process {
                assert_eq!(worker.stop().await, 0, "a worker ends badly");
            }
        }
    }

    /// The pids of what is measured.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }

    /// Redis' own account of itself: one number of `INFO`.
    pub async fn redis_info(&self, section: &str, field: &str) -> f64 {
        let client = redis::Client::open(self.redis.url()).expect("a URL");
        let mut redis = client
            .get_multiplexed_async_connection()
            .await
            .expect("Redis is there");
        let mut info = redis::cmd("INFO");
        let info: String = info
            .arg(section)
            .query_async(&mut redis)
            .await
            .expect("Redis answers");
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.and_then(|number| number.trim().parse().ok())
            .unwrap_or_else(|| panic!("INFO {section} has no {field}"))
    }

    /// What everyone has used so far.
    pub fn cpu(&self) -> Cpu {
        let used = |pid| cpu_seconds(pid).unwrap_or(f64::NAN);
        Cpu {
            contender: self.pids().into_iter().map(used).sum(),
            nats: used(self.nats.pid()),
            redis: used(self.redis.pid()),
            load: used(std::process::id()),
        }
    }
}

async fn worker(servers: &Servers, setup: &Setup) -> WorkerProcess {
    let mut builder = WorkerProcess::of_program(&setup.program, servers);
    for tenant in &setup.tenants {
        builder = builder.bindings(tenant);
    }
    for (name, value) in &setup.settings {
        builder = builder.setting(name, value);
    }
    builder.start().await
}

/// This very program, asked to be the bare loop.
async fn bare_loop(servers: &Servers, tenant: &str) -> Process {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.args(["bare-loop", &servers.nats_url, &servers.redis_url, tenant]);
    let log = scratch();
    let process = Guarded::spawn(&command, log.path()).expect("this program can be started");
    let ready = poll(DEADLINE, async || {
        assert_eq!(process.exit_code(), None, "{}", process.log());
        process
            .log()
            .contains(crate::bare_loop::READY)
            .then_some(())
    });
    assert!(ready.await.is_some(), "the bare loop is not ready");
    Process::BareLoop { process, _log: log }
}

/// Where `./dev bench` puts the worker that it has built for release.
pub fn released() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/greentic-worker")
}
