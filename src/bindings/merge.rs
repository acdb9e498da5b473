//! From all gtbinds to one binding for each pack of each tenant.

use std::collections::BTreeMap;

use crate::model::{FlowId, PackId, PackRef, Problem, TenantId};

use super::{Entry, GtBind, Origin, UnusableGtbind};

/// Everything that the gtbinds say of one pack of one tenant.
#[derive(Clone, Debug)]
pub struct PackBinding {
    /// The tenant.
    pub tenant: TenantId,
    /// The pack, and where it was first bound.
    pub pack_id: Entry<PackId>,
    /// Where the archive is.
    pub pack_ref: Entry<PackRef>,
    /// The flows that may be started from outside, each with the place that lists it first.
    pub flows: BTreeMap<FlowId, Origin>,
    /// The variables that are asked for, each with the place that lists it first.
    pub env: BTreeMap<String, Origin>,
}

/// Merges gtbinds per tenant: a pack that is bound twice has the flows and variables of both. A pack with two
/// references, or a reference with two packs, is a contradiction within a tenant; the second file cannot be used then.
pub fn merge(gtbinds: Vec<GtBind>) -> (Vec<PackBinding>, Vec<UnusableGtbind>) {
    let mut unusable = Vec::new();
    let mut merged: BTreeMap<(TenantId, PackId), PackBinding> = BTreeMap::new();
    for gtbind in gtbinds {
        let contradiction = merged
            .values()
            .filter(|known| known.tenant == gtbind.tenant)
            .find_map(|known| contradiction(known, &gtbind));
        if let Some(problem) = contradiction {
            unusable.push(UnusableGtbind {
                file: gtbind.file,
                tenants: [gtbind.tenant].into(),
                problems: problem.into(),
            });
            continue;
        }
        let key = (gtbind.tenant.clone(), gtbind.pack_id.value);
        let binding = merged.entry(key).or_insert_with(|| PackBinding {
            tenant: gtbind.tenant,
            pack_id: gtbind.pack_id,
            pack_ref: gtbind.pack_ref,
            flows: BTreeMap::new(),
            env: BTreeMap::new(),
        });
        for Entry { value, origin } in gtbind.flows {
            binding.flows.entry(value).or_insert(origin);
        }
        for Entry { value, origin } in gtbind.env_passthrough {
            binding.env.entry(value).or_insert(origin);
        }
    }
    (merged.into_values().collect(), unusable)
}

fn contradiction(known: &PackBinding, new: &GtBind) -> Option<Problem> {
    let same_pack = known.pack_id.value == new.pack_id.value;
    let same_ref = known.pack_ref.value == new.pack_ref.value;
    let tenant = &new.tenant;
    match (same_pack, same_ref) {
        (true, false) => Some(new.pack_ref.origin.locate(Problem::error(format!(
            "for tenant `{tenant}` this file finds pack {} at `{}`, but {} ({}) finds it at `{}`",
            new.pack_id.value,
            new.pack_ref.value,
            known.pack_ref.origin.file.display(),
            known.pack_ref.origin.place,
            known.pack_ref.value,
        )))),
        (false, true) => Some(new.pack_id.origin.locate(Problem::error(format!(
            "for tenant `{tenant}` this file says that `{}` is {}, but {} ({}) says that it is {}",
            new.pack_ref.value,
            new.pack_id.value,
            known.pack_id.origin.file.display(),
            known.pack_id.origin.place,
            known.pack_id.value,
        )))),
        (true, true) | (false, false) => None,
    }
    .map(|problem| problem.remedy("make both files say the same, or remove one of them"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn gtbind(file: &str, tenant: &str, (archive, reference): (&str, &str), rest: &str) -> GtBind {
        let id = PackId::of_archive(archive.as_bytes());
        let text = format!("tenant: {tenant}\npack_id: {id}\npack_ref: {reference}\n{rest}\n");
        GtBind::parse(Path::new(file), &text).unwrap()
    }

    #[test]
    fn the_same_pack_twice_has_the_flows_and_variables_of_both() {
        let pack = ("a", "store://a@1.0.0");
        let (merged, problems) = merge(vec![
            gtbind(
                "1.gtbind",
                "t",
                pack,
                "flows: [{id: main}]\nenv_passthrough: [A]",
            ),
            gtbind(
                "2.gtbind",
                "t",
                pack,
                "flows: [{id: side}, {id: main}]\nenv_passthrough: [B]",
            ),
            gtbind("3.gtbind", "u", pack, "flows: [{id: main}]"),
        ]);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(merged.len(), 2);
        let flows: Vec<_> = merged[0].flows.keys().map(FlowId::as_str).collect();
        assert_eq!(flows, ["main", "side"]);
        assert_eq!(merged[0].env.keys().collect::<Vec<_>>(), ["A", "B"]);
        let main = merged[0].flows.values().next().unwrap();
        assert_eq!(main.file, Path::new("1.gtbind"));
    }

    #[test]
    fn two_packs_may_have_a_flow_of_the_same_name() {
        let (merged, problems) = merge(vec![
            gtbind(
                "1.gtbind",
                "t",
                ("a", "store://a@1.0.0"),
                "flows: [{id: main}]",
            ),
            gtbind(
                "2.gtbind",
                "t",
                ("b", "store://b@1.0.0"),
                "flows: [{id: main}]",
            ),
        ]);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(merged.len(), 2);
    }

    #[track_caller]
    fn contradicts(second: (&str, &str), field: &str) {
        let (_, unusable) = merge(vec![
            gtbind(
                "one.gtbind",
                "t",
                ("a", "store://a@1.0.0"),
                "flows: [{id: main}]",
            ),
            gtbind("two.gtbind", "t", second, "flows: [{id: main}]"),
            gtbind("three.gtbind", "other", second, "flows: [{id: main}]"),
        ]);
        let [file] = &unusable[..] else {
            panic!("{unusable:?}")
        };
        assert_eq!(file.tenants, ["t".parse().unwrap()].into());
        let problem = file.problems.iter().next().unwrap();
        assert_eq!(problem.file.as_deref(), Some(Path::new("two.gtbind")));
        assert!(
            problem.place.as_deref().unwrap().ends_with(field),
            "{problem}"
        );
        assert!(problem.message.contains("one.gtbind"), "{problem}");
    }

    #[test]
    fn contradictions_name_both_files() {
        contradicts(("a", "store://a@2.0.0"), "pack_ref");
        contradicts(("b", "store://a@1.0.0"), "pack_id");
    }
}
