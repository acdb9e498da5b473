//! A worker dies at each step of a turn, and nobody on the other side can tell.

use std::panic::AssertUnwindSafe;

use clap::ValueEnum;
use futures_util::{FutureExt, StreamExt, stream};
use greentic_worker::adapters::kill_points::KillPoint;
use greentic_worker::model::header;

use crate::harness::{
    DEADLINE, FixturePack, Message, Provider, Servers, Tenant, WorkerBuilder, WorkerProcess,
    fresh_tenant,
};

/// Two waits, several replies a turn, and state under a key that nobody can foresee.
const TALK: &str = r#"
greet: {emit.message: {text: "Hello, {{in.text}}"}, routing: [{to: ask}]}
ask: {emit.message: {text: "Who are you?"}, routing: [{to: hear}]}
hear: {session.wait: {reason: name}, routing: [{to: recall}]}
recall: {state.get: {key: "visits-{{in.text}}"}, routing: [{to: tally}]}
tally: {state.set: {key: "visits-{{in.text}}", value: "{{node.recall.value}}|"}, routing: [{to: keep}]}
keep: {var.set: {name: name, value: "{{in.text}}"}, routing: [{to: one}]}
one: {emit.message: {text: "So you are {{vars.name}}"}, routing: [{to: two}]}
two: {emit.message: {text: "Your visits: {{node.tally.value}}"}, routing: [{to: three}]}
three: {emit.message: {text: "Anything else?"}, routing: [{to: listen}]}
listen: {session.wait: {reason: more}, routing: [{to: bye}]}
bye: {emit.message: {text: "{{in.text}} it is, {{vars.name}}"}, routing: out}
"#;

/// Goes round until its limit of nodes.
const LOOP: &str = r#"
a: {emit.message: {text: never}, routing: [{to: b}]}
b: {var.set: {name: n, value: 1}, routing: [{to: a}]}
"#;

/// What is said in one run: the id, the text, the flow asked for, and how many replies come.
const SCRIPT: &[(&str, &str, Option<&str>, usize)] = &[
    ("m1", "there", None, 2),
    ("m2", "Ada", None, 3),
    ("looping", "round", Some("loop"), 1),
    ("hopeless", "nobody", Some("nowhere"), 1),
    ("m3", "Tea", None, 1),
    ("m4", "again", None, 2),
    ("m5", "Ada", None, 3),
];

/// The times at which workers die, one after the other, to die at this point in the end. Every point has one or more.
fn deaths(point: KillPoint) -> &'static [&'static [&'static str]] {
    match point {
        KillPoint::BeforeBegin => &[&["before-begin:key=m1"], &["before-begin:key=m2"]],
        // The second one dies holding the lease.
        KillPoint::AfterBegin => &[
            &["after-begin:key=m1"],
            &["after-begin:key=m2", "after-begin:key=m2"],
        ],
        KillPoint::BeforeReadState => &[&["before-read-state:key=m2"]],
        KillPoint::AfterReadState => &[&["after-read-state:key=m2"]],
        KillPoint::BeforeCommit => &[
            &["before-commit:key=m1"],
            &["before-commit:key=m2", "before-commit:key=m2"],
            &["before-commit:key=m3"],
        ],
        KillPoint::AfterCommit => &[
            &["after-commit:key=m1"],
            &["after-commit:key=m2"],
            &["after-commit:key=m3"],
        ],
        KillPoint::BeforePublish => &[
            &["before-publish:key=m1"],
            &["before-publish:2:key=m2", "before-publish:3:key=m2"],
            &["before-publish:key=looping"],
        ],
        KillPoint::AfterPublish => &[
            &["after-publish:key=m2"],
            &["after-publish:2:key=m2", "after-publish:key=m2"],
            &["after-publish:3:key=m2"],
            &["after-publish:key=hopeless"],
        ],
        KillPoint::BeforePublishedNote => &[&["before-published-note:key=m2"]],
        KillPoint::AfterPublishedNote => &[&["after-published-note:key=m2"]],
        KillPoint::BeforeAck => &[
            &["before-ack:key=m1"],
            &["before-ack:key=m2", "before-ack:key=m2"],
            &["before-ack:key=hopeless"],
        ],
        KillPoint::AfterAck => &[&["after-ack:key=m2"], &["after-ack:key=looping"]],
        KillPoint::BeforeRelease => &[&["before-release:key=looping"]],
        KillPoint::AfterRelease => &[&["after-release:key=looping"]],
        KillPoint::BeforeHandBack => &[&["before-hand-back:key=looping"]],
        KillPoint::AfterHandBack => &[&["after-hand-back:key=looping"]],
        // What takes long is to wait for the lease of one that died with it.
        KillPoint::BeforeProgress => &[&[
            "after-begin:key=m2",
            "after-begin:key=m2",
            "before-progress:key=m2",
        ]],
        KillPoint::AfterProgress => &[&[
            "after-begin:key=m2",
            "after-begin:key=m2",
            "after-progress:key=m2",
        ]],
        KillPoint::BeforeDeadLetter => &[
            &["before-dead-letter:key=hopeless"],
            &["before-dead-letter:key=looping"],
        ],
        KillPoint::AfterDeadLetter => &[
            &[
                "after-dead-letter:key=hopeless",
                "after-dead-letter:key=hopeless",
            ],
            &["after-dead-letter:key=looping"],
        ],
        KillPoint::BeforeForgetClaims => &[&["before-forget-claims:key=looping"]],
        KillPoint::AfterForgetClaims => &[&["after-forget-claims:key=looping"]],
    }
}

/// What a provider sees of a run, without what is random.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    /// Of each reply: its message id without the tenant, the activity that it answers, the text, whether it asks.
    replies: Vec<(String, String, String, bool)>,
    /// Of each dead letter: its code and how often it was tried.
    dead: Vec<(String, String)>,
    /// How many replies and dead letters there are in all.
    published: (usize, usize),
}

#[tokio::test]
async fn a_death_at_any_step_changes_nothing() {
    let servers = Servers::shared().await;
    let undisturbed = run(&servers, &[]).await;
    assert_eq!(undisturbed.published, (13, 2), "{undisturbed:#?}");
    let visits = undisturbed.replies.iter().map(|reply| reply.2.as_str());
    assert_eq!(
        visits
            .filter(|text| text.starts_with("Your visits"))
            .collect::<Vec<_>>(),
        ["Your visits: |", "Your visits: ||"]
    );

    let all = KillPoint::value_variants().iter().copied().flat_map(deaths);
    let outcomes = stream::iter(all).map(async |deaths| {
        // A run that fails is told of together with its deaths.
        let seen = AssertUnwindSafe(run(&servers, deaths)).catch_unwind().await;
        (deaths, seen.ok())
    });
    let outcomes: Vec<_> = outcomes.buffer_unordered(6).collect().await;
    let wrong: Vec<_> = outcomes
        .iter()
        .filter(|(deaths, seen)| seen.as_ref() != Some(&expected(&undisturbed, deaths)))
        .collect();
    assert!(
        wrong.is_empty(),
        "{wrong:#?}\nis not what is seen without a death:\n{undisturbed:#?}"
    );
}

/// What is seen with these deaths: the same as without, but that a dead letter tells the truth of an attempt that died
/// before it was stored.
fn expected(undisturbed: &Seen, deaths: &[&str]) -> Seen {
    let mut seen = undisturbed.clone();
    match deaths {
        ["before-dead-letter:key=looping"] => "attempts_exhausted".clone_into(&mut seen.dead[0].0),
        ["before-dead-letter:key=hopeless"] => "2".clone_into(&mut seen.dead[1].1),
        _ => {}
    }
    seen
}

/// One run of the script, under workers of which all but the last one die as told.
async fn run(servers: &Servers, deaths: &[&str]) -> Seen {
    let pack = FixturePack::of("kill", &[("main", TALK), ("loop", LOOP)]);
    let tenant = fresh_tenant().runs(&pack, &["main", "loop"], "");
    let provider = Provider::connect(servers, &tenant).await;
    let mut provider = provider.patient(DEADLINE * 2);
    tokio::select! {
        seen = talk(&mut provider) => seen,
        () = work(servers, &tenant, deaths) => unreachable!("the last worker lives on"),
    }
}

/// Keeps a worker running, until all deaths are died and then for ever.
async fn work(servers: &Servers, tenant: &Tenant, deaths: &[&str]) {
    for death in deaths {
        let worker = worker(servers, tenant).arg("--kill-at").arg(death);
        let worker = worker.without_waiting().start().await;
        let code = worker.exited(DEADLINE * 3).await;
        assert_eq!(code, 128 + 6, "{death}: not aborted");
        assert!(worker.log().contains("told to die here"), "{death}");
    }
    let _last = worker(servers, tenant).without_waiting().start().await;
    std::future::pending().await
}

fn worker(servers: &Servers, tenant: &Tenant) -> WorkerBuilder {
    WorkerProcess::of(servers)
        .bindings(tenant)
        // What a dead worker held comes again soon; one that is merely held up must not be taken for dead, or an attempt
        // is counted that nobody died of.
        .setting("NATS__ACK_WAIT", "3s")
        // And who waits for a dead one's lease has time to tell of its progress.
        .setting("WORKER__LEASE_TTL", "8s")
        .setting("WORKER__ATTEMPTS", "4")
        .setting("WORKER__RETRY__INITIAL", "50ms")
        .setting("WORKER__APOLOGY", "Sorry")
        .setting("LIMITS__NODES_PER_TURN", "50")
}

async fn talk(provider: &mut Provider) -> Seen {
    let (mut replies, mut dead) = (Vec::new(), Vec::new());
    for (id, text, flow, count) in SCRIPT {
        let mut message = Message::new("c1", text).id(id);
        if let Some(flow) = flow {
            message = message.header(header::FLOW_ID, flow);
        }
        provider.send(&message).await;
        for reply in provider.expect_replies(*count).await {
            let msg_id = reply.header(header::MSG_ID).unwrap();
            replies.push((
                msg_id.split_once(':').unwrap().1.to_owned(),
                reply.in_reply_to().unwrap().to_owned(),
                reply.text().to_owned(),
                reply.expects_reply(),
            ));
        }
        if flow.is_some() {
            let letter = provider.expect_dead().await;
            let attempts = letter.header(header::ATTEMPTS).unwrap().to_owned();
            dead.push((letter.code().to_owned(), attempts));
            // A worker that dies once this is settled must not take an attempt from the next one with it.
            provider.settled().await;
        }
    }
    provider.settled().await;
    Seen {
        replies,
        dead,
        published: provider.published().await,
    }
}

#[tokio::test]
async fn nobody_is_told_of_it() {
    let servers = Servers::shared().await;
    let help = WorkerProcess::of(&servers).arg("--help").without_waiting();
    let help = help.start().await;
    assert_eq!(help.exited(DEADLINE).await, 0);
    let text = help.log();
    assert!(
        text.contains("--config") && !text.contains("kill"),
        "{text}"
    );
}
