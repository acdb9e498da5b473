//! `deadletters`: what no flow could take, to be looked at, published again or thrown away.

mod select;
mod show;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::{Args, Subcommand};
use futures_util::{StreamExt, pin_mut};

use self::select::{Filter, Selection};
use super::{Configured, Failure, say};
use crate::adapters::nats::Fault;
use crate::adapters::nats::dead_letters::{DeadLetter, DeadLetters as Stream};
use crate::adapters::nats::names::StreamName;
use crate::model::{Headers, TenantId, header, is_cut};
use crate::settings::Loaded;
use crate::turn::REPLY_UNDELIVERABLE;
use crate::worker::dead_letter::{replayed, replayed_reply};

/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// How long the end of the connection may take.
const CLOSING: Duration = Duration::from_secs(2);

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// List them, oldest first
    #[command(after_help = LIST_EXAMPLES)]
    List(List),
    /// Show some of them whole: reason, headers and body
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Show),
    /// Publish them to their tenants' inbound subjects again, and remove each once it is stored there
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(Replay),
    /// Throw them away, for ever
    #[command(after_help = DROP_EXAMPLES)]
    Drop(Discard),
}

const LIST_EXAMPLES: &str = "Examples:
  greentic-worker deadletters list
  greentic-worker deadletters list --tenant dev.local --code no_such_flow --since 2h
  greentic-worker deadletters list --since 2026-01-31T08:00:00Z --until 2026-01-31T09:30:00Z
  greentic-worker deadletters list --json | jq -r .code | sort | uniq -c

The codes are explained in docs/providers.md. With --json each dead letter is one line.";

const SHOW_EXAMPLES: &str = "Examples:
  greentic-worker deadletters show 17
  greentic-worker deadletters show 17 18 --json

The number is the dead letter's position in its stream, the first column of `deadletters list`.";

const REPLAY_EXAMPLES: &str = "Examples:
  greentic-worker deadletters replay 17
  greentic-worker deadletters replay --tenant dev.local --code no_such_flow --dry-run
  greentic-worker deadletters replay --code wait_pack_gone --since 1d
  greentic-worker deadletters replay --all

Mend the cause first: what fails again becomes a dead letter again. The body and the headers are the original ones; the \
idempotency key is kept and Nats-Msg-Id is new, so an activity that was applied after all, or a replay that was killed half \
way and is run again, changes nothing. (id_reused: the key belongs to another message, so this one gets its own, the same for all \
copies of it.) Oldest first, one after the other; the first failure ends it.";

const DROP_EXAMPLES: &str = "Examples:
  greentic-worker deadletters drop 17 --dry-run
  greentic-worker deadletters drop 17 --yes
  greentic-worker deadletters drop --code unreadable_body --until 30d --yes";

/// `deadletters list`
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    filter: Filter,
    /// Stop after so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print JSON, one dead letter a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

/// `deadletters show`
#[derive(Debug, Args)]
pub struct Show {
    /// Positions in the stream, as `deadletters list` shows them
    #[arg(required = true, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    sequences: Vec<u64>,
    /// Print JSON, one dead letter a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

/// `deadletters replay`
#[derive(Debug, Args)]
pub struct Replay {
    #[command(flatten)]
    selection: Selection,
    /// Say what would be published, and publish nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    configured: Configured,
}

/// `deadletters drop`
#[derive(Debug, Args)]
pub struct Discard {
    #[command(flatten)]
    selection: Selection,
    /// Yes, for ever
    #[arg(long)]
    yes: bool,
    /// Say what would be dropped, and drop nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    configured: Configured,
}

pub fn run(command: &DeadLetters) -> Result<(), Failure> {
    let (configured, checked) = match command {
        DeadLetters::List(list) => (&list.configured, Ok(())),
        DeadLetters::Show(show) => (&show.configured, Ok(())),
        DeadLetters::Replay(replay) => (&replay.configured, replay.selection.check()),
        DeadLetters::Drop(discard) => (&discard.configured, discard.check()),
    };
    let Some(loaded) = configured.load()? else {
        return Ok(());
    };
    checked?;
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio.block_on(async {
        let stream = connect(&loaded).await?;
        let done = match command {
            DeadLetters::List(list) => list.run(&stream).await,
            DeadLetters::Show(show) => show.run(&stream).await,
            DeadLetters::Replay(replay) => replay.run(&stream).await,
            DeadLetters::Drop(discard) => discard.run(&stream).await,
        };
        stream.close(CLOSING).await;
        done
    })
}

async fn connect(loaded: &Loaded) -> Result<Stream, Failure> {
    let mut config = loaded.settings.nats.clone();
    config.name = "greentic-deadletters".to_owned();
    let connected = Stream::connect(&config).await;
    connected.map_err(|error| Failure::Unavailable(error.to_string()))
}

/// A fault as the operator of the stream should hear it.
fn explained(stream: &Stream, fault: Fault) -> Failure {
    use async_nats::jetstream::ErrorCode;
    let text = match fault.code() {
        Some(ErrorCode::STREAM_NOT_FOUND) => {
            let name = stream.stream();
            format!(
                "there is no stream {name} on this server; a worker with `nats.provision: on` makes it, or see docs/nats.md; is \
                 `nats.prefix` that of the workers?"
            )
        }
        Some(ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT) => {
            "JetStream is off for this account, and dead letters are kept by JetStream only"
                .to_owned()
        }
        _ if matches!(fault, Fault::NoResponders { .. }) => {
            format!("{fault}; dead letters are kept by JetStream only")
        }
        _ => format!("{fault}; the permissions that are needed are in docs/dead-letters.md"),
    };
    Failure::Unavailable(text)
}

impl List {
    async fn run(&self, stream: &Stream) -> Result<(), Failure> {
        let letters = self.filter.letters(stream).await?;
        pin_mut!(letters);
        let limit = self.limit.unwrap_or(usize::MAX);
        let mut shown = 0;
        while shown < limit
            && let Some(letter) = letters.next().await
        {
            let letter = letter?;
            match (self.json, shown) {
                (true, _) => say(show::json(&letter, false))?,
                (false, 0) => {
                    say(show::HEADING)?;
                    say(show::row(&letter))?;
                }
                (false, _) => say(show::row(&letter))?,
            }
            shown += 1;
        }
        if shown == 0 && !self.json {
            writeln!(io::stderr(), "no dead letters match")?;
        }
        Ok(())
    }
}

impl Show {
    async fn run(&self, stream: &Stream) -> Result<(), Failure> {
        for (n, sequence) in self.sequences.iter().enumerate() {
            let letter = select::one(stream, *sequence).await?;
            if self.json {
                say(show::json(&letter, true))?;
            } else {
                if n > 0 {
                    say("")?;
                }
                say(show::whole(&letter).trim_end())?;
            }
        }
        Ok(())
    }
}

impl Replay {
    async fn run(&self, stream: &Stream) -> Result<(), Failure> {
        let letters = self.selection.letters(stream).await?;
        pin_mut!(letters);
        let mut count = Count::new("replayed");
        while let Some(letter) = letters.next().await {
            let letter = letter.and_then(|letter| Ok((tenant(&letter)?, letter)));
            let (tenant, letter) = letter.map_err(|failure| count.ended_by(failure))?;
            if is_cut(&letter.headers) {
                return Err(count.ended_by(cut_off(&letter)));
            }
            if self.dry_run {
                let key = show::name_in(&replay_headers(&letter), &letter.body);
                say(format!(
                    "would replay {} to {} as {key}",
                    letter.sequence,
                    stream.names().subject(home(&letter), &tenant)
                ))?;
            } else {
                let done = again(stream, &tenant, &letter).await;
                done.map_err(|fault| count.ended_by(explained(stream, fault)))?;
            }
            count.one_more()?;
        }
        count.end(self.dry_run)
    }
}

/// Publishes a dead letter again, and only when that is stored removes it. Killed in between, the next replay publishes it
/// once more under the same names, which changes nothing.
async fn again(stream: &Stream, tenant: &TenantId, letter: &DeadLetter) -> Result<(), Fault> {
    let to = (home(letter), tenant);
    let headers = replay_headers(letter);
    stream.publish(to, &headers, letter.body.clone()).await?;
    // If it is gone already, someone else has replayed or dropped it meanwhile.
    stream.remove(letter.sequence).await.map(drop)
}

fn replay_headers(letter: &DeadLetter) -> Headers {
    let (headers, sequence, stored) = (&letter.headers, letter.sequence, letter.stored);
    match home(letter) {
        StreamName::Outbound => replayed_reply(headers, sequence, stored),
        StreamName::Inbound | StreamName::DeadLetter => {
            replayed(headers, &letter.body, sequence, stored)
        }
    }
}

/// The stream that a dead letter was meant for: a reply that no stream took is no message for the worker.
fn home(letter: &DeadLetter) -> StreamName {
    match letter.headers.get(header::ERROR_CODE) {
        Some(REPLY_UNDELIVERABLE) => StreamName::Outbound,
        _ => StreamName::Inbound,
    }
}

/// Half a message would be another message.
fn cut_off(letter: &DeadLetter) -> Failure {
    let original = letter.headers.get(header::BODY_BYTES).unwrap_or("more");
    let (sequence, kept) = (letter.sequence, letter.body.len());
    anyhow!(
        "dead letter {sequence} holds {kept} of the {original} bytes of the message, which was too large to be kept whole, so it \
         cannot be replayed; have the provider send the message again, and leave this one out or drop it"
    )
    .into()
}

fn tenant(letter: &DeadLetter) -> Result<TenantId, Failure> {
    let sequence = letter.sequence;
    TenantId::new(letter.tenant.as_str()).map_err(|error| {
        anyhow!("dead letter {sequence} has a subject without a valid tenant: {error}; drop it")
            .into()
    })
}

impl Discard {
    fn check(&self) -> Result<(), Failure> {
        self.selection.check()?;
        if !self.yes && !self.dry_run {
            return Err(select::misuse(
                "dropped dead letters are gone for ever: look with --dry-run, then say --yes",
            ));
        }
        Ok(())
    }

    async fn run(&self, stream: &Stream) -> Result<(), Failure> {
        let letters = self.selection.letters(stream).await?;
        pin_mut!(letters);
        let mut count = Count::new("dropped");
        while let Some(letter) = letters.next().await {
            let letter = letter.map_err(|failure| count.ended_by(failure))?;
            if self.dry_run {
                say(format!("would drop {}", show::row(&letter)))?;
            } else {
                let removed = stream.remove(letter.sequence).await;
                removed.map_err(|fault| count.ended_by(explained(stream, fault)))?;
            }
            count.one_more()?;
        }
        count.end(self.dry_run)
    }
}

/// How many were dealt with, shown on a terminal as it goes on.
struct Count {
    done: &'static str,
    number: u64,
    shown: Instant,
    live: bool,
}

impl Count {
    fn new(done: &'static str) -> Self {
        Self {
            done,
            number: 0,
            shown: Instant::now(),
            live: io::stderr().is_terminal(),
        }
    }

    fn one_more(&mut self) -> io::Result<()> {
        self.number += 1;
        if self.live && self.shown.elapsed() >= PROGRESS_EVERY {
            self.shown = Instant::now();
            let mut stderr = io::stderr();
            write!(stderr, "\r{} {} …", self.done, self.number)?;
            stderr.flush()?;
        }
        Ok(())
    }

    fn clear(&self) -> &'static str {
        if self.live { "\r\x1b[K" } else { "" }
    }

    fn end(&self, dry_run: bool) -> Result<(), Failure> {
        let (clear, done, number) = (self.clear(), self.done, self.number);
        let nothing = if dry_run {
            ", had this not been a dry run"
        } else {
            ""
        };
        writeln!(io::stderr(), "{clear}{done} {number}{nothing}")?;
        Ok(())
    }

    /// A failure after some were dealt with says how many.
    fn ended_by(&self, failure: Failure) -> Failure {
        // A terminal that is gone must not hide the failure itself.
        let _told = writeln!(
            io::stderr(),
            "{}{} {} before the failure",
            self.clear(),
            self.done,
            self.number
        );
        failure
    }
}
