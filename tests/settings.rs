//! Settings as an operator meets them: files, variables and flags; what is said of mistakes; and that
//! `config/default.yaml`, the program and `docs/settings.md` agree. Its own binary, because it sets variables.
#![expect(
    clippy::unwrap_used,
    clippy::result_large_err,
    reason = "clippy takes only functions marked as tests for tests, and the error of a Jail is figment's"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use figment::Jail;
use greentic_worker::settings::{self, DEFAULT_YAML, Flags, Loaded, Settings};

/// Loads a settings file with variables set; the warnings are part of what is given back.
fn load(file: &str, variables: &[(&str, &str)], flags: &Flags) -> Result<Loaded, String> {
    let mut result = None;
    Jail::expect_with(|jail| {
        jail.create_file("worker.yaml", file)?;
        for (name, value) in variables {
            jail.set_env(name, value);
        }
        let config = Some(Path::new("worker.yaml"));
        let loaded = settings::load(config, &settings::environment(), flags);
        result = Some(loaded.map_err(|problems| problems.to_string()));
        Ok(())
    });
    result.unwrap()
}

#[track_caller]
fn works(file: &str, variables: &[(&str, &str)]) -> Settings {
    let loaded = load(file, variables, &Flags::default()).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    loaded.settings
}

#[track_caller]
fn check_broken(file: &str, variables: &[(&str, &str)], expected: &str) {
    let said = load(file, variables, &Flags::default()).unwrap_err();
    assert_eq!(said.trim(), expected.trim());
}

#[track_caller]
fn check_risky(file: &str, expected: &str) {
    let loaded = load(file, &[], &Flags::default()).unwrap();
    assert_eq!(loaded.warnings.to_string().trim(), expected.trim());
}

#[test]
fn later_layers_win() {
    let file = "worker: {slots: 4, attempts: 2}\nlog: {filter: debug}\nbindings_dirs: [a]\n";
    let variables = [
        ("GREENTIC_WORKER__WORKER__SLOTS", "8"),
        ("GREENTIC_WORKER__LOG__FILTER", "trace"),
    ];
    let flags = Flags {
        log_filter: Some("warn".to_owned()),
        bindings: vec!["x.gtbind".into()],
        ..Flags::default()
    };
    let settings = load(file, &variables, &flags).unwrap().settings;
    assert_eq!(settings.worker.slots.get(), 8);
    assert_eq!(settings.worker.attempts.get(), 2);
    assert_eq!(settings.worker.turn_timeout, Duration::from_secs(30));
    assert_eq!(settings.log.filter, "warn");
    assert_eq!(settings.bindings, [Path::new("x.gtbind")]);
    assert_eq!(settings.bindings_dirs, [Path::new("a")]);
}

#[test]
fn a_variable_is_read_as_what_its_key_takes() {
    let settings = works(
        "",
        &[
            ("GREENTIC_WORKER__BINDINGS_DIRS", "[a, /b/c]"),
            ("GREENTIC_WORKER__WORKER__TENANT_SLOTS", "7"),
            ("GREENTIC_WORKER__WORKER__APOLOGY", "404"),
            ("GREENTIC_WORKER__REDIS__PASSWORD", "[12, 34"),
            ("GREENTIC_WORKER__HTTP__LISTEN", "off"),
            ("GREENTIC_WORKER__LOG__FILTER", ""),
            (
                "GREENTIC_WORKER__TENANTS__Acme__DEFAULT_FLOW",
                "hello-pack/main",
            ),
            ("GREENTIC_WORKER__TENANTS__dev.local__MAX_IN_FLIGHT", "3"),
            ("greentic_worker__env__allow", "[LANG, OTEL_*]"),
        ],
    );
    assert_eq!(settings.bindings_dirs, [Path::new("a"), Path::new("/b/c")]);
    assert_eq!(settings.worker.tenant_slots.map(|n| n.get()), Some(7));
    assert_eq!(settings.worker.apology.as_deref(), Some("404"));
    assert_eq!(settings.redis.password.unwrap().expose(), "[12, 34");
    assert_eq!(settings.http.listen.to_string(), "off");
    assert_eq!(settings.log.filter, "info");
    let tenants: BTreeMap<String, _> = settings
        .tenants
        .iter()
        .map(|(tenant, given)| (tenant.to_string(), given))
        .collect();
    let flow = tenants["Acme"].default_flow.as_ref().unwrap();
    assert_eq!(
        (flow.pack.as_str(), flow.flow.as_str()),
        ("hello-pack", "main")
    );
    assert_eq!(tenants["dev.local"].max_in_flight.unwrap().get(), 3);
    assert_eq!(settings.env.allow.len(), 2);
}

#[test]
fn sections_whose_keys_are_commented_out_set_nothing() {
    let settings = works("worker:\n  # slots: 4\nnats:\n", &[]);
    assert_eq!(settings, Settings::defaults().unwrap());
}

#[test]
fn unknown_keys_are_named_with_their_source_and_the_nearest_known_one() {
    check_broken(
        "nats: {urll: x}\n",
        &[],
        "error: worker.yaml: nats.urll: no such setting\n  help: did you mean `nats.url`?",
    );
    check_broken(
        "slots: 4\n",
        &[],
        "error: worker.yaml: slots: no such setting\n  help: did you mean `worker.slots`?",
    );
    check_broken(
        "nats.url: x\n",
        &[],
        "error: worker.yaml: nats.url: no such setting\n  help: write `url` under `nats`",
    );
    check_broken(
        "tenants: {acme: {default-flow: a/b}}\n",
        &[],
        "error: worker.yaml: tenants.acme.default-flow: no such setting\n  help: did you mean `tenants.acme.default_flow`?",
    );
    check_broken(
        "http: {colour: red}\n",
        &[],
        "error: worker.yaml: http.colour: no such setting\n  help: known here: listen, connections, timeout, stalled_after",
    );
    check_broken(
        "",
        &[("GREENTIC_WORKER__NATS__URLL", "x")],
        "error: environment variable GREENTIC_WORKER__NATS__URLL: no such setting\n  help: did you mean GREENTIC_WORKER__NATS__URL?",
    );
    check_broken(
        "",
        &[("GREENTIC_WORKER__NATS_URL", "x")],
        "error: environment variable GREENTIC_WORKER__NATS_URL: no such setting\n  help: did you mean GREENTIC_WORKER__NATS__URL?",
    );
    check_broken(
        "",
        &[("GREENTIC_WORKER_WORKER_TURN_TIMEOUT", "1s")],
        "error: environment variable GREENTIC_WORKER_WORKER_TURN_TIMEOUT: it begins like a setting, but names none\n  help: did you mean GREENTIC_WORKER__WORKER__TURN_TIMEOUT? (two underscores before each key)",
    );
    check_broken(
        "",
        &[("GREENTIC_WORKER_COLOUR", "red")],
        "error: environment variable GREENTIC_WORKER_COLOUR: it begins like a setting, but names none\n  help: a setting is GREENTIC_WORKER__<SECTION>__<KEY>, two underscores before each key",
    );
}

#[test]
fn variables_that_kubernetes_makes_for_a_service_are_no_settings() {
    let of_services = [
        "GREENTIC_WORKER_SERVICE_HOST",
        "GREENTIC_WORKER_SERVICE_PORT",
        "GREENTIC_WORKER_SERVICE_PORT_HTTP",
        "GREENTIC_WORKER_PORT",
        "GREENTIC_WORKER_PORT_8080_TCP",
        "GREENTIC_WORKER_PORT_8080_TCP_PROTO",
        "GREENTIC_WORKER_PORT_8080_TCP_PORT",
        "GREENTIC_WORKER_PORT_8080_TCP_ADDR",
        "GREENTIC_WORKER_METRICS_SERVICE_HOST",
        "GREENTIC_WORKER_METRICS_PORT_9090_UDP_ADDR",
        "GREENTIC_WORKER__CANARY_SERVICE_HOST",
    ];
    works("", &of_services.map(|name| (name, "tcp://10.0.0.7:8080")));
    for meant in [
        "GREENTIC_WORKER_PORT_NUMBER",
        "GREENTIC_WORKER_PORT_8080_TCP_LIMIT",
    ] {
        let said = load("", &[(meant, "1")], &Flags::default()).unwrap_err();
        assert!(said.contains("it begins like a setting"), "{said}");
    }
}

#[test]
fn a_byte_order_mark_before_the_settings_is_passed_over() {
    assert_eq!(
        works("\u{feff}worker: {slots: 4}\n", &[])
            .worker
            .slots
            .get(),
        4
    );
}

#[test]
fn values_of_the_wrong_kind_are_named_with_what_is_expected() {
    check_broken(
        "worker: {slots: many}\n",
        &[],
        "error: worker.yaml: worker.slots: expected a whole number above 0, found string \"many\"",
    );
    check_broken(
        "worker: {turn_timeout: 30}\n",
        &[],
        "error: worker.yaml: worker.turn_timeout: expected a duration, found unsigned int `30`\n  help: write it like 500ms, 30s or 7d",
    );
    check_broken(
        "",
        &[("GREENTIC_WORKER__WORKER__SLOTS", "0")],
        "error: environment variable GREENTIC_WORKER__WORKER__SLOTS: expected a whole number above 0, found unsigned int `0`",
    );
    check_broken(
        "",
        &[("GREENTIC_WORKER__BINDINGS", "a.gtbind")],
        "error: environment variable GREENTIC_WORKER__BINDINGS: expected a list, found string \"a.gtbind\"\n  help: write it like [a, b]",
    );
    check_broken(
        "redis: {password: 12345}\n",
        &[],
        "error: worker.yaml: redis.password: expected a string, found something else",
    );
    check_broken(
        "worker: 5\n",
        &[],
        "error: worker.yaml: worker: `worker` is a section, not a single value\n  help: set the keys under `worker`",
    );
    check_broken(
        "http: {listen: 'http://u:geheim@x'}\n",
        &[],
        "error: worker.yaml: http.listen: `http://u:***@x` is nowhere to listen: expected an address such as `127.0.0.1:8080`, or `off`",
    );
    check_broken(
        "tenants: {a: {default_flow: main}}\n",
        &[],
        "error: worker.yaml: tenants.a.default_flow: `main` is no flow: expected `<pack name>/<flow>`, such as `hello-pack/main`",
    );
    check_broken(
        "log: {format: xml}\n",
        &[],
        "error: worker.yaml: log.format: expected one of `human`, `json`, found `xml`",
    );
}

#[test]
fn a_flag_is_named_where_its_value_is_wrong() {
    let flags = Flags {
        http_listen: Some("here".to_owned()),
        environment: Some("a b".to_owned()),
        ..Flags::default()
    };
    let said = load("", &[], &flags).unwrap_err();
    assert!(
        said.contains("error: flag --http-listen: `here` is nowhere"),
        "{said}"
    );
    assert!(said.contains("error: flag --environment: "), "{said}");
}

#[test]
fn all_problems_are_told_at_once() {
    check_broken(
        "nats: {urll: x}\nworker: {slots: many, attempts: some}\nhttp: {listen: here}\nlog: {filter: 'a=b=c'}\n",
        &[
            ("GREENTIC_WORKER_NATS_URL", "x"),
            ("GREENTIC_WORKER__WORKER__SLOTS", "more"),
        ],
        "\
error: environment variable GREENTIC_WORKER_NATS_URL: it begins like a setting, but names none
  help: did you mean GREENTIC_WORKER__NATS__URL? (two underscores before each key)
error: worker.yaml: http.listen: `here` is nowhere to listen: expected an address such as `127.0.0.1:8080`, or `off`
error: worker.yaml: nats.urll: no such setting
  help: did you mean `nats.url`?
error: worker.yaml: worker.attempts: expected a whole number above 0, found string \"some\"
error: environment variable GREENTIC_WORKER__WORKER__SLOTS: expected a whole number above 0, found string \"more\"
error: worker.yaml: worker.slots: expected a whole number above 0, found string \"many\"
error: worker.yaml: log.filter: `a=b=c` is no log filter: error parsing level filter: expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5
  help: write a level, or levels by target: info,greentic_worker=debug",
    );
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let help = "\n  help: config/default.yaml shows every key and its form";
    check_broken(
        "a: [",
        &[],
        &format!(
            "error: worker.yaml: this is not valid YAML: did not find expected node content at line 2 column 1, while parsing a flow node{help}"
        ),
    );
    check_broken(
        "a: 1\na: 2\n",
        &[],
        &format!(
            "error: worker.yaml: this is not valid YAML: duplicate entry with key \"a\"{help}"
        ),
    );
    check_broken(
        "- a\n",
        &[],
        &format!(
            "error: worker.yaml: settings are a mapping of keys to values, this is something else{help}"
        ),
    );
    let none = Some(Path::new("no/such.yaml"));
    let none = settings::load(none, &BTreeMap::new(), &Flags::default());
    let said = none.unwrap_err().to_string();
    let expected = "error: no/such.yaml: the settings cannot be read: ";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn combinations_that_cannot_work_are_errors() {
    check_broken(
        "worker: {retry: {initial: 1m}}\n",
        &[],
        "error: worker.yaml: worker.retry: the first pause is longer than the longest one\n  help: set `worker.retry.initial` to at most `worker.retry.max`",
    );
    check_broken(
        "limits: {waits_per_user: 10001}\n",
        &[],
        "error: worker.yaml: limits.waits_per_user: it must be 10000 or less\n  help: lower it: Redis looks at all open waits of a user who has that many",
    );
    check_broken(
        "worker: {wait_ttl: 0s}\n",
        &[],
        "error: worker.yaml: worker.wait_ttl: it must be 1ms or more",
    );
    check_broken(
        "",
        &[("GREENTIC_WORKER__REDIS__URL", "http://u:geheim@cache")],
        "error: redis.url (GREENTIC_WORKER__REDIS__URL): `http://***@cache` is no address of a Redis server\n  help: write redis://host:port/db, or rediss://host:port/db for TLS",
    );
    check_broken(
        "nats: {url: 'nats://u:geheim@host'}\n",
        &[],
        "error: worker.yaml: nats.url: the address holds credentials, which would be printed with it\n  help: put them in `nats.user` and `nats.password`, or in `nats.token`",
    );
}

/// The value below the boundary is told, the boundary itself is not.
#[track_caller]
fn check_boundary(file: &str, (below, boundary): (&str, &str), expected: &str) {
    let with = |value: &str| file.replace('?', value);
    let said = match load(&with(below), &[], &Flags::default()) {
        Ok(loaded) => loaded.warnings.to_string(),
        Err(said) => said,
    };
    assert_eq!(said.trim(), expected.trim());
    works(&with(boundary), &[]);
}

#[test]
fn durations_that_contradict_each_other_are_errors_with_the_arithmetic() {
    // Without streams, so that no window of a stream counts.
    let core = "nats: {delivery: core, ack_wait: 40s}\nworker: {retry: {max: 1s}}\nredis: {dedupe_window: 69s}\n";
    let said = load(core, &[], &Flags::default()).unwrap_err();
    assert!(
        said.contains("error: worker.yaml: redis.dedupe_window: 1m 9s is less than nats.ack_wait (40s) + worker.turn_timeout (30s) = 1m 10s: a message whose worker dies after it was applied may come again when that is forgotten, and is applied twice\n  help: set `redis.dedupe_window` to at least 1m 10s, or lower the others"),
        "{said}"
    );
    let right = load(&core.replace("69s", "70s"), &[], &Flags::default());
    assert!(right.is_ok(), "{right:?}");

    check_boundary(
        "redis: {dedupe_window: ?}\n",
        ("659s", "660s"),
        "error: worker.yaml: redis.dedupe_window: 10m 59s is less than nats.ack_wait (30s) + worker.turn_timeout (30s) + nats.duplicate_window (10m) = 11m: a copy that comes between the two is applied as a new message, and the stream drops its replies as copies of the first ones\n  help: set `redis.dedupe_window` to at least 11m, or lower the others",
    );
    check_boundary(
        "redis: {dedupe_window: 1h}\nworker: {retry: {max: ?}}\n",
        ("3571s", "3570s"),
        "error: worker.yaml: redis.dedupe_window: 1h is less than worker.retry.max (59m 31s) + worker.turn_timeout (30s) = 1h 1s: the attempts of a message are forgotten between two of them, and it is tried for ever\n  help: set `redis.dedupe_window` to at least 1h 1s, or lower the others",
    );
    check_boundary(
        "redis: {response_timeout: ?}\n",
        ("31s", "30s"),
        "error: worker.lease_ttl: 30s is less than redis.response_timeout (31s): a lease may expire before the worker learns that it has it\n  help: set `worker.lease_ttl` to at least 31s, or lower `redis.response_timeout`",
    );
    check_boundary(
        "nats: {inbound: {max_age: ?}}\nworker: {attempts: 1}\n",
        ("59s", "60s"),
        "error: worker.yaml: nats.inbound.max_age: 59s is less than nats.ack_wait (30s) + worker.turn_timeout (30s) = 1m: a message whose worker dies is dropped from the stream before it is run again\n  help: set `nats.inbound.max_age` to at least 1m, or lower the others",
    );
    // What is longer than any clock runs is no overflow.
    let endless = "nats: {ack_wait: 500000000000y}\nworker: {turn_timeout: 500000000000y}\n";
    assert!(load(endless, &[], &Flags::default()).is_err());
}

#[test]
fn durations_that_are_risky_together_are_warned_of_with_the_arithmetic() {
    check_boundary(
        "nats: {duplicate_window: ?}\n",
        ("64s", "65s"),
        "warning: worker.yaml: nats.duplicate_window: 1m 4s is less than nats.ack_wait (30s) + worker.turn_timeout (30s) + nats.request_timeout (5s) = 1m 5s: when a worker dies before it notes that a reply is out, the stream no longer recognises the reply when it is published again\n  help: set `nats.duplicate_window` to at least 1m 5s, or lower the others",
    );
    check_boundary(
        "worker: {wait_ttl: ?}\n",
        ("59s", "60s"),
        "warning: worker.yaml: worker.wait_ttl: 59s is less than nats.ack_wait (30s) + worker.turn_timeout (30s) = 1m: when the worker of an answer dies, the question has expired before the answer is run again\n  help: set `worker.wait_ttl` to at least 1m, or lower the others",
    );
    check_boundary(
        "components: {call_timeout: ?}\n",
        ("31s", "30s"),
        "warning: worker.turn_timeout: 30s is less than components.call_timeout (31s): the turn's limit ends a call before its own does\n  help: set `worker.turn_timeout` to at least 31s, or lower `components.call_timeout`",
    );
    check_boundary(
        "nats: {inbound: {max_age: ?}}\n",
        ("269s", "270s"),
        "warning: worker.yaml: nats.inbound.max_age: 4m 29s is less than worker.attempts x worker.turn_timeout (2m 30s) + the pauses between them (2m) = 4m 30s: a message that fails may be dropped from the stream before it is dead-lettered\n  help: set `nats.inbound.max_age` to at least 4m 30s, or lower the others",
    );
}

#[test]
fn legal_but_risky_pairs_are_warned_of() {
    check_risky(
        "nats: {ack_wait: 10s}\n",
        "warning: worker.yaml: nats.ack_wait: 10s is too short where a turn may take 30s: a worker that is held up for that long gets its message delivered to another one meanwhile\n  help: raise `nats.ack_wait` or lower `worker.turn_timeout`",
    );
    check_risky(
        "worker: {turn_timeout: 1m}\nnats: {ack_wait: 2m}\n",
        "warning: http.stalled_after: 1m is too short where a turn may take 1m: a worker whose slots are all taken by long turns is killed as stalled\n  help: raise `http.stalled_after` or lower `worker.turn_timeout`",
    );
    check_risky(
        "worker: {turn_timeout: 10s}\nhttp: {stalled_after: 20s}\n",
        "warning: worker.yaml: http.stalled_after: 20s is too short where a pull may take 30s: an idle worker is killed as stalled\n  help: raise `http.stalled_after` to more than 30s",
    );
    check_risky(
        "worker: {drain_timeout: 45s}\n",
        "warning: worker.yaml: worker.drain_timeout: draining may take 45s, but Kubernetes and others kill a process 30s after they asked it to stop\n  help: give the process a longer grace period, or drain in less than 30s",
    );
    check_risky(
        "limits: {session_bytes: 3000000}\n",
        "warning: worker.yaml: limits.session_bytes: no session of 3000000 bytes is ever stored: a turn may store 2097152 bytes in all\n  help: lower it, or raise `limits.commit_bytes`",
    );
    check_risky(
        "limits: {commit_bytes: 100000000}\n",
        "warning: worker.yaml: limits.commit_bytes: a commit of 100000000 bytes holds up Redis, and with it every tenant, for a good part of a second\n  help: lower it; docs/redis.md says how to measure what a commit takes",
    );
    check_risky(
        "nats: {delivery: core}\n",
        "warning: worker.yaml: nats.delivery: core delivery is at most once: a message that no worker is there to take, or whose worker dies, is lost\n  help: use `jetstream` where messages must not be lost",
    );
    check_risky(
        "worker: {tenant_slots: 300}\ntenants: {a-b: {max_in_flight: 400}}\n",
        "warning: worker.yaml: worker.tenant_slots: 300 turns of a tenant are never in flight: the worker has 256 slots\n  help: lower it, or raise `worker.slots`
warning: worker.yaml: tenants.a-b.max_in_flight: 400 turns of a tenant are never in flight: the worker has 256 slots\n  help: lower it, or raise `worker.slots`",
    );
    check_risky(
        "log: {filter: 'infoo,redis,a::b'}\n",
        "warning: worker.yaml: log.filter: `infoo` is no level, so only a target of that name is logged\n  help: write a level, or levels by target: info,greentic_worker=debug",
    );
}

#[test]
fn what_is_printed_says_where_values_come_from_and_shows_no_secret() {
    let file = "redis: {url: 'redis://ada:geheim@cache:1', password: geheim}\nnats: {token: geheim}\nworker: {apology: \"sorry:\\nlater\"}\nbindings: [a, b]\n";
    let flags = Flags {
        packs_store: Some("/packs".into()),
        ..Flags::default()
    };
    let loaded = load(file, &[("GREENTIC_WORKER__WORKER__SLOTS", "8")], &flags).unwrap();
    let page = loaded.render();
    for line in [
        "environment: dev\n",
        "bindings: [\"a\",\"b\"]  # worker.yaml\n",
        "  store: /packs  # --packs-store\n",
        "  slots: 8  # GREENTIC_WORKER__WORKER__SLOTS\n",
        "  apology: \"sorry:\\nlater\"  # worker.yaml\n",
        "    max: 30s\n",
        "  token: '***'  # worker.yaml\n",
        "  url: redis://***@cache:1  # worker.yaml\n",
        "  password: '***'  # worker.yaml\n",
        "tenants: {}\n",
    ] {
        assert!(page.contains(line), "no {line} in {page}");
    }
    let debug = format!("{:?} {:?}", loaded.settings, loaded);
    assert!(
        !page.contains("geheim") && !debug.contains("geheim"),
        "{debug}"
    );
}

#[test]
fn what_is_printed_is_a_settings_file() {
    let file = "worker: {turn_timeout: 90s, apology: ' # : '}\ntenants: {dev.local: {default_flow: a/b}}\nnats: {ack_wait: 100s}\n";
    let loaded = load(file, &[], &Flags::default()).unwrap();
    let again = load(&loaded.render(), &[], &Flags::default()).unwrap();
    assert_eq!(again.settings, loaded.settings);
}

#[test]
fn the_default_file_has_every_key_and_says_what_the_program_does() {
    let yaml: serde_yaml::Value = serde_yaml::from_str(DEFAULT_YAML).unwrap();
    let settings = Settings::defaults().unwrap();
    assert!(settings.validate().is_empty(), "{}", settings.validate());
    assert_eq!(
        paths(&yaml),
        paths(&serde_yaml::to_value(&settings).unwrap())
    );
    assert_eq!(settings.worker, settings::Worker::default());
    assert_eq!(settings.limits, settings::Limits::default());
    assert_eq!(settings.packs, settings::Packs::default());
    assert_eq!(settings.env, Default::default());
    assert_eq!(settings.nats, Default::default());
    assert_eq!(settings.redis, Default::default());
    assert_eq!(settings.http, Default::default());
    assert_eq!(settings.log, Default::default());
}

#[test]
fn the_settings_for_development_are_sound() {
    let file = include_str!("../config/dev.yaml");
    assert_eq!(works(file, &[]).bindings_dirs, [Path::new("bindings")]);
}

fn paths(yaml: &serde_yaml::Value) -> Vec<String> {
    let Some(mapping) = yaml.as_mapping() else {
        return vec![String::new()];
    };
    let section = mapping.iter().flat_map(|(key, value)| {
        let key = key.as_str().unwrap().to_owned();
        paths(value)
            .into_iter()
            .map(move |rest| format!("{key}.{rest}"))
    });
    section.collect()
}

#[test]
fn every_key_of_every_section_is_checked() {
    let yaml: serde_yaml::Value = serde_yaml::from_str(DEFAULT_YAML).unwrap();
    let mut sections = vec![String::new()];
    sections.extend(paths(&yaml).iter().flat_map(|path| {
        let keys: Vec<&str> = path.trim_end_matches('.').split('.').collect();
        (1..keys.len())
            .map(|depth| keys[..depth].join(".") + ".")
            .collect::<Vec<_>>()
    }));
    for section in sections {
        let variable = format!("GREENTIC_WORKER__{}NO_SUCH_KEY", section.replace('.', "__"));
        let said = load("", &[(&variable, "1")], &Flags::default()).unwrap_err();
        let expected = format!("error: environment variable {variable}: no such setting\n");
        assert!(said.starts_with(&expected), "{said}");
    }
}

/// `docs/settings.md` is this page with the keys of `config/default.yaml` where its marker is; `UPDATE=1 cargo test
/// --test settings` writes it anew.
#[test]
fn the_document_lists_every_key() {
    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");
    const BEGIN: &str = "<!-- from config/default.yaml -->\n";
    let document = std::fs::read_to_string(PATH).unwrap();
    let (prose, _) = document.split_once(BEGIN).unwrap();
    let table = table(DEFAULT_YAML);
    let expected = format!("{prose}{BEGIN}\n{table}");
    for key in paths(&serde_yaml::from_str(DEFAULT_YAML).unwrap()) {
        let key = key.trim_end_matches('.');
        assert!(
            table.contains(&format!("| `{key}` |")),
            "{key} says nothing"
        );
    }
    if settings::environment().contains_key("UPDATE") {
        std::fs::write(PATH, &expected).unwrap();
    } else {
        assert_eq!(
            document, expected,
            "UPDATE=1 cargo test --test settings writes it anew"
        );
    }
}

/// One row a key, from lines of `key: default` under the comment that explains them.
fn table(yaml: &str) -> String {
    let mut rows = "| key | default | meaning |\n| --- | --- | --- |\n".to_owned();
    let mut path: Vec<&str> = Vec::new();
    let mut meaning = String::new();
    // What stands above the first blank line is about the file itself.
    let (_, yaml) = yaml.split_once("\n\n").unwrap();
    for line in yaml.lines().filter(|line| !line.is_empty()) {
        let text = line.trim_start();
        if let Some(comment) = text.strip_prefix("# ") {
            meaning = format!("{meaning} {comment}");
            continue;
        }
        let (key, default) = text.split_once(':').unwrap();
        path.truncate((line.len() - text.len()) / 2);
        path.push(key);
        let default = match default.trim() {
            "" => String::new(),
            value => format!("`{value}`"),
        };
        let (key, meaning) = (path.join("."), std::mem::take(&mut meaning));
        if default.is_empty() && meaning.is_empty() {
            continue;
        }
        rows.push_str(&format!("| `{key}` | {default} |{meaning} |\n"));
    }
    rows
}
