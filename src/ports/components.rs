//! Code that packs bring along, and what it may reach.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::model::{ComponentDigest, Invocation, LogBudget, TenantId};
pub use crate::model::{Declared, Grants};

/// Calls components. Each call is a fresh instance: nothing is left of it for the next one.
pub trait Components: Send + Sync + 'static {
    /// Begins a call. It runs while [`Running::next`] is awaited, and ends when it is dropped.
    fn call(&self, call: ComponentCall) -> Box<dyn Running>;
}

/// A call under way.
pub trait Running: Send {
    /// Runs it until it needs something that only the turn knows, or is done.
    fn next(&mut self) -> BoxFuture<'_, Result<CallStep, ComponentError>>;

    /// Answers [`CallStep::Read`].
    fn answer(&mut self, stored: Option<Value>);
}

/// How far a call came.
#[derive(Debug)]
pub enum CallStep {
    /// It reads the user's state under this key of its pack and flow; asked once a call for each key that the call has
    /// not written itself.
    Read(String),
    /// It is done.
    Done(ComponentOutput),
}

/// What a call came to.
#[derive(Debug)]
pub struct ComponentOutput {
    /// The output as JSON; a refusal of the component is `{"ok": false, "error": {"code", "message", ...}}`.
    pub value: Value,
    /// The state that it wrote, the last value of each key; `None` deletes. Committed with the turn.
    pub state: Vec<(String, Option<Value>)>,
}

/// A call and on whose behalf it is made.
#[derive(Clone, Debug)]
pub struct ComponentCall {
    /// The code.
    pub code: ComponentDigest,
    /// What it is asked.
    pub invocation: Invocation,
    /// What it may reach.
    pub grants: Arc<Grants>,
    /// The tenant whose activity it is.
    pub tenant: TenantId,
    /// The Greentic environment.
    pub env: String,
    /// The team, if the activity has one.
    pub team: Option<String>,
    /// The user whose activity it is.
    pub user: String,
    /// The conversation's session hint.
    pub session: String,
    /// `extensions.caller` of the activity.
    pub caller: Option<Value>,
    /// The attempt at the turn, from 1.
    pub attempt: u32,
    /// The lines that it may log, with the other components of the turn.
    pub log: LogBudget,
    /// Names this call on every attempt at this turn, and no other call: outside effects carry it, with the number that
    /// each has within the call.
    pub idempotency_key: String,
}

/// Why a call came to nothing. None of them is the component's own refusal: that is an output.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    /// It crashed.
    #[error("component `{component}` trapped: {reason}")]
    Trap {
        /// The component.
        component: String,
        /// What the engine says.
        reason: String,
    },
    /// It went past a limit of the settings.
    #[error("component `{component}` went past {limit}")]
    Limit {
        /// The component.
        component: String,
        /// The limit: what it bounds, its value and its setting.
        limit: String,
    },
    /// It reached for what it was not granted.
    #[error("component `{component}` may not {what}")]
    Refused {
        /// The component.
        component: String,
        /// What it reached for.
        what: String,
    },
    /// It is not there, or exports none of the interfaces that can be called.
    #[error("component `{component}` cannot be called: {reason}")]
    Unusable {
        /// The component.
        component: String,
        /// Why not.
        reason: String,
    },
}
