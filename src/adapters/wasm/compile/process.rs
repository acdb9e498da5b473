//! The process that compiles one component: the worker's side, which starts and ends it, and its own.
//!
//! It gets the component on its standard input and answers on its standard output: a byte that says what follows, then the
//! machine code or the reason why there is none. It has no environment, a low priority, and is the first that the system
//! ends when memory is short.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Resource, Rlimit, Signal};

use super::super::config::Config;
use super::super::engine;
use super::CompileError;

/// The most machine code of one component: some ten times that of the largest public ones.
const MAX_CODE: usize = 512 * 1024 * 1024;
/// How much of what it says on its standard error is read.
const MAX_WORDS: u64 = 4096;
/// How often it is looked at whether it has ended; doubled from the first to the longest.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LONGEST_LOOK: Duration = Duration::from_millis(50);
/// Lower than what serves messages.
const NICE: i32 = 10;

const CODE: u8 = 0;
const REASON: u8 = 1;

/// What the process is told.
#[derive(Clone, Copy, Debug, Args)]
pub struct CompilerOptions {
    /// `components.stack_bytes` of the worker
    #[arg(long)]
    stack_bytes: usize,
    /// The most memory, in bytes
    #[arg(long)]
    memory_bytes: u64,
    /// The most processor time, in seconds
    #[arg(long)]
    cpu_seconds: u64,
}

/// Compiles a component in a process of this program.
pub(super) fn compile(
    program: &Path,
    config: &Config,
    bytes: &[u8],
) -> Result<Vec<u8>, CompileError> {
    let mut child = start(program, config)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let limit = config.compile.timeout;
    thread::scope(|scope| {
        // Each pipe has a thread of its own: who waits for one of them may be waited for at another.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(bytes)));
        let code = scope.spawn(move || stdout.map(|stdout| read(stdout, MAX_CODE as u64 + 2)));
        let words = scope.spawn(move || stderr.map(|stderr| read(stderr, MAX_WORDS)));
        let ended = wait(&mut child, limit);
        let code = code.join().ok().flatten().unwrap_or_default();
        let words = words.join().ok().flatten().unwrap_or_default();
        match ended? {
            None => Err(CompileError::Timeout(limit)),
            Some(status) => answer(status, code, &words, config.compile.memory_bytes.get()),
        }
    })
}

fn start(program: &Path, config: &Config) -> io::Result<Child> {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let compile = &config.compile;
    let cpu_seconds = compile.timeout.as_secs().saturating_add(1) * cores;
    Command::new(program)
        .arg("compile-component")
        .args(["--stack-bytes", &config.stack_bytes.to_string()])
        .args(["--memory-bytes", &compile.memory_bytes.to_string()])
        .args(["--cpu-seconds", &cpu_seconds.to_string()])
        .env_clear()
        // Addresses that are only reserved count as memory there, so few are.
        .env("MIMALLOC_ARENA_RESERVE", "65536")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// Reads so many bytes; what comes after them finds a closed pipe.
fn read(pipe: impl Read, at_most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What came before an error is what there is.
    let _partial = pipe.take(at_most).read_to_end(&mut bytes);
    bytes
}

/// Waits for the end of the process; ends it when its time is up.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let began = Instant::now();
    let mut pause = FIRST_LOOK;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let Some(left) = limit.checked_sub(began.elapsed()) else {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        };
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(LONGEST_LOOK);
    }
}

fn answer(
    status: ExitStatus,
    mut said: Vec<u8>,
    words: &[u8],
    memory_bytes: usize,
) -> Result<Vec<u8>, CompileError> {
    if said.len() > MAX_CODE + 1 {
        return Err(CompileError::CodeSize(MAX_CODE));
    }
    if status.success() && !said.is_empty() {
        return match said.remove(0) {
            CODE => Ok(said),
            _ => {
                let reason = String::from_utf8_lossy(&said).into_owned();
                Err(CompileError::Rejected(reason))
            }
        };
    }
    let words = String::from_utf8_lossy(words);
    // The words of Rust's runtime, which has no other way to tell.
    if words.contains("memory allocation of") || words.contains("Cannot allocate memory") {
        return Err(CompileError::Memory(memory_bytes));
    }
    if words.contains("overflowed its stack") {
        return Err(CompileError::Crashed(
            "since the component nests deeper than it can follow".to_owned(),
        ));
    }
    let last = words.lines().next().unwrap_or_default();
    Err(CompileError::Crashed(format!("{status}: {last}")))
}

/// The process itself.
///
/// # Errors
/// It cannot be confined, or cannot read or write.
pub fn run_compiler(options: CompilerOptions) -> io::Result<()> {
    confine(&options)?;
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    let compiled = engine::for_compiling(options.stack_bytes)
        .and_then(|engine| engine.precompile_component(&bytes));
    let mut out = io::stdout().lock();
    match compiled {
        Ok(code) => {
            out.write_all(&[CODE])?;
            out.write_all(&code)?;
        }
        Err(error) => {
            out.write_all(&[REASON])?;
            out.write_all(format!("{error:#}").as_bytes())?;
        }
    }
    out.flush()
}

/// Takes from this process what compiling does not need.
fn confine(options: &CompilerOptions) -> io::Result<()> {
    // What is mapped already, the program itself above all, is not the component's doing.
    let memory = options.memory_bytes.saturating_add(mapped_bytes());
    for (resource, limit) in [
        (Resource::As, memory),
        (Resource::Cpu, options.cpu_seconds),
        (Resource::Core, 0),
    ] {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        rustix::process::setrlimit(resource, limit)?;
    }
    rustix::process::nice(NICE)?;
    #[cfg(target_os = "linux")]
    {
        // A worker that is killed ends nobody else.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // Where this may not be said, the largest process is chosen all the same.
        let _unchanged = std::fs::write("/proc/self/oom_score_adj", "1000");
    }
    Ok(())
}

fn mapped_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|pages| pages.split(' ').next()?.parse::<u64>().ok());
    pages.unwrap_or_default() * rustix::param::page_size() as u64
}
