//! What a turn sends, counted on the wire: Redis commands and NATS messages, compared with `tests/cost/traffic.json`.
//! `UPDATE=1` writes that file anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};

use crate::harness::{
    Message, NatsServer, Provider, RedisServer, Servers, WorkerProcess, fresh_tenant, setting,
};

/// Conversations of two turns each.
const CONVERSATIONS: usize = 256;
/// Their turns.
const TURNS: f64 = 2.0 * CONVERSATIONS as f64;
/// Commands that belong to no turn: this test's own.
const NO_TURN: &[&str] = &["info", "config|resetstat"];
/// The commands of a look at readiness, which writes and takes it back.
const LOOK: &[&str] = &["evalsha", "set", "del"];
/// More looks than there are while the turns run.
const MOST_LOOKS: u64 = 128;
/// How many turns a pull brings at the least, on average, when there is much to do.
const TURNS_A_PULL: f64 = 8.0;

/// What one turn sends.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Traffic {
    /// Redis commands by name, those inside of scripts included; `evalsha` and what is no part of a script are trips.
    redis: BTreeMap<String, f64>,
    /// Messages to NATS by kind.
    nats: BTreeMap<String, f64>,
}

#[tokio::test]
async fn a_turn_sends_what_the_baseline_says() {
    let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let _worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    // The first turns bring the scripts to Redis.
    converse(&mut provider, "warm", 1).await;
    let client = redis::Client::open(servers.redis_url.as_str()).unwrap();
    let mut stats = client.get_multiplexed_async_connection().await.unwrap();
    let () = redis::cmd("CONFIG")
        .arg("RESETSTAT")
        .query_async(&mut stats)
        .await
        .unwrap();
    let tap = Tap::on(&servers).await;

    converse(&mut provider, "counted", CONVERSATIONS).await;

    let mut sent = tap.counted().await;
    let pulls = sent.remove("pull").unwrap_or_default();
    let each = |(what, count): (String, u64)| (what, count as f64 / TURNS);
    let commands = without_looks(commands(&mut stats).await);
    let found = Traffic {
        redis: commands.into_iter().map(each).collect(),
        nats: sent.into_iter().map(each).collect(),
    };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cost/traffic.json");
    if setting("UPDATE").is_some() {
        let text = serde_json::to_string_pretty(&found).unwrap() + "\n";
        fs::write(&file, text).unwrap();
    }
    let baseline: Traffic = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(found, baseline, "if it is meant to be so: UPDATE=1");
    let turns_a_pull = TURNS / pulls as f64;
    assert!(
        turns_a_pull >= TURNS_A_PULL,
        "{pulls} pulls for {TURNS} turns"
    );
}

/// Both turns of so many conversations, all first turns before all second ones.
async fn converse(provider: &mut Provider, name: &str, conversations: usize) {
    for text in ["hi", "Ada"] {
        let messages = (0..conversations).map(|n| {
            let conversation = format!("{name}-{n}");
            Message::new(&conversation, text).from(&conversation)
        });
        provider.flood(messages).await;
        provider.expect_replies(conversations).await;
        provider.settled().await;
    }
}

/// How often each command was called since the statistics were reset.
async fn commands(redis: &mut MultiplexedConnection) -> BTreeMap<String, u64> {
    let mut info = redis::cmd("INFO");
    let stats: String = info.arg("commandstats").query_async(redis).await.unwrap();
    let calls = stats.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = rest.split(',').next()?.parse().ok()?;
        (!NO_TURN.contains(&name)).then(|| (name.to_owned(), calls))
    });
    calls.collect()
}

/// Takes the worker's looks at readiness out: a turn calls a whole number of scripts, so they are the rest.
fn without_looks(mut commands: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let turns = 2 * CONVERSATIONS as u64;
    let looks = commands.get("evalsha").copied().unwrap_or_default() % turns;
    assert!(looks < MOST_LOOKS, "{commands:?}");
    for name in LOOK {
        if let Some(count) = commands.get_mut(*name) {
            *count -= looks;
        }
    }
    commands
}

/// Hears what the worker sends to NATS.
struct Tap {
    client: async_nats::Client,
    subscriber: async_nats::Subscriber,
}

/// The subject that ends a count: what was sent before it was heard before it.
const END: &str = "end.of.count";

impl Tap {
    async fn on(servers: &Servers) -> Self {
        let client = async_nats::connect(&servers.nats_url).await.unwrap();
        let subscriber = client.subscribe(">").await.unwrap();
        client.flush().await.unwrap();
        Self { client, subscriber }
    }

    async fn counted(mut self) -> BTreeMap<String, u64> {
        self.client.publish(END, "".into()).await.unwrap();
        let mut counted = BTreeMap::new();
        while let Some(message) = self.subscriber.next().await {
            let subject = message.subject.as_str();
            // What JetStream delivers bears the subject under which it was published.
            let delivered = message
                .reply
                .is_some_and(|reply| reply.starts_with("$JS.ACK."));
            let kind = match subject {
                END => break,
                _ if delivered => continue,
                _ if subject.starts_with("outbound.") => "reply",
                // The body of an ack is empty or says so; anything else is a sign of progress or hands back.
                _ if subject.starts_with("$JS.ACK.GREENTIC_INBOUND.") => "settlement",
                _ if subject.starts_with("$JS.API.CONSUMER.MSG.NEXT.GREENTIC_INBOUND.") => "pull",
                _ => continue,
            };
            *counted.entry(kind.to_owned()).or_default() += 1;
        }
        counted
    }
}
