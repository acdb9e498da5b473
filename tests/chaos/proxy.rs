//! A TCP proxy that can be told to misbehave, between one worker and one server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// What the proxy does with connections and their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Hands everything on.
    Pass,
    /// Closes every connection, and each new one at once.
    Refuse,
    /// Hands everything on, this much later.
    Delay(Duration),
    /// Takes everything and hands nothing on until the fault is over; then all of it.
    Stall,
    /// Half-open: accepts and takes everything, and loses it. Connections that lost bytes are closed when the fault is over.
    Swallow,
    /// Hands requests on and loses the answers: all is done and nobody knows.
    SwallowAnswers,
}

/// The proxy. Dropped, it closes everything.
pub struct Proxy {
    address: SocketAddr,
    /// Where new connections lead.
    port: Arc<AtomicU16>,
    mode: watch::Sender<Mode>,
    /// Counted up to close all connections.
    cuts: watch::Sender<u64>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Copy)]
enum Direction {
    Requests,
    Answers,
}

/// How one direction of a connection learns what it should do.
struct Orders {
    mode: watch::Receiver<Mode>,
    cuts: watch::Receiver<u64>,
    direction: Direction,
}

impl Proxy {
    /// Listens on a free port of the loopback address and hands on to this port there.
    pub async fn to(port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (mode, cuts) = (watch::Sender::new(Mode::Pass), watch::Sender::new(0));
        let port = Arc::new(AtomicU16::new(port));
        let leading = Arc::clone(&port);
        let accepting = tokio::spawn(accept(listener, leading, mode.clone(), cuts.clone()));
        Ok(Self {
            address,
            port,
            mode,
            cuts,
            accepting,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections to this port from now on, as a name does that has got another address. Those that are open
    /// stay with the server that they have.
    pub fn lead_to(&self, port: u16) {
        self.port.store(port, Ordering::SeqCst);
    }

    /// Closes all connections, whatever is under way on them.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Misbehaves from now on. What was lost cannot be made good, so leaving such a mode closes the connections.
    pub fn set(&self, mode: Mode) {
        let before = self.mode.send_replace(mode);
        let loses = |mode| matches!(mode, Mode::Swallow | Mode::SwallowAnswers);
        if mode == Mode::Refuse || loses(before) {
            self.cut();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(
    listener: TcpListener,
    port: Arc<AtomicU16>,
    mode: watch::Sender<Mode>,
    cuts: watch::Sender<u64>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Out of file descriptors, say: others are closed meanwhile.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        if *mode.borrow() == Mode::Refuse {
            continue;
        }
        let orders = |direction| {
            let (mode, mut cuts) = (mode.subscribe(), cuts.subscribe());
            cuts.mark_unchanged();
            Orders {
                mode,
                cuts,
                direction,
            }
        };
        let (up, down) = (orders(Direction::Requests), orders(Direction::Answers));
        let port = port.load(Ordering::SeqCst);
        tokio::spawn(async move {
            // The server being away closes the client's connection, as a forwarding router does.
            let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
                return;
            };
            let _both = (client.set_nodelay(true), server.set_nodelay(true));
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            // Whichever ends first ends both.
            tokio::select! {
                () = up.carry(from_client, to_server) => {}
                () = down.carry(from_server, to_client) => {}
            }
        });
    }
}

impl Orders {
    /// Carries one direction's bytes until either side closes or all are cut off.
    async fn carry(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => read,
                _ = self.cuts.changed() => return,
            };
            let Ok(len @ 1..) = read else { return };
            let handed_on = tokio::select! {
                handed_on = hand_on(&mut self.mode, self.direction, &buffer[..len], &mut to) => handed_on,
                _ = self.cuts.changed() => return,
            };
            if handed_on.is_err() {
                return;
            }
        }
    }
}

async fn hand_on(
    mode: &mut watch::Receiver<Mode>,
    direction: Direction,
    bytes: &[u8],
    to: &mut OwnedWriteHalf,
) -> std::io::Result<()> {
    loop {
        let now = *mode.borrow_and_update();
        match (now, direction) {
            (Mode::Pass | Mode::Refuse, _) | (Mode::SwallowAnswers, Direction::Requests) => {}
            (Mode::Delay(time), _) => sleep(time).await,
            (Mode::Swallow, _) | (Mode::SwallowAnswers, Direction::Answers) => return Ok(()),
            (Mode::Stall, _) => {
                // The sender lives as long as the connections do.
                let _changed = mode.changed().await;
                continue;
            }
        }
        return to.write_all(bytes).await;
    }
}
