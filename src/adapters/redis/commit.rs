//! COMMIT's arguments, in the order in which `commit.lua` reads them, and its answer.

use std::time::Duration;

use greentic_types::SessionKey;
use redis::Value;

use super::applied;
use super::keys::Keys;
use super::script::{Call, Script};
use super::store::{Parts, millis};
use crate::model::STATE_KEY_OVERHEAD;
use crate::ports::{Commit, Committed, LeaseScope, QuotaExcess, StoreError};

/// What stands for "none" in an argument.
const NONE: &str = "";

/// The call that applies a turn.
pub fn call<'s>(
    script: &'s Script,
    keys: &Keys<'_>,
    commit: &Commit<'_>,
    dedupe_window: Duration,
) -> Result<Call<'s>, StoreError> {
    let scope = commit.activity.reply_scope.as_ref();
    let of_base = keys.base_scope();
    if commit.park.is_some() && scope.is_none() {
        return Err(StoreError::Corrupt {
            what: "wait".to_owned(),
            reason: "its activity has no reply scope to find it by".to_owned(),
        });
    }
    let hash = |correlation| Some(scope?.with(Some(correlation)).scope_hash());
    // Where a taken wait may be registered besides its base scope: under its correlation id; and, if a stock store has
    // registered it, under the one that led to it.
    let led = commit.taken.and_then(|_| keys.echoed_scope());
    let own = commit.taken.and_then(|taken| taken.correlation);
    let own = own.filter(|own| commit.activity.correlation() != Some(*own));
    let own = own.and_then(hash);
    let pointers = [led, own.as_deref().map(|hash| keys.scope(hash))];
    let correlated = commit.park.as_ref().and_then(|park| park.correlation);
    let correlated = correlated.and_then(hash);
    let correlated = correlated.as_deref().map(|hash| keys.scope(hash));
    let shadowed = commit.taken.map_or(&[][..], |taken| taken.shadowed);

    let lists = [
        usize::from(of_base.is_some()),
        pointers.iter().flatten().count(),
        shadowed.len(),
        usize::from(correlated.is_some()),
        commit.state_read.len(),
        commit.state_written.len(),
    ];
    let attempts = commit.lease.map(|_| [keys.claims(), keys.failures()]);
    let writes = !commit.state_written.is_empty();
    let counters = writes.then(|| [keys.user_state_bytes(), keys.tenant_state_bytes()]);
    let holds_user = (commit.lease).is_some_and(|lease| lease.scope == LeaseScope::User);
    let of_user = (writes || holds_user).then(|| keys.user_lease());
    let in_lists = lists.iter().sum::<usize>() - shadowed.len();
    let others = [counters.map_or(0, |two| two.len()), of_user.iter().len()];
    let others = others.iter().sum::<usize>() + attempts.map_or(0, |two| two.len());
    let mut call = script.call(3 + in_lists + others);
    call.arg(keys.applied())
        .arg(keys.lease())
        .arg(keys.user_waits())
        .arg(of_base)
        .arg(&pointers)
        .arg(correlated);
    for (slot, _) in commit.state_read.iter().chain(commit.state_written) {
        call.arg(keys.state(slot));
    }
    call.arg(counters.as_ref().map_or(&[][..], |two| two))
        .arg(of_user)
        .arg(attempts.as_ref().map_or(&[][..], |two| two));

    let content = commit.activity.content;
    call.json_after(content.as_bytes(), "outbox", commit.outbox)?
        .arg(millis(dedupe_window))
        .arg(commit.lease.map_or(NONE, |lease| lease.token))
        .arg(keys.session_prefix())
        .arg(commit.head.map_or(NONE, SessionKey::as_str))
        .arg(commit.taken.map_or(NONE, |taken| taken.key.as_str()));
    match &commit.park {
        Some(park) => call
            .arg(park.key.as_str())
            .json("session", park.data)?
            .arg(millis(park.ttl)),
        None => call.arg(NONE).arg(NONE).arg(0),
    };
    call.arg(commit.quotas.waits_per_user);
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
    if writes {
        call.arg(commit.quotas.user_state_bytes)
            .arg(commit.quotas.tenant_state_bytes)
            .arg(STATE_KEY_OVERHEAD);
    }
    Ok(call)
}

/// What the script says it did, and how many waits of the user it has found expired.
pub fn committed(answer: Value) -> Result<(Committed, u64), StoreError> {
    let mut parts = Parts::of(answer)?;
    let committed = read(&mut parts)?;
    Ok((committed, parts.next::<Option<u64>>()?.unwrap_or(0)))
}

fn read(parts: &mut Parts) -> Result<Committed, StoreError> {
    match parts.next::<String>()?.as_str() {
        "done" => Ok(Committed::Done {
            tenant_state_bytes: parts.next()?,
        }),
        "refused" => Ok(Committed::Refused(match parts.next::<String>()?.as_str() {
            "user_state" => QuotaExcess::UserState {
                used: parts.next()?,
            },
            "tenant_state" => QuotaExcess::TenantState {
                used: parts.next()?,
            },
            _ => QuotaExcess::Waits,
        })),
        "applied" => Ok(Committed::AlreadyApplied(applied::read(
            &parts.next::<Vec<u8>>()?,
        )?)),
        _ => {
            let what: String = parts.next()?;
            tracing::debug!(what, "another turn came first");
            Ok(Committed::Conflict)
        }
    }
}
