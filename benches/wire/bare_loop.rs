//! The physical limit of the job: pull from JetStream, two trips to Redis, publish with its ack, ack; nothing in between.
//! It runs as a process of its own, as the worker does.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::{self, Context};
use futures_util::StreamExt;
use greentic_worker::adapters::nats::names::{Names, StreamName};
use greentic_worker::model::{PackId, TenantId, header};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Script};
use tokio::sync::Semaphore;

use crate::talk::says;

/// What it prints when it pulls.
pub const READY: &str = "the bare loop is ready";

/// Turns in flight; as many as the worker has by default.
const IN_FLIGHT: usize = 256;
/// What one pull asks for.
const BATCH: usize = 128;
/// How large each record is that a turn writes, and how large its reply.
const RECORD_BYTES: usize = 600;
const REPLY_BYTES: usize = 600;
/// How many records there are.
const RECORDS: usize = 6;
/// How long they live.
const EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);

/// How many bytes of commands it gathers before it must write them; as many as the worker.
const WRITE_BUFFER: usize = 64 * 1024;

/// How long it waits for Redis.
const PATIENCE: Duration = Duration::from_secs(10);

const READ: &str = "return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}";
const WRITE: &str =
    "for i, name in ipairs(KEYS) do redis.call('SET', name, ARGV[i + 1], 'PX', ARGV[1]) end";

/// What all turns share.
struct Loop {
    jetstream: Context,
    redis: MultiplexedConnection,
    read: Script,
    write: Script,
    tenant: String,
    pack: String,
    record: String,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs until it is killed.
pub async fn run(nats_url: &str, redis_url: &str, tenant: &str) -> Result<(), Failure> {
    let jetstream = jetstream::new(async_nats::connect(nats_url).await?);
    let names = Names::default();
    let stream = jetstream
        .get_stream(names.stream(StreamName::Inbound))
        .await?;
    let id: TenantId = tenant.parse()?;
    let consumer: PullConsumer = stream.get_consumer(&names.consumer(&id)).await?;
    // A turn that is given up is a reply that is lost, and a busy machine is slow now and then.
    let patient = AsyncConnectionConfig::new()
        .set_response_timeout(Some(PATIENCE))
        .set_write_backpressure_boundary(WRITE_BUFFER);
    let bare = Arc::new(Loop {
        redis: redis::Client::open(redis_url)?
            .get_multiplexed_async_connection_with_config(&patient)
            .await?,
        read: Script::new(READ),
        write: Script::new(WRITE),
        tenant: tenant.to_owned(),
        pack: PackId::of_archive(b"bare loop").to_string(),
        record: "r".repeat(RECORD_BYTES),
        jetstream,
    });
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut messages: pull::Stream = consumer
        .stream()
        .max_messages_per_batch(BATCH)
        .messages()
        .await?;
    eprintln!("{READY}");
    while let Some(message) = messages.next().await {
        let (message, slot) = (message?, Arc::clone(&slots).acquire_owned().await?);
        let bare = Arc::clone(&bare);
        tokio::spawn(async move {
            if let Err(error) = bare.turn(&message).await {
                // Its reply is missed by the load generator.
                eprintln!("a turn failed: {error}");
            }
            drop(slot);
        });
    }
    Ok(())
}

impl Loop {
    async fn turn(&self, message: &jetstream::Message) -> Result<(), Failure> {
        let headers = message.headers.as_ref().ok_or("no headers")?;
        let key = headers
            .get(header::IDEMPOTENCY_KEY)
            .ok_or("no key")?
            .as_str();
        let (name, turn) = key.rsplit_once('-').ok_or("no turn")?;
        let turn: usize = turn.parse()?;

        let mut redis = self.redis.clone();
        let mut read = self.read.prepare_invoke();
        read.key(format!("bare:{name}:0"))
            .key(format!("bare:{name}:1"));
        let _found: Vec<Option<Vec<u8>>> = read.invoke_async(&mut redis).await?;
        let mut write = self.write.prepare_invoke();
        write.arg(EXPIRY.as_millis() as u64);
        for n in 0..RECORDS {
            write.key(format!("bare:{name}:{n}")).arg(&self.record);
        }
        let () = write.invoke_async(&mut redis).await?;

        let (headers, body) = self.reply(key, name, turn);
        let subject = format!("outbound.{}", self.tenant);
        let publishing = self
            .jetstream
            .publish_with_headers(subject, headers, body.into());
        publishing.await?.await?;
        message.ack().await
    }

    /// The headers that the worker gives a reply, and a body like its.
    fn reply(&self, key: &str, name: &str, turn: usize) -> (HeaderMap, String) {
        let mut headers = HeaderMap::new();
        headers.insert(header::MSG_ID, format!("{}:{key}:0", self.tenant));
        headers.insert(header::IN_REPLY_TO, key);
        headers.insert(header::TENANT, self.tenant.as_str());
        headers.insert(header::ENV, "dev");
        headers.insert(header::PACK_ID, self.pack.as_str());
        headers.insert(header::FLOW_ID, "main");
        if turn == 0 {
            let correlation = format!("{:032x}-{turn:03}", fastrand::u128(..));
            headers.insert(header::CORRELATION_ID, correlation);
            headers.insert(header::EXPECTS_REPLY, "true");
        }
        let (trace, span) = (fastrand::u128(..), fastrand::u64(..));
        headers.insert(
            header::TRACEPARENT,
            format!("00-{trace:032x}-{span:016x}-01"),
        );
        let mut body = format!(r#"{{"id":"{key}:0","text":"{} "#, says(turn, name));
        let padding = REPLY_BYTES.saturating_sub(body.len() + 2);
        body.push_str(&self.record[..padding]);
        body.push_str(r#""}"#);
        (headers, body)
    }
}
