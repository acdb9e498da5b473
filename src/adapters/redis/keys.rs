//! Every key in Redis. Nothing else builds one.
//!
//! Identifiers (env, tenant, team, user, flow) consist of ASCII letters, digits, `.`, `_` and `-`, so none of them can
//! hold the `:` or `/` that a layout joins them with. Text that may hold anything (a flow's state key, an idempotency
//! key) always comes last. Scopes enter as a digest.

use std::sync::OnceLock;

use greentic_types::ReplyScope;

use crate::model::Activity;
use crate::ports::StateSlot;

/// What greentic-session writes for a missing team. The decoder refuses a team of that name: it would share the keys of
/// those who are in none.
const NO_TEAM: &str = "-";

/// What stands between the tenant's namespace and a session key.
const SESSION: &str = ":session:";

/// The keys that one activity may touch: all of them its own tenant's and, but for the waits that a pointer names, its
/// own user's.
#[derive(Clone, Debug)]
pub struct Keys<'a> {
    namespace: &'a str,
    activity: &'a Activity,
    /// The digest of the conversation's base scope, made when it is first needed.
    base: OnceLock<Option<String>>,
}

impl<'a> Keys<'a> {
    /// The keys of an activity under a worker's namespace.
    pub fn new(namespace: &'a str, activity: &'a Activity) -> Self {
        Self {
            namespace,
            activity,
            base: OnceLock::new(),
        }
    }

    /// The activity whose keys they are.
    pub fn activity(&self) -> &'a Activity {
        self.activity
    }

    /// What precedes the session key in the Redis key of a session, `SessionData` as JSON. The scripts append the session
    /// key that a pointer names.
    pub fn session_prefix(&self) -> String {
        self.of_tenant([SESSION])
    }

    /// A session.
    pub fn session(&self, session: &str) -> String {
        self.of_tenant([SESSION, session])
    }

    /// The pointer of a reply scope: the session key of the latest wait that was registered under it.
    pub fn scope(&self, scope: &ReplyScope) -> String {
        self.of_user(":waits:scope:", &[":", &scope.scope_hash()])
    }

    /// The pointer of the activity's base scope, if it has a scope.
    pub fn base_scope(&self) -> Option<String> {
        Some(self.of_user(":waits:scope:", &[":", self.base()?]))
    }

    /// The set of the session keys of a user's waits.
    pub fn user_waits(&self) -> String {
        self.of_user(":waits:user:", &[])
    }

    /// The record that the activity was applied: its outbox as JSON, an empty list once that is published.
    pub fn applied(&self) -> String {
        self.of_activity(":applied:")
    }

    /// How often the activity was claimed exclusively.
    pub fn claims(&self) -> String {
        self.of_activity(":claims:")
    }

    /// The lease: the token of the turn that has the conversation for itself. An activity without reply scope belongs to
    /// no conversation; all that it can get in the way of is its own redelivery, so that is what its lease covers.
    pub fn lease(&self) -> String {
        match self.base() {
            Some(base) => self.of_user(":lease:scope:", &[":", base]),
            None => self.of_activity(":lease:activity:"),
        }
    }

    /// A value of the user's state, where greentic-state has it: its keys carry no namespace.
    pub fn state(&self, slot: &StateSlot) -> String {
        let Activity {
            env,
            tenant,
            team,
            user,
            ..
        } = self.activity;
        let team = team
            .as_ref()
            .map(|team| format!("{team}:"))
            .unwrap_or_default();
        let (pack, flow, key) = (slot.pack.stored(), &slot.flow, &slot.key);
        format!(
            "greentic:state:{env}:{tenant}:{team}{user}:pack/{pack}/flow/{flow}/user/{user}:{key}"
        )
    }

    /// The namespace that a stock `RedisSessionStore` of this tenant is opened with. The braces make the tenant the hash
    /// tag, so that all of its session keys live in one slot.
    pub fn tenant_namespace(&self) -> String {
        self.of_tenant([])
    }

    fn base(&self) -> Option<&str> {
        let base = || Some(self.activity.base_scope()?.scope_hash());
        self.base.get_or_init(base).as_deref()
    }

    fn of_tenant<const N: usize>(&self, rest: [&str; N]) -> String {
        let namespace = [self.namespace, ":{", self.activity.tenant.as_str(), "}"];
        joined(&[&namespace, &rest])
    }

    fn of_activity(&self, what: &str) -> String {
        let Activity { env, key, .. } = self.activity;
        self.of_tenant([what, env.as_str(), ":", key.as_str()])
    }

    fn of_user(&self, what: &str, rest: &[&str]) -> String {
        let Activity {
            env,
            tenant,
            team,
            user,
            ..
        } = self.activity;
        let team = team.as_ref().map_or(NO_TEAM, |team| team.as_str());
        let (env, tenant, user) = (env.as_str(), tenant.as_str(), user.as_str());
        let namespace = [self.namespace, ":{", tenant, "}"];
        let owner = [what, env, ":", tenant, ":", team, ":", user];
        joined(&[&namespace, &owner, rest])
    }
}

/// Many texts in one, which is allocated once.
fn joined(parts: &[&[&str]]) -> String {
    let parts = || parts.iter().copied().flatten();
    let mut text = String::with_capacity(parts().map(|part| part.len()).sum());
    text.extend(parts().copied());
    text
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
