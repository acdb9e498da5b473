//! Which environment variables a pack sees: those that its gtbind lists and the operator's policy allows.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::{Problem, Problems};

use super::PackBinding;

/// The prefix of the worker's own settings, connection strings and passwords among them. No pack ever sees them.
const OWN_PREFIX: &str = "GREENTIC_WORKER_";

/// The operator's policy for environment variables. A variable is granted to a pack if it matches `always`, or if the
/// pack's gtbind lists it and it matches `allow`. `deny` wins over both, and the worker's own settings
/// (`GREENTIC_WORKER_*`) are always denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnvPolicy {
    /// Granted to every pack, listed or not.
    pub always: Vec<EnvPattern>,
    /// What gtbinds may list.
    pub allow: Vec<EnvPattern>,
    /// What no pack may see.
    pub deny: Vec<EnvPattern>,
}

impl Default for EnvPolicy {
    /// Where traces go is no secret, and every pack that traces asks for it; its sister that holds headers often is one.
    fn default() -> Self {
        Self {
            always: Vec::new(),
            allow: vec![EnvPattern("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned())],
            deny: Vec::new(),
        }
    }
}

/// The name of a variable, or the beginning of names followed by `*`; `*` alone matches every name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnvPattern(String);

/// A text that is no pattern for variables.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no pattern for environment variables: expected a name, or its beginning followed by `*`"
)]
pub struct InvalidPattern(String);

/// Why a variable is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// It is a setting of the worker itself.
    Own,
    /// It matches this pattern of `env.deny`.
    Denied(EnvPattern),
    /// Nothing in `env.allow` or `env.always` matches it.
    NotAllowed,
}

impl EnvPattern {
    /// Whether it matches this name.
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == self.0,
        }
    }
}

impl FromStr for EnvPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let beginning = text.strip_suffix('*');
        let valid = match beginning {
            Some(beginning) => beginning.is_empty() || is_variable_name(beginning),
            None => is_variable_name(text),
        };
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidPattern(text.to_owned()))
        }
    }
}

impl TryFrom<String> for EnvPattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<EnvPattern> for String {
    fn from(pattern: EnvPattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for EnvPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl EnvPolicy {
    /// Whether a gtbind may list this variable.
    pub fn check(&self, name: &str) -> Result<(), Denial> {
        self.not_denied(name)?;
        let admitted = self.allow.iter().chain(&self.always);
        if admitted.into_iter().any(|pattern| pattern.matches(name)) {
            Ok(())
        } else {
            Err(Denial::NotAllowed)
        }
    }

    fn not_denied(&self, name: &str) -> Result<(), Denial> {
        // Windows compares variables without regard to case; a secret must not slip through by its spelling.
        let own = name.get(..OWN_PREFIX.len());
        if own.is_some_and(|beginning| beginning.eq_ignore_ascii_case(OWN_PREFIX)) {
            return Err(Denial::Own);
        }
        match self.deny.iter().find(|pattern| pattern.matches(name)) {
            Some(pattern) => Err(Denial::Denied(pattern.clone())),
            None => Ok(()),
        }
    }

    fn grants_always(&self, name: &str) -> bool {
        self.not_denied(name).is_ok() && self.always.iter().any(|pattern| pattern.matches(name))
    }
}

/// The variables that every pack sees, with their values from this environment.
pub fn granted_always(
    policy: &EnvPolicy,
    environment: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let granted = environment
        .iter()
        .filter(|(name, _)| policy.grants_always(name));
    granted
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The variables that a pack sees, with their values from this environment. A variable that is listed and denied is an
/// error; one that is granted but not set is a warning.
pub fn grant(
    policy: &EnvPolicy,
    binding: &PackBinding,
    environment: &BTreeMap<String, String>,
) -> (BTreeMap<String, String>, Problems) {
    let mut problems = Problems::default();
    let mut granted = granted_always(policy, environment);
    for (name, origin) in &binding.env {
        if let Err(denial) = policy.check(name) {
            problems.push(origin.locate(denial.problem(name)));
            continue;
        }
        match environment.get(name) {
            Some(value) => {
                granted.insert(name.clone(), value.clone());
            }
            None => problems.push(
                origin.locate(
                    Problem::warning(format!("the variable `{name}` is granted but not set"))
                        .remedy("set it for the worker, or take it out of the gtbind"),
                ),
            ),
        }
    }
    (granted, problems)
}

impl Denial {
    fn problem(&self, name: &str) -> Problem {
        match self {
            Self::Own => Problem::error(format!(
                "the variable `{name}` is a setting of the worker itself, which no pack may see"
            ))
            .remedy("take it out of env_passthrough, and hand the value over under another name"),
            Self::Denied(pattern) => Problem::error(format!(
                "the variable `{name}` is denied by `{pattern}` in the setting env.deny"
            ))
            .remedy("take it out of env_passthrough, or change env.deny"),
            Self::NotAllowed => Problem::error(format!(
                "the variable `{name}` is not allowed: nothing in the settings env.allow or env.always matches it"
            ))
            .remedy(format!("add `{name}` to env.allow, or take it out of env_passthrough")),
        }
    }
}

/// Whether a text can name an environment variable.
pub(super) fn is_variable_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::bindings::{GtBind, merge};

    fn policy(always: &[&str], allow: &[&str], deny: &[&str]) -> EnvPolicy {
        let patterns = |texts: &[&str]| -> Vec<EnvPattern> {
            texts.iter().map(|t| t.parse().unwrap()).collect()
        };
        EnvPolicy {
            always: patterns(always),
            allow: patterns(allow),
            deny: patterns(deny),
        }
    }

    /// What a pack that lists these sees of A=1, AB=2, LANG=3 and the worker's own NATS URL.
    #[track_caller]
    fn check(policy: &EnvPolicy, listed: &str, granted: &[&str], problems: &[&str]) {
        let text = format!(
            "tenant: t\npack_id: {}\npack_ref: p\nflows: [{{id: main}}]\nenv_passthrough: [{listed}]\n",
            crate::model::PackId::of_archive(b"")
        );
        let gtbind = GtBind::parse(Path::new("x.gtbind"), &text).unwrap();
        let (bindings, _) = merge(vec![gtbind]);
        let set = [
            ("A", "1"),
            ("AB", "2"),
            ("LANG", "3"),
            ("GREENTIC_WORKER__NATS__URL", "secret"),
        ];
        let environment = set.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let (found, reported) = grant(policy, &bindings[0], &environment);
        assert_eq!(found.keys().collect::<Vec<_>>(), granted);
        let reported: Vec<String> = reported.iter().map(ToString::to_string).collect();
        assert_eq!(reported.len(), problems.len(), "{reported:?}");
        for (found, part) in reported.iter().zip(problems) {
            assert!(
                found.contains("x.gtbind: line 5, env_passthrough[0]: "),
                "{found}"
            );
            assert!(found.contains(part), "{found}");
        }
    }

    #[test]
    fn a_pack_sees_what_it_lists_and_the_policy_allows() {
        let open = policy(&[], &["*"], &[]);
        check(&open, "A", &["A"], &[]);
        check(&open, "", &[], &[]);
        check(&policy(&["LANG"], &["A*"], &[]), "AB", &["AB", "LANG"], &[]);
        check(&policy(&["LANG"], &[], &[]), "LANG", &["LANG"], &[]);
        check(&policy(&["L*"], &["*"], &["LANG"]), "A", &["A"], &[]);
    }

    #[test]
    fn what_is_denied_says_by_which_rule_and_what_is_unset_is_a_warning() {
        let open = policy(&[], &["*"], &[]);
        check(
            &open,
            "GREENTIC_WORKER__NATS__URL",
            &[],
            &["setting of the worker itself"],
        );
        check(
            &policy(&["*"], &[], &[]),
            "greentic_worker_x",
            &["A", "AB", "LANG"],
            &["the worker itself"],
        );
        check(
            &policy(&[], &["*"], &["A*"]),
            "AB",
            &[],
            &["denied by `A*` in the setting env.deny"],
        );
        check(
            &policy(&[], &["AB"], &[]),
            "A",
            &[],
            &["nothing in the settings env.allow"],
        );
        check(&open, "NOT_SET", &[], &["warning: "]);
    }

    #[test]
    fn patterns_are_names_or_beginnings() {
        for wrong in ["", "A*B", "1A", "A-B", "**"] {
            assert!(wrong.parse::<EnvPattern>().is_err(), "{wrong} was taken");
        }
    }
}
