//! Conversations whose every right answer is known.
//!
//! What is right, when several messages answer one wait: each message with an id of its own is one turn, and the turns of a
//! conversation happen one after the other in some order that keeps to the order in which the provider learnt of them.
//! The one that comes first takes the wait and leaves a new one; the other one echoes a correlation id that is gone by
//! then, or none at all, so it answers the conversation's latest wait, which is the new one. Both are applied, the tally
//! goes up by two, and which came first is told by the tallies in the replies. A message with an id that was used before
//! changes nothing and is answered by nothing new.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use fastrand::Rng;
use greentic_worker::model::header;
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::record::{Place, Record, Said, Stored};

/// How a provider behaves in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One message after the other.
    Plain,
    /// Two providers often answer the same question, each with an id of its own.
    Racing,
    /// Keeps two runs of the flow waiting in the same conversation, and answers them by their correlation ids.
    Juggling,
}

/// How far the whole run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Conversations go on.
    Talking,
    /// Conversations come to their end.
    Ending,
    /// Whoever still waits for a reply stops waiting.
    Over,
}

/// One conversation and the model of what the workers should know of it.
pub struct Conversation {
    pub place: Place,
    pub style: Style,
    pub tenant: String,
    /// Two providers of the same tenant.
    pub providers: [jetstream::Context; 2],
    pub record: Arc<Record>,
    pub replies: UnboundedReceiver<Arc<Stored>>,
    pub phase: watch::Receiver<Phase>,
    pub rng: Rng,
    /// Whether it ends with all of its runs finished, or leaves them waiting.
    pub says_goodbye: bool,
    pub model: Model,
}

/// What the workers should know of a conversation.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The turns of the user so far.
    pub turns: usize,
    /// The runs of the flow that wait, the latest last.
    pub open: Vec<Run>,
    said: usize,
    earlier: Vec<usize>,
}

/// A run of the flow that waits.
#[derive(Clone, Debug, Default)]
pub struct Run {
    turns: usize,
    last: String,
    correlation: Option<String>,
}

/// How a conversation came out.
pub struct Outcome {
    pub place: Place,
    /// How many runs it leaves waiting.
    pub open: usize,
    /// The longest time between a message and its last reply, and when that message was sent.
    pub longest: (Duration, Duration),
    /// What was wrong, if something was: nothing was said after it.
    pub mistake: Option<String>,
}

/// A message to say: what it answers.
#[derive(Clone, Debug)]
struct Line {
    text: String,
    /// The run that it answers; none starts a new one.
    run: Option<usize>,
    correlation: Option<String>,
}

impl Conversation {
    /// Holds the conversation until the run is over.
    pub async fn hold(mut self) -> Outcome {
        let mut longest = (Duration::ZERO, Duration::ZERO);
        let mut mistake = None;
        loop {
            let ending = *self.phase.borrow() > Phase::Talking;
            if ending && (!self.says_goodbye || self.model.open.is_empty()) {
                break;
            }
            let lines = self.next_lines(ending);
            let began = self.record.now();
            let keys = self.say(&lines).await;
            let Some(replies) = self.collect(&keys).await else {
                // The ledger finds what is missing or dead.
                break;
            };
            longest = longest.max((self.record.now().saturating_sub(began), began));
            if let Err(wrong) = self.model.follow(&lines, &keys, &replies) {
                mistake = Some(wrong);
                break;
            }
            let pause = Duration::from_millis(self.rng.u64(0..400));
            sleep(pause).await;
        }
        Outcome {
            open: self.model.open.len(),
            place: self.place,
            longest,
            mistake,
        }
    }

    fn next_lines(&mut self, ending: bool) -> Vec<Line> {
        let room = if self.style == Style::Juggling { 2 } else { 1 };
        let rng = &mut self.rng;
        let open = &self.model.open;
        let line = |n: usize, run: Option<usize>, bye: bool, echo: bool| {
            let bye = if bye { " bye" } else { "" };
            Line {
                text: format!("{}/{n}{bye}", self.place.1),
                run,
                correlation: run
                    .filter(|_| echo)
                    .and_then(|run| open[run].correlation.clone()),
            }
        };
        let n = self.model.said;
        if open.is_empty() || (!ending && open.len() < room) {
            return vec![line(n, None, false, false)];
        }
        let run = rng.usize(..open.len());
        let echo = self.style == Style::Juggling || rng.bool();
        if !ending && self.style == Style::Racing && rng.u8(..10) < 6 {
            return vec![
                line(n, Some(run), false, echo),
                line(n + 1, Some(run), false, echo),
            ];
        }
        let bye = ending || (open[run].turns > 3 && rng.u8(..10) < 2);
        vec![line(n, Some(run), bye, echo)]
    }

    /// Says all lines at once, some of them more than once; and sometimes something again that was said before.
    async fn say(&mut self, lines: &[Line]) -> Vec<String> {
        let mut publishing = Vec::new();
        let mut keys = Vec::new();
        for line in lines {
            let id = format!("{}-{}", self.place.1, self.model.said);
            self.model.said += 1;
            // The three ways in which a provider can name a message. Ids that NATS itself is told must differ by tenant.
            let way = self.rng.u8(..3);
            let key = if way == 2 {
                format!("{}/{id}", self.tenant)
            } else {
                id
            };
            let said = self.record.say(Said {
                place: self.place.clone(),
                key: key.clone(),
                text: line.text.clone(),
                correlation: line.correlation.clone(),
                starts: line.run.is_none() && !self.model.open.is_empty(),
                at: self.record.now(),
                sequences: Vec::new(),
            });
            keys.push(key);
            let times = if self.rng.u8(..10) < 2 { 2 } else { 1 };
            for _ in 0..times {
                publishing.push((said, self.rng.usize(..2)));
            }
            if self.rng.u8(..10) < 2 {
                self.model.earlier.push(said);
            }
        }
        if self.rng.u8(..10) < 2 && !self.model.earlier.is_empty() {
            let again = self.rng.usize(..self.model.earlier.len());
            publishing.push((self.model.earlier[again], self.rng.usize(..2)));
        }
        let all = publishing
            .into_iter()
            .map(|(said, provider)| self.publish(said, provider));
        futures_util::future::join_all(all).await;
        keys
    }

    /// Publishes until it is stored.
    async fn publish(&self, number: usize, provider: usize) {
        let said = self.record.said_at(number);
        let mut scope = json!({ "conversation": said.place.1 });
        if let Some(correlation) = &said.correlation {
            scope["correlation"] = correlation.as_str().into();
        }
        let mut headers = HeaderMap::new();
        let id = match said.key.split_once('/') {
            Some((_, id)) => {
                headers.insert(header::MSG_ID, said.key.as_str());
                id
            }
            None => &said.key,
        };
        if number.is_multiple_of(2) {
            headers.insert(header::IDEMPOTENCY_KEY, said.key.as_str());
        }
        if said.starts {
            headers.insert(header::FLOW_ID, "main");
        }
        let user = format!("user-{}", said.place.1);
        let body =
            json!({ "id": id, "from": { "id": user }, "reply_scope": scope, "text": said.text });
        let body = bytes::Bytes::from(body.to_string());
        let subject = format!("inbound.{}", self.tenant);
        loop {
            let jetstream = &self.providers[provider];
            let publishing =
                jetstream.publish_with_headers(subject.clone(), headers.clone(), body.clone());
            if let Ok(acknowledged) = publishing.await
                && let Ok(acknowledged) = acknowledged.await
            {
                self.record.acknowledged(number, acknowledged.sequence);
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for both replies to each; none if there is no use in waiting any more.
    async fn collect(&mut self, keys: &[String]) -> Option<HashMap<String, Vec<Arc<Stored>>>> {
        let mut replies: HashMap<String, Vec<Arc<Stored>>> = HashMap::new();
        let complete = |replies: &HashMap<String, Vec<Arc<Stored>>>| {
            keys.iter()
                .all(|key| replies.get(key).is_some_and(|both| both.len() >= 2))
        };
        while !complete(&replies) {
            let reply = tokio::select! {
                reply = self.replies.recv() => reply?,
                _ = self.phase.wait_for(|phase| *phase == Phase::Over) => return None,
            };
            if !keys.contains(&reply.key) {
                continue;
            }
            if reply.dead.is_some() {
                return None;
            }
            replies.entry(reply.key.clone()).or_default().push(reply);
        }
        Some(replies)
    }
}

impl Model {
    /// Compares the replies with what they should be in some order of the lines, and takes that order for what happened.
    fn follow(
        &mut self,
        lines: &[Line],
        keys: &[String],
        replies: &HashMap<String, Vec<Arc<Stored>>>,
    ) -> Result<(), String> {
        let mut order: Vec<usize> = (0..lines.len()).collect();
        let mut wrong = Vec::new();
        // One line or two, so two orders at the most.
        for _ in 0..lines.len() {
            let mut after = self.clone();
            let outcome = order
                .iter()
                .try_for_each(|&n| after.turn(&lines[n], &replies[&keys[n]]));
            match outcome {
                Ok(()) => {
                    *self = after;
                    return Ok(());
                }
                Err(error) => wrong.push(error),
            }
            order.reverse();
        }
        Err(wrong.join("; or, in the other order: "))
    }

    fn turn(&mut self, line: &Line, replies: &[Arc<Stored>]) -> Result<(), String> {
        let mut run = match line.run {
            Some(run) => self.open.remove(run),
            None => Run::default(),
        };
        self.turns += 1;
        run.turns += 1;
        let heard = format!("heard {}", line.text);
        let answer = format!(
            "{} after {}, turn {} of its run, {} of its user",
            line.text, run.last, run.turns, self.turns
        );
        let texts = [replies[0].text.as_str(), replies[1].text.as_str()];
        if texts != [heard.as_str(), answer.as_str()] {
            return Err(format!("{texts:?} instead of {:?}", [heard, answer]));
        }
        let last = line.text.ends_with("bye");
        if replies[1].correlation.is_some() == last || replies[0].correlation.is_some() {
            return Err(format!("{answer:?} carries the wrong correlation ids"));
        }
        run.last.clone_from(&line.text);
        run.correlation.clone_from(&replies[1].correlation);
        if !last {
            let place = line.run.unwrap_or(self.open.len());
            self.open.insert(place, run);
        }
        Ok(())
    }
}
