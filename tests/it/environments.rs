//! Two environments in one NATS account: with a prefix neither sees anything of the other, and without one the second does not
//! start.

use std::process::Output;

use async_nats::HeaderMap;
use async_nats::jetstream;

use crate::harness::{
    DEADLINE, FixturePack, Message, NatsServer, Provider, RedisServer, Servers, Tenant,
    WorkerBuilder, WorkerProcess, fresh_tenant, poll, scratch,
};

const PREFIX: &str = "staging";

struct Site {
    nats: NatsServer,
    redis: RedisServer,
    production: Tenant,
    /// The same tenant.
    staging: Tenant,
}

impl Site {
    async fn start() -> Self {
        let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
        let says = |name: &str| {
            let flow = format!("say: {{emit.message: {{text: \"{name}: {{{{in.text}}}}\"}}}}\n");
            FixturePack::of(name, &[("main", flow.as_str())])
        };
        let production = fresh_tenant();
        let staging = production.with_other_bindings();
        Self {
            nats,
            redis,
            production: production.runs(&says("production"), &["main"], ""),
            staging: staging.runs(&says("staging"), &["main"], ""),
        }
    }

    fn servers(&self) -> Servers {
        Servers::own(&self.nats, &self.redis)
    }

    fn worker(&self, environment: &str) -> WorkerBuilder {
        let tenant = match environment {
            "production" => &self.production,
            _ => &self.staging,
        };
        WorkerProcess::of(&self.servers())
            .bindings(tenant)
            .setting("ENVIRONMENT", environment)
            .setting("REDIS__NAMESPACE", environment)
            .setting("NATS__UNSERVED_EVERY", "100ms")
    }

    async fn jetstream(&self) -> jetstream::Context {
        let client = async_nats::connect(self.nats.url()).await.unwrap();
        jetstream::new(client)
    }

    /// Runs another command of the worker, as an operator of staging.
    async fn command(&self, args: &[&str], settings: &[(&str, &str)]) -> Output {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_greentic-worker"));
        let cache = scratch();
        command.args(args);
        for (name, value) in [
            ("NATS__URL", self.nats.url().as_str()),
            ("REDIS__URL", self.redis.url().as_str()),
            ("ENVIRONMENT", "staging"),
            ("PACKS__CACHE_DIR", &cache.path().display().to_string()),
        ]
        .iter()
        .chain(settings)
        {
            command.env(format!("GREENTIC_WORKER__{name}"), value);
        }
        let running = tokio::task::spawn_blocking(move || command.output());
        running.await.unwrap().unwrap()
    }

    async fn check(&self, settings: &[(&str, &str)]) -> (i32, String) {
        let dir = self.staging.dir().display().to_string();
        let args = ["check", "--connect", "--bindings", dir.as_str()];
        let output = self.command(&args, settings).await;
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(text).unwrap(),
        )
    }
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[tokio::test]
async fn with_a_prefix_two_environments_take_nothing_of_each_other() {
    let site = Site::start().await;
    let servers = site.servers();
    let (first, second) = tokio::join!(
        site.worker("production").start(),
        site.worker("staging")
            .setting("NATS__PREFIX", PREFIX)
            .start()
    );
    let mut production = Provider::connect(&servers, &site.production).await;
    let mut staging = Provider::connect_with_prefix(&servers, &site.staging, PREFIX).await;
    for n in 0..20 {
        let (conversation, text) = (format!("c{n}"), format!("{n}"));
        // The same ids, too.
        let message = Message::new(&conversation, &text);
        production.send(&message).await;
        staging.send(&message).await;
        production.expect_text(&format!("production: {n}")).await;
        staging.expect_text(&format!("staging: {n}")).await;
    }

    let body = b"{ nonsense".to_vec();
    staging
        .send_raw(&site.staging.id, HeaderMap::new(), body.clone())
        .await;
    let dead = staging.expect_dead().await;
    assert_eq!(
        (dead.code(), &dead.body[..]),
        ("unreadable_body", &body[..])
    );
    staging.acked().await;
    production.acked().await;
    assert_eq!(production.published().await, (20, 0));
    assert_eq!(staging.published().await, (20, 1));

    // A subject that nobody serves is each environment's own affair.
    let typo = format!("{PREFIX}.inbound.{}x", site.staging.id);
    let jetstream = site.jetstream().await;
    let stored = jetstream.publish(typo.clone(), "{}".into()).await.unwrap();
    assert_eq!(stored.await.unwrap().stream, "staging_GREENTIC_INBOUND");
    let metric = "greentic_worker_unserved_messages";
    second.expect_metric(metric, &typo, 1.0).await;
    let purge = format!("nats stream purge staging_GREENTIC_INBOUND --subject={typo}");
    let warned = poll(DEADLINE, async || {
        second.log().contains(&purge).then_some(())
    })
    .await;
    assert!(warned.is_some(), "{}", second.log());
    assert_eq!(first.metric(metric, "").await, 0.0);
}

#[tokio::test]
async fn commands_work_on_the_environment_of_their_prefix() {
    let site = Site::start().await;
    let servers = site.servers();
    let _production = site.worker("production").start().await;
    let prefixed = [("NATS__PREFIX", PREFIX)];
    let (code, said) = site.check(&prefixed).await;
    assert_eq!(code, 0, "{said}");
    has(
        &said,
        &["staging_GREENTIC_INBOUND", "missing; a start makes it"],
    );
    let consumer = format!("staging_worker-{}", site.staging.id.replace('.', "="));
    has(&said, &[&consumer]);
    let output = site.command(&["deadletters", "list"], &prefixed).await;
    assert_eq!(output.status.code(), Some(69));
    let said = String::from_utf8(output.stderr).unwrap();
    has(
        &said,
        &["no stream staging_GREENTIC_DEADLETTER", "`nats.prefix`"],
    );

    let _staging = site
        .worker("staging")
        .setting("NATS__PREFIX", PREFIX)
        .start()
        .await;
    let (code, said) = site.check(&prefixed).await;
    assert_eq!(code, 0, "{said}");
    has(&said, &["staging_GREENTIC_OUTBOUND", "0 messages"]);

    // A conversation from a terminal.
    let script = scratch();
    let script = script.path().join("script");
    std::fs::write(&script, "hello\n").unwrap();
    let (tenant, url) = (site.staging.id.as_str(), site.nats.url());
    let script = script.display().to_string();
    let args = [
        "chat", "--nats", &url, "--tenant", tenant, "--script", &script,
    ];
    let output = site.command(&args, &prefixed).await;
    has(
        &String::from_utf8(output.stdout).unwrap(),
        &["staging: hello"],
    );

    // Dead letters are found, replayed and dropped where they are.
    let mut staging = Provider::connect_with_prefix(&servers, &site.staging, PREFIX).await;
    let production = Provider::connect(&servers, &site.production).await;
    let body = b"{ nonsense".to_vec();
    staging.send_raw(tenant, HeaderMap::new(), body).await;
    staging.expect_dead().await;
    let args = ["deadletters", "replay", "--tenant", tenant, "--dry-run"];
    let output = site.command(&args, &prefixed).await;
    let would = format!("would replay 1 to staging.inbound.{tenant}");
    has(&String::from_utf8(output.stdout).unwrap(), &[&would]);
    let args = ["deadletters", "replay", "--tenant", tenant];
    let output = site.command(&args, &prefixed).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(staging.expect_dead().await.code(), "unreadable_body");
    staging.settled().await;
    let output = site
        .command(&["deadletters", "list", "--json"], &prefixed)
        .await;
    let listed = String::from_utf8(output.stdout).unwrap();
    has(
        &listed,
        &[&format!("\"tenant\":\"{tenant}\""), "\"sequence\":2"],
    );
    assert_eq!(listed.lines().count(), 1, "{listed}");
    let args = ["deadletters", "drop", "--all", "--yes"];
    assert!(site.command(&args, &prefixed).await.status.success());
    assert_eq!(staging.published().await.1, 0);
    assert_eq!(production.published().await, (0, 0));
}

#[tokio::test]
async fn without_a_prefix_the_second_environment_does_not_start() {
    let site = Site::start().await;
    let first = site.worker("production").start().await;
    let second = site.worker("staging").without_waiting().start().await;
    assert_eq!(second.exited(DEADLINE).await, 64);
    let wanted = [
        "stream GREENTIC_INBOUND: it belongs to environment `production`, and this worker's is `staging`",
        "stream GREENTIC_OUTBOUND: it belongs",
        "stream GREENTIC_DEADLETTER: it belongs",
        "by another `nats.prefix`, such as `staging`",
        "take the stream over: nats stream edit GREENTIC_INBOUND --",
    ];
    has(&second.log(), &wanted);
    let (code, said) = site.check(&[]).await;
    assert_eq!(code, 64, "{said}");
    has(&said, &wanted);

    // The first one goes on, and another one of its environment starts.
    let _another = site.worker("production").start().await;
    let mut production = Provider::connect(&site.servers(), &site.production).await;
    production.send(&Message::new("c", "still")).await;
    production.expect_text("production: still").await;
    production.settled().await;
    assert_eq!(first.exit_code(), None);
}

/// What the command for a stream does that is to be taken over.
async fn take_over(jetstream: &jetstream::Context, stream: &str, command: &str) {
    let mut config = jetstream
        .get_stream(stream)
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    let option = command.split_once(" --").unwrap().1;
    let (name, value) = option.split_once('=').unwrap();
    let value = value.trim_matches('\'');
    match name {
        "metadata" => {
            let (key, value) = value.split_once('=').unwrap();
            config.metadata.insert(key.to_owned(), value.to_owned());
        }
        "description" => config.description = Some(value.to_owned()),
        other => panic!("--{other}"),
    }
    jetstream.update_stream(config).await.unwrap();
}

#[tokio::test]
async fn streams_are_taken_over_on_purpose() {
    let site = Site::start().await;
    let first = site.worker("production").start().await;
    first.stop().await;
    let second = site.worker("staging").without_waiting().start().await;
    assert_eq!(second.exited(DEADLINE).await, 64);
    let jetstream = site.jetstream().await;
    for word in ["INBOUND", "OUTBOUND", "DEADLETTER"] {
        let stream = format!("GREENTIC_{word}");
        let log = second.log();
        let mut commands = log
            .lines()
            .filter_map(|line| line.split_once("take the stream over: "));
        let command = commands.find(|(_, command)| command.contains(&stream));
        take_over(&jetstream, &stream, command.expect("a command").1).await;
    }
    let _second = site.worker("staging").start().await;
    let mut staging = Provider::connect(&site.servers(), &site.staging).await;
    staging.send(&Message::new("c", "mine")).await;
    staging.expect_text("staging: mine").await;
    let first = site.worker("production").without_waiting().start().await;
    assert_eq!(first.exited(DEADLINE).await, 64);
    has(&first.log(), &["it belongs to environment `staging`"]);
}

/// The streams vanish while a worker runs, and the other environment is the one that makes them again.
#[tokio::test]
async fn a_worker_whose_streams_become_another_environments_takes_nothing_of_it() {
    let site = Site::start().await;
    let first = site.worker("production").start().await;
    let jetstream = site.jetstream().await;
    first.pause();
    for word in ["INBOUND", "OUTBOUND", "DEADLETTER"] {
        let stream = format!("GREENTIC_{word}");
        jetstream.delete_stream(stream).await.unwrap();
    }
    let second = site.worker("staging").start().await;
    first.resume();
    let refused = poll(DEADLINE, async || {
        let (_, body) = first.get("/readyz").await?;
        let wanted = ["stream_config", "belongs to environment `staging`"];
        wanted.iter().all(|part| body.contains(part)).then_some(())
    });
    assert!(refused.await.is_some(), "{:?}", first.get("/readyz").await);
    has(
        &first.log(),
        &["belongs to environment `staging`", "nats.prefix"],
    );
    let mut staging = Provider::connect(&site.servers(), &site.staging).await;
    for n in 0..20 {
        staging.send(&Message::new(&format!("c{n}"), "mine")).await;
    }
    for reply in staging.expect_replies(20).await {
        assert_eq!(reply.text(), "staging: mine");
    }
    staging.settled().await;

    // Given back, all goes on by itself.
    second.stop().await;
    for word in ["INBOUND", "OUTBOUND", "DEADLETTER"] {
        let stream = format!("GREENTIC_{word}");
        jetstream.delete_stream(stream).await.unwrap();
    }
    let mut production = Provider::connect(&site.servers(), &site.production).await;
    production.send(&Message::new("c", "again")).await;
    production.expect_text("production: again").await;
}
