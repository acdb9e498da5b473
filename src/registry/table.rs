//! What is bound, as a table for people.

use std::fmt;

use crate::model::FlowId;

use super::{BoundPack, Registry};

const HEAD: [&str; 6] = ["TENANT", "PACK", "VERSION", "PACK ID", "FLOWS", "VARIABLES"];

/// A line for each pack of each tenant: its name, version, id, the flows that may be started (the one that a message
/// without headers starts is marked with `*`), and the names of the variables it was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// One line for each pack of each tenant.
    pub rows: Vec<[String; 6]>,
}

impl Table {
    pub(super) fn of(registry: &Registry) -> Self {
        let packs = registry.packs().into_iter();
        Self {
            rows: packs.map(|pack| row(registry, pack)).collect(),
        }
    }
}

fn row(registry: &Registry, pack: &BoundPack) -> [String; 6] {
    let plain = registry.tenants.get(&pack.tenant);
    let plain = plain.and_then(|tenant| tenant.plain.as_ref());
    let flow = |flow: &FlowId| {
        let starts = plain.is_some_and(|entry| entry.pack.id == pack.id && entry.flow == *flow);
        format!("{flow}{}", if starts { "*" } else { "" })
    };
    let variables = pack.grants.env.keys().cloned().collect::<Vec<_>>();
    [
        pack.tenant.to_string(),
        pack.name.clone(),
        pack.version.to_string(),
        pack.id.to_string(),
        pack.flows.iter().map(flow).collect::<Vec<_>>().join(", "),
        if variables.is_empty() {
            "-".to_owned()
        } else {
            variables.join(", ")
        },
    ]
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = HEAD.map(str::to_owned);
        let mut widths = [0; 6];
        for row in std::iter::once(&head).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.len().max(*width);
            }
        }
        for (n, row) in std::iter::once(&head).chain(&self.rows).enumerate() {
            let cells = row.iter().zip(widths);
            let line: Vec<_> = cells
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            if n > 0 {
                writeln!(f)?;
            }
            f.write_str(line.join("  ").trim_end())?;
        }
        Ok(())
    }
}
