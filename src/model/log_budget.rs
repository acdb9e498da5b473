//! The lines that the components of one turn may log.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The target of lines that show what users wrote and flows said or stored. They are logged at debug level, and only where the
/// operator wants it (`log.payloads`).
pub const PAYLOAD_LOG: &str = "greentic_worker::payloads";

/// The most bytes of one line of the log that a message or a pack brings along.
pub const MAX_LOG_LINE: usize = 4096;

/// The lines that all components of one turn may log together; clones count the same lines.
#[derive(Clone, Debug, Default)]
pub struct LogBudget(Arc<AtomicU32>);

impl LogBudget {
    /// The most lines.
    pub const LINES: u32 = 256;

    /// Counts a line. It may be logged if this is true.
    pub fn take(&self) -> bool {
        let add = |asked: u32| asked.checked_add(1);
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        before.is_ok_and(|asked| asked < Self::LINES)
    }

    /// The lines that were not logged.
    pub fn left_out(&self) -> u32 {
        self.0.load(Ordering::Relaxed).saturating_sub(Self::LINES)
    }
}

/// A line of at most [`MAX_LOG_LINE`] bytes; one that is longer ends with how much is missing.
pub fn cut_line(line: &str) -> Cow<'_, str> {
    if line.len() <= MAX_LOG_LINE {
        return Cow::Borrowed(line);
    }
    let end = line.floor_char_boundary(MAX_LOG_LINE);
    let more = line.len() - end;
    Cow::Owned(format!("{}... ({more} bytes more)", &line[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_lines_and_count_what_is_left_out() {
        let budget = LogBudget::default();
        let other = budget.clone();
        let taken = (0..LogBudget::LINES + 3).filter(|n| {
            if n % 2 == 0 {
                budget.take()
            } else {
                other.take()
            }
        });
        assert_eq!(taken.count(), LogBudget::LINES as usize);
        assert_eq!(other.left_out(), 3);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let line = "\u{20ac}".repeat(2000);
        let cut = cut_line(&line);
        assert!(cut.ends_with("\u{20ac}... (1905 bytes more)"), "{cut}");
        assert_eq!(cut_line("short"), "short");
    }
}
