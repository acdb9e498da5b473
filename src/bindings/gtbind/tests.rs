use super::*;

const GOOD: &str = "\
tenant: dev.local
pack_id: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
pack_ref: store://hello-pack@1.0.0
flows:
  - id: main
env_passthrough:
  - OTEL_EXPORTER_OTLP_ENDPOINT
";

/// Replaces a part of the good file and compares all that is reported, without the file's name.
#[track_caller]
fn check(part: &str, by: &str, expected: &[&str]) {
    assert!(GOOD.contains(part));
    let text = GOOD.replace(part, by);
    let problems = GtBind::parse(Path::new("x.gtbind"), &text).unwrap_err();
    let found: Vec<String> = problems
        .iter()
        .map(|p| {
            assert_eq!(p.file.as_deref(), Some(Path::new("x.gtbind")), "{p}");
            assert!(p.remedy.is_some(), "no remedy: {p}");
            let place = p.place.as_deref().unwrap_or("file");
            format!("{place}: {}", p.message)
        })
        .collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nis not\n{expected}");
    }
}

#[test]
fn a_gtbind_says_tenant_pack_flows_and_variables() {
    let gtbind = GtBind::parse(Path::new("b/x.gtbind"), GOOD).unwrap();
    assert_eq!(gtbind.tenant.as_str(), "dev.local");
    assert_eq!(gtbind.pack_id.value, PackId::of_archive(b""));
    assert_eq!(
        gtbind.pack_ref.value.to_string(),
        "store://hello-pack@1.0.0"
    );
    assert_eq!(gtbind.flows[0].value.as_str(), "main");
    assert_eq!(gtbind.flows[0].origin.place, "line 5, flows[0].id");
    assert_eq!(
        gtbind.env_passthrough[0].value,
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    );
    let lean = GOOD.split("env_passthrough").next().unwrap();
    let gtbind = GtBind::parse(Path::new("x.gtbind"), lean).unwrap();
    assert!(gtbind.env_passthrough.is_empty());
}

#[test]
fn what_does_not_belong_there_is_named_with_its_line() {
    check(
        "tenant: dev.local\n",
        "tenant: dev.local\nchannels:\n  - webchat\n",
        &["line 2, channels: a gtbind has no `channels` section"],
    );
    check(
        "flows:",
        "flow:",
        &[
            "line 4, flow: unknown field `flow`",
            "line 1: the field `flows` is missing",
        ],
    );
    check(
        "  - id: main\n",
        "  - id: main\n    tags: [a]\n",
        &["line 6, flows[0].tags: unknown field `tags`"],
    );
}

#[test]
fn what_is_missing_is_named() {
    let without_id =
        "pack_id: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n";
    check(
        without_id,
        "",
        &["file: the field `pack_id` is missing: a binding says exactly"],
    );
    check(
        "tenant: dev.local\n",
        "",
        &["line 1: the field `tenant` is missing"],
    );
    check(
        GOOD,
        "",
        &["line 1: expected fields (`name: value`), found nothing"],
    );
}

#[test]
fn malformed_values_are_told_apart() {
    check(
        "sha256:e3b0",
        "sha256:E3B0",
        &["line 2, pack_id: `sha256:E3B0"],
    );
    check("sha256:e3b0", "md5:", &["line 2, pack_id: `md5:"]);
    check(
        "dev.local",
        "dev..local",
        &["line 1, tenant: `dev..local` is no tenant: it has an empty part"],
    );
    check(
        "dev.local",
        "dev local",
        &["line 1, tenant: `dev local` is no tenant: "],
    );
    check(
        "dev.local",
        "\"*\"",
        &["line 1, tenant: `*` is no tenant: "],
    );
    check(
        "dev.local",
        "12",
        &["line 1, tenant: expected text, found a number"],
    );
    check(
        "store://hello-pack@1.0.0",
        "oci://x/y",
        &["line 3, pack_ref: `oci://x/y` is no pack reference"],
    );
    // Credentials are not repeated.
    check(
        "store://hello-pack@1.0.0",
        "https://user:hush@host/pack",
        &["line 3, pack_ref: this is no pack reference: it carries credentials"],
    );
    check(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_*",
        &["line 7, env_passthrough[0]: `OTEL_*` is no name"],
    );
}

#[test]
fn flows_are_at_least_one_and_each_once() {
    check(
        "\n  - id: main",
        " []",
        &["line 4, flows: `flows` lists none"],
    );
    check(
        "  - id: main\n",
        "  - id: main\n  - id: main\n",
        &["line 6, flows[1].id: the flow `main` is listed twice"],
    );
    check(
        "- id: main",
        "- main",
        &["line 5, flows[0]: expected fields (`name: value`), found text"],
    );
}

#[test]
fn all_problems_come_at_once() {
    check(
        GOOD,
        "tenant: .\npack_id: x\npack_ref: ''\nflows: []\nenv_passthrough: [1a]\nextra: 1\n",
        &[
            "line 6, extra: unknown field",
            "line 1, tenant: ",
            "line 2, pack_id: ",
            "line 3, pack_ref: ",
            "line 4, flows: ",
            "line 5, env_passthrough[0]: ",
        ],
    );
}

#[test]
fn a_rendered_gtbind_reads_as_what_it_was_made_of() {
    let id = PackId::of_archive(b"x");
    // A tenant and a flow that YAML would take for a number and for false.
    let tenant = TenantId::new("12").unwrap();
    let flows = [FlowId::new("false").unwrap(), FlowId::new("main").unwrap()];
    let text = render(&tenant, &id, "store://a@1.0.0", &flows).unwrap();
    let read = GtBind::parse(Path::new("x.gtbind"), &text).unwrap();
    assert_eq!(read.tenant, tenant);
    assert_eq!(read.pack_id.value, id);
    assert_eq!(read.flows.len(), 2);
    assert_eq!(read.flows[0].value, flows[0]);
}
