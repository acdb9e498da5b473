//! What the terminal shows.

use std::io::{self, Write};

use serde_json::Value;

use super::Received;
use crate::model::header;

/// Writes a conversation down: `>` is the user, `<` the flow, `--` what happens beside.
pub struct Transcript<W> {
    out: W,
    echo: bool,
}

impl<W: Write> Transcript<W> {
    /// A transcript; with `echo` it also shows what the user says, because no terminal does.
    pub fn new(out: W, echo: bool) -> Self {
        Self { out, echo }
    }

    /// Invites the user to type.
    pub fn prompt(&mut self) -> io::Result<()> {
        if !self.echo {
            write!(self.out, "> ")?;
        }
        self.out.flush()
    }

    /// A line was read.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        if self.echo {
            writeln!(self.out, "> {line}")
        } else {
            Ok(())
        }
    }

    /// Something happened beside the conversation.
    pub fn note(&mut self, note: &str) -> io::Result<()> {
        writeln!(self.out, "-- {note}")
    }

    /// The flow said something, or the message was put aside.
    pub fn reply(&mut self, received: &Received) -> io::Result<()> {
        if received.dead_letter {
            let code = received
                .headers
                .get(header::ERROR_CODE)
                .unwrap_or("unknown");
            let reason = received
                .headers
                .get(header::ERROR)
                .unwrap_or("no reason given");
            return self.note(&format!("your message was put aside ({code}): {reason}"));
        }
        let body = &received.body;
        match body.get("text").and_then(Value::as_str) {
            Some(text) if !text.is_empty() => {
                for line in text.lines() {
                    writeln!(self.out, "< {line}")?;
                }
            }
            _ => {}
        }
        for attachment in body
            .get("attachments")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            writeln!(
                self.out,
                "< [{}] {}",
                attachment["mime_type"].as_str().unwrap_or("attachment"),
                summary(attachment)
            )?;
        }
        if body.get("text").is_none() && body.get("attachments").is_none() {
            writeln!(
                self.out,
                "< {}",
                body.pointer("/extensions/payload").unwrap_or(body)
            )?;
        }
        Ok(())
    }

    /// The conversation is over.
    pub fn end(&mut self) -> io::Result<()> {
        if !self.echo {
            writeln!(self.out)?;
        }
        self.out.flush()
    }
}

fn summary(attachment: &Value) -> String {
    let link = attachment.get("url").and_then(Value::as_str);
    link.map_or_else(
        || {
            attachment
                .get("content")
                .map(Value::to_string)
                .unwrap_or_default()
        },
        str::to_owned,
    )
}
