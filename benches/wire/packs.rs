//! The packs that are benched, each bound to a tenant of its own. All hold the same conversation of two turns: the first
//! reply asks, the second one repeats what was kept over the wait.

use std::fmt::Write;

use crate::harness::{FixturePack, Tenant, fresh_tenant};

/// The conversation of two turns that all benches hold unless they say otherwise.
pub fn bench_tenant() -> Tenant {
    let flow = include_str!("../pack/flows/main.ygtc");
    let nodes = flow.split_once("nodes:\n").expect("a flow has nodes").1;
    let nodes: Vec<_> = nodes
        .lines()
        .map(|line| line.strip_prefix("  ").unwrap_or(line))
        .collect();
    let pack = FixturePack::of("bench-pack", &[("main", &nodes.join("\n"))]);
    fresh_tenant().runs(&pack, &["main"], "")
}

/// A tenant with so many packs, each of its own name, and their ids.
pub fn many_packs(packs: usize) -> (Tenant, Vec<String>) {
    let nodes = "keep: {var.set: {name: who, value: \"{{in.from.id}}\"}, routing: [{to: ask}]}\n\
                 ask: {emit.message: {text: \"ask {{in.from.id}}: and?\"}, routing: [{to: wait}]}\n\
                 wait: {session.wait: {reason: the answer}, routing: [{to: answer}]}\n\
                 answer: {emit.message: {text: \"done {{vars.who}}: thanks\"}, routing: out}";
    let (mut tenant, mut ids) = (fresh_tenant(), Vec::new());
    for n in 0..packs {
        let pack = FixturePack::of(&format!("bench-pack-{n}"), &[("main", nodes)]);
        tenant = tenant.runs(&pack, &["main"], "");
        ids.push(pack.id.to_string());
    }
    (tenant, ids)
}

/// A pack whose turns run so many nodes each: its first keeps the name, its last speaks.
pub fn chain(nodes: usize) -> Tenant {
    let mut flow = String::new();
    for (turn, end) in [
        ("a", "ask {{in.from.id}}: and?"),
        ("b", "done {{vars.who}}: thanks"),
    ] {
        for n in 0..nodes.saturating_sub(1) {
            let name = if n == 0 && turn == "a" {
                "who"
            } else {
                "other"
            };
            let _ = writeln!(
                flow,
                "{turn}{n}: {{var.set: {{name: {name}, value: \"{{{{in.from.id}}}}\"}}, routing: [{{to: {turn}{}}}]}}",
                n + 1
            );
        }
        let last = nodes.saturating_sub(1);
        let next = if turn == "a" { "[{to: wait}]" } else { "out" };
        let _ = writeln!(
            flow,
            "{turn}{last}: {{emit.message: {{text: \"{end}\"}}, routing: {next}}}"
        );
        if turn == "a" {
            flow.push_str("wait: {session.wait: {reason: the answer}, routing: [{to: b0}]}\n");
        }
    }
    let pack = FixturePack::of("bench-chain", &[("main", &flow)]);
    fresh_tenant().runs(&pack, &["main"], "")
}

/// A pack whose turns give so many replies each.
pub fn chorus(replies: usize) -> Tenant {
    let mut flow = String::from(
        "keep: {var.set: {name: who, value: \"{{in.from.id}}\"}, routing: [{to: a0}]}\n",
    );
    for (turn, end, after) in [
        ("a", "ask {{in.from.id}}: and?", "[{to: wait}]"),
        ("b", "done {{vars.who}}: thanks", "out"),
    ] {
        for n in 0..replies {
            let last = n + 1 == replies;
            let text = if last { end } else { "one of several" };
            let next = if last {
                after.to_owned()
            } else {
                format!("[{{to: {turn}{}}}]", n + 1)
            };
            let _ = writeln!(
                flow,
                "{turn}{n}: {{emit.message: {{text: \"{text}\"}}, routing: {next}}}"
            );
        }
    }
    flow.push_str("wait: {session.wait: {reason: the answer}, routing: [{to: b0}]}\n");
    let pack = FixturePack::of("bench-chorus", &[("main", &flow)]);
    fresh_tenant().runs(&pack, &["main"], "")
}
