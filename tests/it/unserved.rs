//! Messages whose tenant nobody serves are seen.

use crate::harness::{
    DEADLINE, NatsServer, RedisServer, Servers, WorkerProcess, fresh_tenant, poll,
};

#[tokio::test]
async fn messages_of_a_tenant_that_nobody_serves_are_shown_and_warned_of_once() {
    let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let (tenant, elsewhere) = (
        fresh_tenant().binds("hello-pack", &["main"]),
        fresh_tenant().binds("hello-pack", &["main"]),
    );
    // A worker that is away for the moment: its consumer takes what comes.
    let other = WorkerProcess::start(&servers, &elsewhere).await;
    other.stop().await;
    let worker = WorkerProcess::of(&servers)
        .bindings(&tenant)
        .setting("NATS__UNSERVED_EVERY", "100ms")
        .start()
        .await;
    let client = async_nats::connect(nats.url()).await.unwrap();
    let provider = async_nats::jetstream::new(client);
    let typo = format!("inbound.{}x", tenant.id);
    let theirs = format!("inbound.{}", elsewhere.id);
    for subject in [&typo, &typo, &theirs] {
        let stored = provider.publish(subject.clone(), "{}".into()).await;
        stored.unwrap().await.unwrap();
    }
    let label = format!("subject=\"{typo}\"");
    worker
        .expect_metric("greentic_worker_unserved_messages", &label, 2.0)
        .await;
    let warned = |log: &str| {
        let lines = log.lines().filter(|line| line.contains("nobody serves"));
        lines.filter(|line| line.contains(&typo)).count()
    };
    let told = poll(DEADLINE, async || {
        (warned(&worker.log()) == 1).then_some(())
    })
    .await;
    assert!(told.is_some());
    let purge = provider.get_stream("GREENTIC_INBOUND").await.unwrap();
    purge.purge().filter(&typo).await.unwrap();
    let gone = poll(DEADLINE, async || {
        let (_, page) = worker.get("/metrics").await?;
        assert!(!page.contains(&format!("subject=\"{theirs}\"")), "{page}");
        (!page.contains(&label)).then_some(())
    });
    assert!(gone.await.is_some());
    assert_eq!(warned(&worker.log()), 1);
    assert!(!worker.log().contains(&format!("subject=\"{theirs}\"")));
}
