//! `schema`: the JSON Schemas of the message contract, from the types that the worker reads and writes.

use clap::{Args, ValueEnum};
use greentic_types::ChannelMessageEnvelope;
use schemars::schema_for;

use super::{Failure, say};
use crate::model::InboundBody;

/// Which body to describe.
#[derive(Debug, Args)]
pub struct Schema {
    /// `inbound`: what a provider publishes; `outbound`: what it gets back
    #[arg(value_enum)]
    body: Body,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Body {
    Inbound,
    Outbound,
}

pub fn run(schema: &Schema) -> Result<(), Failure> {
    let schema = match schema.body {
        Body::Inbound => schema_for!(InboundBody),
        Body::Outbound => schema_for!(ChannelMessageEnvelope),
    };
    say(serde_json::to_string_pretty(&schema).map_err(anyhow::Error::from)?)?;
    Ok(())
}
