//! A parked run as it is kept in greentic-session's `SessionData`.

use greentic_types::{SessionCursor, SessionData, SessionKey};
use serde::{Deserialize, Serialize};

use super::bounds::session_bytes;
use super::failure::TurnError;
use crate::flow::{Snapshot, Wait};
use crate::model::{Activity, PackId, TraceContext};
use crate::ports::ParkedWait;

/// The attribute of a session's tenant context that says where its pack was bound from. Not in the context of the run, whose
/// fields older workers are strict about.
const PACK_REF: &str = "pack_ref";
/// How many waits that were pushed aside a wait remembers. More than a few mean that nobody answers them.
const MAX_SHADOWED: usize = 8;

/// What `SessionData::context_json` holds: the snapshot, and what the next turn must know of this one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParkedRun {
    /// The correlation id that the question carried, under which the wait is registered besides its base scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// The conversation's waits that this one pushed aside, latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadowed: Vec<SessionKey>,
    /// The trace of the turn that parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    /// The run itself.
    pub run: Snapshot,
}

/// A wait that was found, without its run.
#[derive(Debug)]
pub struct FoundWait {
    /// Its session.
    pub key: SessionKey,
    /// The pack that it was parked under.
    pub pack: PackId,
    /// See [`ParkedRun::correlation`].
    pub correlation: Option<String>,
    /// See [`ParkedRun::shadowed`].
    pub shadowed: Vec<SessionKey>,
    /// See [`ParkedRun::trace`].
    pub trace: Option<TraceContext>,
}

impl FoundWait {
    /// Reads a stored wait and the run that it parked. One that cannot be read is nobody's to throw away: it stays, and
    /// its message is put aside.
    pub fn read(wait: &ParkedWait) -> Result<(Self, Snapshot), TurnError> {
        let unreadable = |reason: String| TurnError::WaitUnreadable {
            session: wait.key.to_string(),
            reason,
        };
        let pack = wait
            .data
            .pack_id
            .as_ref()
            .ok_or_else(|| unreadable("it names no pack".to_owned()))?;
        let pack = pack
            .as_str()
            .parse()
            .map_err(|error| unreadable(format!("{error}")))?;
        let parked = serde_json::from_str(&wait.data.context_json)
            .map_err(|error| unreadable(error.to_string()))?;
        let ParkedRun {
            correlation,
            shadowed,
            trace,
            run,
        } = parked;
        Ok((
            Self {
                key: wait.key.clone(),
                pack,
                correlation,
                shadowed,
                trace,
            },
            run,
        ))
    }

    /// The waits that a new wait of the same conversation pushes aside when this one is taken by it: the latest one, if
    /// that is another, then those that were aside already.
    pub fn shadows(taken: Option<&Self>, head: Option<&SessionKey>) -> Vec<SessionKey> {
        let latest = head.filter(|head| taken.is_none_or(|found| found.key != **head));
        let mut shadows: Vec<SessionKey> = latest.cloned().into_iter().collect();
        for key in taken.iter().flat_map(|found| &found.shadowed) {
            if !shadows.contains(key) {
                shadows.push(key.clone());
            }
        }
        shadows.truncate(MAX_SHADOWED);
        shadows
    }
}

/// Where the pack of a wait was bound from, as the worker that parked it says.
pub(super) fn pack_reference(wait: &ParkedWait) -> Option<&str> {
    let attributes = &wait.data.tenant_ctx.attributes;
    attributes.get(PACK_REF).map(String::as_str)
}

/// The session to store for a run that waits, and the bytes that it takes there.
pub(super) fn session(
    activity: &Activity,
    (pack, reference): (&PackId, Option<&str>),
    wait: Wait,
    max_bytes: usize,
    context: impl FnOnce(Snapshot) -> ParkedRun,
) -> Result<(SessionData, usize), TurnError> {
    let mut cursor = SessionCursor::new(wait.node.as_str());
    let context = context(wait.snapshot);
    let context_json = serde_json::to_string(&context)?;
    let bytes = session_bytes(&context_json, wait.reason.as_deref());
    if bytes > max_bytes {
        return Err(TurnError::SessionTooLarge {
            place: Box::new(wait.place),
            bytes,
            limit: max_bytes,
            largest: context.run.largest_part(),
        });
    }
    cursor.wait_reason = wait.reason;
    let mut tenant_ctx = activity.tenant_ctx();
    if let Some(reference) = reference {
        let attributes = &mut tenant_ctx.attributes;
        attributes.insert(PACK_REF.to_owned(), reference.to_owned());
    }
    let data = SessionData {
        tenant_ctx,
        flow_id: wait.flow,
        pack_id: Some(pack.to_session()),
        cursor,
        context_json,
    };
    Ok((data, bytes))
}
