//! How a running component asks its turn for state.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use serde_json::Value;

/// Between a component's call and the turn that drives it; both are on the same task, so nobody needs to be woken.
#[derive(Debug, Default)]
pub(super) struct Mailbox(Mutex<Letter>);

#[derive(Debug, Default)]
enum Letter {
    #[default]
    None,
    /// The component wants this key.
    Asked(String),
    /// The turn has the question.
    Taken,
    /// The turn's answer.
    Answered(Option<Value>),
}

impl Mailbox {
    /// Asks, and waits for the answer.
    pub(super) async fn ask(&self, key: &str) -> Option<Value> {
        *self.letter() = Letter::Asked(key.to_owned());
        poll_fn(|_| {
            let mut letter = self.letter();
            match std::mem::take(&mut *letter) {
                Letter::Answered(value) => Poll::Ready(value),
                other @ (Letter::None | Letter::Asked(_) | Letter::Taken) => {
                    *letter = other;
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The question, if there is a new one.
    pub(super) fn take(&self) -> Option<String> {
        let mut letter = self.letter();
        match std::mem::replace(&mut *letter, Letter::Taken) {
            Letter::Asked(key) => Some(key),
            other @ (Letter::None | Letter::Taken | Letter::Answered(_)) => {
                *letter = other;
                None
            }
        }
    }

    /// Answers it.
    pub(super) fn answer(&self, stored: Option<Value>) {
        *self.letter() = Letter::Answered(stored);
    }

    fn letter(&self) -> MutexGuard<'_, Letter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
