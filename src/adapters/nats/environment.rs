//! The mark of an environment on a stream. Workers of another environment would take its messages, so they leave it alone.
//!
//! The mark is in the stream's metadata. nats-server 2.9 keeps none, and says nothing about it; so the mark is in the
//! description, too, unless somebody has written another one there.

use async_nats::jetstream::stream::Config as ServerStream;
use serde_json::{Value, json};
use tracing::{debug, info};

use super::commands;
use super::config::Provision;
use super::fault::Fault;
use super::names::{self, StreamName};
use super::stream_state::Described;
use super::topology::Topology;
use crate::model::{EnvId, Problem};

/// The key in a stream's metadata, and the beginning of its description.
const KEY: &str = "greentic-env";

/// Puts the mark on a stream that is going to be made.
pub(super) fn mark(stream: &mut ServerStream, env: &EnvId) {
    let metadata = &mut stream.metadata;
    metadata.insert(KEY.to_owned(), env.as_str().to_owned());
    stream.description = Some(description(env));
}

/// The mark as a description.
pub(super) fn description(env: &EnvId) -> String {
    format!("{KEY}: {env}")
}

/// The mark as metadata, in the form `key=value`.
pub(super) fn metadata(env: &EnvId) -> String {
    format!("{KEY}={env}")
}

/// The environment whose mark a stream carries.
fn marked_as(stream: &ServerStream) -> Option<&str> {
    let metadata = stream.metadata.get(KEY).map(String::as_str);
    metadata.or_else(|| {
        let description = stream.description.as_deref()?;
        description.strip_prefix(KEY)?.strip_prefix(": ")
    })
}

impl Topology {
    /// Fails if a stream carries another environment's mark.
    pub(super) fn check_mark(&self, stream: StreamName, found: &ServerStream) -> Result<(), Fault> {
        match marked_as(found) {
            Some(other) if other != self.env.as_str() => Err(Fault::OtherEnvironment {
                stream: self.link.names.stream(stream),
                found: other.to_owned(),
                own: self.env.to_string(),
                take_over: self.mark_command(stream),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Gives a stream without a mark the own one, where the worker makes streams. Returns the problem of a stream that stays
    /// without.
    pub(super) async fn mark_stream(
        &self,
        stream: StreamName,
        found: &ServerStream,
    ) -> Result<Option<Problem>, Fault> {
        if marked_as(found).is_some() {
            return Ok(None);
        }
        if self.config().provision == Provision::On {
            match self.write_mark(stream).await {
                Ok(true) => return Ok(None),
                Ok(false) => {}
                // Older rights of a worker do not include it.
                Err(fault @ (Fault::Denied { .. } | Fault::Refused { .. })) => {
                    debug!(%fault, "a stream was not marked");
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(self.unmarked(stream, found))
    }

    /// The problem of a stream that carries no mark.
    pub(super) fn unmarked(&self, stream: StreamName, found: &ServerStream) -> Option<Problem> {
        let name = self.link.names.stream(stream);
        let problem = Problem::warning(
            "it carries no mark of an environment, so workers of another one would take it for theirs",
        );
        let problem = problem.at(format!("stream {name}"));
        marked_as(found)
            .is_none()
            .then(|| problem.remedy(format!("mark it: {}", self.mark_command(stream))))
    }

    /// Returns whether the stream carries the own mark afterwards. All else of its configuration stays as the server has it,
    /// settings that this worker does not know included.
    async fn write_mark(&self, stream: StreamName) -> Result<bool, Fault> {
        let name = self.link.names.stream(stream);
        let method = format!("STREAM.INFO.{name}");
        let mut found: Described<Value> = self.link.api(&method, &json!({})).await?;
        let config = &mut found.config;
        config["metadata"][KEY] = self.env.as_str().into();
        let described = config["description"].as_str();
        if described.is_none_or(str::is_empty) {
            config["description"] = description(&self.env).into();
        }
        let method = format!("STREAM.UPDATE.{name}");
        let changed: Described<ServerStream> = self.link.api(&method, config).await?;
        self.check_mark(stream, &changed.config)?;
        let is_marked = marked_as(&changed.config).is_some();
        if is_marked {
            info!(stream = name, environment = %self.env, "marked the stream, which carried no mark of an environment");
        }
        Ok(is_marked)
    }

    /// The command that gives a stream the own mark, whatever mark it carries.
    fn mark_command(&self, stream: StreamName) -> String {
        let name = self.link.names.stream(stream);
        let has_metadata = self.link.live().client.is_server_compatible(2, 10, 0);
        commands::mark_stream(&name, &self.env, has_metadata)
    }
}

/// The problem of a stream that belongs to another environment.
pub(super) fn problem(stream: &str, found: &str, own: &str, take_over: &str) -> Problem {
    let such_as = match names::unfit_prefix(own) {
        None => format!(", such as `{own}`"),
        Some(_) => String::new(),
    };
    Problem::error(format!(
        "it belongs to environment `{found}`, and this worker's is `{own}` (setting `environment`): each would take the \
         other's messages"
    ))
    .at(format!("stream {stream}"))
    .remedy(format!(
        "give this environment streams of its own by another `nats.prefix`{such_as}; or, once no worker of `{found}` runs any \
         more, take the stream over: {take_over}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(id: &str) -> EnvId {
        EnvId::new(id).unwrap()
    }

    #[test]
    fn a_mark_is_read_from_metadata_and_else_from_the_description() {
        let mut stream = ServerStream::default();
        assert_eq!(marked_as(&stream), None);
        mark(&mut stream, &env("prod"));
        assert_eq!(marked_as(&stream), Some("prod"));
        stream.metadata.clear();
        assert_eq!(
            marked_as(&stream),
            Some("prod"),
            "as nats-server 2.9 has it"
        );
        stream.metadata.insert(KEY.to_owned(), "staging".to_owned());
        assert_eq!(marked_as(&stream), Some("staging"), "metadata wins");
        stream.metadata.clear();
        for other in [
            "",
            "ours",
            "greentic-env",
            "greentic-environment: x",
            "a greentic-env: x",
        ] {
            stream.description = Some(other.to_owned());
            assert_eq!(marked_as(&stream), None, "{other}");
        }
    }

    #[test]
    fn a_prefix_is_proposed_where_the_environment_can_be_one() {
        let said = |own: &str| problem("S", "prod", own, "command").to_string();
        assert!(said("staging").contains("`nats.prefix`, such as `staging`"));
        assert!(
            said("a..b").contains("`nats.prefix`; or"),
            "{}",
            said("a..b")
        );
    }
}
