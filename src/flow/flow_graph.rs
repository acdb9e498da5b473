//! What can be told of whole flows: which state and which components a run may come to.

use std::collections::BTreeSet;

use super::graph::{FlowIx, Program};
use super::nodes::{Kind, Onward};
use super::reach::jump;
use crate::model::FlowId;

/// The most state keys of a flow that are asked for before it runs; a run reads the others when it comes to them.
const MAX_STATE_KEYS: usize = 256;

/// What each flow has itself, and where it leads.
pub(super) struct FlowGraph {
    after: Vec<Vec<FlowIx>>,
    /// It may lead to any flow.
    anywhere: Vec<bool>,
    state_keys: Vec<BTreeSet<String>>,
    components: Vec<BTreeSet<String>>,
}

impl FlowGraph {
    pub(super) fn of(program: &Program) -> Self {
        let count = program.flows.len();
        let mut graph = Self {
            after: vec![Vec::new(); count],
            anywhere: vec![false; count],
            state_keys: vec![BTreeSet::new(); count],
            components: vec![BTreeSet::new(); count],
        };
        for (flow, nodes) in program.flows.iter().enumerate() {
            for node in &nodes.nodes {
                match flow_after(program, &node.kind) {
                    Some(Onward::Anywhere) => graph.anywhere[flow] = true,
                    Some(Onward::Node(to, _) | Onward::WithinFlow(to)) => {
                        graph.after[flow].push(to);
                    }
                    None => {}
                }
                if let Kind::StateGet(get) = &node.kind
                    && let Some(key) = get.literal_key()
                    && graph.state_keys[flow].len() < MAX_STATE_KEYS
                {
                    graph.state_keys[flow].insert(key.to_owned());
                }
                add_called(program, &node.kind, &mut graph.components[flow]);
            }
            graph.after[flow].sort_unstable();
            graph.after[flow].dedup();
        }
        graph
    }

    /// The literal state keys that a run of this flow may read. What may be anywhere is read when it is known.
    pub(super) fn state_keys(&self, program: &Program, start: FlowIx) -> Vec<(FlowId, String)> {
        let mut keys = Vec::new();
        for flow in self.reached(start, false) {
            let id = &program.flows[flow].id;
            let own = self.state_keys[flow].iter();
            keys.extend(own.map(|key| (id.clone(), key.clone())));
            if keys.len() >= MAX_STATE_KEYS {
                break;
            }
        }
        keys.sort();
        keys.truncate(MAX_STATE_KEYS);
        keys
    }

    /// The components that a run of this flow may call.
    pub(super) fn components(&self, start: FlowIx) -> Vec<String> {
        let flows = self.reached(start, true);
        let called = flows.into_iter().flat_map(|flow| &self.components[flow]);
        let called: BTreeSet<&String> = called.collect();
        called.into_iter().cloned().collect()
    }

    /// The flows that a run of this flow may come to, itself first. `follows` says whether what may lead anywhere counts.
    fn reached(&self, start: FlowIx, follows: bool) -> Vec<FlowIx> {
        let mut reached = vec![start];
        let mut seen = vec![false; self.after.len()];
        seen[start] = true;
        let mut next = 0;
        while let Some(&flow) = reached.get(next) {
            next += 1;
            if follows && self.anywhere[flow] {
                return (0..self.after.len()).collect();
            }
            let after = self.after[flow].iter().copied();
            reached.extend(after.filter(|to| !std::mem::replace(&mut seen[*to], true)));
        }
        reached
    }
}

fn add_called(program: &Program, kind: &Kind, called: &mut BTreeSet<String>) {
    match kind {
        Kind::Component(node) => {
            called.insert(node.name().to_owned());
        }
        Kind::Provider(node) => match node.component() {
            Some(component) => {
                called.insert(component.to_owned());
            }
            None => {
                let all = program.inventory.providers.iter();
                called.extend(all.map(|provider| provider.component.clone()));
            }
        },
        Kind::Emit(_)
        | Kind::Wait(_)
        | Kind::Call(_)
        | Kind::Goto(_)
        | Kind::StateGet(_)
        | Kind::StateSet(_)
        | Kind::VarSet(_) => {}
    }
}

fn flow_after(program: &Program, kind: &Kind) -> Option<Onward> {
    match kind {
        Kind::Call(call) => Some(call.calls().map_or(Onward::Anywhere, Onward::WithinFlow)),
        Kind::Goto(goto) => Some(jump(program, goto)),
        Kind::Component(_) => Some(Onward::Anywhere),
        Kind::Emit(_)
        | Kind::Wait(_)
        | Kind::StateGet(_)
        | Kind::StateSet(_)
        | Kind::VarSet(_)
        | Kind::Provider(_) => None,
    }
}
