//! Which tenant a gtbind belongs to that cannot be used.
//!
//! A tenant must not run with half of its gtbinds: a message could start another flow than the one that is meant. So a file
//! that cannot be used concerns each tenant that it may belong to: the one that it states, and the one whose it was when
//! it could last be read (half of a file may state half of a name). Only where neither is known, its name tells:
//! `<tenant>.<pack>.gtbind`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::model::{Problems, TenantId};

use super::GtBind;
use super::gtbind::tenant;

/// A gtbind that cannot be used.
#[derive(Clone, Debug)]
pub struct UnusableGtbind {
    /// The file.
    pub file: PathBuf,
    /// The tenants that it may belong to; none if nothing tells.
    pub tenants: BTreeSet<TenantId>,
    /// What is wrong with it.
    pub problems: Problems,
}

/// The tenants of gtbinds by file, as the last load found them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners(BTreeMap<PathBuf, BTreeSet<TenantId>>);

/// A gtbind that cannot be used, before it is known whose it is.
pub(super) struct Unattributed {
    pub file: PathBuf,
    /// The tenant that it states.
    pub stated: Option<TenantId>,
    pub problems: Problems,
}

impl Owners {
    /// Says of each file whose it is, and remembers it for the next load.
    pub(super) fn attribute(
        &self,
        usable: &[GtBind],
        unusable: Vec<Unattributed>,
    ) -> (Vec<UnusableGtbind>, Self) {
        let mut now = Self::default();
        for gtbind in usable {
            let owner = BTreeSet::from([gtbind.tenant.clone()]);
            now.0.insert(gtbind.file.clone(), owner);
        }
        let stated = unusable.iter().filter_map(|file| file.stated.clone());
        let before = self.0.values().flatten().cloned();
        let known: BTreeSet<TenantId> = (now.0.values().flatten().cloned())
            .chain(stated)
            .chain(before)
            .collect();
        let mut attributed = Vec::with_capacity(unusable.len());
        for Unattributed {
            file,
            stated,
            problems,
        } in unusable
        {
            let had = self.0.get(&file).cloned().unwrap_or_default();
            let mut tenants = had.clone();
            tenants.extend(stated);
            if tenants.is_empty() {
                tenants.extend(tenant_by_name(&file, &known));
            }
            // Half of a file may state half of a name: the next load goes by what was whole.
            let owners = if had.is_empty() { &tenants } else { &had };
            now.0.insert(file.clone(), owners.clone());
            attributed.push(UnusableGtbind {
                file,
                tenants,
                problems,
            });
        }
        (attributed, now)
    }
}

/// The tenant that a file is named after: of those that are known the longest, since tenants have dots, too; else what
/// stands before the name of the pack.
fn tenant_by_name(file: &Path, known: &BTreeSet<TenantId>) -> Option<TenantId> {
    let stem = file.file_stem()?.to_str()?;
    let ends = stem.rmatch_indices('.').map(|(at, _)| at);
    let prefixes = std::iter::once(stem.len())
        .chain(ends)
        .map(|end| &stem[..end]);
    let mut known_prefixes =
        prefixes.filter_map(|prefix| known.iter().find(|id| id.as_str() == prefix));
    let conventional = || tenant(stem.rsplit_once('.')?.0);
    known_prefixes.next().cloned().or_else(conventional)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants(names: &[&str]) -> BTreeSet<TenantId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn unusable(file: &str, stated: Option<&str>) -> Vec<Unattributed> {
        vec![Unattributed {
            file: file.into(),
            stated: stated.map(|name| name.parse().unwrap()),
            problems: Problems::default(),
        }]
    }

    #[track_caller]
    fn named(file: &str, known: &[&str], expected: Option<&str>) {
        let found = tenant_by_name(Path::new(file), &tenants(known));
        assert_eq!(found.as_ref().map(TenantId::as_str), expected, "{file}");
    }

    #[test]
    fn a_file_is_named_after_its_tenant() {
        named("in/acme.gtbind", &["acme"], Some("acme"));
        named("acme.hello.gtbind", &["acme"], Some("acme"));
        named("dev.local.gtbind", &["dev", "dev.local"], Some("dev.local"));
        named("dev.local.hello.gtbind", &["dev.local"], Some("dev.local"));
        named("dev.local.hello.gtbind", &["dev"], Some("dev"));
        named("dev.local.hello.gtbind", &[], Some("dev.local"));
        named("acme.gtbind", &[], None);
        named("acme-2.gtbind", &["acme"], None);
        named("..gtbind", &["acme"], None);
    }

    #[test]
    fn a_file_that_was_whole_keeps_its_tenant_whatever_it_says_meanwhile() {
        let nobody = Owners::default();
        let (found, owners) = nobody.attribute(&[], unusable("x.gtbind", Some("beta")));
        assert_eq!(found[0].tenants, tenants(&["beta"]));
        // Half of it, then nothing at all.
        let (found, owners) = owners.attribute(&[], unusable("x.gtbind", Some("be")));
        assert_eq!(found[0].tenants, tenants(&["be", "beta"]));
        let (found, owners) = owners.attribute(&[], unusable("x.gtbind", None));
        assert_eq!(found[0].tenants, tenants(&["beta"]));
        let (found, _) = owners.attribute(&[], unusable("beta.pack.gtbind", None));
        assert_eq!(found[0].tenants, tenants(&["beta"]));
        let (found, _) = nobody.attribute(&[], unusable("x.gtbind", None));
        assert!(found[0].tenants.is_empty());
    }
}
