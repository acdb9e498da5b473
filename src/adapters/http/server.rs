//! The connections of the endpoint: so many at once, each for as long as requests come and answers are read.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::Config;
use super::pages::Pages;

/// The largest head of a request.
const HEAD_BYTES: usize = 16 * 1024;
/// The most headers of a request.
const HEADERS: usize = 64;
/// The pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the log says that connections are closed in favour of others.
const WARN_EVERY: Duration = Duration::from_secs(60);

pub(super) async fn serve(listener: TcpListener, pages: Pages, config: &Config) {
    let connections = Arc::new(Connections::new(config));
    let mut tasks = JoinSet::new();
    let mut warnings = Warnings::default();
    loop {
        let accepted = tokio::select! {
            biased;
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let crowded = match accepted {
            Ok((stream, _)) => {
                let slot = connections.enter();
                let id = slot.id;
                let task = tasks.spawn(talk(stream, pages.clone(), slot));
                connections.is_crowded_by(id, task)
            }
            Err(error) if is_about_one_client(&error) => false,
            Err(error) => {
                warnings.say(|| tracing::warn!(%error, "an HTTP connection cannot be accepted"));
                // A descriptor less may be all that is needed.
                connections.open().close_oldest();
                sleep(ACCEPT_PAUSE).await;
                false
            }
        };
        if crowded {
            let most = connections.most;
            warnings.say(|| {
                tracing::warn!(
                    most,
                    "more HTTP connections than http.connections; the oldest are closed"
                );
            });
            // Lets the one that is closed go before another one is accepted.
            tokio::task::yield_now().await;
        }
    }
}

/// Talks with one client for as long as its requests keep coming.
async fn talk(stream: TcpStream, pages: Pages, slot: ConnectionSlot) {
    let slot = Arc::new(slot);
    let asked = Arc::clone(&slot);
    let answer = service_fn(move |request| {
        asked.renew();
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(pages.answer(request).await) }
    });
    let mut http = http1::Builder::new();
    http.max_buf_size(HEAD_BYTES).max_headers(HEADERS);
    let talking = http.serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(talking);
    while let Some(deadline) = slot.deadline()
        && deadline > Instant::now()
    {
        tokio::select! {
            // What a client breaks off is its own affair.
            _ = &mut talking => return,
            // It may have been renewed meanwhile.
            () = sleep_until(deadline) => {}
        }
    }
}

/// Returns whether the next client may fare better at once.
fn is_about_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// All that are open.
struct Connections {
    most: usize,
    timeout: Duration,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// How many connections and requests there have been.
    events: u64,
    connections: HashMap<u64, Connection>,
}

/// An open connection.
struct Connection {
    /// The event that it last was: it was opened, or a request came. The smallest is the oldest.
    last_event: u64,
    closes: Instant,
    task: Option<AbortHandle>,
}

impl Connections {
    fn new(config: &Config) -> Self {
        Self {
            most: config.connections.get(),
            timeout: config.timeout,
            open: Mutex::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a new connection.
    fn enter(self: &Arc<Self>) -> ConnectionSlot {
        let mut open = self.open();
        open.events += 1;
        let id = open.events;
        let connection = Connection {
            last_event: id,
            closes: Instant::now() + self.timeout,
            task: None,
        };
        open.connections.insert(id, connection);
        ConnectionSlot {
            connections: Arc::clone(self),
            id,
        }
    }

    /// Makes it known which task a connection is. Closes the oldest one if there are too many now: a client that keeps
    /// connections busy with nothing must not keep out others. Tells whether it did.
    fn is_crowded_by(&self, id: u64, task: AbortHandle) -> bool {
        let mut open = self.open();
        if let Some(connection) = open.connections.get_mut(&id) {
            connection.task = Some(task);
        }
        let crowded = open.connections.len() > self.most;
        if crowded {
            open.close_oldest();
        }
        crowded
    }
}

impl Open {
    fn close_oldest(&mut self) {
        let each = self.connections.iter();
        let oldest = each.min_by_key(|(_, connection)| connection.last_event);
        let Some(id) = oldest.map(|(id, _)| *id) else {
            return;
        };
        let closed = self.connections.remove(&id);
        if let Some(task) = closed.and_then(|connection| connection.task) {
            task.abort();
        }
    }
}

/// One connection among the others, which goes when this is dropped.
struct ConnectionSlot {
    connections: Arc<Connections>,
    id: u64,
}

impl ConnectionSlot {
    /// A request has come: it is the youngest again.
    fn renew(&self) {
        let mut open = self.connections.open();
        open.events += 1;
        let now = open.events;
        if let Some(connection) = open.connections.get_mut(&self.id) {
            connection.last_event = now;
            connection.closes = Instant::now() + self.connections.timeout;
        }
    }

    /// When it closes, if nothing more is asked until then.
    fn deadline(&self) -> Option<Instant> {
        let open = self.connections.open();
        let connection = open.connections.get(&self.id)?;
        Some(connection.closes)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.connections.open().connections.remove(&self.id);
    }
}

/// Says the same at most once a minute.
#[derive(Default)]
struct Warnings(Option<Instant>);

impl Warnings {
    fn say(&mut self, say: impl FnOnce()) {
        let now = Instant::now();
        if self.0.is_none_or(|last| now - last >= WARN_EVERY) {
            self.0 = Some(now);
            say();
        }
    }
}
