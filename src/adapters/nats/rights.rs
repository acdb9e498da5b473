//! The rights of the account's user to publish, found out before a message is taken.
//!
//! From 2.10 on a server tells a user's permissions. Else each subject is tried out: a message whose reply subject is one of
//! the server's own goes nowhere, and the server says whether its subject or only its reply was wrong.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::timeout;

use super::fault::Fault;
use super::link::{Link, refused};
use super::names::{self, Names, StreamName};
use crate::model::{Problem, Severity, TenantId};

/// The beginning of the server's own reply subjects. No client may use them.
pub(super) const RESERVED: &str = "_R_.";

/// The streams that a worker publishes to.
const KINDS: [StreamName; 2] = [StreamName::Outbound, StreamName::DeadLetter];

/// The most subjects that are tried out before the server's answers are awaited.
const TRIED_AT_ONCE: usize = 32;

/// The most subjects that a problem lists.
const LISTED: usize = 5;

/// The longest wait for an answer. There is one to each try from every server, so what is late is a server that is away.
const ANSWER: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    data: UserData,
}

#[derive(Default, Deserialize)]
struct UserData {
    permissions: Option<Permissions>,
}

#[derive(Default, Deserialize)]
struct Permissions {
    #[serde(default)]
    publish: Permission,
}

/// Empty `allow` allows everything that `deny` does not name.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Permission {
    allow: Option<Vec<String>>,
    deny: Option<Vec<String>>,
}

impl Permission {
    fn covers(&self, subject: &str) -> bool {
        let any = |list: &Option<Vec<String>>| {
            let mut list = list.iter().flatten();
            list.any(|pattern| names::covers(pattern, subject))
        };
        let open = self.allow.as_ref().is_none_or(Vec::is_empty);
        (open || any(&self.allow)) && !any(&self.deny)
    }
}

/// The problems of a user that may not publish replies or dead letters of these tenants. What only some of them are refused
/// is those tenants' trouble, and no reason not to serve the others.
pub(super) async fn check(link: &Link, tenants: &[&TenantId]) -> Result<Vec<Problem>, Fault> {
    let names = &link.names;
    let subjects = |kind: StreamName| {
        tenants
            .iter()
            .map(move |tenant| names.subject(kind, tenant))
    };
    let each: Vec<String> = KINDS.into_iter().flat_map(subjects).collect();
    let denied: HashSet<String> = match permissions(link).await? {
        Some(publish) => each
            .into_iter()
            .filter(|subject| !publish.covers(subject))
            .collect(),
        None => tried_out(link, each).await?.into_iter().collect(),
    };
    let (mut all, mut some) = (Vec::new(), Vec::new());
    for kind in KINDS {
        let of_kind: Vec<String> = subjects(kind)
            .filter(|subject| denied.contains(subject))
            .collect();
        match of_kind.len() == tenants.len() {
            true => all.extend(of_kind),
            false => some.extend(of_kind),
        }
    }
    let problems = [(Severity::Error, all), (Severity::Warning, some)];
    let problems = problems
        .iter()
        .filter_map(|(severity, denied)| problem(names, *severity, denied));
    Ok(problems.collect())
}

fn problem(names: &Names, severity: Severity, denied: &[String]) -> Option<Problem> {
    if denied.is_empty() {
        return None;
    }
    let mut list = denied[..denied.len().min(LISTED)].join(", ");
    if let Some(more) = denied.len().checked_sub(LISTED).filter(|more| *more > 0) {
        list.push_str(&format!(" and {more} more"));
    }
    let [outbound, dead_letters] = KINDS.map(|kind| names.subjects(kind));
    let problem = Problem::error(format!("the NATS user may not publish to {list}")).remedy(format!(
        "give the user the permission to publish to `{outbound}` and `{dead_letters}`; docs/nats.md has all that a worker needs"
    ));
    Some(Problem {
        severity,
        ..problem
    })
}

/// Asks the server for the user's rights to publish; nothing where it does not say.
async fn permissions(link: &Link) -> Result<Option<Permission>, Fault> {
    let asked = link.request("$SYS.REQ.USER.INFO", None, Bytes::new());
    match timeout(ANSWER, asked).await {
        Ok(Ok(answer)) => {
            let user: Result<User, _> = serde_json::from_slice(&answer.payload);
            Ok(user
                .ok()
                .map(|user| user.data.permissions.unwrap_or_default().publish))
        }
        Ok(Err(fault @ (Fault::Lost | Fault::Closed))) => Err(fault),
        Ok(Err(fault)) if link.inbox_denied() => Err(fault),
        Ok(Err(_)) | Err(_) => Ok(None),
    }
}

/// The subjects that the server refuses. What it does not answer in time counts as allowed: then its first use tells.
async fn tried_out(link: &Link, subjects: Vec<String>) -> Result<Vec<String>, Fault> {
    let mut denied = Vec::new();
    for batch in subjects.chunks(TRIED_AT_ONCE) {
        let mut verdicts = Vec::new();
        for subject in batch {
            let reply = reserved();
            let (of_subject, of_reply) = (
                link.interrupted(subject.clone()),
                link.interrupted(reply.clone()),
            );
            let live = link.live();
            live.client
                .publish_with_reply(subject.clone(), reply, Bytes::new())
                .await
                .map_err(refused)?;
            verdicts.push(async move {
                tokio::select! {
                    fault = of_subject => Err(fault),
                    fault = of_reply => match matches!(fault, Fault::Denied { .. }) {
                        true => Ok(()),
                        false => Err(fault),
                    },
                }
            });
        }
        link.flush().await?;
        for (subject, verdict) in batch.iter().zip(verdicts) {
            match timeout(ANSWER, verdict).await {
                Ok(Err(Fault::Denied { .. })) => denied.push(subject.clone()),
                Ok(Err(fault)) => return Err(fault),
                Ok(Ok(())) | Err(_) => {}
            }
        }
    }
    Ok(denied)
}

/// A reply subject that no server takes from a client, each time another one.
fn reserved() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{RESERVED}greentic-worker.probe.{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_read_as_the_server_means_them() {
        #[track_caller]
        fn check(permissions: &str, subject: &str, allowed: bool) {
            let publish: Permission = serde_json::from_str(permissions).unwrap();
            assert_eq!(publish.covers(subject), allowed, "{permissions} {subject}");
        }
        check("{}", "outbound.a", true);
        check(r#"{"allow": []}"#, "outbound.a", true);
        check(r#"{"allow": ["outbound.>"]}"#, "outbound.a.b", true);
        check(r#"{"allow": ["outbound.a"]}"#, "outbound.b", false);
        check(r#"{"deny": ["outbound.b"]}"#, "outbound.a", true);
        check(
            r#"{"allow": ["outbound.>"], "deny": ["outbound.b"]}"#,
            "outbound.b",
            false,
        );
    }

    #[test]
    fn a_long_list_is_cut() {
        let many: Vec<String> = (0..7).map(|n| format!("outbound.t{n}")).collect();
        let said = problem(&Names::default(), Severity::Error, &many)
            .unwrap()
            .to_string();
        assert!(said.contains("outbound.t4 and 2 more"), "{said}");
        assert_eq!(problem(&Names::default(), Severity::Error, &[]), None);
    }
}
