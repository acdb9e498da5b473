//! The part of a turn between BEGIN and COMMIT: choose the flow, run the machine, gather what it changes.

use std::sync::Arc;
use std::time::Duration;

use greentic_types::{SessionData, SessionKey};

use super::failure::TurnError;
use super::flow_log;
use super::parked::{FoundWait, ParkedRun, session};
use super::replies::Origin;
use super::state_reads::{Foreseen, StateReads};
use super::{Applied, Attempt};
use crate::flow::{self, Ask, Context, Effects, Event, Run, StateWrite, Step, Wait};
use crate::model::{Activity, FlowId, Outbound, PackId};
use crate::ports::{Opening, Park, ParkedWait, Publisher, StateSlot, Taken, TurnStore};
use crate::registry::{BoundPack, Entry, EntryError, Registry};

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

/// What can be told before BEGIN, from the activity's entry flow; the flow that resumes is mostly the same one. The
/// state that it may read, asked for with BEGIN, costs no trip of its own; and whether it may reach outside.
pub(super) fn foresee(registry: &Registry, activity: &Activity) -> (Foreseen, bool) {
    let Some(Entry { pack, flow }) = registry.clear_entry(&activity.tenant, &activity.target)
    else {
        return (Foreseen::default(), false);
    };
    let foreseen = Foreseen::of(&pack.program, pack.id, &flow);
    (foreseen, pack.reaches_out(&flow))
}

/// The flow that a turn runs.
pub struct Chosen {
    pack: Arc<BoundPack>,
    flow: FlowId,
    run: Run,
    found: Option<FoundWait>,
}

impl Chosen {
    /// Whether it may have effects outside that COMMIT cannot hold back.
    pub fn reaches_out(&self) -> bool {
        self.pack.reaches_out(&self.flow)
    }
}

impl<S: TurnStore, P: Publisher> Attempt<'_, S, P> {
    /// Runs the flow that the activity resumes or starts.
    pub(super) async fn play(
        &self,
        opening: &Opening,
        chosen: Chosen,
    ) -> Result<Played, TurnError> {
        let Chosen {
            pack, run, found, ..
        } = chosen;
        let limits = pack.program.limits().state;
        let mut state = StateReads::new(limits, &self.foreseen.slots, &opening.state);
        let (wait, effects) = self.drive(&pack, run, &mut state).await?;
        let correlation =
            (wait.is_some() && !effects.replies.is_empty()).then(|| self.turns.ids.uuid());
        if let (None, Some(made)) = (self.activity.correlation(), &correlation) {
            self.span.correlation(made);
        }
        flow_log::log(&effects.logs);
        let origin = Origin {
            activity: self.activity,
            pack: pack.id,
            trace: Some(&self.trace),
            max_bytes: self.turns.config.bounds.commit_bytes,
        };
        let outbox = origin.messages(effects.replies, correlation.as_deref())?;
        let shadowed = FoundWait::shadows(found.as_ref(), opening.head.as_ref());
        let parked = wait
            .map(|wait| self.park(&pack.id, wait, correlation, shadowed))
            .transpose()?;
        Ok(Played {
            taken: found,
            parked,
            state_read: state.read,
            state_written: written(pack.id, effects.state)?,
            outbox,
        })
    }

    /// A parked flow goes on; without one the activity's entry flow starts.
    pub(super) async fn choose(&self, wait: Option<&ParkedWait>) -> Result<Chosen, TurnError> {
        let (registry, tenant) = (&self.registry, &self.activity.tenant);
        let Some(wait) = wait else {
            let Entry { pack, flow } = registry.entry(tenant, &self.activity.target)?;
            self.span.flow(&pack.id, &flow);
            return Ok(Chosen {
                run: Run::fresh(flow.clone()),
                pack,
                flow,
                found: None,
            });
        };
        let (found, snapshot) = FoundWait::read(wait)?;
        let flow = &wait.data.flow_id;
        self.span.flow(&found.pack, flow);
        if let Some(trace) = &found.trace {
            self.span.parked_in(trace);
        }
        let pack = match registry.pack(tenant, &found.pack) {
            Some(bound) => Arc::clone(bound),
            None => Box::pin(self.unbound(&found.pack, flow)).await?,
        };
        Ok(Chosen {
            pack,
            flow: flow.clone(),
            run: Run::parked(snapshot),
            found: Some(found),
        })
    }

    /// A pack that conversations are still parked in, although it is not bound any more.
    async fn unbound(&self, pack: &PackId, flow: &FlowId) -> Result<Arc<BoundPack>, TurnError> {
        let (registry, tenant) = (&self.registry, &self.activity.tenant);
        if !registry.is_bound(tenant) {
            return Err(EntryError::TenantNotBound(tenant.clone()).into());
        }
        let found = self.turns.registry.parked(registry, tenant, *pack).await;
        found.ok_or_else(|| TurnError::WaitPackGone {
            pack: pack.to_string(),
            flow: flow.to_string(),
        })
    }

    /// Calls the machine until it waits or is over, and answers what it asks. What not every turn asks is in a box, so that
    /// the others are the smaller.
    async fn drive(
        &self,
        pack: &BoundPack,
        run: Run,
        state: &mut StateReads,
    ) -> Result<(Option<Wait>, Effects), TurnError> {
        let mut run = Box::new(run);
        let mut event = Event::Activity(Arc::clone(&self.activity.payload));
        loop {
            let context = Context {
                program: &pack.program,
                env: &pack.grants.env,
                now: self.turns.clock.now(),
            };
            match flow::advance(&context, run, event)? {
                Step::Suspended(wait, effects) => return Ok((Some(*wait), effects)),
                Step::Finished(effects) => return Ok((None, effects)),
                Step::Ask(asking, Ask::State { flow, key }) => {
                    run = asking;
                    let slot = StateSlot {
                        pack: pack.id,
                        flow,
                        key,
                    };
                    let reading = self.read_state(slot, state);
                    event = match Box::pin(reading).await? {
                        Ok(stored) => Event::State(stored),
                        Err(excess) => Event::StateRefused(excess),
                    };
                }
                Step::Ask(mut asking, Ask::Component(invocation)) => {
                    let call = self.invoke(pack, invocation, &mut asking, state);
                    let done = Box::pin(call).await?;
                    run = asking;
                    event = Event::Component {
                        output: done.value,
                        state: done.state,
                    };
                }
            }
        }
    }

    /// A wait needs to know where its answer will come from.
    fn park(
        &self,
        pack: &PackId,
        wait: Wait,
        correlation: Option<String>,
        shadowed: Vec<SessionKey>,
    ) -> Result<Parked, TurnError> {
        if self.activity.reply_scope.is_none() {
            return Err(TurnError::ReplyScopeMissing);
        }
        let context = |run| ParkedRun {
            correlation: correlation.clone(),
            shadowed,
            trace: Some(self.trace.clone()),
            run,
        };
        let max_bytes = self.turns.config.bounds.session_bytes;
        let (data, bytes) = session(self.activity, pack, wait, max_bytes, context)?;
        let key = correlation.clone();
        Ok(Parked {
            key: SessionKey::new(key.unwrap_or_else(|| self.turns.ids.uuid())),
            data: Box::new(data),
            bytes,
            correlation,
            ttl: self.turns.config.wait_ttl,
        })
    }
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
