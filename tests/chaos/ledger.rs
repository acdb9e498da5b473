//! What is true at the end, as seen from outside: the streams and Redis against what was sent.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::poison::Poison;
use crate::record::{Place, Record, Said, Stored, Window};
use crate::talk::Outcome;
use crate::vault::{Left, Vault};

/// The account of a run.
#[derive(Default)]
pub struct Ledger {
    pub conversations: usize,
    pub sent: usize,
    pub published: usize,
    pub applied: usize,
    pub replied: usize,
    pub dead_lettered: usize,
    pub lost: Vec<Wrong>,
    pub doubled: Vec<Wrong>,
    pub mistaken: Vec<Wrong>,
    /// What is still there and should not be, or should be and is not.
    pub left: Vec<String>,
    /// Messages that are done with and still in the inbound stream, where no consumer will find them again: an old
    /// nats-server that was killed has forgotten that it had removed them.
    pub undead: usize,
    /// How often a refusal was all that was wrong, how many conversations went on beside it, and how long the last one took.
    pub beside: (usize, usize, Duration),
    /// Conversations that did not go on beside the refusal of another tenant.
    pub held_up: Vec<Wrong>,
    pub longest: Duration,
    pub longest_at: Duration,
    pub longest_in: Option<Place>,
}

/// Something wrong in one conversation.
#[derive(Clone, Debug)]
pub struct Wrong {
    pub place: Place,
    pub what: String,
}

/// How many dead letters there are of a tenant's message.
type Dead<'a> = HashMap<(usize, &'a str), usize>;

impl Ledger {
    /// Draws up the account.
    pub fn of(record: &Record, outcomes: &[Outcome], poison: &[Poison], vault: &Vault) -> Self {
        let (said, stored) = (record.said(), record.stored());
        let mut ledger = Self {
            conversations: outcomes.len(),
            sent: said.len() + poison.len(),
            published: said.iter().map(|said| said.sequences.len()).sum::<usize>()
                + poison.iter().map(|poison| poison.published).sum::<usize>(),
            applied: vault.turns.values().sum(),
            ..Self::default()
        };
        ledger.once_each(&stored);
        ledger.replies(&said, &stored);
        let mut dead = Dead::new();
        for stored in stored.iter().filter(|stored| stored.dead.is_some()) {
            *dead
                .entry((stored.place.0, stored.key.as_str()))
                .or_default() += 1;
        }
        ledger.turns(&said, &dead, vault);
        ledger.poison(poison, &dead);
        ledger.outcomes(outcomes);
        ledger.inbound(&vault.inbound, &stored);
        ledger.left_over(outcomes, vault);
        for window in record.windows() {
            ledger.window(&window, &stored);
        }
        ledger
    }

    /// Whether all is as it should be.
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty()
            && self.doubled.is_empty()
            && self.mistaken.is_empty()
            && self.held_up.is_empty()
            && self.left.is_empty()
    }

    /// The conversations in which something is wrong.
    pub fn wrong_places(&self) -> Vec<Place> {
        let all = self.lost.iter().chain(&self.doubled);
        let all = all.chain(&self.mistaken).chain(&self.held_up);
        let mut places: Vec<Place> = all.map(|wrong| wrong.place.clone()).collect();
        places.sort();
        places.dedup();
        places
    }

    /// Both streams hold each `Nats-Msg-Id` once.
    fn once_each(&mut self, stored: &[Arc<Stored>]) {
        let mut seen: HashMap<(bool, &str), u64> = HashMap::new();
        for message in stored {
            let id = (message.dead.is_some(), message.msg_id.as_str());
            if let Some(first) = seen.insert(id, message.sequence) {
                let what = format!(
                    "{} is stored at {first} and at {}",
                    message.msg_id, message.sequence
                );
                self.doubled.push(Wrong {
                    place: message.place.clone(),
                    what,
                });
            }
        }
    }

    /// Each message was answered by its two replies in their order, or is dead; and nothing else was.
    fn replies(&mut self, said: &[Said], stored: &[Arc<Stored>]) {
        let mut answers: HashMap<(usize, &str), Vec<&Stored>> = HashMap::new();
        for message in stored {
            let key = (message.place.0, message.key.as_str());
            answers.entry(key).or_default().push(message);
        }
        for said in said {
            let wrong = |what| Wrong {
                place: said.place.clone(),
                what,
            };
            let got = answers
                .remove(&(said.place.0, said.key.as_str()))
                .unwrap_or_default();
            let (dead, replies): (Vec<&Stored>, Vec<_>) =
                got.into_iter().partition(|stored| stored.dead.is_some());
            for dead in &dead {
                self.dead_lettered += 1;
                let code = dead.dead.as_deref().unwrap_or_default();
                self.mistaken
                    .push(wrong(format!("{} is dead-lettered: {code}", said.key)));
            }
            match replies.as_slice() {
                [first, second] => {
                    self.replied += 1;
                    let order =
                        first.text.starts_with("heard ") && second.text.starts_with(&said.text);
                    if !order || first.place != said.place || second.place != said.place {
                        self.mistaken
                            .push(wrong(format!("{} has the wrong replies", said.key)));
                    }
                }
                few @ ([] | [_]) if dead.is_empty() => {
                    self.lost.push(wrong(format!(
                        "{} has {} of 2 replies",
                        said.key,
                        few.len()
                    )));
                }
                [] => {}
                many => {
                    self.doubled
                        .push(wrong(format!("{} has {} replies", said.key, many.len())))
                }
            }
        }
        for ((_, key), messages) in answers {
            for message in messages
                .into_iter()
                .filter(|message| message.dead.is_none())
            {
                let what = format!("a reply to {key:?}, which nobody sent: {:?}", message.text);
                self.mistaken.push(Wrong {
                    place: message.place.clone(),
                    what,
                });
            }
        }
    }

    /// The state of each user has counted each of its messages once.
    fn turns(&mut self, said: &[Said], dead: &Dead<'_>, vault: &Vault) {
        let mut sent: BTreeMap<&Place, usize> = BTreeMap::new();
        for said in said {
            let dead = dead.contains_key(&(said.place.0, said.key.as_str()));
            *sent.entry(&said.place).or_default() += usize::from(!dead);
        }
        for (place, sent) in sent {
            let counted = vault.turns.get(place).copied().unwrap_or(0);
            let wrong = Wrong {
                place: place.clone(),
                what: format!("{sent} messages made {counted} turns"),
            };
            match counted.cmp(&sent) {
                std::cmp::Ordering::Less => self.lost.push(wrong),
                std::cmp::Ordering::Greater => self.doubled.push(wrong),
                std::cmp::Ordering::Equal => {}
            }
        }
    }

    /// What cannot be read is in the dead letters: once for each time that the inbound stream had it.
    fn poison(&mut self, poison: &[Poison], dead: &Dead<'_>) {
        for poison in poison {
            let dead = dead.get(&(poison.tenant, poison.key.as_str()));
            let dead = dead.copied().unwrap_or(0);
            self.dead_lettered += dead;
            let place = (poison.tenant, String::new());
            let what = format!(
                "{} was sent up to {} times and is dead {dead} times",
                poison.key, poison.tries
            );
            if dead < poison.published.min(1) {
                self.lost.push(Wrong { place, what });
            } else if dead > poison.tries {
                self.doubled.push(Wrong { place, what });
            }
        }
    }

    fn outcomes(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            if outcome.longest.0 > self.longest {
                (self.longest, self.longest_at) = outcome.longest;
                self.longest_in = Some(outcome.place.clone());
            }
            if let Some(what) = &outcome.mistake {
                self.mistaken.push(Wrong {
                    place: outcome.place.clone(),
                    what: what.clone(),
                });
            }
        }
    }

    /// Whatever is still in the inbound stream must at least be done with.
    fn inbound(&mut self, left: &[Left], stored: &[Arc<Stored>]) {
        for left in left {
            let answers = |stored: &&Arc<Stored>| {
                stored.key == left.key && (stored.dead.is_some() || stored.place.0 == left.tenant)
            };
            if stored.iter().any(|stored| answers(&stored)) {
                self.undead += 1;
            } else {
                let Left { sequence, key, .. } = left;
                self.left
                    .push(format!("GREENTIC_INBOUND still holds {key} at {sequence}"));
            }
        }
    }

    /// Beside a refusal the others have gone on; and it was one.
    fn window(&mut self, window: &Window, stored: &[Arc<Stored>]) {
        let Window {
            refusal,
            stood_still,
            went_on,
            within,
            ..
        } = window;
        self.beside.0 += 1;
        self.beside.1 += went_on - stood_still.len();
        self.beside.2 = self.beside.2.max(*within);
        for place in stood_still {
            let (place, within) = (place.clone(), within.as_secs());
            let what = format!("no answer for {within} s beside {refusal:?}");
            self.held_up.push(Wrong { place, what });
        }
        let let_through = stored.iter().filter(|stored| {
            stored.dead.is_none()
                && Some(stored.place.0) == refusal.tenant()
                && window.replies.contains(&stored.sequence)
        });
        let let_through = let_through.count();
        if (window.lets_through).is_some_and(|most| let_through as u64 > most) {
            let what = format!("{let_through} replies were let through by {refusal:?}");
            self.left.push(what);
        }
    }

    fn left_over(&mut self, outcomes: &[Outcome], vault: &Vault) {
        let open: usize = outcomes.iter().map(|outcome| outcome.open).sum();
        let Vault {
            sessions,
            waits_of_users,
            leases,
            claims,
            applied,
            untrimmed,
            ..
        } = vault;
        let should = [
            ("sessions in Redis", *sessions, open),
            ("waits in the sets of users in Redis", *waits_of_users, open),
            ("leases in Redis", *leases, 0),
            ("counts of attempts in Redis", *claims, 0),
            (
                "records of applied messages in Redis",
                *applied,
                self.applied,
            ),
            ("outboxes in Redis", *untrimmed, 0),
        ];
        for (what, is, should) in should {
            if is != should {
                self.left.push(format!("{is} {what} instead of {should}"));
            }
        }
        self.left.extend(vault.dangling.iter().cloned());
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("conversations", self.conversations.to_string()),
            (
                "sent",
                format!("{} (published {} times)", self.sent, self.published),
            ),
            ("applied", self.applied.to_string()),
            ("replied", self.replied.to_string()),
            ("dead-lettered", self.dead_lettered.to_string()),
            ("lost", self.lost.len().to_string()),
            ("doubled", self.doubled.len().to_string()),
            ("mistaken", self.mistaken.len().to_string()),
            ("settled, kept", self.undead.to_string()),
            ("went on", self.went_on()),
            ("held up", self.held_up.len().to_string()),
            ("left over", self.left.len().to_string()),
            ("longest stand", self.longest_stand()),
        ];
        for (name, value) in rows {
            writeln!(f, "  {name:<16}{value}")?;
        }
        let all = [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("mistaken", &self.mistaken),
            ("held up", &self.held_up),
        ];
        for (kind, wrongs) in all {
            for wrong in wrongs.iter().take(20) {
                let (tenant, conversation) = &wrong.place;
                writeln!(
                    f,
                    "  {kind}: tenant {tenant}, {conversation}: {}",
                    wrong.what
                )?;
            }
        }
        for left in &self.left {
            writeln!(f, "  left over: {left}")?;
        }
        Ok(())
    }
}

impl Ledger {
    fn went_on(&self) -> String {
        let (refusals, conversations, longest) = self.beside;
        let longest = longest.as_secs_f64();
        format!("{conversations} beside {refusals} refusals, each within {longest:.1} s")
    }

    fn longest_stand(&self) -> String {
        let mut text = format!("{:.1} s", self.longest.as_secs_f64());
        if let Some((tenant, conversation)) = &self.longest_in {
            let at = self.longest_at.as_secs_f64();
            let _ = write!(
                text,
                " (tenant {tenant}, {conversation}, from {at:.1} s on)"
            );
        }
        text
    }
}
