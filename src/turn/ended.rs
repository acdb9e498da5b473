//! The end of a turn, as those see it who settle its delivery and who count.

use std::time::Duration;

use super::failure::{Disposition, Rejection, TurnError};

/// How a turn ended, for the one who settles the delivery and for those who count.
#[derive(Debug)]
pub struct Ended {
    /// What happens to the delivery.
    pub disposition: Disposition,
    /// What was applied; nothing if it had been applied before, or failed.
    pub applied: Option<Applied>,
    /// How many replies were published.
    pub replies: usize,
    /// How many replies no stream would take, and that are in the dead letters.
    pub undelivered: usize,
    /// The attempt is counted in the store.
    pub claimed: bool,
    /// The message echoes the correlation id of a wait that is not there.
    pub stale_echo: bool,
    /// How often COMMIT found that another turn came first.
    pub conflicts: u32,
}

/// What a turn did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// It took a parked flow.
    pub resumed: bool,
    /// It ended in a wait.
    pub parked: bool,
    /// The bytes of state that its tenant uses now, if it has changed them.
    pub tenant_state_bytes: Option<u64>,
}

impl Ended {
    pub(super) fn with(disposition: Disposition) -> Self {
        Self {
            disposition,
            applied: None,
            replies: 0,
            undelivered: 0,
            claimed: false,
            stale_echo: false,
            conflicts: 0,
        }
    }

    /// The end of a message that is no activity.
    pub fn rejected(error: TurnError) -> Self {
        Self::with(Disposition::DeadLetter(Rejection { error, attempts: 1 }))
    }

    /// The end of a turn that was not begun because its tenant is refused what it needs.
    pub fn held(pause: Duration) -> Self {
        Self::with(Disposition::RetryAfter(pause))
    }

    /// The end of a turn that was cut off because its worker stops: another one takes it at once.
    pub fn interrupted() -> Self {
        Self::with(Disposition::RetryAfter(Duration::ZERO))
    }
}
