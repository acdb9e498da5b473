//! What goes into an archive besides flows.

use super::*;
use crate::pack::{Component, Pack};

const FULL: &str = "components:
- id: demo.echo
  version: 1.2.0
  world: greentic:component/node@0.6.0
  supports: [messaging, component-config]
  profiles: {default: default, supported: [default]}
  capabilities:
    wasi: {random: false, clocks: false}
    host: {http: {client: true}, secrets: {required: [{key: API_KEY, required: true}]}}
  operations: [{name: run, input_schema: {}, output_schema: {}}]
  wasm: components/echo
- {id: small.one, version: 1.0.0, wasm: components/small.wasm}
assets:
- path: assets/cards/hello.json
- path: more/note.txt
dependencies:
- {alias: base, pack_id: base.pack, version_req: ^1.0}
capabilities:
- {name: greentic.cap.demo.v1}
extensions:
  greentic.static-routes.v1: {kind: greentic.static-routes.v1, version: 1.0.0, inline: {routes: []}}
";

fn full(config: &str) -> tempfile::TempDir {
    let dir = sources(&[
        ("pack.yaml", &format!("{PACK}{config}")),
        ("flows/main.ygtc", FLOW),
    ]);
    for folder in ["components/echo", "assets/cards", "assets/.cache", "more"] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    for (path, content) in [
        ("components/echo/echo.wasm", "echo"),
        ("components/small.wasm", "small"),
        ("assets/cards/hello.json", "{}"),
        ("assets/unlisted.txt", "also here"),
        ("assets/.cache/x", "not this"),
        ("more/note.txt", "note"),
    ] {
        fs::write(dir.path().join(path), content).unwrap();
    }
    dir
}

fn built(dir: &tempfile::TempDir) -> Pack {
    let built = build(dir.path()).unwrap();
    assert_eq!(build(dir.path()).unwrap().bytes, built.bytes);
    open(&built.bytes, Some(&built.id), &Limits::default()).unwrap()
}

fn component<'p>(pack: &'p Pack, id: &str) -> &'p Component {
    pack.components
        .iter()
        .find(|component| component.id == id)
        .unwrap()
}

#[test]
fn components_assets_and_the_rest_of_the_config_go_into_the_archive() {
    let mut pack = built(&full(FULL));
    let echo = component(&pack, "demo.echo");
    assert_eq!(pack.code(echo), Some(&b"echo"[..]));
    assert!(
        echo.capabilities
            .as_ref()
            .unwrap()
            .host
            .http
            .as_ref()
            .unwrap()
            .client
    );
    let small = component(&pack, "small.one");
    assert_eq!(pack.code(small), Some(&b"small"[..]));
    assert_eq!(
        small.world.as_deref(),
        Some("greentic:component/node@0.6.0")
    );

    let manifest = &pack.manifest;
    assert_eq!(manifest.components[0].operations[0].name, "run");
    assert_eq!(manifest.secret_requirements[0].key.as_str(), "API_KEY");
    assert_eq!(manifest.dependencies[0].pack_id.as_str(), "base.pack");
    assert_eq!(manifest.capabilities[0].name, "greentic.cap.demo.v1");
    assert!(
        manifest
            .extensions
            .as_ref()
            .unwrap()
            .contains_key("greentic.static-routes.v1")
    );
    let assets: Vec<_> = pack.take_assets().map(|(path, _)| path).collect();
    assert_eq!(
        assets,
        [
            "assets/cards/hello.json",
            "assets/more/note.txt",
            "assets/unlisted.txt"
        ]
    );
}

#[test]
fn a_manifest_beside_the_code_says_what_it_is() {
    let dir = full("components: [{id: demo.echo, version: 1.2.0, wasm: components/echo}]\n");
    let beside = dir.path().join("components/echo/component.manifest.json");
    let manifest = |version: &str| {
        json!({
            "id": "demo.echo", "version": version, "world": "w", "profiles": {}, "supports": [],
            "capabilities": {"wasi": {}, "host": {"state": {"read": true}}}, "artifacts": {},
        })
    };
    fs::write(&beside, manifest("1.2.0").to_string()).unwrap();
    assert_eq!(
        component(&built(&dir), "demo.echo").world.as_deref(),
        Some("w")
    );

    for (content, expected) in [
        (
            manifest("2.0.0").to_string(),
            "it is about `demo.echo` 2.0.0, but pack.yaml lists",
        ),
        (
            "{}".to_owned(),
            "this is no component's manifest: missing field",
        ),
    ] {
        fs::write(&beside, content).unwrap();
        let problems = build(dir.path()).unwrap_err().to_string();
        assert!(problems.contains(expected), "{problems}");
    }
}

#[test]
fn what_is_wrong_with_components_is_told_at_once() {
    let dir = full(
        "components:
- {id: a, version: 1.0.0, wasm: components/gone.wasm}
- {id: b, version: x, wasm: components/small.wasm}
- {id: c, version: 1.0.0, wasm: ../c.wasm, colour: red}
- {id: a, version: 1.0.0, wasm: assets}
assets: [{path: gone.txt}]
extensions: {x: 1}
",
    );
    let problems = build(dir.path()).unwrap_err();
    let text = problems.to_string();
    for part in [
        "gone.wasm: the file cannot be read",
        "components[1]: this is no component: ",
        "components[2].wasm: the path leads out",
        "components[2].colour: unknown field",
        "components[3]: the pack has another component `a`",
        "assets: the folder holds 0 `*.wasm` files",
        "gone.txt: the file cannot be read",
        "extensions: this is no set of extensions",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    assert_eq!(problems.iter().count(), 8, "{text}");
    assert!(
        problems.iter().all(|problem| problem.remedy.is_some()),
        "{text}"
    );
}
