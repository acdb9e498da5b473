//! BEGIN in its two forms: a look, which writes nothing, and a claim, which takes the conversation's lease.

use std::time::Duration;

use greentic_types::{SessionData, SessionKey};
use redis::{Cmd, Value};

use super::keys::{Key, Keys};
use super::link::{Link, store_error};
use super::script::{Call, Script};
use super::store::{Parts, corrupt, millis, outbox, texts};
use crate::model::Activity;
use crate::ports::{Begin, Begun, Opening, ParkedWait, StoreError};

/// How long a session key of ours is. An echo is a stranger's text, and none that is longer goes into a key.
const UUID: usize = 36;

/// Opens a turn that claims nothing, in one plain command: a script costs Redis several times as much. The session is part
/// of it where the echo tells which one it is (see [`crate::ports::Park::key`]), else it takes another command. What changes
/// in between, or is of another type than it should be, COMMIT finds out.
pub async fn look(link: &Link, keys: &Keys<'_>, begin: &Begin<'_>) -> Result<Begun, StoreError> {
    let pointers = pointers(keys);
    let echoed = begin.activity.correlation();
    let echoed = echoed.filter(|echo| begin.resume && echo.len() <= UUID);
    let mut command = Cmd::with_capacity(6 + begin.state.len(), 512);
    command
        .arg("MGET")
        .arg(keys.applied())
        .arg(keys.lease())
        .arg(&pointers)
        .arg(echoed.map(|session| keys.session(session)));
    for slot in begin.state {
        command.arg(keys.state(slot));
    }
    let values: Vec<Option<Vec<u8>>> = link.query(&command).await.map_err(store_error)?;
    let mut values = values.into_iter();
    let (applied, lease) = (values.next().flatten(), values.next().flatten());
    if let Some(record) = applied {
        return Ok(Begun::Applied(outbox(&record)?));
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
        state: texts("state", values)?,
        wait: if begin.resume {
            first_named(link, keys, named, at_hand).await?
        } else {
            None
        },
    }))
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

/// The call that claims a turn's conversation for the holder of this token.
pub fn claim<'s>(
    script: &'s Script,
    keys: &Keys<'_>,
    begin: &Begin<'_>,
    (token, ttl): (&str, Duration),
    dedupe_window: Duration,
) -> Call<'s> {
    let pointers = pointers(keys);
    let mut call = script.call(3 + pointers.len() + begin.state.len());
    call.arg(keys.applied())
        .arg(keys.lease())
        .arg(keys.claims())
        .arg(&pointers);
    for slot in begin.state {
        call.arg(keys.state(slot));
    }
    call.arg(token)
        .arg(millis(ttl))
        .arg(millis(dedupe_window))
        .arg(keys.session_prefix())
        .arg(u8::from(begin.resume))
        .arg(pointers.len());
    call
}

/// What the script says it found.
pub fn claimed(answer: Value, activity: &Activity) -> Result<Begun, StoreError> {
    let mut parts = Parts::of(answer)?;
    match parts.next::<String>()?.as_str() {
        "applied" => Ok(Begun::Applied(outbox(&parts.next::<Vec<u8>>()?)?)),
        "busy" => Ok(busy(parts.next()?)),
        _ => Ok(Begun::Ready(Opening {
            claims: parts.next()?,
            head: parts.next::<Option<String>>()?.map(SessionKey),
            wait: first_own(parts.next()?, activity)?,
            state: texts("state", parts.next::<Vec<_>>()?)?,
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
