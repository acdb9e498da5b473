//! From a pack's flows to a program: everything that can be found wrong with them is found here.

use std::collections::{BTreeSet, HashMap};

use greentic_types::Node as Source;
use greentic_types::pack_manifest::PackFlowEntry;
use serde_json::{Map, Value};

use super::card;
use super::draft::{Draft, Names};
use super::flow_graph::FlowGraph;
use super::graph::{Flow, FlowIx, Node, NodeIx, Program, Start};
use super::inventory::Inventory;
use super::limits::Limits;
use super::needs::{Needs, needs};
use super::nodes::{Kind, emit_payload};
use super::reach::{self, At, NodeUses};
use super::routing::Routing;
use super::template::Mapping;
use crate::model::{MAX_DEPTH, NodeId, Problem, Problems, is_too_deep};

impl Program {
    /// Compiles the flows of a pack. With it come the warnings; where it cannot be run, all problems come instead.
    pub fn compile(
        flows: &[PackFlowEntry],
        inventory: Inventory,
        limits: Limits,
    ) -> Result<(Self, Problems), Problems> {
        let mut problems = Problems::default();
        check_size(flows, &inventory, &mut problems);
        if problems.has_errors() {
            return Err(problems);
        }
        let names = names(flows, &inventory, &mut problems);
        let mut uses = Vec::with_capacity(flows.len());
        let mut compiled = Vec::with_capacity(flows.len());
        for flow in 0..flows.len() {
            let mut compiler = FlowCompiler {
                names: &names,
                flow,
                problems: &mut problems,
                uses: Vec::new(),
            };
            compiled.extend(compiler.compile());
            uses.push(compiler.uses);
        }
        if problems.has_errors() {
            return Err(problems);
        }
        let mut program = Self {
            flows: compiled,
            by_id: names.by_id.clone(),
            limits,
            inventory: inventory.clone(),
        };
        program.mark_starts(&names);
        program.warn_of_unreached(&names, &mut problems);
        program.look_ahead(&uses);
        Ok((program, problems))
    }

    fn warn_of_unreached(&self, names: &Names<'_>, problems: &mut Problems) {
        let others: Vec<At> = (0..self.flows.len())
            .flat_map(|flow| named_entries(names, flow))
            .collect();
        for (flow, node) in reach::unreached(self, &others) {
            let place = self.place(flow, node);
            let warning =
                Problem::warning("no route leads to this node").in_node(&place.flow, &place.node);
            let remedy = match self.node(flow, node).start {
                Start::Refused => {
                    "lead a route to it, take it out, or mark it with `entry: true` if a button may start there"
                }
                Start::Entry | Start::Card => {
                    "lead a route to it, or take it out; a button that names it still starts there"
                }
            };
            problems.push(warning.remedy(remedy));
        }
    }

    /// Works out at which nodes a message may start a flow by naming them: entries, and cards that wait for their answer.
    fn mark_starts(&mut self, names: &Names<'_>) {
        for flow in 0..self.flows.len() {
            let entries = named_entries(names, flow);
            for node in 0..self.flows[flow].nodes.len() {
                let start = match self.is_waiting_card(flow, node) {
                    true => Start::Card,
                    false if entries.contains(&(flow, node)) => Start::Entry,
                    false => Start::Refused,
                };
                self.flows[flow].nodes[node].start = start;
            }
        }
    }

    /// Returns whether a node shows a card and waits for its answer, by itself or by the wait that follows it.
    fn is_waiting_card(&self, flow: FlowIx, node: NodeIx) -> bool {
        let node = self.node(flow, node);
        let waits_next = |next| matches!(self.node(flow, next).kind, Kind::Wait(_));
        node.shows_card
            && match node.routing {
                Routing::To(next) => waits_next(next),
                Routing::End | Routing::Branch { .. } | Routing::Routes { .. } => {
                    node.routing.asks_user()
                }
            }
    }

    /// Works out, once, what every run would otherwise have to.
    fn look_ahead(&mut self, uses: &[Vec<NodeUses>]) {
        let graph = FlowGraph::of(self);
        for (flow, needs) in needs(self, uses).into_iter().enumerate() {
            let state_keys = graph.state_keys(self, flow);
            let flow_components = graph.components(flow);
            let compiled = &mut self.flows[flow];
            compiled.state_keys = state_keys;
            compiled.components = flow_components;
            for (node, needs) in compiled.nodes.iter_mut().zip(needs) {
                node.needs = needs;
            }
        }
    }
}

/// More flows than any pack has.
const MAX_FLOWS: usize = 1_000;
/// More nodes than any pack has.
const MAX_NODES: usize = 20_000;
/// More providers than any pack has.
const MAX_PROVIDERS: usize = 1_000;

/// Refuses packs that would take long to look through.
fn check_size(flows: &[PackFlowEntry], inventory: &Inventory, problems: &mut Problems) {
    let nodes = flows.iter().map(|entry| entry.flow.nodes.len()).sum();
    let providers = inventory.providers.len();
    for (what, count, most) in [
        ("flows", flows.len(), MAX_FLOWS),
        ("nodes", nodes, MAX_NODES),
        ("providers", providers, MAX_PROVIDERS),
    ] {
        if count > most {
            let problem =
                Problem::error(format!("the pack has {count} {what}, and may have {most}"));
            problems.push(problem.remedy("divide it into several packs"));
        }
    }
}

fn names<'p>(
    entries: &'p [PackFlowEntry],
    inventory: &'p Inventory,
    problems: &mut Problems,
) -> Names<'p> {
    let mut by_id = HashMap::new();
    for (ix, entry) in entries.iter().enumerate() {
        if by_id.insert(entry.id.clone(), ix).is_some() {
            let problem = Problem::error("the pack has two flows of this name").in_flow(&entry.id);
            problems.push(problem.remedy("rename one of them"));
        }
        if entry.flow.nodes.is_empty() {
            let problem = Problem::error("the flow has no nodes").in_flow(&entry.id);
            problems.push(problem.remedy("give it a node, or take it out"));
        }
    }
    Names {
        entries,
        by_id,
        inventory,
    }
}

/// The nodes that a flow's entry points name besides its start.
fn named_entries(names: &Names<'_>, flow: FlowIx) -> Vec<At> {
    let points = names.entries[flow].flow.entrypoints.values();
    let nodes = points.filter_map(|point| names.node(flow, point.as_str()?));
    nodes.map(|node| (flow, node)).collect()
}

struct FlowCompiler<'p> {
    names: &'p Names<'p>,
    flow: FlowIx,
    problems: &'p mut Problems,
    uses: Vec<NodeUses>,
}

impl FlowCompiler<'_> {
    fn compile(&mut self) -> Option<Flow> {
        let entry = &self.names.entries[self.flow];
        let sources = &entry.flow.nodes;
        let nodes: Vec<_> = sources
            .iter()
            .map(|(id, source)| self.node(id, source))
            .collect();
        let start = self.start();
        let vars = self.vars();
        Some(Flow {
            id: entry.id.clone(),
            tags: entry
                .tags
                .iter()
                .chain(&entry.flow.metadata.tags)
                .cloned()
                .collect(),
            by_id: sources
                .keys()
                .cloned()
                .enumerate()
                .map(|(ix, id)| (id, ix))
                .collect(),
            nodes: nodes.into_iter().collect::<Option<_>>()?,
            entry: start,
            vars,
            state_keys: Vec::new(),
            components: Vec::new(),
        })
    }

    /// The node that the default entry point names, else the first one.
    fn start(&mut self) -> NodeIx {
        let entry = &self.names.entries[self.flow];
        let Some(name) = entry
            .flow
            .entrypoints
            .get("default")
            .and_then(Value::as_str)
        else {
            return 0;
        };
        let found = self.names.node(self.flow, name);
        if found.is_none() {
            let problem = Problem::error(format!(
                "its default entry point is `{name}`, which it lacks"
            ));
            let problem = problem.remedy("name a node of the flow as its start");
            self.problems.push(problem.in_flow(&entry.id));
        }
        found.unwrap_or(0)
    }

    /// The variables that a fresh run has from its start.
    fn vars(&mut self) -> Map<String, Value> {
        let entry = &self.names.entries[self.flow];
        let declared = entry
            .flow
            .metadata
            .extra
            .get("vars_init")
            .and_then(Value::as_object);
        let mut vars = Map::new();
        for (name, declaration) in declared.into_iter().flatten() {
            if let Some(default) = declaration.get("default") {
                if is_too_deep(default) {
                    let problem = Problem::error(format!(
                        "the default of variable `{name}` nests deeper than {MAX_DEPTH} levels"
                    ));
                    let problem = problem.remedy("flatten it");
                    self.problems.push(problem.in_flow(&entry.id));
                }
                vars.insert(name.clone(), default.clone());
            } else if declaration.get("required") == Some(&Value::Bool(true)) {
                let problem = Problem::error(format!(
                    "variable `{name}` is required, and nothing sets it"
                ));
                let problem = problem.remedy("give it a `default` in `vars_init`");
                self.problems.push(problem.in_flow(&entry.id));
            }
        }
        vars
    }

    fn node(&mut self, id: &NodeId, source: &Source) -> Option<Node> {
        let mut draft = Draft::new(self.names, self.flow);
        let kind = Kind::compile(source, &mut draft);
        let before = std::mem::take(&mut draft.findings.uses);
        let vars_out = vars_out(&source.input.mapping, &mut draft);
        let routing = Routing::compile(
            &source.routing,
            |name| self.names.node(self.flow, name),
            &mut draft.findings,
        );
        let answer_fields = answer_fields(kind.as_ref(), &source.input.mapping, &mut draft);
        if let Some(kind) = &kind {
            check_end(kind, &routing, &mut draft);
        }
        let after = std::mem::take(&mut draft.findings.uses);
        self.uses.push(NodeUses { before, after });
        let flow = &self.names.entries[self.flow].id;
        self.problems.extend(
            draft
                .findings
                .problems
                .into_iter()
                .map(|problem| problem.in_node(flow, id)),
        );
        let kind = kind?;
        Some(Node {
            id: id.clone(),
            name: id.as_str().into(),
            shows_card: shows_card(&kind, &source.input.mapping),
            kind,
            vars_out,
            routing,
            start: Start::default(),
            answer_fields,
            needs: Needs::default(),
        })
    }
}

/// The variables that a node sets from its output.
fn vars_out(mapping: &Value, draft: &mut Draft<'_>) -> Vec<(String, Mapping)> {
    match mapping.get("vars_out") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(bindings)) => {
            let bound = |(name, source): (&String, &Value)| (name.clone(), draft.binding(source));
            bindings.iter().map(bound).collect()
        }
        Some(_) => {
            draft.warn(
                "`vars_out` is ignored: it is no object",
                "write `vars_out: {name: template}`",
            );
            Vec::new()
        }
    }
}

/// Returns whether a node shows a card, as far as it can be told without a run.
fn shows_card(kind: &Kind, mapping: &Value) -> bool {
    match kind {
        Kind::Component(component) => {
            card::takes_routes(component.name()) || card::is_named_in(mapping)
        }
        Kind::Emit(_) => card::is_shown_by(&emit_payload(mapping)),
        Kind::Wait(_)
        | Kind::Call(_)
        | Kind::Goto(_)
        | Kind::StateGet(_)
        | Kind::StateSet(_)
        | Kind::VarSet(_)
        | Kind::Provider(_) => false,
    }
}

/// The submitted fields that the node asks for.
fn answer_fields(
    kind: Option<&Kind>,
    mapping: &Value,
    draft: &mut Draft<'_>,
) -> Option<BTreeSet<String>> {
    let emitted = matches!(kind, Some(Kind::Emit(_))).then(|| emit_payload(mapping));
    let declared = emitted.as_deref().unwrap_or(mapping).get("answer_fields")?;
    let names = declared
        .as_array()
        .map(|names| names.iter().map(|name| name.as_str().map(str::to_owned)));
    let fields = names.and_then(Iterator::collect);
    if fields.is_none() {
        draft.warn(
            "`answer_fields` is ignored: it is no list of names",
            "write `answer_fields: [name, other]`",
        );
    }
    fields
}

/// What happens at the end of a flow, where an author may not expect it.
fn check_end(kind: &Kind, routing: &Routing, draft: &mut Draft<'_>) {
    match kind {
        Kind::Wait(_) if routing.targets().is_empty() => draft.error(
            "the wait has no node to go on with when the answer comes",
            "give it a route to a node",
        ),
        Kind::StateGet(_) | Kind::StateSet(_) | Kind::VarSet(_) if routing.may_end() => draft.warn(
            "the flow ends with this node, so its output is the last reply",
            "end with an emit node",
        ),
        Kind::Goto(_) if !routing.targets().is_empty() => draft.warn(
            "its routes are never taken: the run goes on where it jumps to",
            "take the routes out",
        ),
        Kind::Emit(_)
        | Kind::Wait(_)
        | Kind::Call(_)
        | Kind::Goto(_)
        | Kind::StateGet(_)
        | Kind::StateSet(_)
        | Kind::VarSet(_)
        | Kind::Component(_)
        | Kind::Provider(_) => {}
    }
}
