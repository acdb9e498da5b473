//! [`TurnStore`] on Redis: what goes into the scripts and what comes out of them.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use redis::{FromRedisValue, Value};

use super::error::ConnectError;
use super::keys::Keys;
use super::link::{Link, store_error};
use super::notes::Notes;
use super::script::{Call, Script};
use super::{Config, applied, begin, commit, keys, probe, server};
use crate::adapters::patience::wait_for;
use crate::model::{Activity, EnvId, Outbound, Problems, Severity, TenantId};
use crate::ports::{
    Attempts, Begin, Begun, Claim, Commit, Committed, Lease, StateSlot, StoreError, StoredState,
    TurnStore,
};

/// Frees a lease, but only its holder's, and counts its attempt as failed. The third key is the lease on the user, if it was taken.
pub const RELEASE: &str = "
if KEYS[3] and redis.call('GET', KEYS[3]) == ARGV[1] then redis.call('DEL', KEYS[3]) end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return end
redis.call('DEL', KEYS[1])
redis.call('INCR', KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])";

/// Frees a lease, but only its holder's, whose claim does not count. The third key is as in [`RELEASE`].
pub const WITHDRAW: &str = "
if KEYS[3] and redis.call('GET', KEYS[3]) == ARGV[1] then redis.call('DEL', KEYS[3]) end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return end
redis.call('DEL', KEYS[1])
if tonumber(redis.call('GET', KEYS[2]) or 0) > 0 then redis.call('DECR', KEYS[2]) end";

/// Has leases last longer, but only their holder's.
const PROLONG: &str = "
for _, lease in ipairs(KEYS) do
  if redis.call('GET', lease) == ARGV[1] then redis.call('PEXPIRE', lease, ARGV[2]) end
end";

/// Writes and deletes a key in one step, so that nobody ever sees it: it meets whatever a commit would meet.
const WRITE: &str = "redis.call('SET', KEYS[1], '', 'PX', 1000) redis.call('DEL', KEYS[1])";

/// The most tenants whose scripts are tried out at once.
const PROBES_AT_ONCE: usize = 32;

/// Sessions, state and the record of what was applied, in Redis.
pub struct RedisStore {
    link: Arc<Link>,
    notes: Notes,
    version: Option<String>,
    namespace: String,
    dedupe_window: Duration,
    begin: Script,
    commit: Script,
    prolong: Script,
    release: Script,
    withdraw: Script,
    write: Script,
    expired: Mutex<BTreeMap<TenantId, u64>>,
}

impl RedisStore {
    /// Connects, waiting for a server for up to `connect_timeout`, and makes sure that it can do what the scripts need. From
    /// then on the store mends its connection by itself.
    pub async fn connect(config: &Config) -> Result<Self, ConnectError> {
        let patience = config.connect_timeout;
        let greeting = wait_for("Redis", patience, || server::greet(config)).await?;
        let greeting = greeting.map_err(|source| server::given_up(config, source))?;
        let link = Arc::new(Link::new(config.clone(), greeting.connection));
        Ok(Self {
            notes: Notes::new(Arc::clone(&link)),
            link,
            version: greeting.version,
            namespace: config.namespace.clone(),
            dedupe_window: config.dedupe_window,
            begin: Script::new(include_str!("begin.lua")),
            commit: Script::new(include_str!("commit.lua")),
            prolong: Script::new(PROLONG),
            release: Script::new(RELEASE),
            withdraw: Script::new(WITHDRAW),
            write: Script::new(WRITE),
            expired: Mutex::default(),
        })
    }

    /// Makes sure that the server would take a commit now: for readiness. A server that answers may be one that no longer writes.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let mut call = self.write.call(1);
        call.arg(keys::probe(&self.namespace));
        match call.run(&self.link).await {
            // A user whose key patterns name single tenants.
            Err(error) if error.code() == Some("NOPERM") => Ok(()),
            answer => answer.map(drop).map_err(store_error),
        }
    }

    /// Loads and runs every script on keys of each tenant that no turn has. What the server refuses comes back as problems; what
    /// it refuses to some of them only is those tenants' trouble, and no reason not to serve the others.
    ///
    /// # Errors
    ///
    /// The server gives no answer.
    pub async fn prepare(&self, env: &EnvId, tenants: &[TenantId]) -> Result<Problems, StoreError> {
        // Gathered first: what holds a closure over references cannot be sent to another thread.
        let each: Vec<_> = tenants
            .iter()
            .map(|tenant| probe::tenant(self, env, tenant))
            .collect();
        let mut probed = futures_util::stream::iter(each).buffered(PROBES_AT_ONCE);
        let (mut problems, mut is_served) = (Vec::new(), false);
        while let Some(found) = probed.next().await {
            let found = found?;
            is_served |= found.is_empty();
            for problem in found {
                // What one tenant meets, others mostly meet, too.
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
        if is_served {
            for problem in &mut problems {
                problem.severity = Severity::Warning;
            }
        }
        let mut all = Problems::default();
        all.extend(problems);
        Ok(all)
    }

    /// How many waits of each tenant commits have found expired since this was asked last.
    pub fn expired_waits(&self) -> BTreeMap<TenantId, u64> {
        mem::take(&mut *self.expired.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn count_expired(&self, tenant: &TenantId, waits: u64) {
        let mut expired = self.expired.lock().unwrap_or_else(PoisonError::into_inner);
        *expired.entry(tenant.clone()).or_default() += waits;
    }

    /// The server's name and version, such as `Redis 7.0.15`; none where its ACL withholds it.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
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
        let Claim::Exclusive { lease, ttl } = begin.claim else {
            return begin::look(&self.link, &keys, begin).await;
        };
        let call = begin::claim(&self.begin, &keys, begin, (lease, ttl), self.dedupe_window);
        let answer = self.run(&call).await;
        let begun = answer.and_then(|answer| begin::claimed(answer, begin));
        if let Err(StoreError::Corrupt { .. }) = &begun {
            // The turn will not run, so its lease must not stand in anyone's way.
            self.release(begin.activity, lease).await?;
        }
        begun
    }

    async fn read_state(
        &self,
        activity: &Activity,
        slot: &StateSlot,
        max_bytes: usize,
    ) -> Result<StoredState, StoreError> {
        let command = begin::beginning(&self.keys(activity), slot, max_bytes);
        let value = self.link.query(&command).await.map_err(store_error)?;
        let mut values = begin::stored([value], max_bytes)?;
        Ok(values.pop().unwrap_or(StoredState::Absent))
    }

    async fn commit(&self, commit: &Commit<'_>) -> Result<Committed, StoreError> {
        let keys = self.keys(commit.activity);
        let call = commit::call(&self.commit, &keys, commit, self.dedupe_window)?;
        let (committed, expired) = commit::committed(self.run(&call).await?)?;
        if expired > 0 {
            self.count_expired(&commit.activity.tenant, expired);
        }
        Ok(committed)
    }

    async fn published(&self, activity: &Activity) -> Result<(), StoreError> {
        let name = self.keys(activity).applied().to_string();
        let note = self.notes.write(name, applied::published(activity));
        note.await.map_err(store_error)
    }

    async fn published_but(
        &self,
        activity: &Activity,
        rest: &[Outbound],
    ) -> Result<(), StoreError> {
        let keys = self.keys(activity);
        let mut record = activity.content.as_bytes().to_vec();
        serde_json::to_writer(&mut record, rest).map_err(|error| corrupt("outbox", &error))?;
        // As a note does it: a record that has expired stays away, one that is there expires when it would have.
        let mut set = redis::cmd("SET");
        set.arg(keys.applied()).arg(record).arg("XX").arg("KEEPTTL");
        let done: Result<Value, _> = self.link.query(&set).await;
        done.map(drop).map_err(store_error)
    }

    async fn withdraw(&self, activity: &Activity, lease: Lease<'_>) -> Result<(), StoreError> {
        let keys = self.keys(activity);
        let of_user = keys.taken_user_lease(lease.scope);
        let mut call = self.withdraw.call(2 + of_user.iter().len());
        call.arg(keys.lease()).arg(keys.claims()).arg(of_user);
        call.arg(lease.token);
        self.run(&call).await.map(drop)
    }

    async fn prolong(
        &self,
        activity: &Activity,
        lease: Lease<'_>,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let keys = self.keys(activity);
        let of_user = keys.taken_user_lease(lease.scope);
        let mut call = self.prolong.call(1 + of_user.iter().len());
        call.arg(keys.lease()).arg(of_user);
        call.arg(lease.token).arg(millis(ttl));
        self.run(&call).await.map(drop)
    }

    async fn release(&self, activity: &Activity, lease: Lease<'_>) -> Result<(), StoreError> {
        let keys = self.keys(activity);
        let of_user = keys.taken_user_lease(lease.scope);
        let mut call = self.release.call(2 + of_user.iter().len());
        call.arg(keys.lease()).arg(keys.failures()).arg(of_user);
        call.arg(lease.token).arg(millis(self.dedupe_window));
        self.run(&call).await.map(drop)
    }

    async fn attempts(&self, activity: &Activity) -> Result<Attempts, StoreError> {
        let keys = self.keys(activity);
        let get = redis::cmd("MGET")
            .arg(keys.claims())
            .arg(keys.failures())
            .take();
        let counts: (Option<u32>, Option<u32>) =
            self.link.query(&get).await.map_err(store_error)?;
        let (claimed, failed) = (counts.0.unwrap_or(0), counts.1.unwrap_or(0));
        Ok(Attempts {
            claimed,
            open: claimed.saturating_sub(failed),
        })
    }

    async fn forget_claims(&self, activity: &Activity) -> Result<(), StoreError> {
        let keys = self.keys(activity);
        let mut delete = redis::cmd("DEL");
        delete.arg(keys.claims()).arg(keys.failures());
        let done: Result<Value, _> = self.link.query(&delete).await;
        done.map(drop).map_err(store_error)
    }
}

/// Values that are text.
pub fn texts(
    what: &str,
    values: impl IntoIterator<Item = Option<Vec<u8>>>,
) -> Result<Vec<Option<String>>, StoreError> {
    let text = |value: Option<Vec<u8>>| value.map(String::from_utf8).transpose();
    let texts: Result<_, _> = values.into_iter().map(text).collect();
    texts.map_err(|error| corrupt(what, &error))
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
