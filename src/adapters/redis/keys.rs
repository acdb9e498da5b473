//! Every key in Redis. Nothing else builds one.
//!
//! Identifiers (env, tenant, team, user, flow) consist of ASCII letters, digits, `.`, `_` and `-`, so none of them can
//! hold the `:` or `/` that a layout joins them with. Text that may hold anything (a flow's state key, an idempotency
//! key) always comes last. Scopes enter as a digest.

use greentic_types::ReplyScope;

use crate::model::Activity;
use crate::ports::StateSlot;

/// What greentic-session writes for a missing team. The decoder refuses a team of that name: it would share the keys of
/// those who are in none.
const NO_TEAM: &str = "-";

/// The keys that one activity may touch: all of them its own tenant's and, but for the waits that a pointer names, its
/// own user's. What they have in common is put together once.
#[derive(Clone, Debug)]
pub struct Keys<'a> {
    activity: &'a Activity,
    /// The namespace that a stock `RedisSessionStore` of the tenant is opened with.
    tenant: String,
    /// Env, tenant, team and user.
    owner: String,
    /// The digest of the conversation's base scope.
    base: Option<String>,
}

impl<'a> Keys<'a> {
    /// The keys of an activity under a worker's namespace. The braces make the tenant the hash tag, so that all of its
    /// session keys live in one slot.
    pub fn new(namespace: &str, activity: &'a Activity) -> Self {
        let Activity {
            env,
            tenant,
            team,
            user,
            ..
        } = activity;
        let (env, team) = (
            env.as_str(),
            team.as_ref().map_or(NO_TEAM, |team| team.as_str()),
        );
        Self {
            activity,
            tenant: [namespace, ":{", tenant.as_str(), "}"].concat(),
            owner: [env, ":", tenant.as_str(), ":", team, ":", user.as_str()].concat(),
            base: activity.base_scope().map(|base| base.scope_hash()),
        }
    }

    /// What precedes the session key in the Redis key of a session, `SessionData` as JSON. The scripts append the session
    /// key that a pointer names.
    pub fn session_prefix(&self) -> String {
        [&self.tenant, ":session:"].concat()
    }

    /// The pointer of a reply scope: the session key of the latest wait that was registered under it.
    pub fn scope(&self, scope: &ReplyScope) -> String {
        self.of_scope(":waits:scope:", &scope.scope_hash())
    }

    /// The pointer of the activity's base scope, if it has a scope.
    pub fn base_scope(&self) -> Option<String> {
        let base = self.base.as_ref()?;
        Some(self.of_scope(":waits:scope:", base))
    }

    /// The set of the session keys of a user's waits.
    pub fn user_waits(&self) -> String {
        [&self.tenant, ":waits:user:", &self.owner].concat()
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
        match &self.base {
            Some(base) => self.of_scope(":lease:scope:", base),
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

    /// The namespace that a stock `RedisSessionStore` of this tenant is opened with.
    pub fn tenant_namespace(&self) -> &str {
        &self.tenant
    }

    fn of_activity(&self, what: &str) -> String {
        let Activity { env, key, .. } = self.activity;
        [&self.tenant, what, env.as_str(), ":", key.as_str()].concat()
    }

    fn of_scope(&self, what: &str, hash: &str) -> String {
        [&self.tenant, what, &self.owner, ":", hash].concat()
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
