use super::*;

#[track_caller]
fn check(yaml: &str, expected: &[&str]) {
    let config: Config = serde_yaml::from_str(yaml).unwrap();
    let found: Vec<String> = config.validate().iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{yaml}: {found:#?}");
    for (problem, part) in found.iter().zip(expected) {
        assert!(problem.contains(part), "{yaml}: {problem}");
    }
}

#[test]
fn the_defaults_are_sound_and_survive_a_round_trip() {
    assert!(Config::default().validate().is_empty());
    let yaml = serde_yaml::to_string(&Config::default()).unwrap();
    assert_eq!(
        serde_yaml::from_str::<Config>(&yaml).unwrap(),
        Config::default()
    );
}

#[test]
fn every_rule_is_told_with_its_place() {
    check("url: ''", &["nats.url: no NATS server"]);
    check("url: 'nats://a:4222, b:4223'", &[]);
    check("url: 'http://a'", &["nats.url: this is no NATS address"]);
    check("url: 'ws://a'", &["`ws` is not supported"]);
    check(
        "user: u\ntoken: t",
        &["user, token", "`user` and `password`"],
    );
    check("user: u\npassword: p", &[]);
    check("password: p", &["`user` and `password`"]);
    check("prefix: acme.staging", &[]);
    check(
        "prefix: a.inbound",
        &["nats.prefix: `a.inbound` cannot be a prefix: `inbound` is"],
    );
    check("ack_wait: 10ms", &["nats.ack_wait: 10ms is too short"]);
    check(
        "tls: {cert_file: /none.pem}",
        &["go together", "cannot be read"],
    );
    check(
        "creds_file: /no/such.creds",
        &["such.creds: nats.creds_file"],
    );
    check("inbound: {replicas: 0}", &["nats.inbound.replicas"]);
    check("deadletter: {max_bytes: 0}", &["nats.deadletter.max_bytes"]);
    check("outbound: {max_age: 1m}", &["nats.outbound.max_age"]);
    check("inbound: {max_age: 1m}", &[]);
}

#[test]
fn credentials_in_the_address_are_refused_and_not_repeated() {
    let config = Config {
        url: "nats://ada:secret@host".to_owned(),
        ..Config::default()
    };
    let problems = config.validate().to_string();
    assert!(problems.contains("nats.user"), "{problems}");
    assert!(!problems.contains("secret"), "{problems}");
}

#[test]
fn an_unknown_key_is_refused() {
    for yaml in ["urls: x", "tls: {ca: x}", "inbound: {duplicate_window: 1s}"] {
        assert!(serde_yaml::from_str::<Config>(yaml).is_err(), "{yaml}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let config: Config = serde_yaml::from_str("token: hush\nnkey_seed: hush").unwrap();
    assert!(!format!("{config:?}").contains("hush"));
    assert!(!serde_yaml::to_string(&config).unwrap().contains("hush"));
}
