use super::*;
use crate::model::{FlowTarget, Problem};
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
        (candidates, Vec::new()),
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
    assert!(assembly.for_a_start(false).is_ok());

    let (broken, digest) = candidate("t", "bomb");
    let failed = failing(digest, false);
    let assembly = check((vec![broken], &failed), &nothing, None, &[]);
    assert!(assembly.for_a_start(false).is_err(), "a mistake starts");
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
    assert!(assembly.is_waiting);

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
    assert!(assembly.for_a_start(false).is_ok());

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

/// A pack of this tenant whose gtbind names a flow that it does not have.
fn mistaken(owner: &str, name: &str) -> Candidate {
    let mut candidate = candidate(owner, name).0;
    let problem = Problem::error(format!("{owner} has no such flow"));
    candidate.problems.push(problem);
    candidate
}

/// What is wrong with whom, as `tenant effect: problem`.
fn told(assembly: &Assembly) -> Vec<String> {
    let each = assembly.unusable.iter();
    let told = each.map(|entry| {
        let tenant = entry.tenant.as_ref().map_or("?", |id| id.as_str());
        let problems: Vec<_> = entry.problems.iter().map(|p| p.message.as_str()).collect();
        format!("{tenant} {:?}: {}", entry.effect, problems.join(", "))
    });
    told.collect()
}

#[test]
fn a_tenant_of_which_something_is_wrong_is_stopped_whole_and_no_other_one() {
    let nothing = (Preparation::default(), Registry::default());
    let candidates = vec![
        mistaken("t", "broken"),
        candidate("t", "good").0,
        candidate("u", "other").0,
    ];
    let assembly = check((candidates, &nothing.0), &nothing.1, None, &["u/other"]);
    assert_eq!(told(&assembly), ["t Stopped: t has no such flow"]);
    assert_eq!(assembly.left_out, [(tenant("t"), 2)].into());
    let strict = assembly.for_a_start(true).unwrap_err();
    assert_eq!(strict.iter().count(), 1);

    // Where nobody else can be served there is nothing to start for.
    let candidates = vec![mistaken("t", "broken"), mistaken("u", "broken")];
    let assembly = check((candidates, &nothing.0), &nothing.1, None, &[]);
    let problems = assembly.for_a_start(false).unwrap_err();
    assert_eq!(problems.iter().count(), 2);

    // One whose components are still being compiled will be.
    let (slow, digest) = candidate("u", "slow");
    let candidates = vec![mistaken("t", "broken"), slow];
    let assembly = check((candidates, &pending(digest)), &nothing.1, None, &[]);
    assert!(assembly.for_a_start(false).is_ok());
}

#[test]
fn a_tenant_that_runs_keeps_all_that_it_had_while_others_change() {
    let before = ["a", "gone"].map(|name| pack(name, &["main"]));
    let (before, _) = Registry::new(before, &BTreeMap::new());
    let fine = Preparation::default();
    let candidates = vec![
        candidate("t", "a'").0,
        mistaken("t", "b"),
        candidate("u", "new").0,
        mistaken("v", "c"),
    ];
    let force = ["t/a", "t/gone", "u/new"];
    let assembly = check((candidates, &fine), &before, None, &force);
    let expected = [
        "t Unchanged: t has no such flow",
        "v Stopped: v has no such flow",
    ];
    assert_eq!(told(&assembly), expected);
    assert_eq!(
        assembly.left_out,
        [(tenant("t"), 2), (tenant("v"), 1)].into()
    );
    assert!(assembly.all().is_err());
}

#[test]
fn a_gtbind_that_may_be_of_several_tenants_stops_each_and_one_of_nobody_none() {
    let gtbind = |tenants: &[&str], problem: &str| UnusableGtbind {
        file: "x.gtbind".into(),
        tenants: tenants.iter().map(|name| tenant(name)).collect(),
        problems: Problem::error(problem).into(),
    };
    let candidates = ["t", "u", "v"].map(|owner| candidate(owner, "a").0);
    let gtbinds = vec![gtbind(&["t", "v"], "half"), gtbind(&[], "garbage")];
    let assembly = Assembly::new(
        (candidates.into(), gtbinds),
        &Preparation::default(),
        &Registry::default(),
        &BTreeMap::new(),
    );
    assert_eq!(in_force(&assembly), ["u/a"]);
    let expected = ["? Ignored: garbage", "t Stopped: half", "v Stopped: half"];
    assert_eq!(told(&assembly), expected);
    assert_eq!(assembly.problems().iter().count(), 2, "each is told once");
}

#[test]
fn a_default_flow_that_is_not_there_is_the_trouble_of_its_tenant() {
    let candidates = vec![candidate("t", "a").0, candidate("u", "other").0];
    let nothing = (Preparation::default(), Registry::default());
    let default = Some("absent/main");
    let assembly = check((candidates, &nothing.0), &nothing.1, default, &["u/other"]);
    assert!(told(&assembly)[0].starts_with("t Stopped: the default flow `absent/main`"));
    assert!(assembly.warnings.is_empty(), "{}", assembly.warnings);
    assert!(assembly.for_a_start(false).is_ok());
}
