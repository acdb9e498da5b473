//! No tenant is in another one's way.

use std::cell::Cell;
use std::collections::HashMap;

use crate::harness::{
    DEADLINE, FixturePack, MOST_SLOWDOWN, Message, NatsServer, Neighbour, Provider, RedisServer,
    Servers, WorkerProcess, fresh_tenant, poll,
};

const ECHO: &str = "a: {emit.message: {text: \"{{in.text}}\"}, routing: out}";
const IN_FLIGHT: &str = "greentic_worker_turns_in_flight";

fn many(count: usize) -> impl Iterator<Item = Message> {
    (0..count).map(|n| Message::new("flood", &format!("{n}")).from(&format!("user{n}")))
}

#[tokio::test]
async fn a_flood_of_one_tenant_does_not_keep_another_waiting() {
    // Their own, so that nothing else is in the stream of replies.
    let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let pack = FixturePack::of("echo", &[("main", ECHO)]);
    let loud = fresh_tenant().runs(&pack, &["main"], "");
    let quiet = fresh_tenant().binds("hello-pack", &["main"]);
    let flood = Provider::connect(&servers, &loud)
        .await
        .patient(DEADLINE * 3);
    let mut provider = Provider::connect(&servers, &quiet).await;
    // Few slots, which the flood takes all.
    let start = async || {
        let worker = WorkerProcess::of(&servers).bindings(&loud).bindings(&quiet);
        worker.setting("WORKER__SLOTS", "4").start().await
    };
    // The first one only makes the streams.
    assert_eq!(start().await.stop().await, 0);
    flood.flood(many(1_000)).await;

    let worker = start().await;
    let began = poll(DEADLINE, async || {
        (flood.unsettled().await < 900).then_some(())
    });
    began.await.expect("the flood is worked off");
    let (over, sent) = (Cell::new(false), Cell::new(1_000));
    let talking = async {
        // Alone and in a crowd: several conversations at once, each of two turns.
        for crowd in [1, 6] {
            for text in ["hi", "Ada"] {
                speak(&mut provider, crowd, text).await;
            }
        }
        assert!(worker.metric(IN_FLIGHT, &loud.id).await <= 5.0);
        over.set(true);
    };
    // It does not end before they have talked.
    let flooding = async {
        while !over.get() {
            if flood.unsettled().await < 500 {
                flood.flood(many(500)).await;
                sent.set(sent.get() + 500);
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(talking, flooding);
    flood.settled().await;
    assert_eq!(flood.published().await, (sent.get(), 0));
}

/// So many users say something, and each is answered before the flood has got much further.
async fn speak(provider: &mut Provider, crowd: u64, text: &str) {
    let mut marks = HashMap::new();
    for n in 0..crowd {
        let (conversation, user) = (format!("{crowd}-{n}"), format!("user{n}"));
        let id = format!("{conversation}-{text}");
        let message = Message::new(&conversation, text).from(&user).id(&id);
        marks.insert(id, provider.send_marked(&message).await);
    }
    for _ in 0..crowd {
        let reply = provider.expect_reply().await;
        let meanwhile = reply.sequence - marks[reply.in_reply_to().unwrap()];
        assert!(
            meanwhile < 50 * (crowd + 1),
            "one of {crowd} conversations had to wait for {meanwhile} messages of the flood"
        );
    }
}

#[tokio::test]
async fn a_tenant_has_no_more_in_flight_than_its_limit() {
    let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let pack = FixturePack::of("echo", &[("main", ECHO)]);
    let (one, two, rest) = (
        fresh_tenant().runs(&pack, &["main"], ""),
        fresh_tenant().runs(&pack, &["main"], ""),
        fresh_tenant().runs(&pack, &["main"], ""),
    );
    let settings = format!(
        "tenants:\n  {}: {{max_in_flight: 1}}\n  {}: {{max_in_flight: 2}}\n",
        one.id, two.id
    );
    let config = one.dir().join("settings.yaml");
    std::fs::write(&config, settings).unwrap();
    let worker = WorkerProcess::of(&servers)
        .bindings(&one)
        .bindings(&two)
        .bindings(&rest)
        .setting("WORKER__SLOTS", "6")
        .setting("REDIS__RESPONSE_TIMEOUT", "5m")
        .setting("WORKER__LEASE_TTL", "10m")
        .arg("--config")
        .arg(config.to_str().unwrap())
        .start()
        .await;
    let tenants = [&one, &two, &rest];
    let mut providers = Vec::new();
    for tenant in tenants {
        providers.push(Provider::connect(&servers, tenant).await);
    }

    // Turns that stand still for as long as Redis does: whoever may run then does.
    redis.pause();
    for provider in &providers {
        provider.flood(many(40)).await;
    }
    let limits = [1.0, 2.0, 7.0];
    let in_flight = async || {
        let mut all = Vec::new();
        for tenant in tenants {
            all.push(worker.metric(IN_FLIGHT, &tenant.id).await);
        }
        all
    };
    let reached = poll(DEADLINE, async || {
        let now = in_flight().await;
        assert!(
            now.iter().zip(limits).all(|(now, limit)| *now <= limit),
            "{now:?}"
        );
        assert!(now.iter().sum::<f64>() <= 6.0 + 3.0, "{now:?}");
        // What the limited ones leave of the shared slots, and its own, is for the third tenant.
        (now[0] == 1.0 && now[1] == 2.0 && now[2] >= 5.0).then_some(())
    });
    assert!(reached.await.is_some(), "{:?}", in_flight().await);
    redis.resume();
    for provider in &providers {
        provider.settled().await;
        assert_eq!(provider.published().await, (40, 0));
    }
}

#[tokio::test]
async fn a_flood_makes_a_neighbour_at_most_twice_as_slow() {
    let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let pack = FixturePack::of("echo", &[("main", ECHO)]);
    let loud = fresh_tenant().runs(&pack, &["main"], "");
    let neighbour = Neighbour::new();
    let _worker = WorkerProcess::of(&servers)
        .bindings(&loud)
        .bindings(neighbour.tenant())
        .setting("WORKER__TENANT_SLOTS", "1")
        .start()
        .await;
    let flood = Provider::connect(&servers, &loud).await.patient(DEADLINE);
    let mut neighbour = neighbour.connect(&servers).await;
    let attack = async || flood.flood(many(500)).await;
    let slowdown = neighbour.slowdown(attack, async || flood.settled().await);
    assert!(slowdown.await <= MOST_SLOWDOWN);
}

/// Many messages of one conversation of one user.
fn lines(count: usize) -> impl Iterator<Item = Message> {
    (0..count).map(|n| Message::new("one", &format!("{n}")).from("loud"))
}

#[tokio::test]
async fn a_flood_in_one_conversation_leaves_slots_to_the_other_users_of_its_tenant() {
    const LINES: usize = 2_000;
    let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let pack = FixturePack::of("echo", &[("main", ECHO)]);
    let tenant = fresh_tenant().runs(&pack, &["main"], "");
    let mut provider = Provider::connect(&servers, &tenant).await;
    let start = async || {
        let worker = WorkerProcess::of(&servers).bindings(&tenant);
        worker.setting("WORKER__SLOTS", "4").start().await
    };
    assert_eq!(start().await.stop().await, 0);
    for line in lines(LINES) {
        provider.send(&line).await;
    }
    let quiet = Message::new("other", "hello").from("quiet").id("quiet");
    provider.send(&quiet).await;

    let _worker = start().await;
    let (mut before, mut next) = (0, 0);
    for position in 0..=LINES {
        let reply = provider.expect_reply().await;
        if reply.in_reply_to() == Some("quiet") {
            before = position;
        } else {
            assert_eq!(reply.text(), next.to_string(), "out of order");
            next += 1;
        }
    }
    assert!(
        before < LINES / 2,
        "{before} messages of another conversation came first"
    );
    provider.settled().await;
}

#[tokio::test]
async fn tenants_that_only_listen_take_no_slot_from_those_that_have_messages() {
    const TENANTS: usize = 12;
    let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let pack = FixturePack::of("echo", &[("main", ECHO)]);
    let tenants: Vec<_> = (0..TENANTS)
        .map(|_| fresh_tenant().runs(&pack, &["main"], ""))
        .collect();
    let mut worker = WorkerProcess::of(&servers).setting("WORKER__SLOTS", "4");
    for tenant in &tenants {
        worker = worker.bindings(tenant);
    }
    let _worker = worker.start().await;
    let mut providers = Vec::new();
    for tenant in &tenants {
        providers.push(Provider::connect(&servers, tenant).await);
    }
    // After its message a tenant listens for the next one, while its own slot still runs the turn. The last ones are the
    // first to get another message, when the first ones have listened for long.
    for text in ["one", "two"] {
        for provider in providers.iter_mut().rev() {
            provider.send(&Message::new("c", text)).await;
            provider.expect_text(text).await;
        }
        providers.reverse();
    }
}
