//! Flows as drawings: what an author sees of the machine's view of a pack.

mod dot;
mod mermaid;

use greentic_types::pack_manifest::PackFlowEntry;
use greentic_types::{Node as Source, Routing as Routes};
use serde_json::Value;

use super::findings::Findings;
use super::nodes::name_of;
use super::routing::Routing;
use crate::model::{FlowId, NodeId};

/// The flows of a pack, to be drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chart {
    flows: Vec<Drawn>,
}

/// The language of a drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// <https://mermaid.js.org>
    Mermaid,
    /// Graphviz.
    Dot,
}

/// A flow. One that only appears because another leads to it has no nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Drawn {
    id: String,
    /// The node that it begins with.
    start: Option<usize>,
    nodes: Vec<Station>,
    edges: Vec<Edge>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Station {
    id: String,
    kind: String,
    waits: bool,
}

/// What leads from a node to somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edge {
    from: usize,
    to: End,
    /// When it is taken, if not always.
    label: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// A node of the same flow.
    Node(usize),
    /// The flow is over.
    Over,
    /// Another flow, by its position in the chart, and the node of it.
    Flow(usize, Option<usize>),
    /// What a template says, or what is not there.
    Unknown(String),
}

impl Chart {
    /// The drawing of these flows; of one of them and the names of those that it leads to, if one is named. None if there
    /// is no such flow.
    pub fn of(flows: &[PackFlowEntry], only: Option<&FlowId>) -> Option<Self> {
        if only.is_some_and(|only| !flows.iter().any(|entry| entry.id == *only)) {
            return None;
        }
        let drawn = flows.iter().map(|entry| {
            if only.is_none_or(|only| entry.id == *only) {
                draw(entry, flows)
            } else {
                Drawn {
                    id: entry.id.to_string(),
                    start: None,
                    nodes: Vec::new(),
                    edges: Vec::new(),
                }
            }
        });
        Some(Self {
            flows: drawn.collect(),
        })
    }

    /// The drawing as text.
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Mermaid => mermaid::render(self),
            Format::Dot => dot::render(self),
        }
    }

    /// Whether an edge leads to this flow from another one.
    fn is_led_to(&self, flow: usize) -> bool {
        let leads = |edge: &Edge| matches!(edge.to, End::Flow(to, _) if to == flow);
        self.flows.iter().flat_map(|flow| &flow.edges).any(leads)
    }

    /// Where an edge into a flow ends: at its node, else at its start; at the flow itself where its nodes are not drawn.
    fn entry(&self, flow: usize, node: Option<usize>) -> String {
        match (self.flows[flow].start, node) {
            (None, _) => format!("f{flow}"),
            (Some(start), node) => format!("f{flow}n{}", node.unwrap_or(start)),
        }
    }

    /// The flows to draw, with their positions: those with nodes, and those that are led to.
    fn shown(&self) -> impl Iterator<Item = (usize, &Drawn)> {
        let flows = self.flows.iter().enumerate();
        flows.filter(|(at, flow)| !flow.nodes.is_empty() || self.is_led_to(*at))
    }
}

fn draw(entry: &PackFlowEntry, flows: &[PackFlowEntry]) -> Drawn {
    let nodes = &entry.flow.nodes;
    let named = entry
        .flow
        .entrypoints
        .get("default")
        .and_then(Value::as_str);
    let position = |name: &str| nodes.get_index_of(&NodeId::new(name).ok()?);
    let mut edges = Vec::new();
    for (from, node) in nodes.values().enumerate() {
        let mut add = |to: End, label: String| edges.push(Edge { from, to, label });
        for (to, label) in routes(&node.routing) {
            let to = match to {
                None => End::Over,
                Some(name) => match position(&name) {
                    Some(node) => End::Node(node),
                    None if name == "out" => End::Over,
                    None => End::Unknown(name),
                },
            };
            add(to, label);
        }
        let kind = name_of(node);
        let mapping = &node.input.mapping;
        if let ("flow.call" | "flow.goto", Some(name)) = (
            kind.as_str(),
            text(mapping, "flow_id").or(text(mapping, "flow")),
        ) {
            add(elsewhere(name, text(mapping, "node"), flows), kind);
        } else if let ("session.wait", Some(name)) = (kind.as_str(), text(mapping, "on_timeout")) {
            let after = mapping.get("timeout").cloned().unwrap_or_default();
            let after = after
                .as_str()
                .map_or_else(|| after.to_string(), str::to_owned);
            let to = position(name).map_or_else(|| End::Unknown(name.to_owned()), End::Node);
            add(to, format!("after {after}"));
        }
    }
    Drawn {
        id: entry.id.to_string(),
        start: named
            .and_then(position)
            .or((!nodes.is_empty()).then_some(0)),
        nodes: nodes
            .iter()
            .map(|(id, node)| Station {
                id: id.to_string(),
                kind: name_of(node),
                waits: waits(node),
            })
            .collect(),
        edges,
    }
}

fn text<'m>(mapping: &'m Value, name: &str) -> Option<&'m str> {
    mapping.get(name)?.as_str()
}

/// The flow, and the node of it, that a call or jump leads to.
fn elsewhere(name: &str, node: Option<&str>, flows: &[PackFlowEntry]) -> End {
    let Some(flow) = flows.iter().position(|entry| entry.id.as_str() == name) else {
        return End::Unknown(format!("flow {name}"));
    };
    let nodes = &flows[flow].flow.nodes;
    let node = node.and_then(|node| nodes.keys().position(|id| id.as_str() == node));
    End::Flow(flow, node)
}

/// Where a routing may lead, and when; none is the end.
fn routes(routing: &Routes) -> Vec<(Option<String>, String)> {
    match routing {
        Routes::End | Routes::Reply => vec![(None, String::new())],
        Routes::Next { node_id } => vec![(Some(node_id.to_string()), String::new())],
        Routes::Branch { on_status, default } => {
            let by_status = on_status
                .iter()
                .map(|(status, to)| (Some(to.to_string()), format!("status {status}")));
            let other = default.as_ref().map(ToString::to_string);
            by_status.chain([(other, "otherwise".to_owned())]).collect()
        }
        Routes::Custom(entries) => {
            let entries = entries.as_array().map_or(&[][..], Vec::as_slice).iter();
            let several = entries.len() > 1;
            entries.filter_map(|entry| route(entry, several)).collect()
        }
    }
}

/// One of several routes, if it leads anywhere.
fn route(entry: &Value, several: bool) -> Option<(Option<String>, String)> {
    let is_set = |name: &str| entry.get(name).and_then(Value::as_bool) == Some(true);
    let to = text(entry, "to").or(text(entry, "next")).map(str::to_owned);
    if to.is_none() && !is_set("out") && !is_set("reply") {
        return None;
    }
    let when = if is_set("on_message") {
        "any message".to_owned()
    } else if let Some(condition) = text(entry, "condition") {
        condition.to_owned()
    } else if let Some(status) = text(entry, "status") {
        format!("status {status}")
    } else if several {
        "otherwise".to_owned()
    } else {
        String::new()
    };
    Some((to, when))
}

/// Whether a run may wait at this node, by the machine's own rule.
fn waits(node: &Source) -> bool {
    let anywhere = |_: &str| Some(0);
    let routing = Routing::compile(&node.routing, anywhere, &mut Findings::default());
    name_of(node) == "session.wait" || routing.may_stay()
}

#[cfg(test)]
mod tests;
