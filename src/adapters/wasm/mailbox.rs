//! How a running component asks its turn for state: the two are on threads of their own.

use std::future::pending;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::model::StateExcess;

/// The value, if there is one, or the limit that keeps the turn from reading it.
pub(super) type Answer = Result<Option<Arc<Value>>, StateExcess>;

/// The component's end.
#[derive(Debug)]
pub(super) struct Mailbox(mpsc::UnboundedSender<Question>);

/// What a component wants to know.
#[derive(Debug)]
pub(super) struct Question {
    /// The key of the state.
    pub(super) key: String,
    /// Where the answer goes.
    pub(super) answer: oneshot::Sender<Answer>,
}

impl Mailbox {
    /// The component's end, and where its questions come out.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Question>) {
        // A component asks one thing at a time.
        let (questions, asked) = mpsc::unbounded_channel();
        (Self(questions), asked)
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&self, key: &str) -> Answer {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            key: key.to_owned(),
            answer,
        };
        if self.0.send(question).is_ok()
            && let Ok(value) = answered.await
        {
            return value;
        }
        // The turn is gone, and takes this call with it.
        pending().await
    }
}
