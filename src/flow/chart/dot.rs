//! A chart in the language of Graphviz.

use std::fmt::Write as _;

use super::{Chart, Drawn, End};

/// Writes to a text never fail, so their results are nothing to look at.
pub(super) fn render(chart: &Chart) -> String {
    let mut text = String::from("digraph pack {\n  node [shape=box];\n");
    for (at, flow) in chart.shown() {
        if flow.nodes.is_empty() {
            let name = escape(&flow.id);
            let _ = writeln!(text, "  f{at} [label=\"flow {name}\" shape=component];");
        } else {
            nodes(&mut text, at, flow);
        }
    }
    for (at, flow) in chart.shown() {
        for edge in &flow.edges {
            let (to, style) = match &edge.to {
                End::Node(node) => (format!("f{at}n{node}"), ""),
                End::Over => (format!("f{at}over"), ""),
                End::Flow(flow, node) => (chart.entry(*flow, *node), " style=dotted"),
                End::Unknown(name) => {
                    let to = format!("f{at}n{}to", edge.from);
                    let name = escape(name);
                    let _ = writeln!(text, "  {to} [label=\"{name}\" shape=note];");
                    (to, " style=dotted")
                }
            };
            let label = escape(&edge.label);
            let _ = writeln!(
                text,
                "  f{at}n{} -> {to} [label=\"{label}\"{style}];",
                edge.from
            );
        }
    }
    text.push_str("}\n");
    text
}

fn nodes(text: &mut String, at: usize, flow: &Drawn) {
    let _ = writeln!(text, "  subgraph cluster_{at} {{");
    let _ = writeln!(text, "    label=\"{}\";", escape(&flow.id));
    for (n, node) in flow.nodes.iter().enumerate() {
        let label = format!("{}\\n{}", escape(&node.id), escape(&node.kind));
        let _ = match node.waits {
            true => writeln!(
                text,
                "    f{at}n{n} [label=\"{label}\\nwaits\" style=\"rounded,dashed\"];"
            ),
            false => writeln!(text, "    f{at}n{n} [label=\"{label}\"];"),
        };
    }
    if flow.edges.iter().any(|edge| edge.to == End::Over) {
        let _ = writeln!(text, "    f{at}over [label=\"\" shape=circle];");
    }
    if let Some(start) = flow.start {
        let _ = writeln!(text, "    f{at}start [label=\"\" shape=doublecircle];");
        let _ = writeln!(text, "    f{at}start -> f{at}n{start};");
    }
    text.push_str("  }\n");
}

/// A text inside of quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => escaped.extend(['\\', c]),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
