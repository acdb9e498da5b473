//! The machine's clock and random ids.

use std::fmt::Write;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::ports::{Clock, NewId};

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that everyone else takes"
    )]
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}

/// Ids from the machine's random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomIds;

impl NewId for RandomIds {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the source that everyone else takes"
    )]
    fn uuid(&self) -> String {
        Uuid::new_v4().to_string()
    }

    fn span_id(&self) -> String {
        hex_digits(16)
    }

    fn trace_id(&self) -> String {
        hex_digits(32)
    }
}

/// Random hex digits, not all zero, which W3C trace context forbids. Trace ids need not be secret, only rarely alike.
fn hex_digits(len: usize) -> String {
    let mut digits = String::with_capacity(len);
    while digits.len() < len {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{:016x}", fastrand::u64(1..));
    }
    digits
}
