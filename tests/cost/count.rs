//! Counting by valgrind. Each workload runs twice, with few turns and with more: the difference is what turns cost, and
//! all that comes before and after them falls out.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::workload::Workload;

/// Turns of the shorter and of the longer run.
const FEW: usize = 40;
const MORE: usize = 240;

/// Has the C library copy by vectors whatever the processor offers: valgrind takes each byte of a `rep movsb` for an
/// instruction.
const COPY_BY_VECTORS: &str =
    "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000";

/// What one turn costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Instructions.
    pub instructions: f64,
    /// Allocations.
    pub allocations: f64,
    /// Bytes allocated.
    pub bytes: f64,
}

/// What a run came to in all.
struct Total {
    instructions: u64,
    allocations: u64,
    bytes: u64,
}

/// The cost of each workload, by its name.
pub fn all() -> BTreeMap<String, Cost> {
    if cfg!(debug_assertions) {
        panic!("what is counted must be optimised: ./dev cost");
    }
    let found = Command::new("valgrind").arg("--version").output();
    found.expect("valgrind is needed for this: apt install valgrind");
    let (queue, counted) = (Mutex::new(Workload::all()), Mutex::new(BTreeMap::new()));
    let next = || queue.lock().expect("nobody panics with it").pop();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|threads| {
        for _ in 0..cores {
            threads.spawn(|| {
                while let Some(workload) = next() {
                    let cost = cost(&workload.name());
                    let mut counted = counted.lock().expect("nobody panics with it");
                    counted.insert(workload.name(), cost);
                }
            });
        }
    });
    counted.into_inner().expect("nobody panics with it")
}

fn cost(name: &str) -> Cost {
    let (few, more) = (total(name, FEW), total(name, MORE));
    let each = |few: u64, more: u64| (more as f64 - few as f64) / (MORE - FEW) as f64;
    let rounded = |figure: f64| (figure * 10.0).round() / 10.0;
    Cost {
        instructions: each(few.instructions, more.instructions).round(),
        allocations: rounded(each(few.allocations, more.allocations)),
        bytes: each(few.bytes, more.bytes).round(),
    }
}

fn total(name: &str, turns: usize) -> Total {
    let instructions = valgrind(
        &["--tool=callgrind", "--callgrind-out-file=/dev/null"],
        name,
        turns,
    );
    let heap = valgrind(&["--tool=dhat", "--dhat-out-file=/dev/null"], name, turns);
    // Collected : 123   and   Total:     1,234 bytes in 56 blocks
    let heap = numbers(after(&heap, "Total:"));
    Total {
        instructions: numbers(after(&instructions, "Collected :"))[0],
        allocations: heap[1],
        bytes: heap[0],
    }
}

/// What valgrind says of this very program at work.
fn valgrind(tool: &[&str], name: &str, turns: usize) -> String {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new("valgrind")
        .args(tool)
        .env("GLIBC_TUNABLES", COPY_BY_VECTORS)
        .arg("--")
        .arg(program)
        .args(["work", name, &turns.to_string()])
        .output()
        .expect("valgrind can be started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name}: {said}");
    said
}

fn after<'a>(said: &'a str, label: &str) -> &'a str {
    let line = said
        .lines()
        .find_map(|line| Some(line.split_once(label)?.1));
    line.unwrap_or_else(|| panic!("valgrind does not say `{label}`: {said}"))
}

/// The numbers of a line; valgrind puts commas into them.
fn numbers(line: &str) -> Vec<u64> {
    let plain = line.replace(',', "");
    let words = plain.split_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}
