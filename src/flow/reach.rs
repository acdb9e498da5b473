//! What can be told from the graph alone: which nodes are reached from where, and which state and components a run may
//! come to. Its work grows with the nodes and routes of a pack.

use std::collections::BTreeSet;

use super::graph::{FlowIx, NodeIx, Program};
use super::nodes::{Kind, Onward};
use super::path::{Root, Uses};
use crate::model::FlowId;

/// A node of a program.
pub(super) type At = (FlowIx, NodeIx);

/// The most state keys of a flow that are asked for before it runs; a run reads the others when it comes to them.
const MAX_STATE_KEYS: usize = 256;

/// What each node's templates may look at.
#[derive(Debug, Default)]
pub(super) struct NodeUses {
    /// Before its output is there: its mapping.
    pub(super) before: Uses,
    /// With its output as `prev`: its bindings and conditions.
    pub(super) after: Uses,
}

impl NodeUses {
    pub(super) fn looks_at_prev(&self) -> bool {
        let is_prev = |(root, _): &(Root, Vec<Box<str>>)| *root == Root::Prev;
        self.before.everything || self.before.places.iter().any(is_prev)
    }
}

/// The nodes of a program, and where a run may go from each. What may go to all nodes of a flow, or of all flows, goes to a
/// point that stands for them.
pub(super) struct Graph {
    nodes: Vec<At>,
    /// Where each flow's nodes begin.
    starts: Vec<usize>,
    after: Vec<Vec<usize>>,
}

impl Graph {
    pub(super) fn of(program: &Program) -> Self {
        let flows = program.flows.iter().enumerate();
        let all =
            flows.flat_map(|(flow, nodes)| (0..nodes.nodes.len()).map(move |node| (flow, node)));
        let nodes: Vec<At> = all.collect();
        let starts = program.flows.iter().scan(0, |next, flow| {
            let start = *next;
            *next += flow.nodes.len();
            Some(start)
        });
        let starts: Vec<usize> = starts.collect();
        let (count, flows) = (nodes.len(), program.flows.len());
        let anywhere = count + flows;
        let mut graph = Self {
            nodes,
            starts,
            after: Vec::with_capacity(anywhere + 1),
        };
        for at in 0..count {
            let after = graph.onward(program, graph.nodes[at]);
            graph.after.push(after);
        }
        for (flow, start) in graph.starts.iter().enumerate() {
            let end = start + program.flows[flow].nodes.len();
            graph.after.push((*start..end).collect());
        }
        graph.after.push((count..anywhere).collect());
        graph
    }

    fn onward(&self, program: &Program, at: At) -> Vec<usize> {
        let (count, flows) = (self.nodes.len(), self.starts.len());
        let node = program.node(at.0, at.1);
        let elsewhere = match &node.kind {
            Kind::Goto(goto) => jump(program, goto),
            // Its answer may ask for a jump.
            Kind::Component(_) => Onward::Anywhere,
            Kind::Emit(_)
            | Kind::Wait(_)
            | Kind::Call(_)
            | Kind::StateGet(_)
            | Kind::StateSet(_)
            | Kind::VarSet(_)
            | Kind::Provider(_) => {
                let next = after_wait(program, at).into_iter();
                return next.map(|at| self.position(at)).collect();
            }
        };
        vec![match elsewhere {
            Onward::Node(flow, node) => {
                self.position((flow, node.unwrap_or(program.flows[flow].entry)))
            }
            Onward::WithinFlow(flow) => count + flow,
            Onward::Anywhere => count + flows,
        }]
    }

    /// The position of a node.
    pub(super) fn position(&self, (flow, node): At) -> usize {
        self.starts[flow] + node
    }

    /// The node at a position, if it is one.
    pub(super) fn node(&self, position: usize) -> Option<At> {
        self.nodes.get(position).copied()
    }

    /// The positions that come next.
    pub(super) fn after(&self, position: usize) -> impl Iterator<Item = usize> {
        self.after[position].iter().copied()
    }

    /// The groups of positions that reach one another, each after all that it leads to, and the group of each position.
    /// (Tarjan's algorithm, without recursion.)
    pub(super) fn groups(&self) -> (Vec<Vec<usize>>, Vec<usize>) {
        const NEW: usize = usize::MAX;
        let count = self.after.len();
        let (mut order, mut low) = (vec![NEW; count], vec![NEW; count]);
        let (mut groups, mut group_of) = (Vec::<Vec<usize>>::new(), vec![NEW; count]);
        let (mut open, mut path) = (Vec::new(), Vec::<(usize, usize)>::new());
        let mut seen = 0;
        for start in 0..count {
            if order[start] == NEW {
                path.push((start, 0));
            }
            while let Some((at, next)) = path.pop() {
                if next == 0 {
                    (order[at], low[at]) = (seen, seen);
                    seen += 1;
                    open.push(at);
                }
                if let Some(&to) = self.after[at].get(next) {
                    path.push((at, next + 1));
                    if order[to] == NEW {
                        path.push((to, 0));
                    } else if group_of[to] == NEW {
                        low[at] = low[at].min(order[to]);
                    }
                    continue;
                }
                if low[at] == order[at] {
                    let begin = open.iter().rposition(|member| *member == at).unwrap_or(0);
                    let group = open.split_off(begin);
                    for member in &group {
                        group_of[*member] = groups.len();
                    }
                    groups.push(group);
                }
                if let Some((from, _)) = path.last() {
                    low[*from] = low[*from].min(low[at]);
                }
            }
        }
        (groups, group_of)
    }

    /// Whether a run that starts at one of these comes to each position.
    fn reached(&self, starts: impl IntoIterator<Item = usize>) -> Vec<bool> {
        let mut reached = vec![false; self.after.len()];
        let mut pending: Vec<usize> = starts.into_iter().collect();
        while let Some(at) = pending.pop() {
            if !std::mem::replace(&mut reached[at], true) {
                pending.extend(self.after(at).filter(|to| !reached[*to]));
            }
        }
        reached
    }
}

/// The nodes of the same flow that a run may come to from this one, or that a wait there may go on with.
pub(super) fn after_wait(program: &Program, at: At) -> Vec<At> {
    let node = program.node(at.0, at.1);
    let mut nodes = node.routing.targets();
    if let Kind::Wait(wait) = &node.kind {
        nodes.extend(wait.timeout.and_then(|(_, to)| to));
    }
    nodes.into_iter().map(|to| (at.0, to)).collect()
}

fn jump(program: &Program, goto: &super::nodes::FlowGoto) -> Onward {
    goto.leads_to(|flow, name| program.flows[flow].node_named(name))
}

/// The nodes that no run comes to. A run may start at any flow's entry, and at `others`.
pub(super) fn unreached(program: &Program, others: &[At]) -> Vec<At> {
    let graph = Graph::of(program);
    let entries = program
        .flows
        .iter()
        .enumerate()
        .map(|(ix, flow)| (ix, flow.entry));
    let starts = entries.chain(others.iter().copied());
    let reached = graph.reached(starts.map(|at| graph.position(at)));
    let all = graph.nodes.iter().zip(reached);
    all.filter(|(_, reached)| !reached)
        .map(|(at, _)| *at)
        .collect()
}

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
