//! Child processes that never outlive us.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::watch;

use super::DEADLINE;

/// Starts the command, prints its pid, later its exit code. Kills it when our end of its standard input closes, which
/// happens when [`Guarded`] is dropped and also when this process dies without dropping anything.
const GUARD: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- >&2 &
child=$!
echo "$child"
{ read -r _ <&3; kill -9 "$child"; } >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$child"
code=$?
kill "$watcher"; wait "$watcher"
echo "$code"
"#;

/// A running command under its guard. Dropping it kills the command and waits until it is gone.
pub struct Guarded {
    guard: Child,
    lifeline: Option<ChildStdin>,
    pid: u32,
    exit: watch::Receiver<Option<i32>>,
    log: PathBuf,
}

impl Guarded {
    /// Starts `command` (its program, arguments and environment; its streams are ours), its output appended to `log`
    /// in `scratch`, a folder of its own.
    pub fn spawn(command: &Command, scratch: &Path) -> io::Result<Self> {
        let log = scratch.join("log");
        let output = File::options().create(true).append(true).open(&log)?;
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "guard"]);
        guard.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => guard.env(name, value),
                None => guard.env_remove(name),
            };
        }
        guard.stdin(Stdio::piped()).stdout(Stdio::piped());
        guard.stderr(output);
        // Out of reach of a Ctrl-C meant for the tests: the guard must live to clean up after them.
        guard.process_group(0);
        let mut guard = guard.spawn()?;

        let lifeline = guard.stdin.take();
        let mut lines = BufReader::new(guard.stdout.take().expect("stdout is piped"));
        let pid = next_number(&mut lines).ok_or_else(|| io::Error::other("the guard is gone"))?;
        let (tell, exit) = watch::channel(None);
        std::thread::spawn(move || tell.send(next_number(&mut lines)));
        Ok(Self {
            guard,
            lifeline,
            pid,
            exit,
            log,
        })
    }

    /// The command's own pid.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        // The shell's own `kill` is everywhere; a program of that name is not.
        let kill = format!("kill -{name} {}", self.pid);
        let status = Command::new("sh").args(["-c", &kill]).status();
        assert!(
            status.expect("sh runs").success() || self.exit_code().is_some(),
            "`{kill}` failed"
        );
    }

    /// Holds it still (SIGSTOP). When this returns, none of its threads does anything any more.
    pub fn pause(&self) {
        self.signal("STOP");
        let until = Instant::now() + DEADLINE;
        while !self.stands_still() {
            assert!(Instant::now() < until, "{} goes on", self.pid);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Whether every thread is stopped: the signal is on its way to each of them for a while. Taken for granted where the
    /// system has no `/proc` to tell.
    fn stands_still(&self) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.pid)) else {
            return true;
        };
        threads.flatten().all(|thread| {
            // A thread that is gone does nothing either.
            let about = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            let state = about.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
            state.is_none_or(|state| state == "T")
        })
    }

    /// The exit code, if it has ended; 128 and the signal's number if a signal ended it.
    pub fn exit_code(&self) -> Option<i32> {
        *self.exit.borrow()
    }

    /// Waits for its end.
    pub async fn exited(&self, within: Duration) -> Option<i32> {
        let mut exit = self.exit.clone();
        let ended = tokio::time::timeout(within, exit.wait_for(Option::is_some)).await;
        ended.ok()?.ok().and_then(|code| *code)
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let _gone = self.guard.wait();
    }
}

fn next_number<N: std::str::FromStr>(lines: &mut BufReader<ChildStdout>) -> Option<N> {
    let mut line = String::new();
    lines.read_line(&mut line).ok()?;
    line.trim().parse().ok()
}

/// A new folder that goes with its owner, and with this process at the latest.
pub fn scratch() -> TempDir {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    let root = ROOT.get_or_init(|| {
        let name = format!("greentic-it-{:016x}", fastrand::u64(..));
        let root = std::env::temp_dir().join(name);
        // What runs on in there gets a second to be killed by its own guard.
        let remove = r#"sleep 1; rm -rf "$1""#;
        when_we_end(remove, &root.to_string_lossy()).expect("sh can be started");
        fs::create_dir(&root).expect("a folder can be made");
        root
    });
    TempDir::new_in(root).expect("a folder can be made")
}

/// Runs a shell script with one argument when this process ends, however it ends.
pub fn when_we_end(script: &str, argument: &str) -> io::Result<()> {
    let mut waiting = Command::new("sh");
    let script = format!("read -r _; {script}");
    waiting.args(["-c", &script, "guard", argument]);
    waiting.stdin(Stdio::piped()).stdout(Stdio::null());
    waiting.stderr(Stdio::null()).process_group(0);
    // Forgotten on purpose: the pipe closes with the process.
    std::mem::forget(waiting.spawn()?);
    Ok(())
}
