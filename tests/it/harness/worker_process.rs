//! The built worker as a process.

use std::cell::Cell;
use std::panic::Location;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::guarded::{Guarded, scratch};
use super::{DEADLINE, Servers, Tenant, poll};

/// How to start a worker.
pub struct WorkerBuilder {
    command: Command,
    expects_ready: bool,
}

/// A running `greentic-worker serve`. Dropped, it is killed; if the test fails, its log is shown.
pub struct WorkerProcess {
    process: Guarded,
    http: Option<String>,
    _scratch: TempDir,
}

impl WorkerProcess {
    /// Starts a worker for one tenant and waits until it is ready.
    pub async fn start(servers: &Servers, tenant: &Tenant) -> Self {
        Self::of(servers).bindings(tenant).start().await
    }

    /// A worker on these servers, still without bindings.
    pub fn of(servers: &Servers) -> WorkerBuilder {
        Self::of_program(Path::new(env!("CARGO_BIN_EXE_greentic-worker")), servers)
    }

    /// The same, of another build of the worker.
    pub fn of_program(program: &Path, servers: &Servers) -> WorkerBuilder {
        let mut command = Command::new(program);
        #[expect(
            clippy::disallowed_methods,
            reason = "a developer's own settings are not this test's"
        )]
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GREENTIC_") {
                command.env_remove(name);
            }
        }
        command.arg("serve");
        command.env("NO_COLOR", "1");
        let builder = WorkerBuilder {
            command,
            expects_ready: true,
        };
        builder
            .setting("NATS__URL", &servers.nats_url)
            .setting("REDIS__URL", &servers.redis_url)
            .setting("HTTP__LISTEN", "127.0.0.1:0")
    }

    /// The address of its HTTP endpoint, as `host:port`.
    pub fn http_address(&self) -> &str {
        self.http.as_deref().expect("it is ready")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends it at once (SIGKILL), as a crash or a lost machine would.
    pub async fn kill(&self) {
        self.process.signal("KILL");
        assert_eq!(self.exited(DEADLINE).await, 128 + 9);
    }

    /// Asks it to end (SIGTERM) and waits; its exit code.
    pub async fn stop(&self) -> i32 {
        self.process.signal("TERM");
        self.exited(DEADLINE).await
    }

    /// Sends a signal by its name without `SIG` and waits for nothing.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Holds it still (SIGSTOP), as a stalled machine would.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Waits until it has ended; its exit code, or 128 and the number of the signal that ended it.
    pub async fn exited(&self, within: Duration) -> i32 {
        let code = self.process.exited(within).await;
        code.unwrap_or_else(|| panic!("the worker goes on after {within:?}"))
    }

    /// Its exit code, if it has ended.
    pub fn exit_code(&self) -> Option<i32> {
        self.process.exit_code()
    }

    /// The status and the body of its HTTP endpoint at this path.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        get(self.http.as_deref()?, path).await
    }

    /// The status of `/readyz` or `/livez`; 0 where nobody answers.
    pub async fn status(&self, path: &str) -> u16 {
        self.get(path).await.map_or(0, |(status, _)| status)
    }

    /// The sum of a metric's samples of which the labels contain this text.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let (_, text) = self.get("/metrics").await.expect("metrics are served");
        let samples = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (given, value) = rest.rsplit_once(' ')?;
            let whole = given.is_empty() || given.starts_with('{');
            (whole && given.contains(labels)).then(|| value.parse::<f64>().expect("a number"))
        });
        samples.sum()
    }

    /// Waits until the sum of a metric's samples of which the labels contain this text is so much. What happened is counted
    /// after it, so that who has seen it may be ahead of the count.
    #[track_caller]
    pub fn expect_metric(&self, name: &str, labels: &str, wanted: f64) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            let last = Cell::new(f64::NAN);
            let reached = poll(DEADLINE, async || {
                last.set(self.metric(name, labels).await);
                // What only grows will not come back to it.
                let is_passed = name.ends_with("_total") && last.get() > wanted;
                (is_passed || last.get() == wanted).then_some(())
            });
            reached.await;
            let last = last.get();
            assert!(
                last == wanted,
                "{name}{{{labels}}} is {last} and not {wanted}, after {DEADLINE:?} or for good, at {at}"
            );
        }
    }

    /// Waits until `/readyz` says so.
    pub async fn ready(&mut self, within: Duration) {
        let http = poll(within, async || {
            let log = self.process.log();
            let address = listening(&log);
            assert!(
                address.is_some() || self.process.exit_code().is_none(),
                "the worker ended before it was ready"
            );
            address
        });
        let http = http.await.expect("the worker says where it listens");
        let ready = poll(within, async || {
            let code = self.process.exit_code();
            assert!(code.is_none(), "the worker ended before it was ready");
            let (status, _) = get(&http, "/readyz").await?;
            (status == 200).then_some(())
        });
        assert!(
            ready.await.is_some(),
            "the worker is not ready after {within:?}"
        );
        self.http = Some(http);
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl WorkerBuilder {
    /// Serves the tenant's gtbinds; may be called for several tenants.
    pub fn bindings(self, tenant: &Tenant) -> Self {
        self.bindings_dir(tenant.dir())
    }

    /// Serves the gtbinds of a folder.
    pub fn bindings_dir(mut self, dir: &Path) -> Self {
        self.command.arg("--bindings").arg(dir);
        self
    }

    /// Sets `GREENTIC_WORKER__<name>`, e.g. `NATS__URL`.
    pub fn setting(self, name: &str, value: &str) -> Self {
        self.env(&format!("GREENTIC_WORKER__{name}"), value)
    }

    /// Sets any variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Adds a flag.
    pub fn arg(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    /// Does not wait for `/readyz`: for workers that are meant to fail, or whose servers are away.
    pub fn without_waiting(mut self) -> Self {
        self.expects_ready = false;
        self
    }

    /// Starts it.
    pub async fn start(mut self) -> WorkerProcess {
        let scratch = scratch();
        // A cache of its own, unless the test has named one: what another worker keeps is none of its business.
        let cache = "GREENTIC_WORKER__PACKS__CACHE_DIR";
        if !self.command.get_envs().any(|(name, _)| name == cache) {
            self.command.env(cache, scratch.path().join("cache"));
        }
        let process = Guarded::spawn(&self.command, scratch.path());
        let mut worker = WorkerProcess {
            process: process.expect("the worker can be started"),
            http: None,
            _scratch: scratch,
        };
        if self.expects_ready {
            worker.ready(DEADLINE).await;
        }
        worker
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log of the worker ----\n{}", self.process.log());
        }
    }
}

/// The address in the log line `listening`, in either log format.
fn listening(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains("listening"))?;
    let after = ["http=", r#""http":"#].into_iter();
    let value = after.filter_map(|name| line.split_once(name)).next()?.1;
    let address: String = value
        .trim_start_matches('"')
        .chars()
        .take_while(|c| !c.is_whitespace() && !"\",}".contains(*c))
        .collect();
    Some(address)
}

async fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: worker\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_both_log_formats() {
        let human =
            "starting\n2026-01-01T00:00:00Z  INFO app: listening http=127.0.0.1:4567 pid=1\n";
        let json = r#"{"level":"INFO","fields":{"message":"listening","http":"127.0.0.1:4567"}}"#;
        for log in [human, json] {
            assert_eq!(listening(log).as_deref(), Some("127.0.0.1:4567"), "{log}");
        }
        assert_eq!(listening("starting"), None);
    }
}
