//! The machine's clock and random ids, and what its system lets this process have.

use std::fmt::Write;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::ports::{Clock, NewId};

/// Raises the number of files and connections that this process may have open to the most that it may raise it to. The number
/// in force then; none if there is no limit.
pub fn raise_descriptor_limit() -> Option<usize> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Some systems have a lower limit than they say, and then keep the one in force.
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let current = getrlimit(Resource::Nofile).current?;
    Some(usize::try_from(current).unwrap_or(usize::MAX))
}

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

    fn uptime(&self) -> Duration {
        // Elsewhere the monotonic clock goes on in a suspended machine.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let clock = ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let clock = ClockId::Monotonic;
        let uptime = clock_gettime(clock);
        let seconds = u64::try_from(uptime.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(uptime.tv_nsec).unwrap_or_default())
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
