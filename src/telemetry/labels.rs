//! The values of labels: those that are known before anything is counted under them, and the outcomes of a reload.

use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// Label values that are known before anything is counted under them. Each tenant's counters have them from when it is bound,
/// with zero: the first increase of a counter that was not there before is one that nobody sees.
#[derive(Clone, Debug, Default)]
pub struct KnownLabels {
    /// The codes of dead letters.
    pub codes: Vec<&'static str>,
    /// What of a tenant can be refused.
    pub parts: Vec<&'static str>,
    /// The reasons of refusals.
    pub reasons: Vec<&'static str>,
}

/// How an attempt to load changed bindings ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reload {
    /// They are in force.
    Applied,
    /// They are in force, without packs that are not in order.
    Partial,
    /// Something is wrong with them.
    Refused,
    /// A server that is needed for it is away.
    Unavailable,
}

impl EncodeLabelValue for Reload {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.write_str(match self {
            Self::Applied => "applied",
            Self::Partial => "partial",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        })
    }
}
