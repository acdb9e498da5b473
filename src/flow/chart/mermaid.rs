//! A chart in Mermaid.

use std::fmt::Write as _;

use super::{Chart, Drawn, End};

/// Writes to a text never fail, so their results are nothing to look at.
pub(super) fn render(chart: &Chart) -> String {
    let mut text = String::from("flowchart TD\n");
    for (at, flow) in chart.shown() {
        if flow.nodes.is_empty() {
            let _ = writeln!(text, "  f{at}[[\"flow {}\"]]", escape(&flow.id));
        } else {
            nodes(&mut text, at, flow);
        }
    }
    for (at, flow) in chart.shown() {
        for edge in &flow.edges {
            let (arrow, to) = match &edge.to {
                End::Node(node) => ("-->", format!("f{at}n{node}")),
                End::Over => ("-->", format!("f{at}over((\" \"))")),
                End::Flow(flow, node) => ("-.->", chart.entry(*flow, *node)),
                End::Unknown(name) => {
                    let to = format!("f{at}n{}to[/\"{}\"/]", edge.from, escape(name));
                    ("-.->", to)
                }
            };
            let _ = write!(text, "  f{at}n{} {arrow}", edge.from);
            if !edge.label.is_empty() {
                let _ = write!(text, "|\"{}\"|", escape(&edge.label));
            }
            let _ = writeln!(text, " {to}");
        }
    }
    text.push_str("  classDef waits stroke-dasharray: 5 5\n");
    text
}

fn nodes(text: &mut String, at: usize, flow: &Drawn) {
    let _ = writeln!(text, "  subgraph f{at}[\"{}\"]", escape(&flow.id));
    for (n, node) in flow.nodes.iter().enumerate() {
        let label = format!("{}<br/>{}", escape(&node.id), escape(&node.kind));
        let _ = match node.waits {
            true => writeln!(text, "    f{at}n{n}([\"{label}<br/>waits\"]):::waits"),
            false => writeln!(text, "    f{at}n{n}[\"{label}\"]"),
        };
    }
    if let Some(start) = flow.start {
        let _ = writeln!(text, "    f{at}start(((\" \"))) --> f{at}n{start}");
    }
    text.push_str("  end\n");
}

/// A text inside of quotes: what would end it or be read as markup is written as its code.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '#' | '<' | '>' | '&' | '|' | '`' | '\\' => {
                let _ = write!(escaped, "#{};", u32::from(c));
            }
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
