use super::*;
use crate::model::FlowTarget;
use crate::registry::tests::{pack, tenant};

/// A pack of this tenant with a component of its own.
fn candidate(owner: &str, name: &str) -> (Candidate, ComponentDigest) {
    let digest = ComponentDigest::of(format!("{owner}{name}").as_bytes());
    let mut bound = pack(name, &["main"]);
    bound.tenant = tenant(owner);
    bound.components = [("code".to_owned(), digest)].into();
    let candidate = Candidate {
        tenant: bound.tenant.clone(),
        name: Some(bound.name.clone()),
        bound: Some(bound),
        problems: Problems::default(),
    };
    (candidate, digest)
}

fn failing(digest: ComponentDigest, is_excess: bool) -> Preparation {
    let mut prepared = Preparation::default();
    prepared.failed.push(FailedComponent {
        digest,
        problems: Problem::error("it is too large").into(),
        is_excess,
    });
    prepared
}

fn pending(digest: ComponentDigest) -> Preparation {
    Preparation {
        pending: [digest].into(),
        ..Preparation::default()
    }
}

/// What is in force, as `tenant/pack` with the archive's mark.
fn in_force(assembly: &Assembly) -> Vec<String> {
    let packs = assembly.registry.packs().into_iter();
    let marked = packs.map(|pack| {
        let mark = if pack.id == pack_id(&pack.name) {
            ""
        } else {
            "'"
        };
        format!("{}/{}{mark}", pack.tenant, pack.name)
    });
    marked.collect()
}

fn pack_id(name: &str) -> crate::model::PackId {
    crate::model::PackId::of_archive(name.as_bytes())
}

#[track_caller]
fn check(
    (candidates, prepared): (Vec<Candidate>, &Preparation),
    before: &Registry,
    default: Option<&str>,
    expected: &[&str],
) -> Assembly {
    let defaults = default.map(|flow| (tenant("t"), flow.parse().unwrap()));
    let assembly = Assembly::new(
        candidates,
        prepared,
        before,
        &defaults.into_iter().collect(),
    );
    assert_eq!(in_force(&assembly), expected);
    assembly
}

#[test]
fn only_the_pack_that_takes_too_much_is_left_out() {
    let nothing = Registry::default();
    let (bomb, digest) = candidate("t", "bomb");
    let candidates = vec![bomb, candidate("t", "good").0, candidate("u", "other").0];
    let failed = failing(digest, true);
    let assembly = check(
        (candidates, &failed),
        &nothing,
        None,
        &["t/good", "u/other"],
    );
    assert_eq!(assembly.left_out, [(tenant("t"), 1)].into());
    assert!(assembly.problems().to_string().contains("it is too large"));
    assert!(assembly.without_mistakes().is_ok());

    let (broken, digest) = candidate("t", "bomb");
    let failed = failing(digest, false);
    let assembly = check((vec![broken], &failed), &nothing, None, &[]);
    assert!(assembly.without_mistakes().is_err(), "a mistake starts");
}

#[test]
fn a_pack_that_is_broken_keeps_its_old_version_and_what_is_unbound_goes() {
    let before = [pack("a", &["main"]), pack("gone", &["main"])];
    let (before, _) = Registry::new(before, &BTreeMap::new());
    let (renewed, digest) = candidate("t", "a'");
    let added = candidate("t", "b").0;
    let failed = failing(digest, true);
    check(
        (vec![renewed, added], &failed),
        &before,
        None,
        &["t/a", "t/b"],
    );

    // Of an archive that cannot be opened nobody knows which one it would replace.
    let mut unknown = candidate("t", "a'").0;
    unknown.name = None;
    unknown.bound = None;
    unknown.problems.push(Problem::error("it is not there"));
    let nothing = Preparation::default();
    check((vec![unknown], &nothing), &before, None, &["t/a", "t/gone"]);
}

#[test]
fn what_is_pending_is_awaited_without_a_tenant_of_half_its_packs() {
    let (slow, digest) = candidate("t", "slow");
    let candidates = vec![slow, candidate("t", "good").0, candidate("u", "other").0];
    let prepared = pending(digest);
    let nothing = Registry::default();
    let assembly = check((candidates, &prepared), &nothing, None, &["u/other"]);
    assert!(assembly.left_out.is_empty() && assembly.problems().is_empty());

    let (before, _) = Registry::new([pack("good", &["main"])], &BTreeMap::new());
    let candidates = vec![candidate("t", "slow").0, candidate("t", "good'").0];
    check((candidates, &prepared), &before, None, &["t/good'"]);
}

#[test]
fn a_tenant_whose_default_flow_is_left_out_starts_no_other_one() {
    let (bomb, digest) = candidate("t", "bomb");
    let candidates = vec![bomb, candidate("t", "good").0];
    let failed = failing(digest, true);
    let nothing = Registry::default();
    let default = Some("bomb/main");
    let assembly = check((candidates, &failed), &nothing, default, &[]);
    assert!(assembly.without_mistakes().is_ok());

    let (before, _) = Registry::new([pack("bomb", &["main"])], &BTreeMap::new());
    let (renewed, digest) = candidate("t", "bomb'");
    let candidates = vec![renewed, candidate("t", "good").0];
    let failed = failing(digest, true);
    let assembly = check(
        (candidates, &failed),
        &before,
        default,
        &["t/bomb", "t/good"],
    );
    let started = assembly
        .registry
        .entry(&tenant("t"), &FlowTarget::default());
    assert_eq!(started.unwrap().pack.name, "bomb");
}
