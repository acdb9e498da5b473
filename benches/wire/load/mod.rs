//! The load generator: one for all that is measured. It knows nothing but the contract on NATS.

mod backlog;
mod closed;
mod open;

use std::pin::Pin;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Message, Subscriber};
use futures_util::StreamExt;
use futures_util::stream::Select;
use hdrhistogram::Histogram;
use tokio::time::{Instant, Sleep, sleep};

use crate::ledger::{Faults, Ledger};
use crate::talk::{Talk, TurnId};

pub use backlog::{drain, pile_up};
pub use closed::{Closed, closed};
pub use open::{Open, open};

/// After so long without any reply, what is still to come counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to listen for replies that come again.
const AFTERMATH: Duration = Duration::from_millis(300);
/// Replies that may wait in this process.
const CAPACITY: usize = 1 << 20;

/// What a load came to.
pub struct Heard {
    /// Turns that were sent and answered, all of them, those of the warming up included.
    pub answered: u64,
    /// Turns that were answered while it was measured.
    pub turns: u64,
    /// How long it was measured.
    pub seconds: f64,
    /// From sending to the last reply, in microseconds.
    pub latency: Histogram<u64>,
    /// The mean size of a reply's body.
    pub reply_bytes: f64,
    /// What went wrong.
    pub faults: Faults,
}

/// A connection to NATS that hears every reply and dead letter.
pub struct Line {
    client: Client,
    replies: Select<Subscriber, Subscriber>,
    /// When to stop waiting. Moved by replies at its end only: a timer for each would be felt.
    patience: Pin<Box<Sleep>>,
    heard: Instant,
}

impl Line {
    /// Connects and listens.
    pub async fn to(nats_url: &str) -> Self {
        let options = ConnectOptions::new().subscription_capacity(CAPACITY);
        let client = options.connect(nats_url).await.expect("NATS is there");
        let listen = async |subject: &'static str| {
            let subscribed = client.subscribe(subject).await;
            subscribed.expect("NATS takes subscriptions")
        };
        let replies =
            futures_util::stream::select(listen("outbound.>").await, listen("deadletter.>").await);
        client.flush().await.expect("NATS answers");
        Self {
            client,
            replies,
            patience: Box::pin(sleep(PATIENCE)),
            heard: Instant::now(),
        }
    }

    /// The client of this line, for whoever only sends.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    async fn send(&self, talk: &Talk, id: TurnId, correlation: Option<&str>) {
        send(&self.client, talk, id, correlation).await;
    }

    /// The next reply; none if there was none for too long.
    async fn next(&mut self) -> Option<Message> {
        loop {
            tokio::select! {
                biased;
                message = self.replies.next() => {
                    self.heard = Instant::now();
                    return message;
                }
                () = &mut self.patience => {
                    let end = self.heard + PATIENCE;
                    if Instant::now() >= end {
                        return None;
                    }
                    self.patience.as_mut().reset(end);
                }
            }
        }
    }

    /// Begins to wait anew.
    fn be_patient(&mut self) {
        self.heard = Instant::now();
        self.patience.as_mut().reset(self.heard + PATIENCE);
    }

    /// Listens for a moment longer, for what should not come.
    async fn aftermath(&mut self, ledger: &mut Ledger) {
        let listening = async {
            while let Some(message) = self.replies.next().await {
                ledger.enter(&message);
            }
        };
        // It ends by its time only.
        let _ended = tokio::time::timeout(AFTERMATH, listening).await;
    }
}

async fn send(client: &Client, talk: &Talk, id: TurnId, correlation: Option<&str>) {
    let letter = talk.letter(id, correlation);
    let sent = client.publish_with_headers(letter.subject, letter.headers, letter.body);
    sent.await.expect("NATS is there");
}

/// Latencies from a microsecond to minutes, to three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("these bounds are in order")
}

fn record(latency: &mut Histogram<u64>, took: Duration) {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    latency.saturating_record(micros.max(1));
}

/// What is heard, put together when all is over.
fn heard(ledger: &Ledger, sent: u64, measured: (u64, Duration), latency: Histogram<u64>) -> Heard {
    Heard {
        answered: ledger.answered,
        turns: measured.0,
        seconds: measured.1.as_secs_f64(),
        latency,
        reply_bytes: ledger.reply_bytes as f64 / ledger.replies.max(1) as f64,
        faults: ledger.close(sent),
    }
}
