//! Every name on NATS that the worker uses: streams, subjects, consumers.

use sha2::{Digest, Sha256};

use crate::model::TenantId;
use crate::ports::Destination;

/// The queue group of core delivery: a message goes to one of its members.
pub const QUEUE_GROUP: &str = "greentic-worker";

/// The longest consumer name made of a tenant as it is. nats-server takes 255 bytes at the most.
const MAX_CONSUMER_NAME: usize = 200;

/// One of the three streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamName {
    /// What providers publish and workers consume.
    Inbound,
    /// Replies.
    Outbound,
    /// What no flow could take, with the reason.
    DeadLetter,
}

impl StreamName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Inbound, Self::Outbound, Self::DeadLetter];

    /// The stream's name on the server.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "GREENTIC_INBOUND",
            Self::Outbound => "GREENTIC_OUTBOUND",
            Self::DeadLetter => "GREENTIC_DEADLETTER",
        }
    }

    /// Its section in the settings.
    pub fn section(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::DeadLetter => "deadletter",
        }
    }

    /// The subjects that it stores.
    pub fn subjects(self) -> String {
        format!("{}.>", self.section())
    }

    /// The subject of one tenant in it.
    pub fn subject(self, tenant: &TenantId) -> String {
        [self.section(), ".", tenant.as_str()].concat()
    }
}

impl From<Destination<'_>> for StreamName {
    fn from(destination: Destination<'_>) -> Self {
        match destination {
            Destination::Outbound(_) => Self::Outbound,
            Destination::DeadLetter(_) => Self::DeadLetter,
        }
    }
}

/// The subject that a message is published to.
pub fn destination_subject(destination: Destination<'_>) -> String {
    let (Destination::Outbound(tenant) | Destination::DeadLetter(tenant)) = destination;
    StreamName::from(destination).subject(tenant)
}

/// Whether a tenant can be part of a subject: NATS knows no empty token.
pub fn fits_a_subject(tenant: &TenantId) -> bool {
    tenant.as_str().split('.').all(|token| !token.is_empty())
}

/// The durable consumer of a tenant. Consumer names take no dots and tenants no equals signs, so the one stands for the
/// other. A very long tenant is named by its digest, after an equals sign that no other tenant can begin with.
pub fn consumer_name(tenant: &TenantId) -> String {
    let name = format!("worker-{}", tenant.as_str().replace('.', "="));
    if name.len() <= MAX_CONSUMER_NAME {
        return name;
    }
    let digest = hex::encode(Sha256::digest(tenant.as_str().as_bytes()));
    format!("worker-={digest}")
}

/// The request for messages of a tenant, under the prefix of JetStream's API.
pub fn next_method(tenant: &TenantId) -> String {
    let (stream, name) = (StreamName::Inbound.as_str(), consumer_name(tenant));
    format!("CONSUMER.MSG.NEXT.{stream}.{name}")
}

/// Whether each subject that `inner` stands for is one that `outer` stands for, by NATS' wildcards `*` and `>`.
pub fn covers(outer: &str, inner: &str) -> bool {
    let mut inner = inner.split('.');
    for token in outer.split('.') {
        match (token, inner.next()) {
            (_, None) | ("*", Some(">")) => return false,
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (token, Some(other)) if token != other => return false,
            _ => {}
        }
    }
    inner.next().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant(text: &str) -> TenantId {
        TenantId::new(text).unwrap()
    }

    #[test]
    fn names_are_those_of_the_contract() {
        let dev = tenant("dev.local");
        assert_eq!(StreamName::Inbound.subject(&dev), "inbound.dev.local");
        assert_eq!(
            destination_subject(Destination::DeadLetter(&dev)),
            "deadletter.dev.local"
        );
        assert_eq!(consumer_name(&dev), "worker-dev=local");
    }

    #[test]
    fn a_subject_has_no_empty_token() {
        for (text, fits) in [("a", true), ("a.b", true), ("a..b", false), (".a", false)] {
            assert_eq!(fits_a_subject(&tenant(text)), fits, "{text}");
        }
    }

    #[test]
    fn wildcards_cover_what_nats_says_they_do() {
        #[track_caller]
        fn check(outer: &str, inner: &str, expected: bool) {
            assert_eq!(covers(outer, inner), expected, "{outer} over {inner}");
        }
        check("inbound.>", "inbound.>", true);
        check(">", "inbound.>", true);
        check("inbound.>", "inbound.a.b", true);
        check("inbound.>", "inbound", false);
        check("inbound.*", "inbound.a", true);
        check("inbound.*", "inbound.a.b", false);
        check("inbound.*", "inbound.>", false);
        check("inbound.a", "inbound.b", false);
        check("inbound.a", "inbound.>", false);
        check("inbound.a.b", "inbound.a", false);
    }

    const TENANT: &str =
        r"[a-zA-Z0-9_-]{1,3}(\.[a-zA-Z0-9_-]{1,3}){0,3}|[ab]{90,130}\.[ab]{90,130}";

    proptest! {
        #[test]
        fn two_tenants_never_share_a_consumer(a in TENANT, b in TENANT) {
            let (name_a, name_b) = (consumer_name(&tenant(&a)), consumer_name(&tenant(&b)));
            prop_assert_eq!(a == b, name_a == name_b);
            prop_assert!(name_a.len() <= MAX_CONSUMER_NAME);
            prop_assert!(!name_a.contains(['.', '*', '>', '/', '\\', ' ']));
        }

        #[test]
        fn tenants_that_differ_in_one_character_differ_in_name(
            start in "[a-z0-9]{1,5}", a in "[._-]", b in "[._-]", end in "[a-z0-9]{1,5}",
        ) {
            let name = |middle: &str| consumer_name(&tenant(&format!("{start}{middle}{end}")));
            prop_assert_eq!(a == b, name(&a) == name(&b));
        }
    }
}
