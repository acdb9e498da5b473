//! The flow that a tenant's settings name for messages that name none.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::{FlowId, PackId, TenantId};

use super::BoundPack;

/// The tenant's flow for messages that name none: `<pack>/<flow>`, where the pack is its name or its id. A name outlives
/// a new version of the pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DefaultFlow {
    /// The pack's name, as its manifest says it, or its id (`sha256:…`).
    pub pack: String,
    /// The flow inside the pack.
    pub flow: FlowId,
}

/// A text that is not `<pack>/<flow>`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no flow: expected `<pack name>/<flow>`, such as `hello-pack/main`")]
pub struct InvalidDefaultFlow(String);

/// Why a tenant's default is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefaultError {
    /// Nothing that may be started is called so.
    #[error("the default flow `{default}` of tenant `{tenant}` is not there: it has {}", candidates.join(", "))]
    Missing {
        /// The tenant.
        tenant: TenantId,
        /// What is set.
        default: DefaultFlow,
        /// What may be started.
        candidates: Vec<String>,
    },
    /// Two packs of that name have the flow.
    #[error("the default flow `{default}` of tenant `{tenant}` is in several packs: {}", candidates.join(", "))]
    Several {
        /// The tenant.
        tenant: TenantId,
        /// What is set.
        default: DefaultFlow,
        /// The flows that it may mean.
        candidates: Vec<String>,
    },
}

impl DefaultError {
    /// The tenant whose default it is.
    pub fn tenant(&self) -> &TenantId {
        match self {
            Self::Missing { tenant, .. } | Self::Several { tenant, .. } => tenant,
        }
    }
}

impl DefaultFlow {
    /// Whether it means this pack.
    pub(super) fn is_in(&self, pack: &BoundPack) -> bool {
        self.pack == pack.name || self.pack.parse().is_ok_and(|id: PackId| id == pack.id)
    }
}

impl FromStr for DefaultFlow {
    type Err = InvalidDefaultFlow;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidDefaultFlow(text.to_owned());
        let (pack, flow) = text.split_once('/').ok_or_else(invalid)?;
        if pack.is_empty() {
            return Err(invalid());
        }
        Ok(Self {
            pack: pack.to_owned(),
            flow: FlowId::new(flow).map_err(|_| invalid())?,
        })
    }
}

impl TryFrom<String> for DefaultFlow {
    type Error = InvalidDefaultFlow;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DefaultFlow> for String {
    fn from(default: DefaultFlow) -> Self {
        default.to_string()
    }
}

impl fmt::Display for DefaultFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pack, self.flow)
    }
}
