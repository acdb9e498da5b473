//! What can be told from the graph alone: which nodes are reached from where, what a run that waits must keep, and
//! which state a run may read.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::graph::{FlowIx, NodeIx, Program};
use super::nodes::{Kind, Onward};
use super::path::{Root, Uses};
use crate::model::FlowId;

/// A node of a program.
pub(super) type At = (FlowIx, NodeIx);

/// What a run that waits must keep, since a node that it may come to later can look at it.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// The outputs of these nodes.
    pub(super) outputs: Names,
    /// These variables.
    pub(super) vars: Names,
    /// The output of the node that ran last.
    pub(super) prev: bool,
}

/// Some names, or all.
#[derive(Debug)]
pub(super) enum Names {
    /// Any of them.
    All,
    /// Only these.
    Only(BTreeSet<Box<str>>),
}

impl Default for Names {
    fn default() -> Self {
        Self::Only(BTreeSet::new())
    }
}

impl Names {
    /// Whether this name is one of them.
    pub(super) fn contain(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }

    fn add(&mut self, name: Option<&str>) {
        match (&mut *self, name) {
            (Self::All, _) => {}
            (Self::Only(names), Some(name)) => {
                names.insert(name.into());
            }
            (Self::Only(_), None) => *self = Self::All,
        }
    }
}

impl Needs {
    fn add(&mut self, uses: &Uses) {
        if uses.everything {
            self.outputs = Names::All;
            self.vars = Names::All;
        }
        for (root, keys) in &uses.places {
            let key = |at: usize| keys.get(at).map(|key| &**key);
            match root {
                Root::Node => self.outputs.add(key(0)),
                Root::Vars => self.vars.add(key(0)),
                Root::State if key(0).is_none_or(|key| key == "nodes") => self.outputs.add(key(1)),
                Root::State
                | Root::Entry
                | Root::In
                | Root::Prev
                | Root::Now
                | Root::Env
                | Root::Input
                | Root::Result => {}
            }
        }
    }
}

/// What each node's templates may look at.
#[derive(Debug, Default)]
pub(super) struct NodeUses {
    /// Before its output is there: its mapping.
    pub(super) before: Uses,
    /// With its output as `prev`: its bindings and conditions.
    pub(super) after: Uses,
}

impl NodeUses {
    fn looks_at_prev(&self) -> bool {
        let is_prev = |(root, _): &(Root, Vec<Box<str>>)| *root == Root::Prev;
        self.before.everything || self.before.places.iter().any(is_prev)
    }
}

/// The nodes that a run may come to next from this one.
fn onward(program: &Program, at: At) -> Vec<At> {
    let node = program.node(at.0, at.1);
    let mut onward: Vec<At> = node
        .routing
        .targets()
        .into_iter()
        .map(|to| (at.0, to))
        .collect();
    match &node.kind {
        Kind::Wait(wait) => onward.extend(wait.timeout.and_then(|(_, to)| Some((at.0, to?)))),
        Kind::Goto(goto) => match jump(program, goto) {
            Onward::Node(flow, node) => {
                return vec![(flow, node.unwrap_or(program.flows[flow].entry))];
            }
            Onward::WithinFlow(flow) => return all_of(program, flow).collect(),
            Onward::Anywhere => return anywhere(program).collect(),
        },
        // Its answer may ask for a jump.
        Kind::Component(_) => return anywhere(program).collect(),
        Kind::Emit(_)
        | Kind::Call(_)
        | Kind::StateGet(_)
        | Kind::StateSet(_)
        | Kind::VarSet(_)
        | Kind::Provider(_) => {}
    }
    onward
}

fn anywhere(program: &Program) -> impl Iterator<Item = At> {
    (0..program.flows.len()).flat_map(|flow| all_of(program, flow))
}

fn jump(program: &Program, goto: &super::nodes::FlowGoto) -> Onward {
    goto.leads_to(|flow, name| program.flows[flow].node_named(name))
}

fn all_of(program: &Program, flow: FlowIx) -> impl Iterator<Item = At> {
    (0..program.flows[flow].nodes.len()).map(move |node| (flow, node))
}

fn reached_from(program: &Program, starts: impl IntoIterator<Item = At>) -> HashSet<At> {
    let mut pending: Vec<At> = starts.into_iter().collect();
    let mut reached: HashSet<At> = pending.iter().copied().collect();
    while let Some(at) = pending.pop() {
        pending.extend(
            onward(program, at)
                .into_iter()
                .filter(|to| reached.insert(*to)),
        );
    }
    reached
}

/// The nodes that no run comes to. A run may start at any flow's entry, and at `others`.
pub(super) fn unreached(program: &Program, others: &[At]) -> Vec<At> {
    let entries = program
        .flows
        .iter()
        .enumerate()
        .map(|(ix, flow)| (ix, flow.entry));
    let reached = reached_from(program, entries.chain(others.iter().copied()));
    let all = (0..program.flows.len()).flat_map(|flow| all_of(program, flow));
    all.filter(|at| !reached.contains(at)).collect()
}

/// What a run that waits at this node must keep. `uses` has what each node of each flow looks at.
pub(super) fn needs(program: &Program, uses: &[Vec<NodeUses>], at: At) -> Needs {
    let node = program.node(at.0, at.1);
    let is_wait = matches!(node.kind, Kind::Wait(_));
    if !is_wait && !node.routing.may_stay() {
        return Needs::default();
    }
    let resumes_at = if is_wait {
        onward(program, at)
    } else {
        vec![at]
    };
    let of = |at: &At| &uses[at.0][at.1];
    let mut needs = Needs {
        prev: resumes_at.iter().any(|at| of(at).looks_at_prev()),
        ..Needs::default()
    };
    for reached in reached_from(program, resumes_at) {
        needs.add(&of(&reached).before);
        needs.add(&of(&reached).after);
    }
    if !is_wait {
        needs.forget_own(&node.name, of(&at));
    }
    needs
}

impl Needs {
    /// A node that waits for a message runs again when it comes, so its output is made anew before others see it.
    fn forget_own(&mut self, name: &Arc<str>, own: &NodeUses) {
        let mut own_needs = Self::default();
        own_needs.add(&own.before);
        if let Names::Only(outputs) = &mut self.outputs
            && !own_needs.outputs.contain(name)
        {
            outputs.remove(&**name);
        }
    }
}

/// The literal state keys that a run of this flow may read.
pub(super) fn state_keys(program: &Program, start: FlowIx) -> Vec<(FlowId, String)> {
    let mut keys = Vec::new();
    for flow in flows_from(program, start, |onward| match onward {
        // What may be anywhere is read when it is known.
        Onward::Anywhere => None,
        Onward::Node(flow, _) | Onward::WithinFlow(flow) => Some(flow..flow + 1),
    }) {
        let flow = &program.flows[flow];
        for node in &flow.nodes {
            if let Kind::StateGet(get) = &node.kind
                && let Some(key) = get.literal_key()
            {
                keys.push((flow.id.clone(), key.to_owned()));
            }
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

/// The components that a run of this flow may call.
pub(super) fn components(program: &Program, start: FlowIx) -> Vec<String> {
    let all = || 0..program.flows.len();
    let flows = flows_from(program, start, |onward| match onward {
        Onward::Anywhere => Some(all()),
        Onward::Node(flow, _) | Onward::WithinFlow(flow) => Some(flow..flow + 1),
    });
    let nodes = flows
        .into_iter()
        .flat_map(|flow| &program.flows[flow].nodes);
    let mut called: Vec<String> = nodes.flat_map(|node| called(program, &node.kind)).collect();
    called.sort();
    called.dedup();
    called
}

fn called(program: &Program, kind: &Kind) -> Vec<String> {
    match kind {
        Kind::Component(node) => vec![node.name().to_owned()],
        Kind::Provider(node) => match node.component() {
            Some(component) => vec![component.to_owned()],
            None => {
                let all = program.inventory.providers.iter();
                all.map(|provider| provider.component.clone()).collect()
            }
        },
        Kind::Emit(_)
        | Kind::Wait(_)
        | Kind::Call(_)
        | Kind::Goto(_)
        | Kind::StateGet(_)
        | Kind::StateSet(_)
        | Kind::VarSet(_) => Vec::new(),
    }
}

/// The flows that a run of this flow may come to, itself included. `leads` tells what a jump or an answer leads to.
fn flows_from(
    program: &Program,
    start: FlowIx,
    leads: impl Fn(Onward) -> Option<std::ops::Range<FlowIx>>,
) -> HashSet<FlowIx> {
    let mut pending = vec![start];
    let mut seen = HashSet::from([start]);
    while let Some(flow) = pending.pop() {
        let nodes = program.flows[flow].nodes.iter();
        let onward = nodes.filter_map(|node| flow_after(program, &node.kind));
        for next in onward.filter_map(&leads).flatten() {
            if seen.insert(next) {
                pending.push(next);
            }
        }
    }
    seen
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
