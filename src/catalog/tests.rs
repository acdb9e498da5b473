use std::fs;

use super::*;
use crate::model::{FlowKey, PackId};
use crate::pack::{SignaturePolicy, Signatures};

/// A folder with a pack store and gtbinds.
struct Site {
    dir: tempfile::TempDir,
    signatures: Signatures,
    undeclared_state: UndeclaredState,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["store", "bindings", "sources"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        Self {
            dir,
            signatures: Signatures::default(),
            undeclared_state: UndeclaredState::default(),
        }
    }

    /// Builds a pack of this node into the store, and gives its id.
    fn pack(&self, name: &str, node: &str) -> PackId {
        let sources = self.dir.path().join("sources").join(name);
        fs::create_dir_all(sources.join("flows")).unwrap();
        let config = format!("pack_id: {name}\nversion: 1.0.0\nkind: application\npublisher: us\n");
        fs::write(sources.join("pack.yaml"), config).unwrap();
        let flow = format!("id: main\ntype: messaging\nnodes:\n  hi:\n    {node}\n");
        fs::write(sources.join("flows/main.ygtc"), flow).unwrap();
        let built = pack::build(&sources).unwrap();
        let file = self.dir.path().join("store").join(built.file_name());
        fs::write(file, &built.bytes).unwrap();
        built.id
    }

    fn gtbind(&self, file: &str, text: &str) {
        fs::write(self.dir.path().join("bindings").join(file), text).unwrap();
    }

    fn bind(&self, tenant: &str, name: &str, id: PackId, rest: &str) {
        let text = format!(
            "tenant: {tenant}\npack_id: {id}\npack_ref: store://{name}@1.0.0\nflows: [{{id: main}}]\n{rest}"
        );
        self.gtbind(&format!("{tenant}-{name}.gtbind"), &text);
    }

    fn load(&self, default: Option<&str>) -> Result<Loaded, Problems> {
        let default = default.map(|text| ("t".parse().unwrap(), text.parse().unwrap()));
        let defaults = default.into_iter().collect();
        self.open(&defaults).all(&defaults)
    }

    fn open(&self, defaults: &BTreeMap<TenantId, DefaultFlow>) -> Opening {
        let bindings = read(&[self.dir.path().join("bindings")]);
        let sources = Sources {
            resolver: &Resolver::new(self.dir.path().join("store")),
            limits: &pack::Limits::default(),
            signatures: &self.signatures,
            flow_limits: flow::Limits::default(),
            undeclared_state: self.undeclared_state,
            policy: &EnvPolicy {
                allow: vec!["A*".parse().unwrap()],
                ..EnvPolicy::default()
            },
            environment: &BTreeMap::from([("A".to_owned(), "1".to_owned())]),
            defaults,
        };
        open(&sources, bindings)
    }

    /// What is wrong, as `file: place: message` with the file's name only.
    #[track_caller]
    fn refused(&self, default: Option<&str>, expected: &[&str]) {
        let problems = self.load(default).unwrap_err();
        let found: Vec<String> = problems.iter().map(shown).collect();
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}\nis not\n{expected}");
        }
    }
}

fn shown(problem: &Problem) -> String {
    assert!(problem.remedy.is_some(), "no remedy: {problem}");
    let file = problem.file.as_deref().and_then(Path::file_name);
    let file = file.unwrap_or_default().to_string_lossy().into_owned();
    let place = problem.place.as_deref().unwrap_or_default();
    format!("{file}: {place}: {}", problem.message)
}

const HELLO: &str = "emit.message: {text: Hi}";

#[test]
fn two_packs_with_a_flow_of_one_name_load_and_are_found_by_their_ids() {
    let site = Site::new();
    let (a, b) = (site.pack("a", HELLO), site.pack("b", HELLO));
    site.bind("t", "a", a, "env_passthrough: [A]\n");
    site.bind("t", "b", b, "");
    site.bind("u", "a", a, "");
    let Loaded {
        registry, warnings, ..
    } = site.load(Some("b/main")).unwrap();
    assert!(warnings.is_empty(), "{warnings}");

    let find = |tenant: &str, pack: PackId| {
        let (tenant, flow) = (tenant.parse().unwrap(), "main".parse().unwrap());
        registry.find(&FlowKey { tenant, pack, flow })
    };
    assert_eq!(find("t", a).unwrap().grants.env["A"], "1");
    assert!(find("t", b).unwrap().grants.env.is_empty());
    assert!(find("u", b).is_none());
    // A pack is compiled once, whoever binds it; what it may see is each tenant's own.
    assert!(Arc::ptr_eq(
        &find("t", a).unwrap().program,
        &find("u", a).unwrap().program
    ));
    assert!(find("u", a).unwrap().grants.env.is_empty());

    let started = registry.entry(&"t".parse().unwrap(), &FlowTarget::default());
    assert_eq!(started.unwrap().pack.id, b);
}

#[test]
fn no_choice_is_a_warning_and_a_wrong_default_an_error() {
    let site = Site::new();
    for name in ["a", "b"] {
        site.bind("t", name, site.pack(name, HELLO), "");
    }
    let warnings = site.load(None).unwrap().warnings;
    let warnings: Vec<_> = warnings.iter().map(shown).collect();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].contains("a message of tenant `t` that names no flow"),
        "{warnings:?}"
    );
    site.refused(
        Some("c/main"),
        &[": setting tenants.*.default_flow: the default flow `c/main` of tenant `t` is not there"],
    );
}

#[test]
fn all_problems_of_all_files_are_reported_at_once() {
    let site = Site::new();
    let good = site.pack("good", HELLO);
    let broken = site.pack("broken", "no.such: {}");
    let zeros = "0".repeat(64).parse::<String>().unwrap();
    site.gtbind("a.gtbind", "tenant: t\n");
    site.gtbind(
        "b.gtbind",
        &format!("tenant: t\npack_id: {good}\npack_ref: store://good@1.0.0\nflows: [{{id: main}}, {{id: gone}}]\nenv_passthrough: [HOME]\n"),
    );
    site.gtbind(
        "c.gtbind",
        &format!("tenant: t\npack_id: sha256:{zeros}\npack_ref: store://absent@1.0.0\nflows: [{{id: main}}]\n"),
    );
    site.gtbind(
        "d.gtbind",
        &format!("tenant: u\npack_id: sha256:{zeros}\npack_ref: store://good@1.0.0\nflows: [{{id: main}}]\n"),
    );
    site.gtbind(
        "e.gtbind",
        &format!(
            "tenant: u\npack_id: {broken}\npack_ref: store://broken@1.0.0\nflows: [{{id: main}}]\n"
        ),
    );
    let problems = site.load(None).unwrap_err();
    let mut found: Vec<_> = problems.iter().map(shown).collect();
    found.sort();
    for part in [
        "a.gtbind: : the field `pack_id` is missing",
        "a.gtbind: line 1: the field `flows` is missing",
        "a.gtbind: line 1: the field `pack_ref` is missing",
        "b.gtbind: line 4, flows[1].id: the pack `store://good@1.0.0` has no flow `gone`",
        "b.gtbind: line 5, env_passthrough[0]: the variable `HOME` is not allowed",
        "broken-1.0.0.gtpack: flow main, node hi: ",
        "c.gtbind: line 3, pack_ref: the pack store has no ",
        "d.gtbind: line 3, pack_ref: store://good@1.0.0 is refused: the archive is sha256:",
    ] {
        assert!(
            found.iter().any(|f| f.starts_with(part)),
            "{part}\nis not in\n{found:#?}"
        );
    }
    assert_eq!(found.len(), 8, "{found:#?}");
}

#[test]
fn a_pack_that_is_broken_is_the_trouble_of_each_tenant_that_binds_it() {
    let site = Site::new();
    let broken = site.pack("broken", "no.such: {}");
    let absent = PackId::of_archive(b"absent");
    for tenant in ["t", "u"] {
        site.bind(tenant, "broken", broken, "");
        site.bind(tenant, "absent", absent, "");
    }
    let opening = site.open(&BTreeMap::new());
    let found = opening.candidates.iter().map(|candidate| {
        let problems: Vec<_> = candidate.problems.iter().map(shown).collect();
        (candidate.tenant.to_string(), problems.join(", "))
    });
    for (tenant, problems) in found {
        let own = format!("{tenant}-absent.gtbind: line 3, pack_ref: the pack store has no ");
        let shared = "broken-1.0.0.gtpack: flow main, node hi: ";
        assert!(
            problems.starts_with(&own) || problems.starts_with(shared),
            "{tenant}: {problems}"
        );
    }
    // What is wrong with the pack itself is told once.
    assert_eq!(opening.all(&BTreeMap::new()).unwrap_err().iter().count(), 3);
}

#[test]
fn a_pack_that_would_not_load_is_not_built() {
    let site = Site::new();
    site.pack("good", HELLO);
    site.pack("broken", "no.such: {}");
    let sources = site.dir.path().join("sources");
    assert!(build_pack(&sources.join("good")).is_ok());
    let problems = build_pack(&sources.join("broken")).unwrap_err();
    let found: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("flows/main.ygtc: line 4, nodes.hi: "),
        "{found:?}"
    );
}

/// A pack of this node, with a component and a secret.
fn with_component(site: &Site, node: &str) -> PackId {
    with_code(site, node, b"code")
}

/// As [`with_component`], with this code.
fn with_code(site: &Site, node: &str, code: &[u8]) -> PackId {
    let sources = site.dir.path().join("sources/plain");
    fs::create_dir_all(sources.join("flows")).unwrap();
    let flow = format!("id: main\ntype: messaging\nnodes:\n  hi:\n    {node}\n");
    fs::write(sources.join("flows/main.ygtc"), flow).unwrap();
    fs::write(sources.join("c.wasm"), code).unwrap();
    let config = "pack_id: plain\nversion: 1.0.0\nkind: application\npublisher: us\n\
        dependencies: [{alias: b, pack_id: base, version_req: '^1'}]\n\
        components:\n- id: c\n  version: 1.0.0\n  wasm: c.wasm\n  \
        capabilities: {host: {secrets: {required: [{key: a, required: true}, {key: api/key, required: true}]}}}\n";
    fs::write(sources.join("pack.yaml"), config).unwrap();
    let built = pack::build(&sources).unwrap();
    let file = site.dir.path().join("store").join(built.file_name());
    fs::write(file, &built.bytes).unwrap();
    built.id
}

#[test]
fn what_a_pack_needs_and_is_not_granted_is_a_warning() {
    let site = Site::new();
    let id = with_component(&site, HELLO);
    site.bind("t", "plain", id, "env_passthrough: [A]\n");
    let loaded = site.load(None).unwrap();
    let warnings: Vec<_> = loaded.warnings.iter().map(shown).collect();
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    let depends = "plain-1.0.0.gtpack: manifest.cbor, dependencies: it depends on `base` ^1";
    assert!(warnings[0].starts_with(depends), "{warnings:#?}");
    let secret = "t-plain.gtbind: line 2, pack_id: the pack `plain` needs the secret `api/key`";
    assert!(warnings[1].starts_with(secret), "{warnings:#?}");
    // No flow calls the component, so nothing need prepare its code; what it may reach is known all the same.
    assert!(loaded.code.is_empty());
    let packs = loaded.registry.packs();
    let declared = packs[0].grants.declared["c"];
    assert!(declared.secrets && declared.state_read && !declared.http);
}

#[test]
fn undeclared_state_is_warned_of_and_given_or_refused_as_the_settings_say() {
    let mut site = Site::new();
    let node = "component.exec: {component: c, operation: run, input: {}}";
    let said = |site: &Site| {
        let loaded = site.load(None).unwrap();
        let declared = loaded.registry.packs()[0].grants.declared["c"];
        let warnings = loaded.warnings.iter().map(shown);
        let warnings: Vec<_> = warnings.filter(|w| w.contains("host.state")).collect();
        (warnings, declared.state_read, declared.state_write)
    };
    // It cannot use what it does not import.
    let id = with_component(&site, node);
    site.bind("t", "plain", id, "");
    assert_eq!(said(&site), (vec![], true, true));

    let id = with_code(&site, node, b"\0asm greentic:state/state-store@1.0.0");
    site.bind("t", "plain", id, "");
    let (warnings, read, write) = said(&site);
    assert_eq!((warnings.len(), read, write), (1, true, true));
    let warning = "plain-1.0.0.gtpack: component c: component `c` of pack `plain` uses the user's state and does not \
        declare `host.state`: it reads and writes it all the same";
    assert!(warnings[0].starts_with(warning), "{warnings:?}");
    site.undeclared_state = UndeclaredState::Deny;
    let (warnings, read, write) = said(&site);
    assert_eq!((warnings.len(), read, write), (1, false, false));
    assert!(
        warnings[0].contains("each access is refused"),
        "{warnings:?}"
    );

    // What no flow calls does nothing.
    let id = with_code(&site, HELLO, b"\0asm greentic:state/state-store@1.0.0");
    site.bind("t", "plain", id, "");
    assert_eq!(said(&site).0.len(), 0);
}

#[test]
fn a_pack_that_nobody_vouches_for_is_warned_of_or_refused() {
    let mut site = Site::new();
    let id = site.pack("plain", HELLO);
    site.bind("t", "plain", id, "");
    let stranger = "7".repeat(64).parse().unwrap();
    site.signatures.keys = vec![stranger];
    assert!(site.load(None).unwrap().warnings.is_empty());
    site.signatures.policy = SignaturePolicy::Warn;
    let warnings = site.load(None).unwrap().warnings.to_string();
    assert!(
        warnings.contains("nobody vouches for store://plain@1.0.0: it is not signed"),
        "{warnings}"
    );
    site.signatures.policy = SignaturePolicy::Strict;
    site.refused(
        None,
        &["t-plain.gtbind: line 3, pack_ref: store://plain@1.0.0 is refused: it is not signed"],
    );
}

#[test]
fn the_code_that_flows_call_is_handed_on_once() {
    let site = Site::new();
    let id = with_component(
        &site,
        "component.exec: {component: c, operation: run, input: {}}",
    );
    site.bind("t", "plain", id, "");
    site.bind("u", "plain", id, "");
    let loaded = site.load(None).unwrap();
    let [code] = &loaded.code[..] else {
        panic!("{:?}", loaded.code);
    };
    assert_eq!((code.name.as_str(), &code.bytes[..]), ("c", &b"code"[..]));
    for pack in loaded.registry.packs() {
        assert_eq!(pack.components["c"], code.digest);
    }
}
