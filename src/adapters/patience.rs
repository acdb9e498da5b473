//! The patience of a start: a server that is not there yet is waited for, and the log says so.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The pauses between two attempts: doubled from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often the log says that there is no server yet.
const TELL_EVERY: Duration = Duration::from_secs(3);

/// Tries until a server is there, for `patience` and once more when that is over. An attempt's inner error is one that time
/// may heal, and the last of them is what is left in the end; its outer error ends the waiting.
pub async fn wait_for<T, S, E, F>(
    server: &'static str,
    patience: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<Result<T, S>, E>
where
    S: Display,
    F: Future<Output = Result<Result<T, S>, E>>,
{
    let deadline = Instant::now() + patience;
    let (mut pause, mut tell_at) = (FIRST_PAUSE, Instant::now());
    loop {
        let error = match attempt().await? {
            Err(error) if Instant::now() < deadline => error,
            last => return Ok(last),
        };
        let now = Instant::now();
        if now >= tell_at {
            tracing::warn!(server, %error, "no server yet; trying for another {:.0?}", deadline - now);
            tell_at = now + TELL_EVERY;
        }
        let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        sleep_until(deadline.min(now + jittered)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits this long for a server that comes after so many attempts, each of which takes a while; what came of it, and
    /// when.
    async fn wait(
        patience: u64,
        comes_after: u32,
    ) -> (Result<Result<u32, u32>, &'static str>, Duration) {
        let mut attempts = 0;
        let began = Instant::now();
        let answer = wait_for("NATS", Duration::from_secs(patience), || {
            attempts += 1;
            let number = attempts;
            async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                match number {
                    13 => Err("refused"),
                    number if number > comes_after => Ok(Ok(number)),
                    number => Ok(Err(number)),
                }
            }
        });
        (answer.await, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_comes_in_time_is_found() {
        let (answer, took) = wait(10, 5).await;
        assert_eq!(answer, Ok(Ok(6)));
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_come_is_given_up_when_the_patience_is_over_and_not_before() {
        let (answer, took) = wait(5, u32::MAX).await;
        assert!(matches!(answer, Ok(Err(6..13))), "{answer:?}");
        let most = Duration::from_millis(5_100);
        assert!((Duration::from_secs(5)..=most).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_time_does_not_heal_ends_the_waiting() {
        let (answer, took) = wait(60, u32::MAX).await;
        assert_eq!(answer, Err("refused"));
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
}
