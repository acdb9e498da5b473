//! Every key in Redis. Nothing else builds one.
//!
//! Identifiers (env, tenant, team, user, flow) consist of ASCII letters, digits, `.`, `_` and `-`, so none of them can
//! hold the `:` or `/` that a layout joins them with. Text that may hold anything (a flow's state key, an idempotency
//! key) always comes last. Scopes enter as a digest.

use std::fmt;
use std::io::Write;

use redis::{RedisWrite, ToRedisArgs};

use crate::model::Activity;
use crate::ports::{LeaseScope, StateSlot};

/// What greentic-session writes for a missing team. The decoder refuses a team of that name: it would share the keys of
/// those who are in none.
const NO_TEAM: &str = "-";

/// The most parts of a key.
const PARTS: usize = 13;

/// A key, in the parts that it consists of. It becomes one text where it is written; a turn writes a dozen of them.
#[derive(Clone, Copy, Debug)]
pub struct Key<'k>([&'k str; PARTS]);

impl<'k> Key<'k> {
    fn of<const N: usize>(parts: [&'k str; N]) -> Self {
        const { assert!(N <= PARTS) };
        let mut all = [""; PARTS];
        all[..N].copy_from_slice(&parts);
        Self(all)
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| f.write_str(part))
    }
}

impl ToRedisArgs for Key<'_> {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        let mut argument = out.writer_for_next_arg();
        for part in self.0 {
            // What it is written to is memory, which takes it all.
            let _written = argument.write_all(part.as_bytes());
        }
    }
}

/// The key that nothing is kept under: what may be written is found out on it. No tenant's keys are like it.
pub fn probe(namespace: &str) -> String {
    format!("{namespace}:{{probe}}:probe")
}

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

    /// The activity whose keys they are.
    pub fn activity(&self) -> &'a Activity {
        self.activity
    }

    /// What precedes the session key in the Redis key of a session, `SessionData` as JSON. The scripts append the session
    /// key that a pointer names.
    pub fn session_prefix(&self) -> Key<'a> {
        self.session("")
    }

    /// A session.
    pub fn session<'k>(&self, session: &'k str) -> Key<'k>
    where
        'a: 'k,
    {
        let tenant = self.activity.tenant.as_str();
        Key::of([self.namespace, ":{", tenant, "}:session:", session])
    }

    /// The pointer of the reply scope with this hash: the session key of the latest wait that was registered under it.
    pub fn scope<'k>(&self, hash: &'k str) -> Key<'k>
    where
        'a: 'k,
    {
        self.of_user("}:waits:scope:", ":", hash)
    }

    /// The pointer of the activity's base scope, if it has a scope.
    pub fn base_scope(&self) -> Option<Key<'a>> {
        let scope = self.activity.reply_scope.as_ref()?;
        Some(self.scope(scope.base_hash()))
    }

    /// The pointer of the activity's scope with the correlation id that it echoes, if it echoes one.
    pub fn echoed_scope(&self) -> Option<Key<'a>> {
        let scope = self.activity.reply_scope.as_ref()?;
        Some(self.scope(scope.echo_hash()?))
    }

    /// The set of the session keys of a user's waits.
    pub fn user_waits(&self) -> Key<'a> {
        self.of_user("}:waits:user:", "", "")
    }

    /// The bytes of state that the user has.
    pub fn user_state_bytes(&self) -> Key<'a> {
        self.of_user("}:state_bytes:user:", "", "")
    }

    /// The bytes of state that all users of the tenant have.
    pub fn tenant_state_bytes(&self) -> Key<'a> {
        let (env, tenant) = (self.activity.env.as_str(), self.activity.tenant.as_str());
        Key::of([self.namespace, ":{", tenant, "}:state_bytes:env:", env])
    }

    /// The record that the activity was applied: the digest of its content, and its outbox as JSON, an empty list once that is
    /// published.
    pub fn applied(&self) -> Key<'a> {
        self.of_activity("}:applied:")
    }

    /// How often the activity was claimed exclusively.
    pub fn claims(&self) -> Key<'a> {
        self.of_activity("}:claims:")
    }

    /// How many of those claims ended in a failure that was handed back.
    pub fn failures(&self) -> Key<'a> {
        self.of_activity("}:failures:")
    }

    /// The lease: the token of the turn that has the conversation for itself. An activity without reply scope belongs to
    /// no conversation; all that it can get in the way of is its own redelivery, so that is what its lease covers.
    pub fn lease(&self) -> Key<'a> {
        match &self.activity.reply_scope {
            Some(scope) => self.of_user("}:lease:scope:", ":", scope.base_hash()),
            None => self.of_activity("}:lease:activity:"),
        }
    }

    /// The lease on the user's state: the token of the turn that no other conversation of the user may change it under.
    pub fn user_lease(&self) -> Key<'a> {
        self.of_user("}:lease:user:", "", "")
    }

    /// The same, if a lease of this scope takes it.
    pub fn taken_user_lease(&self, scope: LeaseScope) -> Option<Key<'a>> {
        match scope {
            LeaseScope::Conversation => None,
            LeaseScope::User => Some(self.user_lease()),
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
    pub fn tenant_namespace(&self) -> Key<'a> {
        Key::of([self.namespace, ":{", self.activity.tenant.as_str(), "}"])
    }

    fn of_activity(&self, what: &'static str) -> Key<'a> {
        let Activity {
            env, tenant, key, ..
        } = self.activity;
        let (env, tenant, key) = (env.as_str(), tenant.as_str(), key.as_str());
        Key::of([self.namespace, ":{", tenant, what, env, ":", key])
    }

    fn of_user<'k>(&self, what: &'static str, before: &'static str, last: &'k str) -> Key<'k>
    where
        'a: 'k,
    {
        let Activity {
            env,
            tenant,
            team,
            user,
            ..
        } = self.activity;
        let team = team.as_ref().map_or(NO_TEAM, |team| team.as_str());
        let (env, tenant, user) = (env.as_str(), tenant.as_str(), user.as_str());
        Key::of([
            self.namespace,
            ":{",
            tenant,
            what,
            env,
            ":",
            tenant,
            ":",
            team,
            ":",
            user,
            before,
            last,
        ])
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
