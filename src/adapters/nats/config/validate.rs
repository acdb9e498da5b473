//! What can be wrong with the settings of NATS before any server is asked.

use std::path::Path;
use std::time::Duration;

use async_nats::ServerAddr;
use humantime_serde::re::humantime::format_duration;

use super::{Config, StreamName, Tls};
use crate::adapters::nats::names;
use crate::model::{Problem, Problems};

impl Config {
    /// What is wrong with the settings themselves: no server is asked.
    pub fn validate(&self) -> Problems {
        let mut problems = Problems::default();
        self.validate_url(&mut problems);
        self.validate_authentication(&mut problems);
        self.validate_tls(&mut problems);
        self.validate_subjects(&mut problems);
        self.validate_prefix(&mut problems);
        self.validate_times(&mut problems);
        for stream in StreamName::ALL {
            self.validate_stream(stream, &mut problems);
        }
        problems
    }

    fn validate_url(&self, problems: &mut Problems) {
        if self.servers().next().is_none() {
            problems.push(
                Problem::error("no NATS server is given")
                    .at("nats.url")
                    .remedy("give one, such as `nats://127.0.0.1:4222`"),
            );
        }
        for url in self.servers() {
            problems.extend(server_problem(url).map(|problem| problem.at("nats.url")));
        }
    }

    fn validate_authentication(&self, problems: &mut Problems) {
        let ways: Vec<&str> = [
            ("user", self.user.is_some() || self.user_file.is_some()),
            ("token", self.token.is_some() || self.token_file.is_some()),
            ("creds_file", self.creds_file.is_some()),
            ("nkey_seed", self.nkey_seed.is_some()),
            ("nkey_seed_file", self.nkey_seed_file.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect();
        if ways.len() > 1 {
            problems.push(
                Problem::error(format!(
                    "more than one way to authenticate is given: {}",
                    ways.join(", ")
                ))
                .at("nats")
                .remedy("keep the one that the server asks for"),
            );
        }
        let user = self.user.is_some() || self.user_file.is_some();
        if user != (self.password.is_some() || self.password_file.is_some()) {
            problems.push(
                Problem::error("`user` and `password` go together, and only one is given")
                    .at("nats")
                    .remedy("give both, or `token` where the server asks for a token only"),
            );
        }
        for (key, given, file) in [
            ("user_file", self.user.is_some(), &self.user_file),
            (
                "password_file",
                self.password.is_some(),
                &self.password_file,
            ),
            ("token_file", self.token.is_some(), &self.token_file),
            ("creds_file", false, &self.creds_file),
            ("nkey_seed_file", false, &self.nkey_seed_file),
        ] {
            let place = format!("nats.{key}");
            if given && file.is_some() {
                problems.push(
                    Problem::error(format!(
                        "`{}` and `{key}` are both given",
                        key.trim_end_matches("_file")
                    ))
                    .at(&place)
                    .remedy("keep one of them"),
                );
            }
            missing_file(&place, file.as_deref(), problems);
        }
    }

    fn validate_subjects(&self, problems: &mut Problems) {
        for (place, value, dots) in [
            ("nats.inbox_prefix", &self.inbox_prefix, true),
            ("nats.jetstream.domain", &self.jetstream.domain, false),
            (
                "nats.jetstream.api_prefix",
                &self.jetstream.api_prefix,
                true,
            ),
        ] {
            let Some(value) = value else { continue };
            let fits = |token: &str| {
                let mut chars = token.chars();
                !token.is_empty() && chars.all(|c| c.is_ascii_graphic() && !"*>.".contains(c))
            };
            if !value.split('.').all(fits) || (!dots && value.contains('.')) {
                problems.push(
                    Problem::error(format!("`{}` cannot begin a subject", value.escape_debug()))
                        .at(place)
                        .remedy(
                            "use visible ASCII characters, no wildcards and no dot at either end",
                        ),
                );
            }
        }
        if self.jetstream.domain.is_some() && self.jetstream.api_prefix.is_some() {
            problems.push(
                Problem::error("`domain` and `api_prefix` are both given")
                    .at("nats.jetstream")
                    .remedy("keep one of them: a domain stands for the prefix `$JS.<domain>.API`"),
            );
        }
    }

    fn validate_prefix(&self, problems: &mut Problems) {
        let Some(prefix) = &self.prefix else { return };
        if let Some(why) = names::unfit_prefix(prefix) {
            problems.push(
                Problem::error(format!("`{}` cannot be a prefix: {why}", prefix.escape_debug()))
                    .at("nats.prefix")
                    .remedy(format!(
                        "use tokens of ASCII letters, digits, `_` and `-` with dots between them, such as `staging` or \
                         `acme.staging`, {} bytes at the most; leave it empty for names without a prefix",
                        names::MAX_PREFIX
                    )),
            );
        }
    }

    fn validate_tls(&self, problems: &mut Problems) {
        let Tls {
            ca_file,
            cert_file,
            key_file,
            ..
        } = &self.tls;
        if cert_file.is_some() != key_file.is_some() {
            problems.push(
                Problem::error("`cert_file` and `key_file` go together, and only one is given")
                    .at("nats.tls")
                    .remedy("give both, or none where the server does not verify its clients"),
            );
        }
        for (place, file) in [
            ("nats.tls.ca_file", ca_file),
            ("nats.tls.cert_file", cert_file),
            ("nats.tls.key_file", key_file),
        ] {
            missing_file(place, file.as_deref(), problems);
        }
    }

    fn validate_times(&self, problems: &mut Problems) {
        for (place, value, least) in [
            ("connect_timeout", self.connect_timeout, 1),
            ("request_timeout", self.request_timeout, 1),
            ("ping_interval", self.ping_interval, 1),
            ("reconnect_delay", self.reconnect_delay, 1),
            ("ack_wait", self.ack_wait, 1_000),
            ("duplicate_window", self.duplicate_window, 100),
        ] {
            let least = Duration::from_millis(least);
            if value < least {
                let (value, least) = (format_duration(value), format_duration(least));
                problems.push(
                    Problem::error(format!("{value} is too short"))
                        .at(format!("nats.{place}"))
                        .remedy(format!("{least} is the least")),
                );
            }
        }
    }

    fn validate_stream(&self, stream: StreamName, problems: &mut Problems) {
        let place = |key: &str| format!("nats.{}.{key}", stream.section());
        let config = self.stream(stream);
        if !(1..=5).contains(&config.replicas) {
            problems.push(
                Problem::error(format!("{} replicas are not possible", config.replicas))
                    .at(place("replicas"))
                    .remedy("1 to 5, and no more than the cluster has servers"),
            );
        }
        if config.max_bytes == Some(0) || config.max_bytes.is_some_and(|max| max > i64::MAX as u64)
        {
            problems.push(
                Problem::error("this is no size that a stream can have")
                    .at(place("max_bytes"))
                    .remedy("leave it out for a stream without a limit"),
            );
        }
        let window = self.window(stream);
        if config.max_age.is_some_and(|age| age < window) {
            problems.push(
                Problem::error(
                    "messages would be dropped before `nats.duplicate_window` is over, \
                     which the server refuses",
                )
                .at(place("max_age"))
                .remedy("make the age longer or the window shorter"),
            );
        }
    }
}

fn server_problem(url: &str) -> Option<Problem> {
    let Ok(server) = url.parse::<ServerAddr>() else {
        // The text is not repeated: it may hold a password.
        return Some(
            Problem::error("this is no NATS address")
                .remedy("write `nats://host:port`, or several separated by commas"),
        );
    };
    if server.has_user_pass() || server.password().is_some() {
        return Some(
            Problem::error("the address holds credentials, which would be printed with it")
                .remedy("put them in `nats.user` and `nats.password`, or in `nats.token`"),
        );
    }
    if !matches!(server.scheme(), "nats" | "tls") {
        return Some(
            Problem::error(format!("`{}` is not supported", server.scheme()))
                .remedy("use `nats://` or `tls://`"),
        );
    }
    server
        .host()
        .is_empty()
        .then(|| Problem::error("the address names no host").remedy("write `nats://host:port`"))
}

fn missing_file(place: &str, file: Option<&Path>, problems: &mut Problems) {
    if let Some(file) = file
        && let Err(error) = std::fs::File::open(file)
    {
        problems.push(
            Problem::error(format!("the file cannot be read: {error}"))
                .in_file(file)
                .at(place)
                .remedy("check the path, and that the worker's user may read the file"),
        );
    }
}
