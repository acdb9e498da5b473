//! Calls of the code that a pack brings along.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{FlowId, PackId};

/// The identity of a component's code: the SHA-256 digest of its file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ComponentDigest([u8; 32]);

impl ComponentDigest {
    /// The identity of this code.
    pub fn of(code: &[u8]) -> Self {
        Self(Sha256::digest(code).into())
    }
}

/// 64 lowercase hex digits.
impl fmt::Display for ComponentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ComponentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ComponentDigest({self})")
    }
}

/// A component's call, as a flow asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    /// The component, as the pack's manifest names it.
    pub component: String,
    /// What it is to do.
    pub operation: String,
    /// The flow that calls it, and owns the state it may reach.
    pub flow: FlowId,
    /// The node that calls it.
    pub node: String,
    /// What it is given.
    pub payload: Value,
    /// How it is given that.
    pub form: InvocationForm,
    /// Counts the calls of the turn from 0: the same call of the same turn has the same number on every attempt.
    pub ordinal: u32,
}

/// How a component is given its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvocationForm {
    /// As a node's input, in the envelope that the component's interface wants.
    Node,
    /// As a card's input: interfaces that take JSON text get the payload bare, without an envelope.
    Card,
    /// As a provider's operation: through the provider schema-core interface.
    Provider,
}

/// What the components of a pack may reach when one tenant runs them.
#[derive(Clone)]
pub struct Grants {
    /// The pack.
    pub pack: PackId,
    /// The pack's name for itself.
    pub pack_name: String,
    /// The granted variables with their values: the secrets that a component may get.
    pub env: BTreeMap<String, String>,
    /// What each component's manifest says that it needs; nothing else is given to it.
    pub declared: BTreeMap<String, Declared>,
    /// The runtime configuration of the pack, as JSON.
    pub config: Value,
}

impl Grants {
    /// The value of the variable with this name, or else of one whose name differs in case and punctuation only: packs
    /// ask for `api/key` where an environment holds `API_KEY`.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let exact = self.env.get(name);
        let alike = || {
            let wanted = plain_name(name);
            let mut named = self.env.iter();
            Some(named.find(|(name, _)| plain_name(name) == wanted)?.1)
        };
        exact.or_else(alike).map(String::as_str)
    }
}

/// A name in small letters, with `_` for whatever is neither a letter nor a digit.
fn plain_name(name: &str) -> String {
    let plain = |c: char| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_lowercase(),
        false => '_',
    };
    name.trim().chars().map(plain).collect()
}

/// What becomes of state that a component uses and its manifest does not mention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UndeclaredState {
    /// The component reads and writes the state as if it had declared both.
    #[default]
    Allow,
    /// Each access is refused.
    Deny,
}

/// The capabilities that a pack's manifest declares for a component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// It calls out over HTTP.
    pub http: bool,
    /// It reads secrets.
    pub secrets: bool,
    /// It reads state.
    pub state_read: bool,
    /// It writes state.
    pub state_write: bool,
}

/// Shows the names of the variables only: their values may be secrets.
impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grants")
            .field("pack", &self.pack)
            .field("pack_name", &self.pack_name)
            .field("env", &self.env.keys())
            .field("declared", &self.declared)
            .finish_non_exhaustive()
    }
}
