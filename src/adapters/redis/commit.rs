//! COMMIT's arguments, in the order in which `commit.lua` reads them, and its answer.

use std::time::Duration;

use greentic_types::{ReplyScope, SessionKey};
use redis::Value;

use super::keys::Keys;
use super::script::{Call, Script};
use super::store::{Parts, corrupt, millis, outbox, pointers};
use crate::ports::{Commit, Committed, Park, StoreError, Taken};

/// What stands for "none" in an argument.
const NONE: &str = "";

/// The call that applies a turn.
pub fn call<'s>(
    script: &'s Script,
    keys: &Keys<'_>,
    commit: &Commit<'_>,
    dedupe_window: Duration,
) -> Result<Call<'s>, StoreError> {
    let outbox = serde_json::to_vec(commit.outbox).map_err(|error| corrupt("outbox", &error))?;
    let base = commit.activity.base_scope();
    let mut call = script.call();
    call.key(keys.applied())
        .key(keys.lease())
        .key(keys.claims())
        .key(keys.user_waits())
        .arg(outbox)
        .arg(millis(dedupe_window))
        .arg(commit.lease.unwrap_or(NONE))
        .arg(keys.session_prefix());
    match keys.base_scope() {
        Some(base) => call.arg(1).key(base),
        None => call.arg(0),
    };
    call.arg(commit.head.map_or(NONE, SessionKey::as_str));
    taken(&mut call, keys, commit, base.as_ref());
    park(&mut call, keys, commit.park.as_ref(), base.as_ref())?;
    state(&mut call, keys, commit);
    Ok(call)
}

/// The wait to clear, what may point to it, and what it had pushed aside.
fn taken(call: &mut Call<'_>, keys: &Keys<'_>, commit: &Commit<'_>, base: Option<&ReplyScope>) {
    let Some(taken) = commit.taken else {
        call.arg(NONE).arg(0).arg(0);
        return;
    };
    let pointers = taken_pointers(keys, commit, taken, base);
    call.arg(taken.key.as_str())
        .arg(pointers.len())
        .keys(pointers)
        .arg(taken.shadowed.len());
    for session in taken.shadowed {
        call.arg(session.as_str());
    }
}

/// Where a taken wait may be registered besides its base scope: under its correlation id; and, if a stock store has
/// registered it, under the one that led to it.
fn taken_pointers(
    keys: &Keys<'_>,
    commit: &Commit<'_>,
    taken: Taken<'_>,
    base: Option<&ReplyScope>,
) -> Vec<String> {
    let mut pointers = pointers(keys, commit.activity);
    // The base scope's, which the script looks after.
    pointers.pop();
    if let (Some(base), Some(correlation)) = (base, taken.correlation) {
        let own = keys.scope(&correlated(base, correlation));
        if !pointers.contains(&own) {
            pointers.push(own);
        }
    }
    pointers
}

/// The wait to register and the pointers to it.
fn park(
    call: &mut Call<'_>,
    keys: &Keys<'_>,
    park: Option<&Park<'_>>,
    base: Option<&ReplyScope>,
) -> Result<(), StoreError> {
    let Some(park) = park else {
        call.arg(NONE).arg(NONE).arg(0).arg(0);
        return Ok(());
    };
    let base = base.ok_or_else(|| StoreError::Corrupt {
        what: "wait".to_owned(),
        reason: "its activity has no reply scope to find it by".to_owned(),
    })?;
    let data = serde_json::to_vec(park.data).map_err(|error| corrupt("session", &error))?;
    let mut pointers = Vec::from_iter(keys.base_scope());
    pointers.extend(
        park.correlation
            .map(|correlation| keys.scope(&correlated(base, correlation))),
    );
    call.arg(park.key.as_str())
        .arg(data)
        .arg(millis(park.ttl))
        .arg(pointers.len())
        .keys(pointers);
    Ok(())
}

/// The state that was read and the state to write.
fn state(call: &mut Call<'_>, keys: &Keys<'_>, commit: &Commit<'_>) {
    call.arg(commit.state_read.len());
    for (slot, _) in commit.state_read {
        call.key(keys.state(slot));
    }
    call.arg(commit.state_read.len());
    for (_, value) in commit.state_read {
        // Values are JSON and so never empty.
        call.arg(value.as_deref().unwrap_or(NONE));
    }
    call.arg(commit.state_written.len());
    for (slot, _) in commit.state_written {
        call.key(keys.state(slot));
    }
    call.arg(commit.state_written.len());
    for (_, value) in commit.state_written {
        call.arg(value.as_deref().unwrap_or(NONE));
    }
}

fn correlated(base: &ReplyScope, correlation: &str) -> ReplyScope {
    ReplyScope {
        correlation: Some(correlation.to_owned()),
        ..base.clone()
    }
}

/// What the script says it did.
pub fn committed(answer: Value) -> Result<Committed, StoreError> {
    let mut parts = Parts::of(answer)?;
    match parts.next::<String>()?.as_str() {
        "done" => Ok(Committed::Done),
        "applied" => Ok(Committed::AlreadyApplied(outbox(
            &parts.next::<Vec<u8>>()?,
        )?)),
        _ => {
            let what: String = parts.next()?;
            tracing::debug!(what, "another turn came first");
            Ok(Committed::Conflict)
        }
    }
}
