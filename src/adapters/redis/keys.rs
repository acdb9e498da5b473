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
/// own user's.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    namespace: &'a str,
    activity: &'a Activity,
}

impl<'a> Keys<'a> {
    /// The keys of an activity under a worker's namespace.
    pub fn new(namespace: &'a str, activity: &'a Activity) -> Self {
        Self {
            namespace,
            activity,
        }
    }

    /// What precedes the session key in the Redis key of a session, `SessionData` as JSON. The scripts append the session
    /// key that a pointer names.
    pub fn session_prefix(&self) -> String {
        format!("{}:session:", self.tenant_namespace())
    }

    /// The pointer of a reply scope: the session key of the latest wait that was registered under it.
    pub fn scope(&self, scope: &ReplyScope) -> String {
        format!(
            "{}:waits:scope:{}:{}",
            self.tenant_namespace(),
            self.owner(),
            scope.scope_hash()
        )
    }

    /// The set of the session keys of a user's waits.
    pub fn user_waits(&self) -> String {
        format!("{}:waits:user:{}", self.tenant_namespace(), self.owner())
    }

    /// The record that the activity was applied: its outbox as JSON, an empty list once that is published.
    pub fn applied(&self) -> String {
        self.of_activity("applied")
    }

    /// How often the activity was claimed exclusively.
    pub fn claims(&self) -> String {
        self.of_activity("claims")
    }

    /// The lease: the token of the turn that has the conversation for itself. An activity without reply scope belongs to
    /// no conversation; all that it can get in the way of is its own redelivery, so that is what its lease covers.
    pub fn lease(&self) -> String {
        match self.activity.base_scope() {
            Some(base) => format!(
                "{}:lease:scope:{}:{}",
                self.tenant_namespace(),
                self.owner(),
                base.scope_hash()
            ),
            None => self.of_activity("lease:activity"),
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
        format!("{}:{{{}}}", self.namespace, self.activity.tenant)
    }

    fn of_activity(&self, what: &str) -> String {
        let Activity { env, key, .. } = self.activity;
        format!("{}:{what}:{env}:{key}", self.tenant_namespace())
    }

    fn owner(&self) -> String {
        let Activity {
            env,
            tenant,
            team,
            user,
            ..
        } = self.activity;
        let team = team.as_ref().map_or(NO_TEAM, |team| team.as_str());
        format!("{env}:{tenant}:{team}:{user}")
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
