//! [`TurnStore`] on Redis: what goes into the scripts and what comes out of them.

use std::sync::Arc;
use std::time::Duration;

use greentic_types::{SessionData, SessionKey};
use redis::{FromRedisValue, Value};

use super::keys::Keys;
use super::link::{ConnectError, Link, store_error};
use super::notes::Notes;
use super::script::{Call, Script};
use super::{Config, commit, server};
use crate::adapters::patience::wait_for;
use crate::model::{Activity, Outbound};
use crate::ports::{
    Begin, Begun, Claim, Commit, Committed, Opening, ParkedWait, StateSlot, StoreError, TurnStore,
};

/// Frees a lease, but only its holder's.
const RELEASE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end";

/// Sessions, state and the record of what was applied, in Redis.
pub struct RedisStore {
    link: Arc<Link>,
    notes: Notes,
    namespace: String,
    dedupe_window: Duration,
    begin: Script,
    commit: Script,
    release: Script,
}

impl RedisStore {
    /// Connects, waiting for a server for up to `connect_timeout`, and makes sure that it can do what the scripts need. From
    /// then on the store mends its connection by itself.
    pub async fn connect(config: &Config) -> Result<Self, ConnectError> {
        let link = Arc::new(Link::new(config)?);
        let (server, patience) = (config.url.to_string(), config.connect_timeout);
        let there = wait_for("Redis", patience, || server::greet(&link, &server)).await?;
        there.map_err(|source| ConnectError::Unreachable {
            server,
            patience,
            source,
        })?;
        Ok(Self {
            notes: Notes::new(Arc::clone(&link)),
            link,
            namespace: config.namespace.clone(),
            dedupe_window: config.dedupe_window,
            begin: Script::new(include_str!("begin.lua")),
            commit: Script::new(include_str!("commit.lua")),
            release: Script::new(RELEASE),
        })
    }

    /// Whether the server answers: for readiness.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.link
            .query(&redis::cmd("PING"))
            .await
            .map_err(store_error)
    }

    /// What an operator should know about the server, as sentences for the log; empty if all is well.
    pub async fn warnings(&self) -> Vec<String> {
        server::warnings(&self.link).await
    }

    async fn run(&self, call: &Call<'_>) -> Result<Value, StoreError> {
        call.run(&self.link).await.map_err(store_error)
    }

    fn keys<'a>(&'a self, activity: &'a Activity) -> Keys<'a> {
        Keys::new(&self.namespace, activity)
    }
}

impl TurnStore for RedisStore {
    async fn begin(&self, begin: &Begin<'_>) -> Result<Begun, StoreError> {
        let keys = self.keys(begin.activity);
        let (token, ttl) = match begin.claim {
            Claim::Optimistic => ("", Duration::ZERO),
            Claim::Exclusive { token, ttl } => (token, ttl),
        };
        let mut call = self.begin.call();
        call.key(keys.applied())
            .key(keys.lease())
            .key(keys.claims())
            .arg(token)
            .arg(millis(ttl))
            .arg(millis(self.dedupe_window))
            .arg(keys.session_prefix())
            .arg(u8::from(begin.resume));
        let pointers = pointers(&keys, begin.activity);
        call.arg(pointers.len()).keys(pointers);
        for slot in begin.state {
            call.key(keys.state(slot));
        }
        let opened = self
            .run(&call)
            .await
            .and_then(|answer| opened(answer, begin.activity));
        if let (Claim::Exclusive { token, .. }, Err(StoreError::Corrupt { .. })) =
            (begin.claim, &opened)
        {
            // The turn will not run, so its lease must not stand in anyone's way.
            self.release(begin.activity, token).await?;
        }
        opened
    }

    async fn read_state(
        &self,
        activity: &Activity,
        slots: &[StateSlot],
    ) -> Result<Vec<Option<String>>, StoreError> {
        if slots.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.keys(activity);
        let mut command = redis::cmd("MGET");
        for slot in slots {
            command.arg(keys.state(slot));
        }
        let values = self.link.query(&command).await.map_err(store_error)?;
        texts(values)
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<Committed, StoreError> {
        let keys = self.keys(commit.activity);
        let call = commit::call(&self.commit, &keys, commit, self.dedupe_window)?;
        commit::committed(self.run(&call).await?)
    }

    async fn published(&self, activity: &Activity) -> Result<(), StoreError> {
        let applied = self.keys(activity).applied();
        self.notes.write(applied).await.map_err(store_error)
    }

    async fn release(&self, activity: &Activity, token: &str) -> Result<(), StoreError> {
        let mut call = self.release.call();
        call.key(self.keys(activity).lease()).arg(token);
        self.run(&call).await.map(drop)
    }
}

/// The pointers that lead to the wait that an activity answers, in the order of the look-up: the echoed correlation's,
/// then the base scope's. None without a reply scope.
pub fn pointers(keys: &Keys<'_>, activity: &Activity) -> Vec<String> {
    let echoed = activity
        .correlation()
        .and(activity.reply_scope.as_ref())
        .map(|scope| keys.scope(scope));
    echoed.into_iter().chain(keys.base_scope()).collect()
}

fn opened(answer: Value, activity: &Activity) -> Result<Begun, StoreError> {
    let mut parts = Parts::of(answer)?;
    match parts.next::<String>()?.as_str() {
        "applied" => Ok(Begun::Applied(outbox(&parts.next::<Vec<u8>>()?)?)),
        "busy" => {
            // A lease without expiry is none of ours; it is waited for all the same.
            let lasts = parts.next::<i64>()?;
            let retry_after = Duration::from_millis(lasts.max(1).unsigned_abs());
            Ok(Begun::Busy { retry_after })
        }
        _ => Ok(Begun::Ready(Opening {
            claims: parts.next()?,
            head: parts.next::<Option<String>>()?.map(SessionKey),
            wait: first_own(&parts.next::<Vec<(String, Vec<u8>)>>()?, activity)?,
            state: texts(parts.next()?)?,
        })),
    }
}

/// The first of the waits found that belongs to the activity's env, tenant, team and user; the pointers' keys say so
/// already, but greentic-session checks it as well.
fn first_own(
    waits: &[(String, Vec<u8>)],
    activity: &Activity,
) -> Result<Option<Box<ParkedWait>>, StoreError> {
    for (key, json) in waits {
        let data: SessionData =
            serde_json::from_slice(json).map_err(|error| corrupt("session", &error))?;
        let owner = &data.tenant_ctx;
        let user = owner.user_id.as_ref().or(owner.user.as_ref());
        if owner.env == activity.env
            && owner.tenant_id == activity.tenant
            && owner.team_id.as_ref().or(owner.team.as_ref()) == activity.team.as_ref()
            && user.is_none_or(|user| *user == activity.user)
        {
            let key = SessionKey::new(key);
            return Ok(Some(Box::new(ParkedWait { key, data })));
        }
    }
    Ok(None)
}

/// The outbox in a record of an applied activity.
pub fn outbox(json: &[u8]) -> Result<Vec<Outbound>, StoreError> {
    serde_json::from_slice(json).map_err(|error| corrupt("outbox", &error))
}

/// The values of a state, which are text.
fn texts(values: Vec<Option<Vec<u8>>>) -> Result<Vec<Option<String>>, StoreError> {
    let text = |value: Option<Vec<u8>>| value.map(String::from_utf8).transpose();
    let texts: Result<_, _> = values.into_iter().map(text).collect();
    texts.map_err(|error| corrupt("state", &error))
}

/// Milliseconds as Redis takes them: it refuses none at all and more than fit its clock.
pub fn millis(duration: Duration) -> u64 {
    const CENTURY: u64 = 100 * 365 * 24 * 60 * 60 * 1000;
    u64::try_from(duration.as_millis()).map_or(CENTURY, |millis| millis.clamp(1, CENTURY))
}

pub fn corrupt(what: &str, reason: &dyn std::error::Error) -> StoreError {
    StoreError::Corrupt {
        what: what.to_owned(),
        reason: reason.to_string(),
    }
}

/// A script's answer, read part by part.
pub struct Parts(std::vec::IntoIter<Value>);

impl Parts {
    /// The parts of an answer that is a list.
    pub fn of(answer: Value) -> Result<Self, StoreError> {
        Vec::<Value>::from_redis_value(answer)
            .map(|parts| Self(parts.into_iter()))
            .map_err(|error| corrupt("answer of a script", &error))
    }

    /// The next part.
    pub fn next<T: FromRedisValue>(&mut self) -> Result<T, StoreError> {
        T::from_redis_value(self.0.next().unwrap_or(Value::Nil))
            .map_err(|error| corrupt("answer of a script", &error))
    }
}
