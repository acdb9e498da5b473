//! The operator, who replays what was dead-lettered once the cause of it is gone.

use std::sync::Arc;

use greentic_worker::model::header;
use greentic_worker::worker::dead_letter::replayed;
use time::OffsetDateTime;

use super::net::Net;
use super::world::World;

/// Replays dead letters, each once.
pub struct Operator {
    world: Arc<World>,
    net: Arc<Net>,
    /// How many there were when the last ones were replayed.
    replayed: usize,
}

impl Operator {
    pub fn new(world: &Arc<World>, net: &Arc<Net>) -> Self {
        Self {
            world: Arc::clone(world),
            net: Arc::clone(net),
            replayed: 0,
        }
    }

    /// Replays what was dead-lettered since the last time, but for messages that kill workers, and those that only the user can
    /// mend. Tells whether there was anything.
    pub fn replay(&mut self) -> bool {
        let (dead, first) = (self.net.dead(), self.replayed);
        self.replayed = dead.len();
        let mut any = false;
        for (at, letter) in dead.iter().enumerate().skip(first) {
            let code = letter.header(header::ERROR_CODE);
            let name = letter.header(header::IDEMPOTENCY_KEY);
            let is_mended = matches!(code, "id_reused" | "attempts_exhausted" | "component_trap");
            if name.starts_with("poison") || (first > 0 && !is_mended) {
                continue;
            }
            any = true;
            let sequence = at as u64 + 1;
            let stored = OffsetDateTime::UNIX_EPOCH;
            let headers = replayed(&letter.headers, &letter.body, sequence, stored);
            // A replay that is killed before it removes the dead letter publishes it again.
            for _ in 0..=u32::from(self.world.odds(200)) {
                self.world.count("dead letters replayed");
                self.net
                    .send(&letter.tenant, headers.clone(), letter.body().to_owned());
            }
        }
        any
    }
}
