//! `flow`: for authors, without any server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use clap::{Subcommand, ValueEnum};

use super::{Failure, say};
use crate::adapters::memory::PlayedComponents;
use crate::adapters::wasm::{Compiler, WasmComponents};
use crate::app;
use crate::catalog::{self, Folder};
use crate::flow::{self, Chart};
use crate::model::FlowId;
use crate::ports::Components;
use crate::rehearsal;
use crate::settings::Settings;
use crate::telemetry::ComponentMetrics;

/// What to do with the flows of a pack.
#[derive(Debug, Subcommand)]
pub enum Flow {
    /// Play the tests beside a pack's flows: flows/*.test.yaml
    #[command(after_help = "A test file is a list of conversations:\n\n  \
                      - case: greets by name\n    \
                        script:\n      \
                          - send: hi\n        \
                            replies: [What is your name?]\n        \
                            waits: main/recall      # where it goes on; without this it must be over\n      \
                          - advance: 5m\n        \
                            send: Ada\n        \
                            replies: [Hello Ada!]\n\n\
                      Each message is a whole turn of the worker, on in-memory sessions and a clock that stands still. \
                      docs/packs.md has every field. Exits with 1 if a case failed, with 64 if the pack or a test is \
                      not in order.")]
    Test {
        /// The pack's folder, with its pack.yaml
        dir: PathBuf,
        /// Only the cases with this in their name
        #[arg(long, value_name = "TEXT", default_value = "")]
        case: String,
    },
    /// Draw a pack's flows: nodes with their kinds, routes with their conditions, waits dashed, calls of flows dotted
    #[command(
        after_help = "Mermaid goes into Markdown as it is, in a block marked `mermaid`. For Graphviz: \
                            greentic-worker flow graph packs/hello-pack --format dot | dot -Tsvg > flow.svg"
    )]
    Graph {
        /// The pack's folder, or its archive
        pack: PathBuf,
        /// Only this flow
        #[arg(long, value_name = "ID")]
        flow: Option<FlowId>,
        /// The language of the drawing
        #[arg(long, value_enum, default_value_t = Language::Mermaid)]
        format: Language,
    },
}

/// A language for drawings.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Language {
    /// Mermaid, which many viewers of Markdown show
    Mermaid,
    /// Graphviz
    Dot,
}

pub fn run(flow: Flow) -> Result<(), Failure> {
    match flow {
        Flow::Test { dir, case } => test(&dir, &case),
        Flow::Graph { pack, flow, format } => graph(&pack, flow.as_ref(), format),
    }
}

fn test(dir: &Path, case: &str) -> Result<(), Failure> {
    let folder = Folder::open(dir)?;
    for warning in folder.built.warnings.iter() {
        super::warn(warning)?;
    }
    let components = components(&folder)?;
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = tokio.block_on(rehearsal::play(dir, &folder, &components, case))?;
    say(&report)?;
    match report.failed() {
        0 => Ok(()),
        failed => Err(anyhow!("the pack is not as its tests say: {failed} failed").into()),
    }
}

/// What runs the pack's own components, where it has any. They are run under the default settings.
fn components(folder: &Folder) -> Result<Arc<dyn Components>, Failure> {
    if folder.code.is_empty() {
        return Ok(Arc::new(PlayedComponents::none()));
    }
    let settings = Settings::defaults()?;
    let compiler = Compiler::of_this_program();
    let metrics = ComponentMetrics::default();
    let components = WasmComponents::new(&settings.components, metrics).compiled_by(compiler);
    for warning in app::prepare(&components, &folder.code)? {
        super::warn(warning)?;
    }
    Ok(Arc::new(components))
}

fn graph(pack: &Path, only: Option<&FlowId>, format: Language) -> Result<(), Failure> {
    let flows = if pack.is_dir() {
        catalog::build_pack(pack)?.manifest.flows
    } else {
        super::pack::open(pack)?.manifest.flows
    };
    let chart = Chart::of(&flows, only).ok_or_else(|| {
        let names: Vec<_> = flows.iter().map(|entry| entry.id.as_str()).collect();
        anyhow!(
            "the pack has no such flow; its flows are: {}",
            names.join(", ")
        )
    })?;
    let format = match format {
        Language::Mermaid => flow::Format::Mermaid,
        Language::Dot => flow::Format::Dot,
    };
    say(chart.render(format).trim_end())?;
    Ok(())
}
