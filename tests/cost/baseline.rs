//! The committed figures, and how far a count may be from them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::count::Cost;

/// How far instructions may be off, either way: what is better is to be written down, or it is lost unseen.
const INSTRUCTIONS: f64 = 0.02;
/// The same where another compiler builds than built the baseline.
const OTHER_COMPILER: f64 = 0.10;
/// How far allocations may be off: tables in memory grow by leaps.
const ALLOCATIONS: f64 = 0.01;

#[derive(Serialize, Deserialize)]
struct Baseline {
    compiler: String,
    /// By workload, for one turn.
    turns: BTreeMap<String, Cost>,
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cost/turns.json")
}

/// Instructions differ by processor family, and by what the compiler makes of the program.
fn compiler() -> String {
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!(
        "{} for {}",
        rustc.expect("rustc can be asked for its version"),
        std::env::consts::ARCH
    )
}

/// Makes these counts the baseline.
pub fn write(counted: &BTreeMap<String, Cost>) {
    let baseline = Baseline {
        compiler: compiler(),
        turns: counted.clone(),
    };
    let mut text = serde_json::to_string_pretty(&baseline).expect("it is plain data");
    text.push('\n');
    fs::write(file(), text).expect("the baseline can be written");
    for (name, cost) in counted {
        println!("{name}: {cost:?}");
    }
}

/// Prints the counts beside the baseline; false if any is too far off.
pub fn compare(counted: &BTreeMap<String, Cost>) -> bool {
    let text = fs::read_to_string(file()).expect("there is a baseline");
    let baseline: Baseline = serde_json::from_str(&text).expect("the baseline can be read");
    let compiler = compiler();
    let instructions = if compiler == baseline.compiler {
        INSTRUCTIONS
    } else {
        println!("built by {compiler}, the baseline by {}", baseline.compiler);
        OTHER_COMPILER
    };
    let names: BTreeSet<_> = counted.keys().chain(baseline.turns.keys()).collect();
    let mut right = true;
    println!(
        "{:<20} {:>14} {:>14}   a turn, and against the baseline",
        "", "instructions", "allocations"
    );
    for name in names {
        let (Some(now), Some(then)) = (counted.get(name), baseline.turns.get(name)) else {
            println!("{name:<20} is only in one of both");
            right = false;
            continue;
        };
        let checks = [
            (now.instructions, then.instructions, instructions),
            (now.allocations, then.allocations, ALLOCATIONS),
            (now.bytes, then.bytes, ALLOCATIONS),
        ];
        let mut line = format!(
            "{name:<20} {:>14} {:>14}  ",
            now.instructions, now.allocations
        );
        for ((now, then, tolerance), what) in
            checks
                .into_iter()
                .zip(["instructions", "allocations", "bytes"])
        {
            let off = now / then - 1.0;
            let fits = off.abs() <= tolerance;
            line.push_str(&format!(
                " {what} {:+.1}%{}",
                off * 100.0,
                if fits { "" } else { "!" }
            ));
            right &= fits;
        }
        println!("{line}");
    }
    if !right {
        println!("the cost of a turn has changed; if it is meant to: UPDATE=1 ./dev cost");
    }
    right
}
