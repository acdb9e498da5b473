//! The lines that a turn's flow and components log.

use std::fmt::{self, Display, Write};
use std::sync::OnceLock;

use serde_json::Value;

use crate::model::{LogBudget, MAX_LOG_LINE};

/// The most lines of `emit.log` nodes of one turn.
pub const MAX_LINES: usize = 100;

/// Logs what the `emit.log` nodes of a turn said, as far as it is taken.
pub(super) fn log(lines: &[Value]) {
    for line in lines.iter().take(MAX_LINES) {
        tracing::info!(line = %Line(line), "flow log");
    }
    let left_out = lines.len().saturating_sub(MAX_LINES);
    if left_out > 0 {
        tracing::info!(
            left_out,
            "flow log: a turn logs at most {MAX_LINES} lines; the others are left out"
        );
    }
}

/// The budget of an attempt's components, made with the first call of one. When the attempt ends, it says what was left
/// out.
#[derive(Debug, Default)]
pub(super) struct ComponentLog(OnceLock<LogBudget>);

impl ComponentLog {
    pub(super) fn budget(&self) -> LogBudget {
        self.0.get_or_init(LogBudget::default).clone()
    }
}

impl Drop for ComponentLog {
    fn drop(&mut self) {
        let left_out = self.0.get().map_or(0, LogBudget::left_out);
        if left_out > 0 {
            tracing::debug!(
                left_out,
                "the components of a turn log at most {} lines; the others are left out",
                LogBudget::LINES
            );
        }
    }
}

/// A value as JSON, up to [`MAX_LOG_LINE`] bytes.
struct Line<'a>(&'a Value);

impl Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut short = Short {
            writer: f,
            left: MAX_LOG_LINE,
            is_cut: false,
        };
        let written = write!(short, "{}", self.0);
        match short.is_cut {
            true => f.write_str("... (cut)"),
            false => written,
        }
    }
}

/// Writes the first bytes of a text, and fails at the others.
struct Short<'a, W: Write> {
    writer: &'a mut W,
    left: usize,
    is_cut: bool,
}

impl<W: Write> Write for Short<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let taken = &text[..text.floor_char_boundary(self.left)];
        self.left -= taken.len();
        self.writer.write_str(taken)?;
        if taken.len() < text.len() {
            self.is_cut = true;
            self.left = 0;
            return Err(fmt::Error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_is_cut_where_it_is_too_long() {
        assert_eq!(Line(&json!({"a": "b"})).to_string(), r#"{"a":"b"}"#);
        for value in [json!("\u{20ac}".repeat(5000)), json!(vec![7; 5000])] {
            let line = Line(&value).to_string();
            assert!(
                line.len() <= MAX_LOG_LINE + 9 && line.len() > MAX_LOG_LINE,
                "{}",
                line.len()
            );
            assert!(line.ends_with("... (cut)"), "{line}");
        }
    }
}
