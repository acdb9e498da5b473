//! Carries out refusals: changes what a server allows, and takes it back.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use async_nats::jetstream::{self, stream};
use futures_util::StreamExt;
use futures_util::future::join_all;
use redis::{Cmd, cmd};
use tokio::time::sleep;

use crate::harness::{DEADLINE, poll};
use crate::plan::TENANTS;
use crate::record::{FILLER, Window};
use crate::redis_pair::USER;
use crate::refusal::Refusal;
use crate::world::World;

/// The stream of replies.
const OUTBOUND: &str = "GREENTIC_OUTBOUND";
/// How many more messages than any other one a subject holds before it is declared full: so many replies of the others have
/// room meanwhile.
const HEADROOM: u64 = 2500;
/// How many messages a full subject still takes: so many may come between its being counted and its being declared full.
const SLACK: u64 = 100;
/// How long a refusal lasts at the least before it is looked who goes on: several messages of its tenant have met it by then.
const MET: Duration = Duration::from_secs(2);
/// How long the other tenants' conversations may take to go on beside a refusal. It only costs time if they do not.
const PATIENCE: Duration = Duration::from_secs(45);

/// What is changed on a server.
enum Rule {
    /// Subjects that the workers' user may not publish to.
    Denied(Vec<String>),
    /// The tenant's outbound subject is full.
    Full(usize),
    /// Changes to the rights of the workers' user in Redis.
    Acl(Vec<String>),
    /// Redis has no memory left.
    Memory,
}

/// A configuration of nats-server: whoever gives no name may do everything, the workers' user may not publish to these
/// subjects.
pub fn nats_rules(denied: &[String]) -> String {
    format!(
        "no_auth_user: chaos\nauthorization {{ users: [\n{{ user: chaos, password: chaos }}\n\
         {{ user: {USER}, password: {USER}, permissions: {{ publish: {{ allow: \">\", deny: {denied:?} }} }} }}\n] }}"
    )
}

impl World {
    /// Lets a server refuse something for so long.
    pub async fn refuse(&self, refusal: Refusal, lasts: Duration) {
        self.impose(refusal).await;
        sleep(lasts).await;
        self.lift(refusal).await;
    }

    /// Lets a server refuse something while nothing else is wrong: for so long, in which workers meet it, and then until each
    /// conversation that it spares has gone on.
    pub async fn refuse_alone(&self, refusal: Refusal, lasts: Duration) {
        let lets_through = self.impose(refusal).await;
        let from = self.last_reply().await;
        sleep(lasts.max(MET)).await;
        let began = self.record.now();
        let mut spared = self.record.places();
        spared.retain(|place| refusal.spares(place.0));
        let all = spared.len();
        let gone_on = poll(PATIENCE, async || {
            let answered = self.record.answered_since(began);
            spared.retain(|place| !answered.contains(place));
            spared.is_empty().then(|| self.record.now() - began)
        });
        let within = gone_on.await;
        let to = self.last_reply().await;
        self.lift(refusal).await;
        self.record.beside(Window {
            refusal,
            stood_still: spared,
            went_on: all,
            within: within.unwrap_or(PATIENCE),
            replies: from + 1..to + 1,
            lets_through,
        });
    }

    /// Makes the refusal true; how many replies it may still let through, where it stops replies on their way.
    async fn impose(&self, refusal: Refusal) -> Option<u64> {
        match self.rule(refusal) {
            Rule::Denied(subjects) => self.deny(&subjects).await,
            Rule::Full(tenant) => self.fill(tenant).await,
            Rule::Acl(rules) => self.configure_redis(acl(&rules)).await,
            Rule::Memory => self.configure_redis(memory(1)).await,
        }
        match refusal {
            Refusal::Replies(_) => Some(0),
            Refusal::FullSubject(_) => Some(SLACK),
            Refusal::Pulls(_)
            | Refusal::Acks(_)
            | Refusal::DeadLetters(_)
            | Refusal::Keys(_)
            | Refusal::KeyWrites(_)
            | Refusal::Scripts
            | Refusal::Memory => None,
        }
    }

    async fn lift(&self, refusal: Refusal) {
        match self.rule(refusal) {
            Rule::Denied(_) => self.deny(&[]).await,
            Rule::Full(_) => {
                let any_number = |config: &mut Config| {
                    config.discard = DiscardPolicy::Old;
                    config.max_messages_per_subject = -1;
                    config.discard_new_per_subject = false;
                };
                self.edit_outbound(any_number).await;
            }
            Rule::Acl(_) => self.configure_redis(acl(&["allkeys", "+@all"])).await,
            Rule::Memory => self.configure_redis(memory(0)).await,
        }
    }

    /// The rule that a refusal is.
    fn rule(&self, refusal: Refusal) -> Rule {
        let of = |tenant: usize| self.tenants[tenant].id.as_str();
        let consumer = |tenant| format!("GREENTIC_INBOUND.worker-{}", of(tenant).replace('.', "="));
        let keys = |refused: usize| {
            let others = (0..TENANTS).filter(|tenant| *tenant != refused);
            let mut rules = vec!["resetkeys".to_owned(), "~*{probe}*".to_owned()];
            rules.extend(others.map(|tenant| format!("~*{}*", of(tenant))));
            rules
        };
        match refusal {
            Refusal::Replies(tenant) => Rule::Denied(vec![format!("outbound.{}", of(tenant))]),
            Refusal::FullSubject(tenant) => Rule::Full(tenant),
            Refusal::Pulls(tenant) => {
                let pull = format!("$JS.API.CONSUMER.MSG.NEXT.{}", consumer(tenant));
                Rule::Denied(vec![pull])
            }
            Refusal::Acks(tenant) => {
                let consumer = consumer(tenant);
                // The second form is that of nats-server 2.15.
                let forms = ["$JS.ACK", "$JS.ACK.*.*"];
                Rule::Denied(forms.map(|form| format!("{form}.{consumer}.>")).to_vec())
            }
            Refusal::DeadLetters(tenant) => {
                Rule::Denied(vec![format!("deadletter.{}", of(tenant))])
            }
            Refusal::Keys(tenant) => Rule::Acl(keys(tenant)),
            Refusal::KeyWrites(tenant) => {
                let mut rules = keys(tenant);
                rules.push(format!("%R~*{}*", of(tenant)));
                Rule::Acl(rules)
            }
            Refusal::Scripts => Rule::Acl(vec!["-eval".to_owned(), "-evalsha".to_owned()]),
            Refusal::Memory => Rule::Memory,
        }
    }

    async fn configure_redis(&self, command: Cmd) {
        self.redis.lock().await.configure(&command).await;
    }

    async fn deny(&self, subjects: &[String]) {
        let nats = self.nats.lock().await;
        nats.reload(self.nats_syncing(), &nats_rules(subjects))
            .await;
    }

    /// Declares the tenant's subject full, after it was made the fullest by far.
    async fn fill(&self, tenant: usize) {
        let jetstream = self.jetstream().await;
        let subject = |tenant: usize| format!("outbound.{}", self.tenants[tenant].id);
        let mut headers = HeaderMap::new();
        headers.insert(FILLER, "1");
        let most = loop {
            let own = counted(&jetstream, &subject(tenant)).await;
            let mut others = 0;
            for other in (0..TENANTS).filter(|other| *other != tenant) {
                others = others.max(counted(&jetstream, &subject(other)).await);
            }
            let missing = (others + HEADROOM).saturating_sub(own).min(500);
            if missing == 0 {
                break own + SLACK;
            }
            let publishing = (0..missing).map(async |_| {
                let (subject, headers) = (subject(tenant), headers.clone());
                let publishing =
                    jetstream.publish_with_headers(subject, headers, bytes::Bytes::new());
                // One that is lost is made good in the next round.
                let _stored = publishing.await.ok()?.await.ok()?;
                Some(())
            });
            join_all(publishing).await;
        };
        let full = |config: &mut Config| {
            config.discard = DiscardPolicy::New;
            config.max_messages_per_subject = i64::try_from(most).expect("a count of messages");
            config.discard_new_per_subject = true;
        };
        self.edit_outbound(full).await;
    }

    /// Changes the stream of replies. A server that is away is waited for.
    async fn edit_outbound(&self, edit: impl Fn(&mut Config)) {
        let jetstream = self.jetstream().await;
        let edited = poll(DEADLINE * 3, async || {
            let mut config = outbound(&jetstream).await?.cached_info().config.clone();
            edit(&mut config);
            jetstream.update_stream(config).await.ok()
        });
        edited.await.expect("the stream of replies can be changed");
    }

    /// The position of the last message in the stream of replies.
    async fn last_reply(&self) -> u64 {
        let jetstream = self.jetstream().await;
        let last = poll(DEADLINE, async || {
            Some(
                outbound(&jetstream)
                    .await?
                    .cached_info()
                    .state
                    .last_sequence,
            )
        });
        last.await.expect("NATS answers")
    }
}

async fn outbound(jetstream: &jetstream::Context) -> Option<stream::Stream> {
    jetstream.get_stream(OUTBOUND).await.ok()
}

/// How many messages the stream of replies holds of a subject.
async fn counted(jetstream: &jetstream::Context, subject: &str) -> u64 {
    let count = poll(DEADLINE * 3, async || {
        let stream = outbound(jetstream).await?;
        let mut subjects = stream.info_with_subjects(subject).await.ok()?;
        match subjects.next().await {
            Some(Ok((_, count))) => u64::try_from(count).ok(),
            Some(Err(_)) => None,
            None => Some(0),
        }
    });
    count.await.expect("NATS answers")
}

fn acl<S: redis::ToRedisArgs>(rules: &[S]) -> Cmd {
    cmd("ACL").arg("SETUSER").arg(USER).arg(rules).to_owned()
}

fn memory(bytes: u64) -> Cmd {
    let mut set = cmd("CONFIG");
    set.arg("SET").arg("maxmemory").arg(bytes);
    set
}
