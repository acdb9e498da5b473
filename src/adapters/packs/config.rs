//! The settings under `packs` that say how other machines are reached.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::{Problem, Problems, Secret};

/// How archives are fetched from other machines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// A PEM file of authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// What single hosts and registries need.
    pub hosts: BTreeMap<String, Host>,
    /// Amazon S3, or what speaks its protocol.
    pub s3: S3,
    /// Google Cloud Storage.
    pub gs: Gs,
    /// Azure Blob Storage.
    pub az: Az,
}

/// What one web host or OCI registry needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// The user, where it asks for user and password.
    pub username: Option<String>,
    /// That user's password.
    pub password: Option<Secret>,
    /// The bearer token, where it asks for one.
    pub token: Option<Secret>,
    /// Whether it may be reached without TLS.
    pub plain_http: bool,
}

/// Access to Amazon S3, or to what speaks its protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3 {
    /// The server in place of Amazon's; buckets are then the first part of the path.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The access key's id.
    pub access_key_id: Option<String>,
    /// The access key itself.
    pub secret_access_key: Option<Secret>,
    /// The token of a temporary access key.
    pub session_token: Option<Secret>,
    /// Whether requests go out unsigned, as public buckets take them.
    pub anonymous: bool,
}

/// Access to Google Cloud Storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gs {
    /// The server in place of Google's.
    pub endpoint: Option<String>,
    /// The file with the service account's key.
    pub service_account_file: Option<PathBuf>,
    /// Whether requests go out unsigned, as public buckets take them.
    pub anonymous: bool,
}

/// Access to Azure Blob Storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Az {
    /// The server in place of Azure's.
    pub endpoint: Option<String>,
    /// The storage account.
    pub account: Option<String>,
    /// That account's key.
    pub access_key: Option<Secret>,
    /// Whether requests go out unsigned, as public containers take them.
    pub anonymous: bool,
}

impl Access {
    /// What is wrong with these settings, as far as can be told without a network.
    pub fn problems(&self) -> Problems {
        let mut problems = Problems::default();
        if let Some(file) = &self.ca_file
            && let Err(error) = std::fs::read(file)
        {
            problems.push(
                Problem::error(format!("the file cannot be read: {error}"))
                    .in_file(file)
                    .at("packs.ca_file")
                    .remedy("name a PEM file that the worker may read"),
            );
        }
        for (name, host) in &self.hosts {
            let basic = host.username.is_some() || host.password.is_some();
            let place = format!("packs.hosts.{name}");
            if basic && host.token.is_some() {
                problems.push(
                    Problem::error("there are both a token and a user")
                        .at(place)
                        .remedy("keep the one that the host asks for"),
                );
            } else if basic && (host.username.is_none() || host.password.is_none()) {
                problems.push(
                    Problem::error("a user needs a password, and a password a user")
                        .at(place)
                        .remedy("set both `username` and `password`"),
                );
            }
        }
        if self.s3.access_key_id.is_some() != self.s3.secret_access_key.is_some() {
            problems.push(
                Problem::error("one half of the access key is missing")
                    .at("packs.s3")
                    .remedy("set both `access_key_id` and `secret_access_key`, or neither"),
            );
        }
        problems
    }

    /// What is set for a host, with or without a port.
    pub(super) fn host(&self, host: &str) -> Option<&Host> {
        self.hosts.get(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(host: &str, expected: &[&str]) {
        let access = Access {
            hosts: serde_yaml::from_str(&format!("packs.example: {host}")).unwrap(),
            ..Access::default()
        };
        let problems = access.problems();
        let found: Vec<_> = problems.iter().map(|p| p.message.as_str()).collect();
        assert_eq!(found, expected, "{host}");
    }

    #[test]
    fn credentials_come_whole_and_one_kind_at_a_time() {
        check("{plain_http: true}", &[]);
        check("{token: t}", &[]);
        check("{username: u, password: p}", &[]);
        let half = "a user needs a password, and a password a user";
        check("{username: u}", &[half]);
        check("{password: p}", &[half]);
        let both = "there are both a token and a user";
        check("{username: u, password: p, token: t}", &[both]);
    }

    #[test]
    fn no_print_shows_a_secret() {
        let host: Host = serde_yaml::from_str("{username: u, password: hush}").unwrap();
        let s3: S3 = serde_yaml::from_str("{access_key_id: a, secret_access_key: hush}").unwrap();
        let az: Az = serde_yaml::from_str("{account: a, access_key: hush}").unwrap();
        for shown in [format!("{host:?}"), format!("{s3:?}"), format!("{az:?}")] {
            assert!(!shown.contains("hush"), "{shown}");
        }
    }
}
