//! `check --connect`: what a start would meet on its servers.

use std::time::{Duration, Instant};

use crate::adapters::nats::{Nats, Search, Survey, Unserved};
use crate::adapters::redis::RedisStore;
use crate::cli::{Failure, say, warn};
use crate::model::{Problem, Problems, Severity, TenantId};
use crate::registry::Registry;
use crate::settings::Settings;

/// The most subjects without a consumer that are listed.
const LISTED: usize = 20;
/// The longest time that the connection may take to close.
const CLOSE: Duration = Duration::from_secs(1);

/// The findings of one server: lines for the standard output, and problems.
#[derive(Default)]
struct Report {
    lines: Vec<String>,
    problems: Problems,
    /// The reason why it cannot be used at all.
    away: Option<String>,
}

pub fn run(settings: &Settings, registry: &Registry) -> Result<(), Failure> {
    let tenants: Vec<TenantId> = registry.tenants().into_iter().cloned().collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let reports = runtime.block_on(async {
        let (nats, redis) = tokio::join!(nats(settings, &tenants), redis(settings, &tenants));
        [nats, redis]
    });
    say("")?;
    for line in reports.iter().flat_map(|report| &report.lines) {
        say(line)?;
    }
    let (mut errors, mut away) = (Problems::default(), Vec::new());
    for report in reports {
        away.extend(report.away);
        for problem in report.problems {
            match problem.severity {
                Severity::Warning => warn(problem)?,
                Severity::Error => errors.push(problem),
            }
        }
    }
    if away.is_empty() {
        return match errors.has_errors() {
            true => Err(errors.into()),
            false => Ok(()),
        };
    }
    for error in errors {
        warn(error)?;
    }
    Err(Failure::Unavailable(away.join("\nerror: ")))
}

async fn nats(settings: &Settings, tenants: &[TenantId]) -> Report {
    let mut report = Report::default();
    let began = Instant::now();
    let nats = match Nats::connect(&settings.nats, &settings.environment).await {
        Ok(nats) => nats,
        Err(error) => return report.away(&error),
    };
    let connected = millis(began.elapsed());
    let url = &settings.nats.url;
    let survey = match nats.survey(tenants).await {
        Ok(survey) => survey,
        Err(error) => return report.away(&error),
    };
    let answers = match survey.answers_in {
        Some(took) => format!("answers in {}", millis(took)),
        None => "without JetStream".to_owned(),
    };
    report.line(
        "nats",
        url,
        &format!(
            "NATS {}, connected in {connected}, {answers}",
            survey.version
        ),
    );
    report.streams(&survey);
    report.problems.extend(survey.problems);
    let windows = settings.validate_streams(&nats.windows());
    report.problems.extend(windows);
    match nats.unserved(&mut Search::default(), tenants).await {
        Ok(found) => report.unserved(&nats, &found),
        // The streams and rights have been told of.
        Err(error) => report.line("unserved", "unknown", &error.to_string()),
    }
    let _closed = nats.close(CLOSE).await;
    report
}

async fn redis(settings: &Settings, tenants: &[TenantId]) -> Report {
    let mut report = Report::default();
    let began = Instant::now();
    let store = match RedisStore::connect(&settings.redis).await {
        Ok(store) => store,
        Err(error) => return report.away(&error),
    };
    let connected = millis(began.elapsed());
    let (first, asked) = (store.probe().await, Instant::now());
    if let Err(error) = first.and(store.probe().await) {
        return report.away(&error);
    }
    let took = millis(asked.elapsed());
    let version = store.version().unwrap_or("version withheld");
    let url = settings.redis.url.to_string();
    report.line(
        "redis",
        &url,
        &format!("{version}, connected in {connected}, writes in {took}"),
    );
    let began = Instant::now();
    match store.prepare(&settings.environment, tenants).await {
        Ok(problems) if problems.is_empty() => {
            let (tenants, took) = (tenants.len(), millis(began.elapsed()));
            report.line(
                "scripts",
                &format!("of {tenants} tenants"),
                &format!("run in {took}"),
            );
        }
        Ok(problems) => report.problems.extend(problems),
        Err(error) => return report.away(&error),
    }
    let warnings = store.warnings().await.into_iter().map(Problem::warning);
    report.problems.extend(warnings);
    report
}

impl Report {
    fn line(&mut self, what: &str, which: &str, is: &str) {
        self.lines.push(format!("{what:<9} {which:<28} {is}"));
    }

    fn away(mut self, error: &dyn std::error::Error) -> Self {
        self.away = Some(error.to_string());
        self
    }

    fn streams(&mut self, survey: &Survey) {
        const MISSING: &str = "missing; a start makes it, if `nats.provision` is on";
        for stream in &survey.streams {
            let holds = stream
                .holds
                .map_or(MISSING.to_owned(), |(messages, bytes)| {
                    format!("{messages} messages, {bytes} bytes")
                });
            self.line("stream", &stream.name, &holds);
        }
        for consumer in &survey.consumers {
            let has = consumer
                .has
                .map_or(MISSING.to_owned(), |(waiting, unacknowledged)| {
                    format!("{waiting} waiting, {unacknowledged} unacknowledged")
                });
            self.line("consumer", &consumer.name, &has);
        }
    }

    fn unserved(&mut self, nats: &Nats, found: &[Unserved]) {
        for Unserved {
            subject, messages, ..
        } in found.iter().take(LISTED)
        {
            self.line(
                "unserved",
                subject,
                &format!("{messages} messages that no consumer takes"),
            );
        }
        let Some(first) = found.first() else { return };
        let rest = found.len().saturating_sub(LISTED);
        if rest > 0 {
            self.line("unserved", &format!("{rest} more subjects"), "");
        }
        self.problems.push(
            Problem::warning(format!(
                "nobody serves the tenants of {} subjects of the inbound stream",
                found.len()
            ))
            .remedy(format!(
                "correct the providers' subjects, bind packs for the tenants, or remove the messages with `{}`",
                nats.purge_command(&first.subject)
            )),
        );
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}
