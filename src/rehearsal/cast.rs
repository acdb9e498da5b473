//! The components of a rehearsal: those that the case plays, and the real ones for the rest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::compare::{Difference, differences};
use super::script::Call;
use crate::adapters::memory::{Act, PlayedComponents};
use crate::model::Invocation;
use crate::ports::{ComponentCall, ComponentError, ComponentOutput, Components, Running};

/// Components whose part is in the script of a turn; where the script has none, the real ones.
pub(super) struct Cast {
    real: Arc<dyn Components>,
    played: PlayedComponents,
    part: Arc<Mutex<Part>>,
}

/// What the script of a turn says of its calls, and what was wrong with those that came.
#[derive(Default)]
struct Part {
    calls: Option<VecDeque<Call>>,
    wrong: Vec<Difference>,
}

impl Cast {
    pub fn new(real: &Arc<dyn Components>) -> Self {
        let part = Arc::new(Mutex::new(Part::default()));
        let played = Arc::clone(&part);
        Self {
            real: Arc::clone(real),
            played: PlayedComponents::new(move |call, read| lock(&played).act(call, read)),
            part,
        }
    }

    /// Gives the components their part in the next turn.
    pub fn prepare(&self, calls: Option<VecDeque<Call>>) {
        *lock(&self.part) = Part {
            calls,
            wrong: Vec::new(),
        };
    }

    /// What was wrong with the calls of the turn: those that were other than expected, and those that did not come.
    pub fn wrong(&self) -> Vec<Difference> {
        let mut part = lock(&self.part);
        let missing = part.calls.take().unwrap_or_default();
        let missing = missing
            .into_iter()
            .map(|call| Difference::missing("calls", &call.call));
        std::mem::take(&mut part.wrong)
            .into_iter()
            .chain(missing)
            .collect()
    }
}

fn lock(part: &Mutex<Part>) -> std::sync::MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Components for Cast {
    fn call(&self, call: ComponentCall) -> Box<dyn Running> {
        if lock(&self.part).calls.is_some() {
            self.played.call(call)
        } else {
            self.real.call(call)
        }
    }
}

impl Part {
    /// Plays the next call of the script. It is asked again after each read, and struck out when it has answered.
    fn act(&mut self, call: &ComponentCall, read: &[Option<Value>]) -> Act {
        let made = name(&call.invocation);
        let calls = self.calls.get_or_insert_default();
        let Some(expected) = calls.front().filter(|expected| expected.call == made) else {
            let wanted = calls.front().map_or("no call", |expected| &expected.call);
            self.wrong
                .push(Difference::new("calls", wanted, made.as_str()));
            calls.clear();
            return Act::Fail(ComponentError::Unusable {
                component: call.invocation.component.clone(),
                reason: "the test does not expect this call".to_owned(),
            });
        };
        if let Some(key) = expected.reads.keys().nth(read.len()) {
            return Act::Read(key.clone());
        }
        let Some(expected) = calls.pop_front() else {
            return Act::Hang;
        };
        let place = format!("calls, {made}, payload");
        if let Some(payload) = &expected.payload {
            self.wrong
                .extend(differences(&place, payload, &call.invocation.payload));
        }
        for ((key, wanted), found) in expected.reads.iter().zip(read) {
            let found = found.clone().unwrap_or_default();
            let place = format!("calls, {made}, read of {key}");
            self.wrong.extend(differences(&place, wanted, &found));
        }
        let writes = expected.writes.into_iter();
        Act::Done(ComponentOutput {
            value: expected.answer,
            state: writes
                .map(|(key, value)| (key, Some(value).filter(|value| !value.is_null())))
                .collect(),
        })
    }
}

fn name(invocation: &Invocation) -> String {
    let Invocation {
        flow,
        node,
        component,
        operation,
        ..
    } = invocation;
    format!("{flow}/{node} {component} {operation}")
}
