//! Every name on NATS that the worker uses: streams, subjects, consumers. They are built here and read back here, and
//! nowhere else.

use sha2::{Digest, Sha256};

use crate::model::TenantId;
use crate::ports::Destination;

/// The queue group of core delivery: a message goes to one of its members.
const QUEUE_GROUP: &str = "greentic-worker";

/// The longest consumer name made of a tenant as it is. nats-server takes 255 bytes at the most.
const MAX_CONSUMER_NAME: usize = 200;

/// The longest prefix. With it and a digest a consumer's name is shorter than [`MAX_CONSUMER_NAME`].
pub(super) const MAX_PREFIX: usize = 64;

/// One of the three streams, whatever its name on the server is.
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

    /// Its name on the server, without a prefix.
    fn plain_name(self) -> &'static str {
        match self {
            Self::Inbound => "GREENTIC_INBOUND",
            Self::Outbound => "GREENTIC_OUTBOUND",
            Self::DeadLetter => "GREENTIC_DEADLETTER",
        }
    }

    /// Its section in the settings, and the word before the tenant in its subjects.
    pub fn section(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::DeadLetter => "deadletter",
        }
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

/// The names of one environment. All subjects begin with the prefix and a dot, all other names with the prefix and an
/// underscore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Empty, or the prefix and a dot.
    of_subjects: String,
    /// Empty, or the prefix and an underscore. Names of streams and consumers take no dots and prefixes no equals signs, so
    /// the one stands for the other.
    of_names: String,
}

impl Names {
    /// The names with this prefix, which must be one that a subject can begin with.
    pub fn new(prefix: Option<&str>) -> Self {
        match prefix {
            None => Self::default(),
            Some(prefix) => Self {
                of_subjects: format!("{prefix}."),
                of_names: format!("{}_", prefix.replace('.', "=")),
            },
        }
    }

    /// The name of a stream.
    pub fn stream(&self, stream: StreamName) -> String {
        [&self.of_names, stream.plain_name()].concat()
    }

    /// The subjects that a stream stores.
    pub fn subjects(&self, stream: StreamName) -> String {
        [&self.of_subjects, stream.section(), ".>"].concat()
    }

    /// The subject of one tenant in a stream.
    pub fn subject(&self, stream: StreamName, tenant: &TenantId) -> String {
        [&self.of_subjects, stream.section(), ".", tenant.as_str()].concat()
    }

    /// The subject that a message is published to.
    pub fn destination_subject(&self, destination: Destination<'_>) -> String {
        let (Destination::Outbound(tenant) | Destination::DeadLetter(tenant)) = destination;
        self.subject(destination.into(), tenant)
    }

    /// The tenant's part of a subject of a stream; none if it is another stream's.
    pub fn tenant_part<'a>(&self, stream: StreamName, subject: &'a str) -> Option<&'a str> {
        let rest = subject.strip_prefix(&self.of_subjects)?;
        rest.strip_prefix(stream.section())?.strip_prefix('.')
    }

    /// The queue group of core delivery.
    pub fn queue_group(&self) -> String {
        [&self.of_names, QUEUE_GROUP].concat()
    }

    /// The durable consumer of a tenant. Consumer names take no dots and tenants no equals signs, so the one stands for the
    /// other. A very long tenant is named by its digest, after an equals sign that no other tenant can begin with.
    pub fn consumer(&self, tenant: &TenantId) -> String {
        let of_names = &self.of_names;
        let name = format!("{of_names}worker-{}", tenant.as_str().replace('.', "="));
        if name.len() <= MAX_CONSUMER_NAME {
            return name;
        }
        let digest = hex::encode(Sha256::digest(tenant.as_str().as_bytes()));
        format!("{of_names}worker-={digest}")
    }

    /// The request for messages of a tenant, under the prefix of JetStream's API.
    pub fn next_method(&self, tenant: &TenantId) -> String {
        let (stream, name) = (self.stream(StreamName::Inbound), self.consumer(tenant));
        format!("CONSUMER.MSG.NEXT.{stream}.{name}")
    }
}

/// The reason why subjects and names cannot begin with this prefix. A token that is the word before the tenant would make one
/// environment's subjects look like another one's: with the prefix `inbound`, `inbound.inbound.acme` is also the subject of the
/// tenant `inbound.acme` where there is no prefix.
pub(super) fn unfit_prefix(prefix: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let is_word = |token: &str| StreamName::ALL.iter().any(|s| s.section() == token);
    if prefix.len() > MAX_PREFIX {
        return Some(format!("it is longer than {MAX_PREFIX} bytes"));
    }
    if let Some(other) = prefix.chars().find(|c| *c != '.' && !fits(*c)) {
        return Some(format!("it holds `{}`", other.escape_debug()));
    }
    if prefix.split('.').any(str::is_empty) {
        return Some("it has nothing before, between or after dots".to_owned());
    }
    if !prefix.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Some("subjects of NATS itself begin with such a character".to_owned());
    }
    let word = prefix.split('.').find(|token| is_word(token))?;
    Some(format!(
        "`{word}` is the word before the tenant in subjects"
    ))
}

/// Whether a tenant can be part of a subject: NATS knows no empty token.
pub fn fits_a_subject(tenant: &TenantId) -> bool {
    tenant.as_str().split('.').all(|token| !token.is_empty())
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

    #[track_caller]
    fn check(prefix: Option<&str>, text: &str, expected: [&str; 6]) {
        let (names, tenant) = (Names::new(prefix), tenant(text));
        let found = [
            names.stream(StreamName::Inbound),
            names.subjects(StreamName::Outbound),
            names.subject(StreamName::Inbound, &tenant),
            names.destination_subject(Destination::DeadLetter(&tenant)),
            names.consumer(&tenant),
            names.queue_group(),
        ];
        assert_eq!(found, expected);
        for stream in StreamName::ALL {
            let subject = names.subject(stream, &tenant);
            assert_eq!(names.tenant_part(stream, &subject), Some(text));
        }
    }

    #[test]
    fn names_are_those_of_the_contract() {
        check(
            None,
            "dev.local",
            [
                "GREENTIC_INBOUND",
                "outbound.>",
                "inbound.dev.local",
                "deadletter.dev.local",
                "worker-dev=local",
                "greentic-worker",
            ],
        );
        check(
            Some("acme.staging"),
            "dev.local",
            [
                "acme=staging_GREENTIC_INBOUND",
                "acme.staging.outbound.>",
                "acme.staging.inbound.dev.local",
                "acme.staging.deadletter.dev.local",
                "acme=staging_worker-dev=local",
                "acme=staging_greentic-worker",
            ],
        );
    }

    #[test]
    fn a_subject_of_another_environment_or_stream_has_no_tenant() {
        let names = Names::new(Some("a"));
        for subject in [
            "inbound.t",
            "b.inbound.t",
            "a.outbound.t",
            "a.inbound",
            "a.inbounds.t",
        ] {
            assert_eq!(
                names.tenant_part(StreamName::Inbound, subject),
                None,
                "{subject}"
            );
        }
        let subject = "a.inbound.t";
        assert_eq!(
            Names::default().tenant_part(StreamName::Inbound, subject),
            None
        );
    }

    #[test]
    fn what_no_subject_can_begin_with_is_no_prefix() {
        for fit in [
            "staging",
            "acme.staging",
            "a_b-c.1",
            &"x".repeat(MAX_PREFIX),
        ] {
            assert_eq!(unfit_prefix(fit), None, "{fit}");
        }
        let long = "x".repeat(MAX_PREFIX + 1);
        for (unfit, why) in [
            ("", "nothing"),
            ("a.", "nothing"),
            (".a", "nothing"),
            ("a..b", "nothing"),
            ("a b", "holds ` `"),
            ("a\nb", "holds `\\n`"),
            ("a.>", "holds `>`"),
            ("a*", "holds `*`"),
            ("$JS", "holds `$`"),
            ("a=b", "holds `=`"),
            ("größe", "holds `ö`"),
            ("_INBOX", "itself"),
            ("inbound", "`inbound`"),
            ("a.outbound", "`outbound`"),
            ("deadletter.b", "`deadletter`"),
            (&long, "longer"),
        ] {
            let said = unfit_prefix(unfit).unwrap_or_default();
            assert!(said.contains(why), "{unfit}: {said}");
        }
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

    const PREFIX: &str = r"[a-z_-]{1,2}(\.[a-z_-]{1,2}){0,2}";
    const TENANT: &str =
        r"[a-zA-Z0-9_-]{1,3}(\.[a-zA-Z0-9_-]{1,3}){0,3}|[ab]{90,130}\.[ab]{90,130}";

    proptest! {
        #[test]
        fn two_tenants_never_share_a_consumer(a in TENANT, b in TENANT) {
            let names = Names::default();
            let (name_a, name_b) = (names.consumer(&tenant(&a)), names.consumer(&tenant(&b)));
            prop_assert_eq!(a == b, name_a == name_b);
            prop_assert!(name_a.len() <= MAX_CONSUMER_NAME);
            prop_assert!(!name_a.contains(['.', '*', '>', '/', '\\', ' ']));
        }

        #[test]
        fn tenants_that_differ_in_one_character_differ_in_name(
            start in "[a-z0-9]{1,5}", a in "[._-]", b in "[._-]", end in "[a-z0-9]{1,5}",
        ) {
            let id = |middle: &str| tenant(&format!("{start}{middle}{end}"));
            let name = |middle: &str| Names::default().consumer(&id(middle));
            prop_assert_eq!(a == b, name(&a) == name(&b));
        }

        #[test]
        fn two_prefixes_share_no_name_and_no_subject(a in PREFIX, b in PREFIX, t in TENANT, u in TENANT) {
            prop_assume!(a != b);
            let (one, other) = (Names::new(Some(&a)), Names::new(Some(&b)));
            let none = Names::default();
            let (t, u) = (tenant(&t), tenant(&u));
            for stream in StreamName::ALL {
                for (one, other) in [(&one, &other), (&one, &none), (&none, &one)] {
                    prop_assert_ne!(one.stream(stream), other.stream(stream));
                    prop_assert_ne!(one.subject(stream, &t), other.subject(stream, &u));
                    let theirs = other.subject(stream, &u);
                    prop_assert_eq!(one.tenant_part(stream, &theirs), None);
                    prop_assert!(!covers(&one.subjects(stream), &other.subjects(stream)));
                }
            }
        }
    }
}
