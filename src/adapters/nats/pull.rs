//! The messages of one pull request, as a stream that ends when the request is over.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_nats::{Message, StatusCode};
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::time::{Instant, Sleep, sleep};

use super::fault::Fault;
use super::link::Link;
use super::stored::{Consumer, Delivery, Inbox, hand_back};

/// See the [module](self). Dropped before its end, it hands back what has arrived and nobody took.
pub struct Pull {
    link: Arc<Link>,
    consumer: Arc<Consumer>,
    /// None when the pull is over.
    inbox: Option<Inbox>,
    /// Messages that may still come.
    left: usize,
    silence: Silence,
    /// Ready when the connection is lost or the request is denied.
    interrupted: Pin<Box<dyn Future<Output = Fault> + Send>>,
}

/// Finds out that nothing was heard for too long. Hearing something costs no timer and no look at the clock, which is read
/// once all is heard that has come.
pub(super) struct Silence {
    limit: Duration,
    /// Whether the server should have said something by then.
    stalls: bool,
    heard: Instant,
    broken: bool,
    timer: Pin<Box<Sleep>>,
}

/// What came to the inbox.
enum Heard {
    Message(Message),
    Heartbeat,
    /// The request is over: its time is, or there is nothing.
    End,
    /// The request must be over, but nobody said so.
    Unsaid,
    Failed(Fault),
}

impl Pull {
    pub(super) fn new(
        link: Arc<Link>,
        consumer: Arc<Consumer>,
        inbox: Inbox,
        (left, silence): (usize, Silence),
        interrupted: impl Future<Output = Fault> + Send + 'static,
    ) -> Self {
        Self {
            link,
            consumer,
            inbox: Some(inbox),
            left,
            silence,
            interrupted: Box::pin(interrupted),
        }
    }

    /// What has come, before any thought of how long it took: a pull may wait long before it is polled.
    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        let Some(inbox) = &mut self.inbox else {
            return Poll::Ready(Heard::End);
        };
        if let Poll::Ready(message) = inbox.subscriber.poll_next_unpin(cx) {
            self.silence.broken = true;
            return Poll::Ready(message.map_or(Heard::Failed(Fault::Closed), hear));
        }
        if let Poll::Ready(fault) = self.interrupted.poll_unpin(cx) {
            return Poll::Ready(Heard::Failed(fault));
        }
        let stalls = self.silence.stalls;
        self.silence.poll_too_long(cx).map(|limit| match stalls {
            true => Heard::Failed(Fault::Stalled(limit)),
            false => Heard::Unsaid,
        })
    }

    /// The end of a pull as it should be: nothing more comes to its inbox, which serves the next one.
    fn end(&mut self) {
        if let Some(inbox) = self.inbox.take() {
            self.consumer.put_idle(inbox);
        }
    }

    /// The end of a pull to which more might come.
    fn give_up(&mut self) {
        if let Some(inbox) = self.inbox.take() {
            hand_back(&self.link, inbox);
        }
    }
}

impl Stream for Pull {
    type Item = Result<Delivery, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.inbox.is_none() {
                return Poll::Ready(None);
            }
            match ready!(this.poll_heard(cx)) {
                Heard::Heartbeat => {}
                Heard::End => this.end(),
                // A message may be late all the same.
                Heard::Unsaid => this.give_up(),
                Heard::Message(message) => {
                    let Some(delivery) = this.consumer.delivery(&this.link, message) else {
                        continue;
                    };
                    this.left = this.left.saturating_sub(1);
                    if this.left == 0 {
                        this.end();
                    }
                    return Poll::Ready(Some(Ok(delivery)));
                }
                Heard::Failed(fault) => {
                    // Whatever it was: an old server says nothing of a missing consumer, and one that comes back may
                    // have lost it.
                    this.consumer.look_again();
                    this.give_up();
                    return Poll::Ready(Some(Err(fault)));
                }
            }
        }
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Tells a message from what the server says of the pull. Both may carry a status (a provider can send one), but only a
/// message has a subject to be settled on.
fn hear(message: Message) -> Heard {
    if message.reply.is_some() {
        return Heard::Message(message);
    }
    match message.status {
        None | Some(StatusCode::OK) => Heard::Message(message),
        Some(StatusCode::IDLE_HEARTBEAT) => Heard::Heartbeat,
        Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => Heard::End,
        Some(StatusCode::NO_RESPONDERS) => Heard::Failed(Fault::NoResponders {
            what: "a pull".to_owned(),
        }),
        Some(status) => Heard::Failed(Fault::PullEnded {
            status: status.as_u16(),
            description: message.description.unwrap_or_default(),
        }),
    }
}

impl Silence {
    /// Silence that means that the server, which sends heartbeats, is stuck.
    pub(super) fn stalls_after(limit: Duration) -> Self {
        Self::new(limit, true)
    }

    /// Silence that means that the pull is over.
    pub(super) fn ends_after(limit: Duration) -> Self {
        Self::new(limit, false)
    }

    fn new(limit: Duration, stalls: bool) -> Self {
        Self {
            limit,
            stalls,
            heard: Instant::now(),
            broken: false,
            timer: Box::pin(sleep(limit)),
        }
    }

    fn poll_too_long(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        if std::mem::take(&mut self.broken) {
            self.heard = Instant::now();
        }
        loop {
            ready!(self.timer.poll_unpin(cx));
            let end = self.heard + self.limit;
            if Instant::now() >= end {
                return Poll::Ready(self.limit);
            }
            self.timer.as_mut().reset(end);
        }
    }
}
