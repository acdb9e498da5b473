//! What can be told from the graph alone: which nodes are reached from where. Its work grows with the nodes and routes of a pack.

use super::graph::{FlowIx, NodeIx, Program};
use super::nodes::{Kind, Onward};
use super::path::{Root, Uses};
/// A node of a program.
pub(super) type At = (FlowIx, NodeIx);

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

    /// Returns whether a run that starts at one of these comes to each position.
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

pub(super) fn jump(program: &Program, goto: &super::nodes::FlowGoto) -> Onward {
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
