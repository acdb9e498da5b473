//! The part of a turn between BEGIN and COMMIT: choose the flow, run the machine, gather what it changes.

use std::sync::Arc;

use greentic_types::SessionKey;

use super::Attempt;
use super::compute::{LARGE, WatchedRun, is_heavy};
use super::failure::TurnError;
use super::flow_log;
use super::parked::{FoundWait, pack_reference};
use super::results::{Around, Played, Results, results};
use super::state_reads::{StatePrefetch, StateReads};
use crate::flow::{Ask, Effects, Event, Run, Step, Wait};
use crate::model::{Activity, FlowId, PackId};
use crate::ports::{Opening, ParkedWait, Publisher, StateSlot, TurnStore};
use crate::registry::{BoundPack, Entry, EntryError, Registry};

/// What can be told before BEGIN, from the activity's entry flow; the flow that resumes is mostly the same one. The
/// state that it may read, asked for with BEGIN, costs no trip of its own; and whether it may reach outside.
pub(super) fn foresee(registry: &Registry, activity: &Activity) -> (StatePrefetch, bool) {
    let Some(Entry { pack, flow }) = registry.clear_entry(&activity.tenant, &activity.target)
    else {
        return (StatePrefetch::default(), false);
    };
    let foreseen = StatePrefetch::of(&pack.program, pack.id, &flow);
    (foreseen, pack.reaches_out(&flow))
}

/// The flow that a turn runs.
pub struct Chosen {
    pack: Arc<BoundPack>,
    flow: FlowId,
    run: Run,
    found: Option<FoundWait>,
    /// What was parked is large.
    is_large: bool,
}

impl Chosen {
    /// Whether it may have effects outside that COMMIT cannot hold back.
    pub fn reaches_out(&self) -> bool {
        self.pack.reaches_out(&self.flow)
    }

    /// Returns whether it goes on with the wait whose question had this correlation id.
    pub fn answers(&self, echo: &str) -> bool {
        let named = |found: &FoundWait| {
            found.key.as_str() == echo || found.correlation.as_deref() == Some(echo)
        };
        self.found.as_ref().is_some_and(named)
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
            pack,
            run,
            found,
            is_large,
            ..
        } = chosen;
        let limits = pack.program.limits().state;
        let mut state = StateReads::new(limits, &self.foreseen.slots, &opening.state);
        let mut watched = self.watched(&pack);
        self.step(|steps| steps.run_begins(&pack, &self.activity.payload));
        let driven = self.drive(&mut watched, &pack, run, &mut state).await;
        self.step(|steps| steps.run_ends(driven.as_ref().ok().map(|(_, effects)| effects)));
        let (wait, effects) = driven?;
        let correlation =
            (wait.is_some() && !effects.replies.is_empty()).then(|| self.turns.ids.uuid());
        if let (None, Some(made)) = (self.activity.correlation(), &correlation) {
            self.context.span.correlation(made);
        }
        flow_log::log(&effects.logs);
        let found_now = Around {
            pack: pack.id,
            reference: pack.reference.clone(),
            session: wait.is_some().then(|| {
                let named = correlation.clone();
                SessionKey::new(named.unwrap_or_else(|| self.turns.ids.uuid()))
            }),
            shadowed: FoundWait::shadows(found.as_ref(), opening.head.as_ref()),
            correlation,
            wait_ttl: self.turns.config.wait_ttl,
            session_bytes: self.turns.config.bounds.session_bytes,
            commit_bytes: self.turns.config.bounds.commit_bytes,
        };
        let parks_much = found_now.session.is_some() && is_heavy(&self.activity.payload);
        let results = match watched.is_long || is_large || state.is_large || parks_much {
            false => results(self.activity, &self.trace, found_now, (wait, effects)),
            true => Box::pin(self.large_results(found_now, (wait, effects))).await,
        };
        Ok(Played::new(found, state.read, results?))
    }

    /// Writes results that may be large.
    async fn large_results(
        &self,
        around: Around,
        run: (Option<Wait>, Effects),
    ) -> Result<Results, TurnError> {
        let (activity, trace) = (self.activity.clone(), self.trace.clone());
        let mut parts = Some((around, run));
        let slice = move || {
            let (around, run) = parts.take()?;
            Some(results(&activity, &trace, around, run))
        };
        self.compute(slice).await
    }

    /// A parked flow goes on; without one the activity's entry flow starts.
    pub(super) async fn choose(&self, wait: Option<&ParkedWait>) -> Result<Chosen, TurnError> {
        let (registry, tenant) = (&self.registry, &self.activity.tenant);
        let Some(wait) = wait else {
            let Entry { pack, flow } = registry.entry(tenant, &self.activity.target)?;
            self.context.span.flow(&pack.id, &flow);
            return Ok(Chosen {
                run: Run::fresh(flow.clone()),
                pack,
                flow,
                found: None,
                is_large: false,
            });
        };
        let is_large = wait.data.context_json.len() > LARGE;
        let (found, snapshot) = match is_large {
            false => FoundWait::read(wait)?,
            true => {
                let wait = wait.clone();
                let reading = self.compute(move || Some(FoundWait::read(&wait)));
                Box::pin(reading).await?
            }
        };
        let flow = &wait.data.flow_id;
        self.context.span.flow(&found.pack, flow);
        if let Some(trace) = &found.trace {
            self.context.span.parked_in(trace);
        }
        let pack = match registry.pack(tenant, &found.pack) {
            Some(bound) => Arc::clone(bound),
            None => Box::pin(self.unbound(&found.pack, wait)).await?,
        };
        Ok(Chosen {
            pack,
            flow: flow.clone(),
            run: Run::parked(snapshot),
            found: Some(found),
            is_large,
        })
    }

    /// A pack that conversations are still parked in, although it is not bound any more.
    async fn unbound(&self, pack: &PackId, wait: &ParkedWait) -> Result<Arc<BoundPack>, TurnError> {
        let (registry, tenant) = (&self.registry, &self.activity.tenant);
        if !registry.is_bound(tenant) {
            return Err(EntryError::TenantNotBound(tenant.clone()).into());
        }
        let live = &self.turns.registry;
        if let Some(found) = live.parked(registry, tenant, *pack).await {
            return Ok(found);
        }
        live.want(tenant, *pack, pack_reference(wait));
        Err(TurnError::WaitPackGone {
            pack: pack.to_string(),
            flow: wait.data.flow_id.to_string(),
        })
    }

    /// Calls the machine until it waits or is over, and answers what it asks. What not every turn asks is in a box, so that
    /// the others are the smaller.
    async fn drive(
        &self,
        run: &mut WatchedRun<'_>,
        pack: &BoundPack,
        fresh: Run,
        state: &mut StateReads,
    ) -> Result<(Option<Wait>, Effects), TurnError> {
        let mut next = Box::new(fresh);
        let mut event = Event::Activity(Arc::clone(&self.activity.payload));
        loop {
            match self.advance(run, next, event).await? {
                Step::Suspended(wait, effects) => return Ok((Some(*wait), effects)),
                Step::Finished(effects) => return Ok((None, effects)),
                Step::Paused(paused) => {
                    next = paused;
                    event = Event::Continue;
                }
                Step::Ask(asking, Ask::State { flow, key }) => {
                    next = asking;
                    let slot = StateSlot {
                        pack: pack.id,
                        flow,
                        key,
                    };
                    let reading = self.read_state(slot, state);
                    event = match Box::pin(reading).await? {
                        Ok(stored) => {
                            self.step(|steps| steps.state_read(state, stored.as_ref()));
                            Event::State(stored)
                        }
                        Err(excess) => Event::StateRefused(excess),
                    };
                }
                Step::Ask(mut asking, Ask::Component(invocation)) => {
                    let call = self.invoke(pack, invocation, &mut asking, state);
                    let done = Box::pin(call).await?;
                    next = asking;
                    event = Event::Component {
                        output: done.value,
                        state: done.state,
                    };
                }
            }
        }
    }
}
