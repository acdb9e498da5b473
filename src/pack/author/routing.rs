//! Where a node leads: the shorthands and lists of a flow document.

use std::collections::{BTreeMap, BTreeSet};

use greentic_types::Routing;
use serde_json::Value as Json;
use serde_yaml::Value;

use crate::model::{NodeId, Problems};
use crate::yaml::Node;

use super::document::known_nodes;

const ROUTE_FIELDS: [&str; 6] = ["to", "out", "reply", "status", "condition", "on_message"];

/// One entry of a routing list.
struct Route<'a> {
    node: Node<'a>,
    target: Target,
    status: Option<String>,
    /// Whether it has a condition, `on_message` included.
    conditional: bool,
}

#[derive(Clone)]
enum Target {
    Node(NodeId),
    Out,
    Reply,
}

/// Reads a routing. Every target must be one of the nodes.
pub(super) fn routing(
    node: &Node<'_>,
    nodes: &BTreeSet<&str>,
    problems: &mut Problems,
) -> Option<Routing> {
    match node.value() {
        Value::Null => return Some(Routing::End),
        Value::String(text) if text == "out" => return Some(Routing::End),
        Value::String(text) if text == "reply" => return Some(Routing::Reply),
        Value::Sequence(_) => {}
        Value::String(_)
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Mapping(_)
        | Value::Tagged(_) => {
            problems.push(
                node.error("this is no routing")
                    .remedy("write `out`, `reply`, or a list of routes such as `- to: <node>`"),
            );
            return None;
        }
    }
    let mut routes = Vec::new();
    for item in node.items(problems)? {
        routes.push(route(&item, nodes, problems));
    }
    let routes = routes.into_iter().collect::<Option<Vec<_>>>()?;
    match routes.as_slice() {
        [] => Some(Routing::End),
        [
            Route {
                target,
                status: None,
                conditional: false,
                ..
            },
        ] => Some(match target {
            Target::Node(id) => Routing::Next {
                node_id: id.clone(),
            },
            Target::Out => Routing::End,
            Target::Reply => Routing::Reply,
        }),
        several if several.iter().any(|route| route.conditional) => custom(several, problems),
        several => {
            two_defaults(several, problems)?;
            match branch(several) {
                Some(branch) => Some(branch),
                None => custom(several, problems),
            }
        }
    }
}

fn route<'a>(
    node: &Node<'a>,
    nodes: &BTreeSet<&str>,
    problems: &mut Problems,
) -> Option<Route<'a>> {
    let fields = node.fields(problems)?;
    fields.only(&ROUTE_FIELDS, problems);
    let mut flag = |name: &str| {
        let value = fields.get(name).map(|node| node.flag(problems));
        value.flatten().unwrap_or_default()
    };
    let (out, reply, on_message) = (flag("out"), flag("reply"), flag("on_message"));
    if let Some(condition) = fields.get("condition") {
        condition.text(problems)?;
    }
    let status = match fields.get("status") {
        Some(node) => Some(status(node, problems)?),
        None => None,
    };
    let to = match fields.get("to") {
        Some(node) => Some(target(node, nodes, problems)?),
        None => None,
    };
    let target = match (to, out, reply) {
        (Some(target), false, false) => target,
        (None, true, false) => Target::Out,
        (None, false, true) => Target::Reply,
        (None, false, false) => {
            problems.push(
                node.error("the route leads nowhere")
                    .remedy("give it `to: <node>`, `out: true` or `reply: true`"),
            );
            return None;
        }
        _ => {
            problems.push(
                node.error("the route leads to several places")
                    .remedy("keep one of `to`, `out` and `reply`"),
            );
            return None;
        }
    };
    Some(Route {
        node: node.clone(),
        target,
        status,
        conditional: on_message || fields.get("condition").is_some(),
    })
}

/// A status is compared as text, so that `status: 200` and `status: true` are what they look like.
fn status(node: &Node<'_>, problems: &mut Problems) -> Option<String> {
    match node.value() {
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null
        | Value::String(_)
        | Value::Sequence(_)
        | Value::Mapping(_)
        | Value::Tagged(_) => node.text(problems).map(str::to_owned),
    }
}

fn target(node: &Node<'_>, nodes: &BTreeSet<&str>, problems: &mut Problems) -> Option<Target> {
    let text = node.text(problems)?;
    if text == "out" {
        return Some(Target::Out);
    }
    match NodeId::new(text) {
        Ok(id) if nodes.contains(text) => Some(Target::Node(id)),
        _ => {
            problems.push(
                node.error(format!(
                    "the route leads to `{text}`, which is no node of this flow"
                ))
                .remedy(known_nodes(nodes.iter().copied())),
            );
            None
        }
    }
}

/// Of two routes that ask for nothing, one could never be taken; which one is a matter of taste.
fn two_defaults(routes: &[Route<'_>], problems: &mut Problems) -> Option<()> {
    let mut defaults = routes.iter().filter(|route| route.status.is_none());
    let second = defaults.nth(1);
    if let Some(route) = second {
        problems.push(
            route
                .node
                .error("this is the second route without a status or condition, so one of them is never taken")
                .remedy("remove one of them, or give it a `status` or `condition`"),
        );
    }
    second.is_none().then_some(())
}

/// A branch, if all routes lead to nodes and some ask for a status.
fn branch(routes: &[Route<'_>]) -> Option<Routing> {
    if routes.len() < 2 {
        return None;
    }
    let mut on_status = BTreeMap::new();
    let mut default = None;
    for route in routes {
        let Target::Node(id) = &route.target else {
            return None;
        };
        match &route.status {
            Some(status) => {
                on_status.insert(status.clone(), id.clone());
            }
            None => default = Some(id.clone()),
        }
    }
    Some(Routing::Branch { on_status, default })
}

/// Routes that are looked at in order, kept as they were written; only a `to: out` becomes the `out: true` that it
/// means, and a status becomes text.
fn custom(routes: &[Route<'_>], problems: &mut Problems) -> Option<Routing> {
    let mut list = Vec::new();
    for route in routes {
        let mut json = route.node.json(problems)?;
        if let Some(object) = json.as_object_mut() {
            if let Target::Out = route.target {
                object.remove("to");
                object.insert("out".to_owned(), Json::Bool(true));
            }
            if let Some(status) = &route.status {
                object.insert("status".to_owned(), Json::String(status.clone()));
            }
        }
        json.sort_all_objects();
        list.push(json);
    }
    Some(Routing::Custom(Json::Array(list)))
}
