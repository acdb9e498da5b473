//! The same activities once more, one after the other, in a world without faults: what a run is compared with.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use futures_util::FutureExt;
use greentic_worker::model::{Activity, HashedScope, Headers, PackId};
use greentic_worker::ports::{Clock, Destination, NewId, Publisher, TransportError};
use greentic_worker::telemetry::TurnSpan;
use greentic_worker::turn::{Disposition, Turns};
use time::OffsetDateTime;

use super::flows::{self, Registries};
use super::run::turns;
use super::store::{Change, Entry, Store};
use super::world::{SPAN, id, locked};

/// The registries, compiled once.
pub fn registries() -> &'static Registries {
    static REGISTRIES: OnceLock<Registries> = OnceLock::new();
    REGISTRIES.get_or_init(Registries::new)
}

/// The version of the pack that a turn ran.
pub fn version_of(change: &Change) -> usize {
    let said = change.outbox.iter().map(|reply| reply.headers.pack);
    let packs: Vec<PackId> = said.collect();
    usize::from(packs.contains(&flows::version(1)))
}

/// A serial run.
pub struct Serial {
    pub store: Arc<Store<Hands>>,
    turns: Turns<Store<Hands>, Nowhere>,
    clock: Hands,
    /// What the simulated run calls what is called so here.
    pub ours: HashMap<String, String>,
}

impl Serial {
    pub fn new(waits_per_user: u32) -> Self {
        let clock = Hands(Arc::new(Mutex::new(OffsetDateTime::UNIX_EPOCH)));
        let store = Store::new(clock.clone());
        let ids = Arc::new(Counted(AtomicU64::new(0)));
        let mut turns = turns(
            Arc::clone(&store),
            Nowhere,
            &registries().beside[0],
            Arc::new(clock.clone()),
            ids,
        );
        turns.config.bounds.quotas.waits_per_user = waits_per_user;
        Self {
            store,
            turns,
            clock,
            ours: HashMap::new(),
        }
    }

    /// What is called here what the simulated run calls so.
    pub fn theirs(&self, ours: &str) -> String {
        let named = self.ours.iter().find(|(_, name)| *name == ours);
        named.map_or_else(|| ours.to_owned(), |(theirs, _)| theirs.clone())
    }

    /// Runs the turn of a commit again, at the time of that commit. Tells what differs.
    pub async fn replay(&mut self, entry: &Entry) -> Result<(), String> {
        *locked(&self.clock.0) = entry.at;
        let echo = entry.activity.correlation().map(|echo| self.theirs(echo));
        let scope = entry.activity.reply_scope.as_ref();
        let scope = scope.map(|scope| scope.with(echo.as_deref()));
        let activity = Activity {
            reply_scope: scope.map(HashedScope::from),
            ..entry.activity.clone()
        };
        // What began with one version went on with it; where it began, that was the worker's choice.
        let registry = &registries().beside[version_of(&entry.change)];
        self.turns.registry = Arc::clone(registry);
        let span = TurnSpan::new(&activity.tenant);
        let ended = self.turns.run(&activity, 1, &span).now_or_never();
        let ended = ended.ok_or("it waits for something")?;
        if !matches!(ended.disposition, Disposition::Ack) || ended.applied.is_none() {
            return Err(format!("it ends otherwise: {ended:?}"));
        }
        let log = self.store.log();
        let theirs = &log.last().ok_or("nothing was committed")?.change;
        self.pair(&entry.change, theirs);
        let (ours, theirs) = (
            format!("{:#?}", entry.change),
            renamed(&format!("{theirs:#?}"), &self.ours),
        );
        if ours != theirs {
            return Err(difference(&ours, &theirs));
        }
        Ok(())
    }

    /// Both runs made ids for the same things.
    fn pair(&mut self, ours: &Change, theirs: &Change) {
        let (Some(ours), Some(theirs)) = (&ours.park, &theirs.park) else {
            return;
        };
        self.ours
            .insert(theirs.key.to_string(), ours.key.to_string());
        if let (Some(ours), Some(theirs)) = (&ours.correlation, &theirs.correlation) {
            self.ours.insert(theirs.clone(), ours.clone());
        }
    }
}

/// The lines in which two texts differ.
fn difference(ours: &str, theirs: &str) -> String {
    let pairs = ours.lines().zip(theirs.lines());
    let first = pairs.enumerate().find(|(_, (ours, theirs))| ours != theirs);
    match first {
        Some((line, (ours, theirs))) => format!("line {line}: {ours}\n    serially: {theirs}"),
        None => format!("{ours}\n    serially: {theirs}"),
    }
}

/// A text with the ids of the serial run replaced by those of the simulated one.
pub fn renamed(text: &str, names: &HashMap<String, String>) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    let len = id('r', 0).len();
    while let Some(at) = rest.find("r-id") {
        out.push_str(&rest[..at]);
        let end = (at + len).min(rest.len());
        let name = &rest[at..end];
        out.push_str(names.get(name).map_or(name, String::as_str));
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// A clock that shows what it is set to.
#[derive(Clone)]
pub struct Hands(Arc<Mutex<OffsetDateTime>>);

impl Clock for Hands {
    fn now(&self) -> OffsetDateTime {
        *locked(&self.0)
    }
}

struct Counted(AtomicU64);

impl NewId for Counted {
    fn uuid(&self) -> String {
        id('r', self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn span_id(&self) -> String {
        SPAN.to_owned()
    }

    fn trace_id(&self) -> String {
        SPAN.repeat(2)
    }
}

/// What is published is compared as it was committed.
struct Nowhere;

impl Publisher for Nowhere {
    async fn publish(
        &self,
        _: Destination<'_>,
        _: &Headers,
        _: Bytes,
    ) -> Result<(), TransportError> {
        Ok(())
    }

    fn max_message_bytes(&self, _: Destination<'_>) -> usize {
        1024 * 1024
    }
}
