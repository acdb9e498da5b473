//! What a turn may read, write and store: what exceeds it fails at once, and leaves everything as it was.

use greentic_worker::ports::Quotas;
use greentic_worker::turn::Bounds;

use super::*;

fn quiet() -> PlayedComponents {
    PlayedComponents::new(|_, _| done(Value::Null))
}

fn machine_node(id: &str, mapping: Value, routing: Value) -> Value {
    json!({"component": {"id": id, "operation": null}, "input": {"mapping": mapping}, "routing": routing})
}

fn wait() -> Value {
    json!({"component": {"id": "session.wait", "operation": null}, "input": {"mapping": "why"},
        "routing": next("end")})
}

fn end() -> Value {
    machine_node("emit.message", json!({"text": "end"}), json!("end"))
}

fn world(nodes: &Value, components: impl Components, bounds: Bounds) -> World {
    let mut world = World::new(nodes, components);
    world.turns.config.bounds = bounds;
    world
}

/// Runs a message that fails; tells the code and the reason. It is tried once.
async fn fails(world: &World, activity: &Activity) -> (&'static str, String) {
    let ended = world.run(activity, 1).await;
    let Disposition::DeadLetter(why) = ended.disposition else {
        panic!("{ended:?}")
    };
    (why.error.code(), why.error.to_string())
}

#[tokio::test]
async fn a_component_sees_which_reads_are_refused() {
    let names = |n: usize| format!("k{n}");
    let store = Arc::new(MemoryStore::new(SystemClock, Duration::from_secs(600)));
    let writes =
        json!({"a": machine_node("state.set", json!({"key": "last", "value": 7}), json!("end"))});
    let writer = World::on(&store, &writes, quiet());
    assert_eq!(writer.settle(&says("m1", "")).await, (None, 1));
    // Reads so many keys that are not there, and then the one that is.
    for (others, found) in [(255, json!(7)), (256, Value::Null)] {
        let played = PlayedComponents::new(move |_, read| match read.len() {
            n if n < others => Act::Read(names(n)),
            n if n == others => Act::Read("last".to_owned()),
            _ => done(json!({"text": "hi", "last": read[others]})),
        });
        let nodes = json!({"a": node("plain", json!("end"))});
        let mut world = World::on(&store, &nodes, played);
        let ended = world.settle(&says(&format!("m-{others}"), "")).await;
        assert_eq!(ended, (None, 1));
        let reply = &world.replies()[0];
        assert_eq!(reply["extensions"]["payload"]["last"], found, "{reply}");
    }
}

#[tokio::test]
async fn a_flow_that_reads_too_much_is_told_where() {
    let nodes =
        json!({"a": machine_node("state.get", json!({"key": "{{in.text}}"}), json!("end"))});
    let world = World::new(&nodes, quiet());
    let long = "x".repeat(513);
    let (code, reason) = fails(&world, &says("m1", &long)).await;
    assert_eq!(code, "state_limit");
    let expected =
        "flow main, node a: a key of state has 513 bytes, more than limits.state_key_bytes = 512";
    assert_eq!(reason, expected);
    assert_eq!(world.settle(&says("m2", &long[1..])).await, (None, 1));
}

#[tokio::test]
async fn a_value_larger_than_a_turn_may_read_is_refused() {
    let store = Arc::new(MemoryStore::new(SystemClock, Duration::from_secs(600)));
    // As another program may have stored it: past the worker's own limits.
    let slot = StateSlot {
        pack: pack_id(),
        flow: FlowId::new("main").unwrap(),
        key: "k".to_owned(),
    };
    let large = json!("x".repeat(1024 * 1024)).to_string();
    let commit = greentic_worker::ports::Commit {
        activity: &says("other", ""),
        lease: None,
        head: None,
        taken: None,
        park: None,
        state_read: &[],
        state_written: &[(slot, Some(large))],
        outbox: &[],
        quotas: Quotas::default(),
    };
    store.commit(&commit).await.unwrap();
    let get = |key: &str| machine_node("state.get", json!({"key": key}), json!("end"));
    for key in ["k", "{{in.text}}"] {
        let world = World::on(&store, &json!({"a": get(key)}), quiet());
        let (code, reason) = fails(&world, &says("m1", "k")).await;
        assert_eq!(code, "state_limit", "{reason}");
        assert!(reason.contains("limits.state_bytes = 1048576"), "{reason}");
    }
}

#[tokio::test]
async fn a_session_that_is_too_large_says_what_is_large_in_it() {
    let set = |name: &str, value: &str, to: &str| {
        machine_node("var.set", json!({"name": name, "value": value}), next(to))
    };
    let nodes = json!({
        "a": set("small", "x", "b"), "b": set("history", "{{in.text}}", "w"), "w": wait(),
        "end": machine_node("emit.message", json!({"text": "{{vars.small}}{{vars.history}}"}), json!("end")),
    });
    let bounds = Bounds {
        session_bytes: 10_000,
        ..Bounds::default()
    };
    let world = world(&nodes, quiet(), bounds);
    let (code, reason) = fails(&world, &says("m1", &"x".repeat(9_900))).await;
    assert_eq!(code, "session_too_large");
    assert!(reason.starts_with("flow main, node w: "), "{reason}");
    assert!(reason.contains("limits.session_bytes = 10000"), "{reason}");
    assert!(
        reason.contains("the variable `history` with 9902 bytes"),
        "{reason}"
    );
    // Escapes count as they are stored.
    let (code, _) = fails(&world, &says("m2", &"\"".repeat(2_900))).await;
    assert_eq!(code, "session_too_large");
    assert_eq!(world.settle(&says("m3", "x")).await, (None, 1));
}

#[tokio::test]
async fn a_commit_that_is_too_large_is_not_sent() {
    let twice = |to| machine_node("emit.message", json!({"text": "{{in.text}}"}), to);
    let nodes = json!({"a": twice(next("b")), "b": twice(json!("end"))});
    let bounds = Bounds {
        commit_bytes: 10_000,
        ..Bounds::default()
    };
    let mut world = world(&nodes, quiet(), bounds);
    let (code, reason) = fails(&world, &says("m1", &"x".repeat(5_000))).await;
    assert_eq!(code, "commit_too_large");
    assert!(
        reason.ends_with("limits.commit_bytes = 10000; most of it is its replies"),
        "{reason}"
    );
    assert!(world.replies().is_empty());
    assert_eq!(
        world.settle(&says("m2", &"x".repeat(3_000))).await,
        (None, 1)
    );
}

#[tokio::test]
async fn a_quota_fails_the_turn_and_leaves_all_as_it_was() {
    let set = machine_node(
        "state.set",
        json!({"key": "{{in.id}}", "value": "{{in.text}}"}),
        next("w"),
    );
    let nodes = json!({"a": set, "w": wait(), "end": end()});
    let quotas = |quotas: Quotas| Bounds {
        quotas,
        ..Bounds::default()
    };
    let small = quotas(Quotas {
        user_state_bytes: 3_000,
        ..Quotas::default()
    });
    let own = Bounds {
        tenants: [(
            tenant(),
            Quotas {
                tenant_state_bytes: 3_000,
                ..Quotas::default()
            },
        )]
        .into(),
        ..Bounds::default()
    };
    let waits = quotas(Quotas {
        waits_per_user: 1,
        ..Quotas::default()
    });
    for (bounds, code, says_too) in [
        (small, "user_state_quota", "state.user_bytes = 3000"),
        (own, "tenant_state_quota", "state.tenant_bytes = 3000"),
        (waits, "wait_limit", "limits.waits_per_user = 1"),
    ] {
        let mut world = world(&nodes, quiet(), bounds);
        assert_eq!(
            world.settle(&says("m1", &"x".repeat(2_000))).await,
            (None, 1)
        );
        let mut elsewhere = says("m2", &"x".repeat(2_000));
        let scope = greentic_worker::model::ReplyScope {
            conversation: "other".to_owned(),
            thread: None,
            reply_to: None,
            correlation: None,
        };
        elsewhere.reply_scope = Some(scope.into());
        let (failed, reason) = fails(&world, &elsewhere).await;
        assert_eq!(failed, code, "{reason}");
        assert!(reason.contains(says_too), "{reason}");
        assert_eq!(world.stored("m2").await, None);
        // The first conversation waits as it did.
        assert_eq!(world.settle(&says("m3", "go on")).await, (None, 1));
        assert_eq!(world.replies().pop().unwrap()["text"], "end");
    }
}
