//! Parked conversations, as the worker parks them, and what they cost: in Redis, and in the turns of others.

use std::time::Duration;

use greentic_worker::adapters::nats::names::{Names, StreamName};

use crate::Options;
use crate::curves::{Point, amid};
use crate::load::{Line, drain, pile_up};
use crate::packs::bench_tenant;
use crate::sample::{Load, tell};
use crate::stage::{Contender, Setup, Stage};
use crate::talk::Talk;

/// So many messages at once are put before the worker, so that the streams stay small.
const PORTION: usize = 50_000;

/// How long nats-server keeps the ids of messages, to recognise copies. By default it would still have those of all the messages
/// that did the parking when the sample is taken.
const WINDOW: Duration = Duration::from_secs(10);

/// Parks more and more on one stage and takes a sample at each point.
pub async fn round(points: &mut [Point], options: &Options, load: Load) {
    let setup = Setup {
        program: options.worker.clone(),
        tenants: vec![bench_tenant()],
        settings: vec![("NATS__DUPLICATE_WINDOW", format!("{}s", WINDOW.as_secs()))],
    };
    let mut stage = Stage::open().await;
    // The worker makes the streams as it is set.
    stage.start(Contender::Worker, &setup).await;
    let empty = stage.redis_info("memory", "used_memory").await;
    let mut parked = 0;
    for point in points {
        let more = point.at - parked;
        park(&stage, &setup, more).await;
        parked = point.at;
        forget_all_but_waits(&stage, &setup).await;
        if more >= PORTION {
            tokio::time::sleep(WINDOW).await;
        }
        let used = stage.redis_info("memory", "used_memory").await - empty;
        let sample = amid(&stage, &setup, load).await;
        tell(&format!("{parked} parked"), &sample);
        point.samples.push(sample);
        let each = if parked == 0 {
            0.0
        } else {
            used / parked as f64
        };
        point.more = vec![("bytes a wait in Redis", each)];
    }
}

/// Has the worker park so many conversations.
async fn park(stage: &Stage, setup: &Setup, mut conversations: usize) {
    let mut line = Line::to(&stage.servers().nats_url).await;
    while conversations > 0 {
        let portion = conversations.min(PORTION);
        let talk = Talk::with(setup.ids());
        let (_, heard) = tokio::join!(
            pile_up(line.client(), &talk, 0..portion, false),
            drain(&mut line, &talk, portion as u64)
        );
        assert!(heard.faults.none(), "{:?}", heard.faults);
        conversations -= portion;
    }
}

/// Removes what would weigh on the sample but is no wait: the records of applied messages, which expire by themselves in a
/// day, and the replies in the stream.
async fn forget_all_but_waits(stage: &Stage, setup: &Setup) {
    let servers = stage.servers();
    let client = redis::Client::open(servers.redis_url).expect("a URL");
    let mut redis = client
        .get_multiplexed_async_connection()
        .await
        .expect("Redis is there");
    let pattern = format!("greentic:{{{}}}:applied:*", setup.tenants[0].id);
    let mut cursor = 0_u64;
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg(&["MATCH", &pattern, "COUNT", "10000"])
            .query_async(&mut redis)
            .await
            .expect("Redis answers");
        if !keys.is_empty() {
            let mut unlink = redis::cmd("UNLINK");
            let () = unlink
                .arg(keys)
                .query_async(&mut redis)
                .await
                .expect("Redis answers");
        }
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    let nats = async_nats::connect(servers.nats_url)
        .await
        .expect("NATS is there");
    let jetstream = async_nats::jetstream::new(nats);
    let stream = jetstream
        .get_stream(Names::default().stream(StreamName::Outbound))
        .await;
    let purged = stream.expect("the stream is there").purge().await;
    purged.expect("it can be emptied");
}
