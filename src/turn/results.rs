//! From what a run came to, to what COMMIT applies.

use std::sync::Arc;
use std::time::Duration;

use greentic_types::{SessionData, SessionKey};

use super::Applied;
use super::failure::TurnError;
use super::parked::{FoundWait, ParkedRun, session};
use super::replies::Origin;
use crate::flow::{Effects, StateWrite, Wait};
use crate::model::{Activity, Outbound, PackId, TraceContext};
use crate::ports::{Park, StateSlot, Taken};

/// What a run of the machine came to: everything that COMMIT applies.
pub struct Played {
    taken: Option<FoundWait>,
    parked: Option<Parked>,
    /// The state that was read, and what it was.
    pub state_read: Vec<(StateSlot, Option<String>)>,
    /// The state that is written.
    pub state_written: Vec<(StateSlot, Option<String>)>,
    /// The replies.
    pub outbox: Vec<Outbound>,
}

struct Parked {
    key: SessionKey,
    data: Box<SessionData>,
    /// The bytes that the data take in the store.
    bytes: usize,
    correlation: Option<String>,
    ttl: Duration,
}

impl Played {
    pub(super) fn new(
        taken: Option<FoundWait>,
        state_read: Vec<(StateSlot, Option<String>)>,
        results: Results,
    ) -> Self {
        let Results {
            parked,
            state_written,
            outbox,
        } = results;
        Self {
            taken,
            parked,
            state_read,
            state_written,
            outbox,
        }
    }

    /// The wait that COMMIT clears.
    pub fn taken(&self) -> Option<Taken<'_>> {
        self.taken.as_ref().map(|found| Taken {
            key: &found.key,
            correlation: found.correlation.as_deref(),
            shadowed: &found.shadowed,
        })
    }

    /// The wait that COMMIT registers.
    pub fn park(&self) -> Option<Park<'_>> {
        self.parked.as_ref().map(|parked| Park {
            key: &parked.key,
            data: &parked.data,
            correlation: parked.correlation.as_deref(),
            ttl: parked.ttl,
        })
    }

    /// The bytes of the session that COMMIT registers.
    pub(super) fn session_bytes(&self) -> usize {
        self.parked.as_ref().map_or(0, |parked| parked.bytes)
    }

    /// What the turn did, once it is committed.
    pub fn applied(&self) -> Applied {
        Applied {
            resumed: self.taken.is_some(),
            parked: self.parked.is_some(),
            tenant_state_bytes: None,
        }
    }

    /// The text of all that it writes.
    pub fn bytes(&self) -> u64 {
        let replies = self.outbox.iter().map(|message| message.body.get().len());
        let state = self.state_written.iter();
        let state = state.map(|(_, value)| value.as_ref().map_or(0, String::len));
        let session = self
            .parked
            .iter()
            .map(|parked| parked.data.context_json.len());
        replies.chain(state).chain(session).sum::<usize>() as u64
    }
}

/// What a run does not know of its results.
pub(super) struct Around {
    pub pack: PackId,
    /// Where the pack is bound from.
    pub reference: Option<Arc<str>>,
    /// The session of the wait that it ends in, if it does.
    pub session: Option<SessionKey>,
    pub correlation: Option<String>,
    /// The waits that this one pushes aside.
    pub shadowed: Vec<SessionKey>,
    pub wait_ttl: Duration,
    /// The largest session, in bytes.
    pub session_bytes: usize,
    /// The most bytes of all replies.
    pub commit_bytes: usize,
}

/// What a run came to, as it is stored and published.
pub(super) struct Results {
    parked: Option<Parked>,
    state_written: Vec<(StateSlot, Option<String>)>,
    outbox: Vec<Outbound>,
}

/// Writes the results of a run.
pub(super) fn results(
    activity: &Activity,
    trace: &TraceContext,
    around: Around,
    (wait, effects): (Option<Wait>, Effects),
) -> Result<Results, TurnError> {
    let origin = Origin {
        activity,
        pack: around.pack,
        trace: Some(trace),
        max_bytes: around.commit_bytes,
    };
    let pack = around.pack;
    let outbox = origin.messages(effects.replies, around.correlation.as_deref())?;
    let parked = match (wait, &around.session) {
        (Some(wait), Some(_)) => park(activity, trace, wait, around)?,
        (None, _) | (_, None) => None,
    };
    Ok(Results {
        parked,
        state_written: written(pack, effects.state)?,
        outbox,
    })
}

/// A wait needs to know where its answer will come from.
fn park(
    activity: &Activity,
    trace: &TraceContext,
    wait: Wait,
    around: Around,
) -> Result<Option<Parked>, TurnError> {
    if activity.reply_scope.is_none() {
        return Err(TurnError::ReplyScopeMissing);
    }
    let context = |run| ParkedRun {
        correlation: around.correlation.clone(),
        shadowed: around.shadowed,
        trace: Some(trace.clone()),
        run,
    };
    let pack = (&around.pack, around.reference.as_deref());
    let (data, bytes) = session(activity, pack, wait, around.session_bytes, context)?;
    Ok(around.session.map(|key| Parked {
        key,
        data: Box::new(data),
        bytes,
        correlation: around.correlation,
        ttl: around.wait_ttl,
    }))
}

/// What a turn writes, as it is stored.
fn written(
    pack: PackId,
    writes: Vec<StateWrite>,
) -> Result<Vec<(StateSlot, Option<String>)>, serde_json::Error> {
    let stored = |StateWrite { flow, key, value }| {
        let value = value.as_ref().map(serde_json::to_string).transpose()?;
        Ok((StateSlot { pack, flow, key }, value))
    };
    writes.into_iter().map(stored).collect()
}
