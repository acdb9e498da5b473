//! Native servers on free ports of the loopback address.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::guarded::{Guarded, scratch};
use super::servers::setting;
use super::{DEADLINE, poll};

/// A nats-server with JetStream on file storage, owned by one test.
pub struct NatsServer(Server);

/// A redis-server with an append-only file, owned by one test.
pub struct RedisServer(Server);

impl NatsServer {
    /// Starts one.
    pub async fn start_own() -> Self {
        Self::start_own_with("").await
    }

    /// Starts one with more lines in its configuration file.
    pub async fn start_own_with(configuration: &str) -> Self {
        Self::try_start(configuration).await.unwrap_or_else(fail)
    }

    /// Starts one that has no JetStream.
    pub async fn start_without_jetstream() -> Self {
        Self::start_without_jetstream_with("").await
    }

    /// The same with more lines in its configuration file.
    pub async fn start_without_jetstream_with(lines: &str) -> Self {
        let server = Server::start(Kind::CoreNats, |port, dir| configured(port, dir, lines));
        server.await.map_or_else(fail, Self)
    }

    /// Starts one with more lines in the JetStream section of its configuration file, and outside of it.
    pub async fn start_with_jetstream(jetstream: &str, lines: &str) -> Self {
        let started = Self::try_start_with(jetstream, lines).await;
        started.unwrap_or_else(fail)
    }

    /// Starts one that greets nobody before a TLS handshake, if this version can.
    pub async fn try_start_with_tls_first(lines: &str) -> Result<Self, String> {
        let server = Server::start(Kind::SilentNats, |port, dir| configured(port, dir, lines));
        server.await.map(Self)
    }

    /// Starts one that syncs its files before it answers, as far as it can: the setting came with nats-server 2.10. Also
    /// whether it does. With more lines in its configuration file.
    pub async fn start_own_syncing(configuration: &str) -> (Self, bool) {
        match Self::try_start_with("sync_interval: always", configuration).await {
            Ok(server) => (server, true),
            Err(_unknown) => (Self::start_own_with(configuration).await, false),
        }
    }

    pub(super) async fn try_start(configuration: &str) -> Result<Self, String> {
        Self::try_start_with("", configuration).await
    }

    async fn try_start_with(jetstream: &str, configuration: &str) -> Result<Self, String> {
        let server = Server::start(Kind::Nats, |port, dir| {
            let jetstream = self::jetstream(dir, jetstream);
            configured(port, dir, &format!("{jetstream}\n{configuration}"))
        });
        server.await.map(Self)
    }

    /// Gives it other lines in its configuration file, and has it read them.
    pub fn configure(&self, lines: &str) {
        let (port, dir) = (self.0.port, self.0.dir.path());
        let store = dir.join("jetstream");
        let lines = format!("jetstream {{ store_dir: {store:?} }}\n{lines}");
        configured(port, dir, &lines).unwrap_or_else(|error| fail(error.to_string()));
        self.0.process().signal("HUP");
    }

    /// Its port on the loopback address.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.process.as_ref().expect("it runs").pid()
    }

    /// `nats://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.0.port)
    }

    /// Stops it in good order (SIGTERM) and waits until it is gone.
    pub async fn stop(&mut self) {
        self.0.end("TERM").await;
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub async fn kill(&mut self) {
        self.0.end("KILL").await;
    }

    /// Starts it again on the same port with the same data, and waits until it is ready.
    pub async fn start_again(&mut self) {
        self.0.run().await.unwrap_or_else(fail);
    }

    /// Has it read other lines of configuration while it runs, as `nats-server --signal reload` does.
    pub fn reconfigure(&self, configuration: &str) {
        let (port, dir) = (self.0.port, self.0.dir.path());
        let lines = format!("{}\n{configuration}", jetstream(dir, ""));
        configured(port, dir, &lines).expect("the file can be written");
        self.0.process().signal("HUP");
    }

    /// Has it read other lines of configuration, these ones in the JetStream section, and waits until it goes by them.
    pub async fn reload(&self, jetstream: &str, configuration: &str) {
        let (port, dir) = (self.0.port, self.0.dir.path());
        let lines = format!("{}\n{configuration}", self::jetstream(dir, jetstream));
        configured(port, dir, &lines).expect("the file can be written");
        let reloads = || {
            let log = self.0.process().log();
            log.matches("Reloaded server configuration").count()
        };
        let before = reloads();
        self.0.process().signal("HUP");
        let reloaded = poll(DEADLINE, async || (reloads() > before).then_some(()));
        if reloaded.await.is_none() {
            let log = self.0.process().log();
            fail::<()>(format!("nats-server takes no new configuration:\n{log}"));
        }
    }

    /// Holds it still (SIGSTOP): connections stay open and nothing answers.
    pub fn pause(&self) {
        self.0.process().pause();
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.0.process().resume();
    }
}

impl RedisServer {
    /// Starts one.
    pub async fn start_own() -> Self {
        Self::start_own_with(&[]).await
    }

    /// Starts one with more arguments, e.g. `["--appendfsync", "always"]`. Those win over the harness's own.
    pub async fn start_own_with(arguments: &[&str]) -> Self {
        Self::try_start(arguments).await.unwrap_or_else(fail)
    }

    pub(super) async fn try_start(arguments: &[&str]) -> Result<Self, String> {
        let server = Server::start(Kind::Redis, |port, dir| {
            let (port, dir) = (port.to_string(), dir.display().to_string());
            let own = [
                ["--bind", "127.0.0.1"],
                ["--port", &port],
                ["--dir", &dir],
                ["--appendonly", "yes"],
                ["--save", ""],
            ];
            let all = own.as_flattened().iter().chain(arguments);
            Ok(all.map(|argument| (*argument).to_owned()).collect())
        });
        server.await.map(Self)
    }

    /// Its port on the loopback address.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.process.as_ref().expect("it runs").pid()
    }

    /// `redis://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.0.port)
    }

    /// Stops it in good order (SIGTERM) and waits until it is gone.
    pub async fn stop(&mut self) {
        self.0.end("TERM").await;
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub async fn kill(&mut self) {
        self.0.end("KILL").await;
    }

    /// Starts it again on the same port with the same data, and waits until it is ready.
    pub async fn start_again(&mut self) {
        self.0.run().await.unwrap_or_else(fail);
    }

    /// Holds it still (SIGSTOP): connections stay open and nothing answers.
    pub fn pause(&self) {
        self.0.process().pause();
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.0.process().resume();
    }
}

/// What a configuration file says of JetStream.
fn jetstream(dir: &Path, more: &str) -> String {
    let store = dir.join("jetstream");
    format!("jetstream {{ store_dir: {store:?}, {more} }}")
}

/// The arguments of a nats-server with these lines in its configuration file.
fn configured(port: u16, dir: &Path, lines: &str) -> io::Result<Vec<String>> {
    let file = dir.join("nats.conf");
    fs::write(&file, format!("listen: 127.0.0.1:{port}\n{lines}\n"))?;
    Ok(vec!["-c".to_owned(), file.display().to_string()])
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Nats,
    CoreNats,
    /// It says nothing of itself before the handshake.
    SilentNats,
    Redis,
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Self::Nats | Self::CoreNats | Self::SilentNats => "nats-server",
            Self::Redis => "redis-server",
        }
    }

    /// What it logs once it has its port.
    fn has_its_port(self) -> &'static str {
        match self {
            Self::Nats | Self::CoreNats | Self::SilentNats => "Listening for client connections on",
            Self::Redis => "Ready to accept connections",
        }
    }

    /// Whether a server on this port is ready for work; for NATS that is with JetStream running.
    async fn answers(self, port: u16) -> Option<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        if self == Self::SilentNats {
            return Some(());
        }
        if self == Self::Redis {
            stream.write_all(b"PING\r\n").await.ok()?;
        }
        let mut said = [0; 2048];
        let len = stream.read(&mut said).await.ok()?;
        let said = String::from_utf8_lossy(&said[..len]);
        let ready = match self {
            Self::Nats => said.starts_with("INFO ") && said.contains(r#""jetstream":true"#),
            Self::CoreNats | Self::SilentNats => said.starts_with("INFO "),
            // An error that asks for a password is an answer too; `-LOADING` is not.
            Self::Redis => said.starts_with("+PONG") || said.starts_with("-NOAUTH"),
        };
        ready.then_some(())
    }
}

struct Server {
    kind: Kind,
    port: u16,
    arguments: Vec<String>,
    process: Option<Guarded>,
    // Last, so that the data goes after the process.
    dir: TempDir,
}

impl Server {
    async fn start(
        kind: Kind,
        arguments: impl Fn(u16, &Path) -> io::Result<Vec<String>>,
    ) -> Result<Self, String> {
        let mut last = String::new();
        // Someone else may take the port between our finding it free and the server's taking it.
        for _ in 0..3 {
            let dir = scratch();
            let port = free_port().map_err(|error| format!("no free port: {error}"))?;
            let arguments = arguments(port, dir.path()).map_err(|error| error.to_string())?;
            let mut server = Self {
                kind,
                port,
                arguments,
                process: None,
                dir,
            };
            match server.run().await {
                Ok(()) => return Ok(server),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn run(&mut self) -> Result<(), String> {
        let program = find(self.kind.program())?;
        let mut command = Command::new(&program);
        command.args(&self.arguments);
        let process = self
            .log_dir()
            .and_then(|dir| Guarded::spawn(&command, &dir))
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let ready = poll(DEADLINE, async || match process.exit_code() {
            Some(code) => Some(Err(format!("it ended with code {code}"))),
            // Should somebody else have the port, it is not ours that answers.
            None if !process.log().contains(self.kind.has_its_port()) => None,
            None => self.kind.answers(self.port).await.map(Ok),
        });
        let ready = ready.await.unwrap_or_else(|| Err("no answer".to_owned()));
        ready.map_err(|why| format!("{}: {why}\n{}", program.display(), process.log()))?;
        self.process = Some(process);
        Ok(())
    }

    /// A folder for the log of one run, which goes with the data.
    fn log_dir(&self) -> io::Result<PathBuf> {
        Ok(tempfile::tempdir_in(self.dir.path())?.keep())
    }

    fn process(&self) -> &Guarded {
        self.process.as_ref().expect("it runs")
    }

    async fn end(&mut self, signal: &str) {
        let process = self.process.take().expect("it runs");
        process.signal(signal);
        let ended = process.exited(DEADLINE).await;
        assert!(ended.is_some(), "{} goes on", self.kind.program());
    }
}

/// The program, from PATH or from where packages put servers that a user's PATH may lack.
fn find(program: &str) -> Result<PathBuf, String> {
    let path = setting("PATH").unwrap_or_default();
    let cached = Path::new(env!("CARGO_MANIFEST_DIR")).join(".dev/bin");
    let others = ["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"];
    std::env::split_paths(&path)
        .chain(others.map(PathBuf::from))
        .chain([cached])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            format!("{program} is not installed; `./dev test` installs it, or: apt install {program}, brew install {program}")
        })
}

/// A free port that nobody else in this process is given. It is none of those that systems give to outgoing connections:
/// while a server is down, one of them could take its port, even the very one that tries to reach it.
pub fn free_port() -> io::Result<u16> {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_default();
    let mut last = None;
    for _ in 0..100 {
        let port = fastrand::u16(10_000..30_000);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) if given.insert(port) => return Ok(port),
            Ok(_) => {}
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("all are given away")))
}

fn fail<T>(why: String) -> T {
    panic!("{why}")
}
