//! The rights that a worker needs on the server, tried out for each tenant before a message is taken: every script is loaded and run
//! on keys of a turn that nobody takes.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::{RedisError, Value, cmd};

use super::keys::Keys;
use super::link::store_error;
use super::script::Script;
use super::store::{Parts, RedisStore, WITHDRAW};
use crate::adapters::system::RandomIds;
use crate::model::{
    Activity, EnvId, FlowId, Headers, InboundMessage, PackId, Problem, TenantId, decode,
};
use crate::ports::{
    Begin, Begun, Claim, Commit, Lease, LeaseScope, NewId, Quotas, StateSlot, StoreError, TurnStore,
};

/// Every command that the scripts run. A test compares it with them.
const PROBE: &str = include_str!("probe.lua");

/// The place of the whole list.
const REMEDY: &str = "docs/redis.md has the `ACL SETUSER` that a worker needs";

/// The lease of the probing turn.
const LEASE: Duration = Duration::from_secs(1);

/// The problems that turns of a tenant would meet.
pub async fn tenant(
    store: &RedisStore,
    env: &EnvId,
    tenant: &TenantId,
) -> Result<Vec<Problem>, StoreError> {
    let Some(activity) = activity(env, tenant) else {
        return Ok(Vec::new());
    };
    let Some(slot) = slot() else {
        return Ok(Vec::new());
    };
    let keys = Keys::new(store.namespace(), &activity);
    let refused = match commands(store, &keys, &slot).await {
        Ok(refused) => refused,
        Err(error) if error.code() == Some("NOPERM") => {
            return patterns(store, &keys, &slot, error).await;
        }
        Err(error) => return Err(store_error(error)),
    };
    if !refused.is_empty() {
        return Ok(refused);
    }
    turn(store, &activity, &slot).await.or_else(unable)
}

/// A server that knows the commands and does not run the scripts is another kind of server.
fn unable(error: StoreError) -> Result<Vec<Problem>, StoreError> {
    let StoreError::Unavailable(cause) = &error else {
        return Err(error);
    };
    let cause = cause.downcast_ref::<RedisError>();
    match cause.filter(|cause| cause.code() == Some("ERR")) {
        Some(cause) => Ok(vec![
            Problem::error(format!("redis cannot run the worker's scripts: {cause}"))
                .remedy("use a Redis or Valkey server, 6.0 or later"),
        ]),
        None => Err(error),
    }
}

/// The commands that the server refuses to scripts. What it refuses outside of them, or for these keys, is an error.
async fn commands(
    store: &RedisStore,
    keys: &Keys<'_>,
    slot: &StateSlot,
) -> Result<Vec<Problem>, RedisError> {
    let script = Script::new(PROBE);
    // The script uses the first two; all of them are the user's to reach.
    let mut call = script.call(9);
    call.arg(keys.applied())
        .arg(keys.user_waits())
        .arg(keys.user_state_bytes())
        .arg(keys.tenant_state_bytes())
        .arg(keys.lease())
        .arg(keys.claims())
        .arg(keys.session("probe"))
        .arg(keys.scope("probe"))
        .arg(keys.state(slot))
        .arg(keys.session("probe"));
    for plain in [
        cmd("MGET").arg(keys.applied()).take(),
        cmd("GET").arg(keys.session("probe")).take(),
        cmd("PTTL").arg(keys.lease()).take(),
    ] {
        let _nothing: Value = store.link().query(&plain).await?;
    }
    let answer = call.run(store.link()).await?;
    let mut parts = Parts::of(answer).map_err(std::io::Error::other)?;
    let mut problems = Vec::new();
    while let Ok(Some(name)) = parts.next::<Option<String>>() {
        let why = parts.next::<String>().unwrap_or_default();
        let name = name.to_lowercase();
        problems.push(
            Problem::error(format!(
                "redis refuses `{name}` to the worker's scripts: {why}"
            ))
            .remedy(format!("grant the user `+{name}`; {REMEDY}")),
        );
    }
    Ok(problems)
}

/// The commands and key patterns that are refused before any script runs.
async fn patterns(
    store: &RedisStore,
    keys: &Keys<'_>,
    slot: &StateSlot,
    error: RedisError,
) -> Result<Vec<Problem>, StoreError> {
    let mut problems = Vec::new();
    let withdraw = Script::new(WITHDRAW);
    let load = cmd("SCRIPT").arg("LOAD").arg(WITHDRAW).take();
    let asks = [
        ("script|load", load),
        ("evalsha", withdraw.call(0).command()),
        ("mget", cmd("MGET").arg(keys.applied()).take()),
        ("get", cmd("GET").arg(keys.applied()).take()),
        ("pttl", cmd("PTTL").arg(keys.lease()).take()),
    ];
    for (name, ask) in asks {
        let answer: Result<Value, _> = store.link().query(&ask).await;
        if let Err(error) = answer
            && is_refusal(&error)
            && names_command(&error, name)
        {
            problems.push(
                Problem::error(format!("redis refuses `{name}` to the worker: {error}"))
                    .remedy(format!("grant the user `+{name}`; {REMEDY}")),
            );
        }
    }
    if problems.is_empty() {
        problems.extend(keys_refused(store, keys, slot).await?);
    }
    if problems.is_empty() {
        problems.push(Problem::error(format!("redis refuses the worker: {error}")).remedy(REMEDY));
    }
    Ok(problems)
}

/// The keys that the user may not reach, by the pattern that would cover them.
async fn keys_refused(
    store: &RedisStore,
    keys: &Keys<'_>,
    slot: &StateSlot,
) -> Result<Option<Problem>, StoreError> {
    let withdraw = Script::new(WITHDRAW);
    let names: Vec<String> = [
        keys.applied(),
        keys.lease(),
        keys.claims(),
        keys.failures(),
        keys.user_lease(),
        keys.user_waits(),
        keys.user_state_bytes(),
        keys.tenant_state_bytes(),
        keys.session("probe"),
        keys.scope("probe"),
    ]
    .iter()
    .map(ToString::to_string)
    .chain([keys.state(slot)])
    .collect();
    let mut wanted = BTreeSet::new();
    for name in names {
        let mut call = withdraw.call(1);
        call.arg(&name).arg("nobody");
        match call.run(store.link()).await {
            Err(error) if is_refusal(&error) => {
                let state = name.starts_with("greentic:state:");
                wanted.insert(match state {
                    true => "~greentic:state:*".to_owned(),
                    false => format!("~{}:*", store.namespace()),
                });
            }
            Err(error) => return Err(store_error(error)),
            Ok(_) => {}
        }
    }
    if wanted.is_empty() {
        return Ok(None);
    }
    let wanted: Vec<String> = wanted.into_iter().collect();
    let tenant = &keys.activity().tenant;
    Ok(Some(
        Problem::error(format!(
            "redis refuses the worker keys of tenant {tenant}: the user's key patterns do not cover them"
        ))
        .remedy(format!("grant the user `{}`; {REMEDY}", wanted.join(" "))),
    ))
}

/// A whole turn of its own: the scripts as they are run for a message that says nothing and starts nothing.
async fn turn(
    store: &RedisStore,
    activity: &Activity,
    slot: &StateSlot,
) -> Result<Vec<Problem>, StoreError> {
    let (token, scope) = (activity.key.as_str(), LeaseScope::User);
    let lease = Lease { token, scope };
    let begin = Begin {
        activity,
        claim: Claim::Exclusive { lease, ttl: LEASE },
        resume: true,
        state: std::slice::from_ref(slot),
        state_bytes: 1,
    };
    let Begun::Ready(opening) = store.begin(&begin).await? else {
        return Ok(Vec::new());
    };
    let commit = Commit {
        activity,
        lease: Some(lease),
        head: opening.head.as_ref(),
        taken: None,
        park: None,
        state_read: &[(slot.clone(), None)],
        state_written: &[(slot.clone(), None)],
        outbox: &[],
        quotas: Quotas::default(),
    };
    let committed = store.commit(&commit).await;
    store.published(activity).await?;
    store.release(activity, lease).await?;
    let keys = Keys::new(store.namespace(), activity);
    let attempts = [keys.claims(), keys.failures()];
    let forget = cmd("DEL").arg(keys.applied()).arg(&attempts).take();
    let forgotten: Result<Value, _> = store.link().query(&forget).await;
    committed?;
    forgotten.map(|_| Vec::new()).map_err(store_error)
}

/// NOPERM names the command or speaks of keys: there is one code for both.
fn names_command(error: &RedisError, name: &str) -> bool {
    let detail = error.detail().unwrap_or_default();
    detail.contains(&format!("'{name}'")) || name == "script|load" && detail.contains("'script'")
}

fn is_refusal(error: &RedisError) -> bool {
    error.code() == Some("NOPERM")
}

/// An activity that no provider sends: its key is new, its user and conversation are nobody's.
fn activity(env: &EnvId, tenant: &TenantId) -> Option<Activity> {
    let id = RandomIds.uuid();
    let body = serde_json::json!({
        "id": format!("probe-{id}"),
        "from": {"id": "probe"},
        "reply_scope": {"conversation": format!("probe-{id}")},
    });
    let message = InboundMessage {
        tenant: tenant.clone(),
        headers: Headers::default(),
        body: body.to_string().into(),
        sequence: None,
    };
    decode(&message, env).ok()
}

fn slot() -> Option<StateSlot> {
    Some(StateSlot {
        pack: PackId::of_archive(b"probe"),
        flow: FlowId::new("probe").ok()?,
        key: "probe".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::PROBE;

    fn commands(script: &'static str) -> BTreeSet<&'static str> {
        let calls = script
            .split(['(', ')', '\n'])
            .filter_map(|call| call.trim_start().strip_prefix('\''));
        let names = calls.filter_map(|call| call.split_once('\'').map(|(name, _)| name));
        names
            .filter(|name| name.chars().all(|c| c.is_ascii_uppercase()))
            .collect()
    }

    #[test]
    fn every_command_of_the_scripts_is_tried() {
        let tried = commands(PROBE);
        for script in [
            include_str!("begin.lua"),
            include_str!("commit.lua"),
            crate::adapters::redis::store::RELEASE,
            super::WITHDRAW,
        ] {
            let used = commands(script);
            assert!(!used.is_empty());
            assert!(used.is_subset(&tried), "{used:?} and {tried:?}");
        }
    }
}
