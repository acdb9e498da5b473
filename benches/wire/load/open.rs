//! Open loop: messages at a fixed rate, whatever comes back. Latency counts from when a message should have been sent, so
//! that a stall is felt by all that it holds up, and not by the one message that was under way.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::{Heard, Line, heard, histogram, record, send};
use crate::ledger::Ledger;
use crate::talk::{Talk, TurnId};

/// How long a user thinks before the answer.
const THINKING: Duration = Duration::from_millis(500);

/// How it is done.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// Messages a second.
    pub rate: f64,
    /// How long before it counts; longer than a user thinks.
    pub warm_up: Duration,
    /// How long it counts.
    pub measured: Duration,
}

/// When what is to be sent. Ticks are of equal distance; even ones begin a conversation, odd ones give its answer.
#[derive(Clone, Copy)]
struct Timetable {
    start: Instant,
    every: Duration,
    /// How many conversations are begun while a user thinks.
    thinking: usize,
    ticks: usize,
}

impl Timetable {
    fn of(plan: Open) -> Self {
        let every = Duration::from_secs_f64(1.0 / plan.rate);
        let in_all = plan.warm_up + plan.measured;
        Self {
            // A little later, for the sending thread to get up.
            start: Instant::now() + Duration::from_millis(50),
            every,
            thinking: (THINKING.as_secs_f64() * plan.rate / 2.0) as usize,
            ticks: (in_all.as_secs_f64() * plan.rate) as usize,
        }
    }

    fn at(&self, tick: usize) -> Instant {
        self.start + self.every.mul_f64(tick as f64)
    }

    /// What a tick sends; nothing at the answers of conversations before the first one.
    fn turn(&self, tick: usize) -> Option<TurnId> {
        let (conversation, turn) = (tick / 2, tick % 2);
        let conversation = conversation.checked_sub(turn * self.thinking)?;
        Some(TurnId { conversation, turn })
    }

    fn tick(&self, id: TurnId) -> usize {
        (id.conversation + id.turn * self.thinking) * 2 + id.turn
    }
}

/// Sends by the timetable from a thread of its own, and hears what comes back.
pub async fn open(line: &mut Line, talk: &Talk, plan: Open) -> Heard {
    let timetable = Timetable::of(plan);
    let mut ledger = Ledger::of(talk);
    let (client, own_talk, tokio) = (line.client.clone(), talk.clone(), Handle::current());
    let sending = std::thread::spawn(move || {
        let mut sent = 0;
        for tick in 0..timetable.ticks {
            let Some(id) = timetable.turn(tick) else {
                continue;
            };
            let due = timetable.at(tick);
            // As exactly as the system wakes a thread; a timer of tokio counts whole milliseconds.
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            tokio.block_on(send(&client, &own_talk, id, None));
            sent += 1;
        }
        sent
    });
    let counts = timetable.at(0) + plan.warm_up..timetable.at(timetable.ticks);
    let expected = (0..timetable.ticks).filter_map(|tick| timetable.turn(tick));
    let expected = expected.count() as u64;
    let (mut turns, mut latency) = (0, histogram());
    line.be_patient();
    while ledger.answered < expected {
        let Some(message) = line.next().await else {
            break;
        };
        let now = Instant::now();
        let Some(id) = ledger.enter(&message) else {
            continue;
        };
        let due = timetable.at(timetable.tick(id));
        if counts.contains(&due) {
            turns += 1;
            record(&mut latency, now.saturating_duration_since(due));
        }
    }
    line.aftermath(&mut ledger).await;
    let sent = sending.join().expect("the sending thread does not panic");
    heard(&ledger, sent, (turns, plan.measured), latency)
}
