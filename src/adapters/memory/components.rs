//! [`Components`] without any code: what a component does is played by a function.

use std::future::{pending, ready};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::model::StateExcess;
use crate::ports::{CallStep, ComponentCall, ComponentError, ComponentOutput, Components, Running};

/// Components that a function plays: it is told the call and what the call has read so far, and says what comes next.
pub struct PlayedComponents(Arc<Play>);

type Play = dyn Fn(&ComponentCall, &[Option<Value>]) -> Act + Send + Sync;

/// What a played component does next.
#[derive(Debug)]
pub enum Act {
    /// It reads the state under this key.
    Read(String),
    /// It is done.
    Done(ComponentOutput),
    /// It fails.
    Fail(ComponentError),
    /// It never ends.
    Hang,
}

impl PlayedComponents {
    /// Components that this function plays.
    pub fn new(
        play: impl Fn(&ComponentCall, &[Option<Value>]) -> Act + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(play))
    }

    /// No components at all: each call is refused.
    pub fn none() -> Self {
        Self::new(|call, _| {
            Act::Fail(ComponentError::Unusable {
                component: call.invocation.component.clone(),
                reason: "there is nothing here to run it with".to_owned(),
            })
        })
    }
}

impl Components for PlayedComponents {
    fn call(&self, call: ComponentCall) -> Box<dyn Running> {
        Box::new(Played {
            play: Arc::clone(&self.0),
            call,
            read: Vec::new(),
        })
    }
}

struct Played {
    play: Arc<Play>,
    call: ComponentCall,
    read: Vec<Option<Value>>,
}

impl Running for Played {
    fn next(&mut self) -> BoxFuture<'_, Result<CallStep, ComponentError>> {
        match (self.play)(&self.call, &self.read) {
            Act::Read(key) => ready(Ok(CallStep::Read(key))).boxed(),
            Act::Done(output) => ready(Ok(CallStep::Done(output))).boxed(),
            Act::Fail(error) => ready(Err(error)).boxed(),
            Act::Hang => pending().boxed(),
        }
    }

    fn answer(&mut self, stored: Result<Option<Arc<Value>>, StateExcess>) {
        // What it may not read is as good as absent to it.
        let stored = stored.ok().flatten();
        self.read.push(stored.map(Arc::unwrap_or_clone));
    }
}
