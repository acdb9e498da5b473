//! Which dead letters are meant.

use std::str::FromStr;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use humantime_serde::re::humantime::parse_duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::explained;
use crate::adapters::nats::dead_letters::{DeadLetter, DeadLetters as Stream, Range};
use crate::adapters::system::SystemClock;
use crate::cli::Failure;
use crate::model::{IdempotencyKey, Problem, Problems, TenantId, header};
use crate::ports::Clock;
use crate::worker::dead_letter::name;

/// What to look for; all of it must hold.
#[derive(Debug, Args)]
pub struct Filter {
    /// Of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantId>,
    /// With this error code; may be given several times
    #[arg(long = "code", value_name = "CODE")]
    codes: Vec<String>,
    /// Put aside at this time or later: RFC 3339 (2026-01-31T08:00:00Z), or how long ago (2h, 3d)
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// Put aside before this time: RFC 3339, or how long ago
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// With this idempotency key, as the provider wrote it or as logs and replies show it; may be given several times
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
}

/// Certain ones, or all that a filter lets through.
#[derive(Debug, Args)]
pub struct Selection {
    /// Positions in the stream, as `deadletters list` shows them
    #[arg(value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    sequences: Vec<u64>,
    #[command(flatten)]
    filter: Filter,
    /// All of them; needed where nothing else is said
    #[arg(long)]
    all: bool,
}

/// A time, or a distance from now into the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    At(OffsetDateTime),
    Ago(Duration),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(ago) = parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        OffsetDateTime::parse(text, &Rfc3339)
            .map(Self::At)
            .map_err(|_| {
                "expected a time like 2026-01-31T08:00:00Z or a duration like 2h".to_owned()
            })
    }
}

impl When {
    fn resolve(self, now: OffsetDateTime) -> OffsetDateTime {
        match self {
            Self::At(time) => time,
            // So long ago that no calendar has it is the beginning of all things.
            Self::Ago(ago) => time::Duration::try_from(ago)
                .ok()
                .and_then(|ago| now.checked_sub(ago))
                .unwrap_or(OffsetDateTime::UNIX_EPOCH),
        }
    }
}

/// A mistake in the command line that clap cannot see.
pub fn misuse(text: &str) -> Failure {
    let mut problems = Problems::default();
    problems.push(Problem::error(text));
    Failure::Problems(problems)
}

/// The dead letter at a position, which must be there.
pub async fn one(stream: &Stream, sequence: u64) -> Result<DeadLetter, Failure> {
    let found = stream.get(sequence).await;
    let found = found.map_err(|fault| explained(stream, fault))?;
    found.ok_or_else(|| {
        anyhow!("there is no dead letter {sequence}; `deadletters list` shows those that are there")
            .into()
    })
}

impl Filter {
    fn is_empty(&self) -> bool {
        let Self {
            tenant,
            codes,
            since,
            until,
            keys,
        } = self;
        tenant.is_none()
            && codes.is_empty()
            && since.is_none()
            && until.is_none()
            && keys.is_empty()
    }

    fn range(&self) -> Range {
        let now = SystemClock.now();
        Range {
            tenant: self.tenant.clone(),
            since: self.since.map(|when| when.resolve(now)),
            until: self.until.map(|when| when.resolve(now)),
        }
    }

    /// Those that match, in the order they were put aside, read as they are asked for.
    pub async fn letters<'a>(
        &'a self,
        stream: &'a Stream,
    ) -> Result<BoxStream<'a, Result<DeadLetter, Failure>>, Failure> {
        let letters = stream.read(self.range()).await;
        let letters = letters.map_err(|fault| explained(stream, fault))?;
        let matching = letters.filter_map(async move |letter| match letter {
            Ok(letter) => self.says_yes(&letter).then_some(Ok(letter)),
            Err(fault) => Some(Err(explained(stream, fault))),
        });
        Ok(matching.boxed())
    }

    fn says_yes(&self, letter: &DeadLetter) -> bool {
        let code = letter.headers.get(header::ERROR_CODE).unwrap_or_default();
        (self.codes.is_empty() || self.codes.iter().any(|wanted| wanted == code))
            && (self.keys.is_empty() || self.has_key(letter))
    }

    fn has_key(&self, letter: &DeadLetter) -> bool {
        let Some(name) = name(&letter.headers, &letter.body) else {
            return false;
        };
        let key = IdempotencyKey::new(&name);
        self.keys
            .iter()
            .any(|wanted| *wanted == name || wanted == key.as_str())
    }
}

impl Selection {
    /// Whether it says anything at all: nothing is no way to say everything.
    pub fn check(&self) -> Result<(), Failure> {
        if self.sequences.is_empty() && self.filter.is_empty() && !self.all {
            return Err(misuse(
                "say which dead letters: by number, by --tenant, --code, --since, --until or --key, or --all",
            ));
        }
        Ok(())
    }

    /// Those that are meant. A number that is not there is an error; one that the filter does not let through is left out.
    pub async fn letters<'a>(
        &'a self,
        stream: &'a Stream,
    ) -> Result<BoxStream<'a, Result<DeadLetter, Failure>>, Failure> {
        if self.sequences.is_empty() {
            return self.filter.letters(stream).await;
        }
        let range = self.filter.range();
        let in_range = move |letter: &DeadLetter| {
            range
                .tenant
                .as_ref()
                .is_none_or(|tenant| tenant.as_str() == letter.tenant)
                && range.since.is_none_or(|since| letter.stored >= since)
                && range.until.is_none_or(|until| letter.stored < until)
        };
        let named = stream::iter(&self.sequences).then(|sequence| one(stream, *sequence));
        let matching = named.filter(move |letter| {
            let keep = letter.as_ref().map_or(true, |letter| {
                in_range(letter) && self.filter.says_yes(letter)
            });
            std::future::ready(keep)
        });
        Ok(matching.boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_points_or_distances() {
        let now = time::macros::datetime!(2026-01-31 08:00 UTC);
        let hour_ago = time::macros::datetime!(2026-01-31 07:00 UTC);
        #[track_caller]
        fn check(text: &str, now: OffsetDateTime, expected: OffsetDateTime) {
            assert_eq!(text.parse::<When>().unwrap().resolve(now), expected);
        }
        check("1h", now, hour_ago);
        check("60 min", now, hour_ago);
        check("2026-01-31T07:00:00Z", now, hour_ago);
        check("2026-01-31T09:00:00+02:00", now, hour_ago);
        check("100000years", now, OffsetDateTime::UNIX_EPOCH);
        for wrong in ["", "yesterday", "2026-01-31", "-1h"] {
            assert!(wrong.parse::<When>().is_err(), "{wrong}");
        }
    }
}
