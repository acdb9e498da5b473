//! A component's call inside a turn: on whose behalf it is made, and what it is told of the state while it runs.

use sha2::{Digest, Sha256};

use super::Attempt;
use super::failure::TurnError;
use super::play::StateReads;
use crate::flow::Run;
use crate::model::{Activity, Invocation};
use crate::ports::{
    CallStep, ComponentCall, ComponentError, ComponentOutput, Publisher, TurnStore,
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
        let flow = invocation.flow.clone();
        self.holds(run.rendered_bytes(&pack.program));
        let call = self.component_call(pack, invocation)?;
        let mut running = self.turns.components.call(call);
        loop {
            match running.next().await? {
                CallStep::Done(output) => return Ok(output),
                CallStep::Read(key) => {
                    let stored = match run.recall(&key) {
                        Some(known) => known.clone(),
                        None => {
                            let (flow, asked) = (flow.clone(), key.clone());
                            let stored = self.read_state(pack.id, flow, asked, state).await?;
                            run.learn(&key, stored.clone());
                            stored
                        }
                    };
                    running.answer(stored);
                }
            }
        }
    }

    fn component_call(
        &self,
        pack: &BoundPack,
        invocation: Invocation,
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
