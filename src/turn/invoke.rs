//! A component's call inside a turn: on whose behalf it is made, and what it is told of the state while it runs.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Attempt;
use super::failure::TurnError;
use super::state_reads::StateReads;
use super::steps::TurnSteps;
use crate::flow::Run;
use crate::model::{Activity, Invocation, StateBudget};
use crate::ports::{
    CallStep, ComponentCall, ComponentError, ComponentOutput, Publisher, StateSlot, TurnStore,
};
use crate::registry::BoundPack;

impl<S: TurnStore, P: Publisher> Attempt<'_, S, P> {
    /// Calls a component. What it reads of the state is what the run knows, its own writes included, else what is stored.
    /// The call ends when this is dropped.
    pub(super) async fn invoke(
        &self,
        pack: &BoundPack,
        invocation: Invocation,
        run: &mut Run,
        state: &mut StateReads,
    ) -> Result<ComponentOutput, TurnError> {
        match &self.steps {
            None => self.call(pack, invocation, run, state).await,
            Some(steps) => {
                // In a box: rare, and every call would be the larger for it.
                Box::pin(self.call_in_steps(steps, pack, invocation, (run, state))).await
            }
        }
    }

    async fn call_in_steps(
        &self,
        steps: &TurnSteps,
        pack: &BoundPack,
        invocation: Invocation,
        (run, state): (&mut Run, &mut StateReads),
    ) -> Result<ComponentOutput, TurnError> {
        let (flow, node) = (invocation.flow.clone(), invocation.node.clone());
        let component = invocation.component.clone();
        steps.payload("component_operation", &invocation.operation);
        steps.payload("component_input", &invocation.payload);
        let since = steps.now();
        let called = self.call(pack, invocation, run, state).await;
        let place = (flow.as_str(), node.as_str(), component.as_str());
        steps.called(place, called.as_ref().err(), since);
        if let Ok(output) = &called {
            steps.payload("component_output", &output.value);
        }
        called
    }

    async fn call(
        &self,
        pack: &BoundPack,
        invocation: Invocation,
        run: &mut Run,
        state: &mut StateReads,
    ) -> Result<ComponentOutput, TurnError> {
        let flow = invocation.flow.clone();
        self.holds(run.rendered_bytes(&pack.program));
        let call = self.component_call(pack, invocation, run.room_to_write())?;
        let mut running = self.turns.components.call(call);
        loop {
            match running.next().await? {
                CallStep::Done(output) => return Ok(output),
                CallStep::Read(key) => {
                    if let Some(known) = run.recall(&key) {
                        running.answer(Ok(known.clone()));
                        continue;
                    }
                    let slot = StateSlot {
                        pack: pack.id,
                        flow: flow.clone(),
                        key: key.clone(),
                    };
                    // A component may do without what the turn may not read, so a refusal is its to deal with.
                    let stored = self.read_state(slot, state).await?;
                    let stored = stored.map(|stored| stored.map(Arc::new));
                    if let Ok(stored) = &stored {
                        run.learn(&key, stored.clone());
                    }
                    running.answer(stored);
                }
            }
        }
    }

    fn component_call(
        &self,
        pack: &BoundPack,
        invocation: Invocation,
        state: StateBudget,
    ) -> Result<ComponentCall, ComponentError> {
        let activity = self.activity;
        let code = pack.components.get(&invocation.component);
        let code = *code.ok_or_else(|| ComponentError::Unusable {
            component: invocation.component.clone(),
            reason: "the pack has no code for it".to_owned(),
        })?;
        Ok(ComponentCall {
            code,
            grants: pack.grants.clone(),
            tenant: activity.tenant.clone(),
            env: activity.env.to_string(),
            team: activity.team.as_ref().map(ToString::to_string),
            user: activity.user.to_string(),
            session: activity.session_id.clone(),
            caller: activity.caller.clone(),
            attempt: self.number,
            log: self.component_log.budget(),
            state,
            idempotency_key: idempotency_key(activity, invocation.ordinal),
            invocation,
        })
    }
}

/// The same for the same call of every attempt at this activity, and for no other call. Neither environments nor tenants
/// have a slash in their names.
fn idempotency_key(activity: &Activity, ordinal: u32) -> String {
    let Activity {
        env, tenant, key, ..
    } = activity;
    let name = format!("{env}/{tenant}/{ordinal}/{key}");
    hex::encode(Sha256::digest(name.as_bytes()))
}
