//! What components print: to the log of payloads, line by line and not without end.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::model::{LogBudget, PAYLOAD_LOG, Redaction, cut_line};
use crate::ports::ComponentCall;

/// What one call may print on each of its two streams; the rest is swallowed.
const MOST_BYTES: usize = 64 * 1024;
/// What is taken at a time.
const CHUNK: usize = 64 * 1024;

/// One of a call's output streams.
#[derive(Clone, Debug)]
pub(super) struct Lines(Arc<Mutex<Printed>>);

#[derive(Debug)]
struct Printed {
    component: String,
    tenant: String,
    stream: &'static str,
    /// The line that is not complete yet.
    line: Vec<u8>,
    left: usize,
    budget: LogBudget,
    redaction: Redaction,
}

impl Lines {
    pub(super) fn new(call: &ComponentCall, stream: &'static str) -> Self {
        Self(Arc::new(Mutex::new(Printed {
            component: call.invocation.component.clone(),
            tenant: call.tenant.to_string(),
            stream,
            line: Vec::new(),
            left: MOST_BYTES,
            budget: call.log.clone(),
            redaction: Redaction::of(call.grants.env.values().map(String::as_str)),
        })))
    }

    fn print(&self, bytes: &[u8]) {
        let mut printed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = bytes.len().min(printed.left);
        printed.left -= taken;
        for part in bytes[..taken].split_inclusive(|byte| *byte == b'\n') {
            printed.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                printed.log();
            }
        }
        if taken < bytes.len() {
            printed.log();
        }
    }
}

impl Printed {
    fn log(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        let line = self.redaction.apply(line.trim_end().to_owned());
        let line = cut_line(&line);
        if !line.is_empty() && self.budget.take() {
            tracing::debug!(
                target: PAYLOAD_LOG,
                component = %self.component,
                tenant = %self.tenant,
                stream = self.stream,
                line = %line.escape_debug(),
                "a component printed"
            );
        }
        self.line.clear();
    }
}

impl Drop for Printed {
    fn drop(&mut self) {
        self.log();
    }
}

impl IsTerminal for Lines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Lines {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.print(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

impl Pollable for Lines {
    fn ready<'a, 'b>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::ready(()))
    }
}

impl AsyncWrite for Lines {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.print(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_many_as_the_turn_may_log() {
        let budget = LogBudget::default();
        let lines = Lines(Arc::new(Mutex::new(Printed {
            component: "c".to_owned(),
            tenant: "t".to_owned(),
            stream: "stdout",
            line: Vec::new(),
            left: MOST_BYTES,
            budget: budget.clone(),
            redaction: Redaction::default(),
        })));
        lines.print("\n\n\nx\n".repeat(300).as_bytes());
        assert_eq!(budget.left_out(), 300 - LogBudget::LINES);
        lines.print(&[b'y'; 2 * MOST_BYTES]);
        drop(lines);
        assert_eq!(budget.left_out(), 301 - LogBudget::LINES);
    }
}
