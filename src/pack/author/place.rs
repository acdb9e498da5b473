//! Where in a flow's document something is written.

use std::path::Path;

use crate::model::{NodeId, Problems};
use crate::yaml::{Document, read_text};

/// The line and the field of a node, in the file that its flow was read from; none where it cannot be found.
pub fn place_of(file: &Path, node: &NodeId) -> Option<String> {
    let document = Document::parse(file, &read_text(file).ok()?).ok()?;
    let mut unread = Problems::default();
    let flow = document.root().fields(&mut unread)?;
    let nodes = flow.get("nodes")?.fields(&mut unread)?;
    nodes.get(node.as_str()).map(|node| node.place())
}
