//! What a run that waits must keep: what a node that it may come to later can look at.
//!
//! The nodes that reach one another are taken as one, and what each of these groups needs is gathered from the groups
//! after it. So the work grows with the nodes and routes of a pack, not with the paths through them.

use std::collections::HashMap;
use std::sync::Arc;

use super::graph::Program;
use super::nodes::Kind;
use super::path::{Root, Uses};
use super::reach::{At, Graph, NodeUses};

/// More names than this are not told apart: a run then keeps all it has.
const MAX_NAMES: usize = 4096;

/// What a run that waits must keep.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// The outputs of these nodes.
    pub(super) outputs: Names,
    /// These variables.
    pub(super) vars: Names,
    /// The output of the node that ran last.
    pub(super) prev: bool,
}

/// Some of the names that a pack's templates use, or all.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    all: bool,
    /// One bit for each.
    bits: Box<[u64]>,
    positions: Positions,
}

/// The position of each name among the bits.
type Positions = Arc<HashMap<Box<str>, usize>>;

impl Names {
    fn none(positions: &Positions) -> Self {
        Self {
            all: false,
            bits: vec![0; positions.len().div_ceil(64)].into(),
            positions: Arc::clone(positions),
        }
    }

    /// Returns whether this name is one of them.
    pub(super) fn contain(&self, name: &str) -> bool {
        let known = |at: &usize| {
            self.bits
                .get(at / 64)
                .is_some_and(|bits| bits >> (at % 64) & 1 == 1)
        };
        self.all || self.positions.get(name).is_some_and(known)
    }

    /// Adds a name; all of them where it is not told or not known.
    fn add(&mut self, name: Option<&str>) {
        let at = name.and_then(|name| self.positions.get(name));
        match at.and_then(|at| Some((self.bits.get_mut(at / 64)?, at % 64))) {
            Some((bits, at)) => *bits |= 1 << at,
            None => self.all = true,
        }
    }

    fn add_all(&mut self, other: &Self) {
        self.all |= other.all;
        for (bits, more) in self.bits.iter_mut().zip(&other.bits) {
            *bits |= more;
        }
    }

    fn remove(&mut self, name: &str) {
        if let Some(at) = self.positions.get(name)
            && let Some(bits) = self.bits.get_mut(at / 64)
        {
            *bits &= !(1 << (at % 64));
        }
    }
}

/// The names of outputs and of variables that a place may stand for.
fn named(root: Root, keys: &[Box<str>]) -> (Option<Named<'_>>, Option<Named<'_>>) {
    let key = |at: usize| Some(keys.get(at).map(|key| &**key));
    match root {
        Root::Node => (key(0), None),
        Root::Vars => (None, key(0)),
        Root::State if keys.first().is_none_or(|key| &**key == "nodes") => (key(1), None),
        Root::State
        | Root::Entry
        | Root::In
        | Root::Prev
        | Root::Now
        | Root::Env
        | Root::Input
        | Root::Result => (None, None),
    }
}

/// A name, or any.
type Named<'n> = Option<&'n str>;

#[derive(Clone, Debug)]
struct Sets {
    outputs: Names,
    vars: Names,
}

impl Sets {
    fn add(&mut self, uses: &Uses) {
        if uses.everything {
            self.outputs.all = true;
            self.vars.all = true;
        }
        for (root, keys) in &uses.places {
            let (output, var) = named(*root, keys);
            if let Some(name) = output {
                self.outputs.add(name);
            }
            if let Some(name) = var {
                self.vars.add(name);
            }
        }
    }

    fn add_all(&mut self, other: &Self) {
        self.outputs.add_all(&other.outputs);
        self.vars.add_all(&other.vars);
    }
}

/// The names that the templates of a pack use.
fn positions(uses: &[Vec<NodeUses>]) -> (Positions, Positions) {
    let (mut outputs, mut vars) = (HashMap::new(), HashMap::new());
    let all = uses
        .iter()
        .flatten()
        .flat_map(|uses| [&uses.before, &uses.after]);
    for (root, keys) in all.flat_map(|uses| &uses.places) {
        let (output, var) = named(*root, keys);
        for (name, known) in [(output, &mut outputs), (var, &mut vars)] {
            if let Some(Some(name)) = name
                && known.len() < MAX_NAMES
                && !known.contains_key(name)
            {
                known.insert(name.into(), known.len());
            }
        }
    }
    (outputs.into(), vars.into())
}

/// What a run that waits at each of the nodes must keep, by flow and node. `uses` has what each node looks at.
pub(super) fn needs(program: &Program, uses: &[Vec<NodeUses>]) -> Vec<Vec<Needs>> {
    let graph = Graph::of(program);
    let (outputs, vars) = positions(uses);
    let none = Sets {
        outputs: Names::none(&outputs),
        vars: Names::none(&vars),
    };
    let (groups, group_of) = graph.groups();
    let mut sets: Vec<Sets> = Vec::with_capacity(groups.len());
    for (at, group) in groups.iter().enumerate() {
        let mut set = none.clone();
        for &node in group {
            if let Some((flow, node)) = graph.node(node) {
                set.add(&uses[flow][node].before);
                set.add(&uses[flow][node].after);
            }
            for next in graph.after(node) {
                // The groups come in an order in which those after a group are there already.
                let next = group_of[next];
                if next != at {
                    set.add_all(&sets[next]);
                }
            }
        }
        sets.push(set);
    }
    let of = |at: At| {
        of_node(program, uses, at, &none, |at| {
            &sets[group_of[graph.position(at)]]
        })
    };
    let flows = program.flows.iter().enumerate();
    flows
        .map(|(flow, nodes)| {
            (0..nodes.nodes.len())
                .map(|node| of((flow, node)))
                .collect()
        })
        .collect()
}

fn of_node<'s>(
    program: &Program,
    uses: &[Vec<NodeUses>],
    at: At,
    none: &Sets,
    reached: impl Fn(At) -> &'s Sets,
) -> Needs {
    let node = program.node(at.0, at.1);
    let is_wait = matches!(node.kind, Kind::Wait(_));
    if !is_wait && !node.routing.may_stay() {
        return Needs::default();
    }
    let resumes_at = if is_wait {
        super::reach::after_wait(program, at)
    } else {
        vec![at]
    };
    let mut sets = none.clone();
    for start in &resumes_at {
        sets.add_all(reached(*start));
    }
    let own = &uses[at.0][at.1];
    // A node that waits for a message runs again when it comes, so its output is made anew before others see it.
    let mut before = none.clone();
    before.add(&own.before);
    if !is_wait && !before.outputs.contain(&node.name) {
        sets.outputs.remove(&node.name);
    }
    Needs {
        outputs: sets.outputs,
        vars: sets.vars,
        prev: resumes_at
            .iter()
            .any(|(flow, node)| uses[*flow][*node].looks_at_prev()),
    }
}
