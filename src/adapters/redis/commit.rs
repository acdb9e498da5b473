//! COMMIT's arguments, in the order in which `commit.lua` reads them, and its answer.

use std::time::Duration;

use greentic_types::{ReplyScope, SessionKey};
use redis::Value;

use super::begin::pointers;
use super::keys::Keys;
use super::script::{Call, Script};
use super::store::{Parts, corrupt, millis, outbox};
use crate::ports::{Commit, Committed, Park, StoreError};

/// What stands for "none" in an argument.
const NONE: &str = "";

/// The call that applies a turn.
pub fn call<'s>(
    script: &'s Script,
    keys: &Keys<'_>,
    commit: &Commit<'_>,
    dedupe_window: Duration,
) -> Result<Call<'s>, StoreError> {
    let base = commit.activity.base_scope();
    let of_base = keys.base_scope();
    if commit.park.is_some() && base.is_none() {
        return Err(StoreError::Corrupt {
            what: "wait".to_owned(),
            reason: "its activity has no reply scope to find it by".to_owned(),
        });
    }
    let outbox = serde_json::to_vec(commit.outbox).map_err(|error| corrupt("outbox", &error))?;
    let parked = commit.park.as_ref().map(parked).transpose()?;
    let pointers = taken_pointers(keys, commit, base.as_ref());
    let correlation = commit.park.as_ref().and_then(|park| park.correlation);
    let correlated = base.as_ref().zip(correlation);
    let correlated = correlated.map(|(base, id)| keys.scope(&self::correlated(base, id)));
    let shadowed = commit.taken.map_or(&[][..], |taken| taken.shadowed);

    let lists = [
        usize::from(of_base.is_some()),
        pointers.len(),
        shadowed.len(),
        usize::from(correlated.is_some()),
        commit.state_read.len(),
        commit.state_written.len(),
    ];
    let claims = commit.lease.map(|_| keys.claims());
    let in_keys = lists.iter().sum::<usize>() - shadowed.len();
    let mut call = script.call(3 + in_keys + usize::from(claims.is_some()));
    call.arg(keys.applied())
        .arg(keys.lease())
        .arg(keys.user_waits())
        .arg(of_base)
        .arg(pointers)
        .arg(correlated);
    for (slot, _) in commit.state_read.iter().chain(commit.state_written) {
        call.arg(keys.state(slot));
    }
    call.arg(claims);

    let (park, park_data, park_ms) = parked.unwrap_or_default();
    call.arg(outbox)
        .arg(millis(dedupe_window))
        .arg(commit.lease.unwrap_or(NONE))
        .arg(keys.session_prefix())
        .arg(commit.head.map_or(NONE, SessionKey::as_str))
        .arg(commit.taken.map_or(NONE, |taken| taken.key.as_str()))
        .arg(park)
        .arg(park_data)
        .arg(park_ms);
    for count in lists {
        call.arg(count);
    }
    for session in shadowed {
        call.arg(session.as_str());
    }
    for (_, value) in commit.state_read.iter().chain(commit.state_written) {
        // Values are JSON and so never empty.
        call.arg(value.as_deref().unwrap_or(NONE));
    }
    Ok(call)
}

/// The session key of a wait to register, its session, and how long it lasts.
fn parked<'a>(park: &Park<'a>) -> Result<(&'a str, Vec<u8>, u64), StoreError> {
    let data = serde_json::to_vec(park.data).map_err(|error| corrupt("session", &error))?;
    Ok((park.key.as_str(), data, millis(park.ttl)))
}

/// Where a taken wait may be registered besides its base scope: under its correlation id; and, if a stock store has
/// registered it, under the one that led to it.
fn taken_pointers(keys: &Keys<'_>, commit: &Commit<'_>, base: Option<&ReplyScope>) -> Vec<String> {
    let Some(taken) = commit.taken else {
        return Vec::new();
    };
    let mut pointers = pointers(keys, commit.activity);
    // The base scope's, which the script looks after.
    pointers.pop();
    let echoed = commit.activity.correlation();
    if let (Some(base), Some(correlation)) = (base, taken.correlation)
        && echoed != Some(correlation)
    {
        pointers.push(keys.scope(&correlated(base, correlation)));
    }
    pointers
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
