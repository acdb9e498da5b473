//! BEGIN in its two forms: a look, which writes nothing, and a claim, which takes the conversation's lease.

use std::time::Duration;

use greentic_types::{SessionData, SessionKey};
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, Value};

use super::applied;
use super::keys::{Key, Keys};
use super::link::{Link, store_error};
use super::script::{Call, Script};
use super::store::{Parts, corrupt, millis, texts};
use crate::model::Activity;
use crate::ports::{Begin, Begun, Lease, Opening, ParkedWait, StateSlot, StoreError, StoredState};

/// How long a session key of ours is. An echo is a stranger's text, and none that is longer goes into a key.
const UUID: usize = 36;

/// Opens a turn that claims nothing, in one plain command: a script costs Redis several times as much. The session is part
/// of it where the echo tells which one it is (see [`crate::ports::Park::key`]), else it takes another command. What changes
/// in between, or is of another type than it should be, COMMIT finds out.
pub async fn look(link: &Link, keys: &Keys<'_>, begin: &Begin<'_>) -> Result<Begun, StoreError> {
    let pointers = pointers(keys);
    let echoed = begin.activity.correlation();
    let echoed = echoed.filter(|echo| begin.resume && echo.len() <= UUID);
    let mut command = Cmd::with_capacity(6, 512);
    command
        .arg("MGET")
        .arg(keys.applied())
        .arg(keys.lease())
        .arg(&pointers)
        .arg(echoed.map(|session| keys.session(session)));
    let (values, state) = ask(link, keys, command, begin).await.map_err(store_error)?;
    let mut values = values.into_iter();
    let (applied, lease) = (values.next().flatten(), values.next().flatten());
    if let Some(record) = applied {
        return Ok(Begun::Applied(applied::read(&record)?));
    }
    if lease.is_some() {
        let lasts = redis::cmd("PTTL").arg(keys.lease()).take();
        return Ok(busy(link.query(&lasts).await.map_err(store_error)?));
    }
    let named = texts("pointer", values.by_ref().take(pointers.len()))?;
    let session = echoed.and_then(|_| values.next().flatten());
    let at_hand = echoed.zip(session);
    Ok(Begun::Ready(Opening {
        claims: 0,
        head: named.last().cloned().flatten().map(SessionKey),
        state: stored(state, begin.state_bytes)?,
        wait: if begin.resume {
            first_named(link, keys, named, at_hand).await?
        } else {
            None
        },
    }))
}

/// Runs a command, in the same trip as the beginnings of the values of state that BEGIN is to bring.
async fn ask(
    link: &Link,
    keys: &Keys<'_>,
    command: Cmd,
    begin: &Begin<'_>,
) -> RedisResult<(Vec<Option<Vec<u8>>>, Vec<Vec<u8>>)> {
    if begin.state.is_empty() {
        return Ok((link.query(&command).await?, Vec::new()));
    }
    let mut commands = Pipeline::with_capacity(1 + begin.state.len());
    commands.add_command(command);
    for slot in begin.state {
        commands.add_command(beginning(keys, slot, begin.state_bytes));
    }
    let mut answers = link.query_all::<Vec<Value>>(&commands).await?.into_iter();
    let values = Vec::from_redis_value(answers.next().unwrap_or(Value::Nil))?;
    let state = answers.map(Vec::from_redis_value).collect::<Result<_, _>>();
    Ok((values, state?))
}

/// Asks for the beginning of a value of state: another program may have stored more than a turn takes.
pub fn beginning(keys: &Keys<'_>, slot: &StateSlot, max_bytes: usize) -> Cmd {
    let mut command = Cmd::with_capacity(4, 256);
    // One byte more tells that it is larger.
    command.arg("GETRANGE").arg(keys.state(slot));
    command.arg(0).arg(max_bytes);
    command
}

/// The values of which these are the beginnings. An empty text is no JSON, and is no value.
pub fn stored(
    beginnings: impl IntoIterator<Item = Vec<u8>>,
    max_bytes: usize,
) -> Result<Vec<StoredState>, StoreError> {
    let each = beginnings.into_iter().map(|bytes| match bytes.len() {
        0 => Ok(StoredState::Absent),
        len if len > max_bytes => Ok(StoredState::TooLarge),
        _ => Ok(StoredState::Text(
            String::from_utf8(bytes).map_err(|error| corrupt("state", &error))?,
        )),
    });
    each.collect()
}

/// The first wait that a pointer names, from what is at hand or from Redis. A pointer whose session is gone is no wait.
async fn first_named(
    link: &Link,
    keys: &Keys<'_>,
    named: Vec<Option<String>>,
    mut at_hand: Option<(&str, Vec<u8>)>,
) -> Result<Option<Box<ParkedWait>>, StoreError> {
    let mut sessions: Vec<String> = named.into_iter().flatten().collect();
    sessions.dedup();
    for session in sessions {
        let data = match at_hand.take_if(|(known, _)| *known == session) {
            Some((_, data)) => Some(data),
            None => {
                let get = redis::cmd("GET").arg(keys.session(&session)).take();
                link.query(&get).await.map_err(store_error)?
            }
        };
        if let Some(data) = data
            && let Some(wait) = own(session, &data, keys.activity())?
        {
            return Ok(Some(wait));
        }
    }
    Ok(None)
}

/// The call that takes this lease for a turn.
pub fn claim<'s>(
    script: &'s Script,
    keys: &Keys<'_>,
    begin: &Begin<'_>,
    (lease, ttl): (Lease<'_>, Duration),
    dedupe_window: Duration,
) -> Call<'s> {
    let pointers = pointers(keys);
    let of_user = keys.taken_user_lease(lease.scope);
    let mut call = script.call(3 + pointers.len() + begin.state.len() + of_user.iter().len());
    call.arg(keys.applied())
        .arg(keys.lease())
        .arg(keys.claims())
        .arg(&pointers);
    for slot in begin.state {
        call.arg(keys.state(slot));
    }
    call.arg(of_user)
        .arg(lease.token)
        .arg(millis(ttl))
        .arg(millis(dedupe_window))
        .arg(keys.session_prefix())
        .arg(u8::from(begin.resume))
        .arg(pointers.len())
        .arg(begin.state.len())
        .arg(begin.state_bytes);
    call
}

/// What the script says it found.
pub fn claimed(answer: Value, begin: &Begin<'_>) -> Result<Begun, StoreError> {
    let mut parts = Parts::of(answer)?;
    match parts.next::<String>()?.as_str() {
        "applied" => Ok(Begun::Applied(applied::read(&parts.next::<Vec<u8>>()?)?)),
        "busy" => Ok(busy(parts.next()?)),
        _ => Ok(Begun::Ready(Opening {
            claims: parts.next()?,
            head: parts.next::<Option<String>>()?.map(SessionKey),
            wait: first_own(parts.next()?, begin.activity)?,
            state: stored(parts.next::<Vec<_>>()?, begin.state_bytes)?,
        })),
    }
}

/// A lease without expiry is none of ours; it is waited for all the same.
fn busy(lasts_ms: i64) -> Begun {
    let retry_after = Duration::from_millis(lasts_ms.max(1).unsigned_abs());
    Begun::Busy { retry_after }
}

/// The pointers that lead to the wait that an activity answers, in the order of the look-up: the echoed correlation's,
/// then the base scope's. None without a reply scope.
fn pointers<'a>(keys: &Keys<'a>) -> Vec<Key<'a>> {
    let echoed = keys.echoed_scope().into_iter();
    echoed.chain(keys.base_scope()).collect()
}

fn first_own(
    waits: Vec<(String, Vec<u8>)>,
    activity: &Activity,
) -> Result<Option<Box<ParkedWait>>, StoreError> {
    for (key, json) in waits {
        if let Some(wait) = own(key, &json, activity)? {
            return Ok(Some(wait));
        }
    }
    Ok(None)
}

/// The wait, if it belongs to the activity's env, tenant, team and user; the pointers' keys say so already, but
/// greentic-session checks it as well.
fn own(
    key: String,
    json: &[u8],
    activity: &Activity,
) -> Result<Option<Box<ParkedWait>>, StoreError> {
    let data: SessionData =
        serde_json::from_slice(json).map_err(|error| corrupt("session", &error))?;
    let owner = &data.tenant_ctx;
    let user = owner.user_id.as_ref().or(owner.user.as_ref());
    let own = owner.env == activity.env
        && owner.tenant_id == activity.tenant
        && owner.team_id.as_ref().or(owner.team.as_ref()) == activity.team.as_ref()
        && user.is_none_or(|user| *user == activity.user);
    let key = SessionKey::new(key);
    Ok(own.then(|| Box::new(ParkedWait { key, data })))
}
