//! One run, start to end.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Options;
use crate::ledger::Ledger;
use crate::plan::{Fault, LEASE, TENANTS, plan};
use crate::poison::{self, Poison};
use crate::record::{self, Record};
use crate::talk::{Conversation, Model, Outcome, Phase, Style};
use crate::vault;
use crate::world::World;

/// How long things may take to come to rest once the faults are over. A tenant that was refused something may try again only
/// 15 seconds after the end of that. It only costs time if they do not come to rest.
const REST: Duration = Duration::from_secs(60);

/// Runs; whether all was well.
pub async fn run(options: &Options) -> bool {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{seed}"));
    let _none = fs::remove_dir_all(&logs);
    fs::create_dir_all(&logs).expect("a folder for the logs can be made");
    println!(
        "chaos: seed {seed}, {} minutes, logs in {}",
        options.minutes,
        logs.display()
    );

    let record = Arc::new(Record::default());
    let world = World::start(&logs, &options.appendfsync, Arc::clone(&record)).await;
    let world = Arc::new(world);
    if !world.nats_syncs {
        println!(
            "this nats-server is older than 2.10 and knows no sync_interval: it survives its own death, not that of the machine"
        );
    }
    let (talk, phase) = Talk::begin(&world, &record, options, seed).await;
    let length = Duration::from_secs_f64(options.minutes * 60.0);
    let faults = faults(&world, &record, plan(seed, length, &options.only)).await;
    record.note("no more faults; the conversations come to their end".to_owned());
    phase.send_replace(Phase::Ending);
    let (outcomes, poison) = talk.end(&phase).await;

    let jetstream = world.jetstream().await;
    vault::quiet(&jetstream, &record, REST).await;
    // What a dead worker has left behind goes by itself.
    sleep(LEASE + Duration::from_millis(500)).await;
    let names: Vec<String> = world
        .tenants
        .iter()
        .map(|tenant| tenant.id.clone())
        .collect();
    let mut vault = vault::open(&world.redis_url().await, &names)
        .await
        .expect("Redis answers");
    let (left, text) = vault::left(&jetstream, &names).await.expect("NATS answers");
    vault.inbound = left;
    fs::write(logs.join("inbound.txt"), text).expect("a file can be written");
    let ledger = Ledger::of(&record, &outcomes, &poison, &vault);
    world.keep_logs().await;
    println!("\nfaults");
    for (kind, count) in faults {
        println!("  {count:>4}  {kind}");
    }
    let ended = world.ended_by_themselves.load(Ordering::Relaxed);
    println!("  {ended:>4}  workers that ended by themselves\n\nledger\n{ledger}");
    if !ledger.is_clean() {
        tell(&ledger, &record, &logs, options, seed);
    }
    ledger.is_clean()
}

/// The faults of the plan at their times, each on its own; how many there were of each kind.
async fn faults(
    world: &Arc<World>,
    record: &Arc<Record>,
    plan: Vec<Fault>,
) -> BTreeMap<&'static str, usize> {
    let world_of_supervisor = Arc::clone(world);
    let mut supervising = JoinSet::new();
    supervising.spawn_local(async move { world_of_supervisor.supervise().await });
    let began = record.now();
    let mut kinds = BTreeMap::new();
    let mut under_way = JoinSet::new();
    // How much later everything is than the plan says, since what is alone may take longer.
    let mut late = Duration::ZERO;
    for fault in plan {
        sleep((began + late + fault.at).saturating_sub(record.now())).await;
        if fault.alone {
            while let Some(over) = under_way.join_next().await {
                over.expect("a fault is carried out");
            }
        }
        record.note(fault.to_string());
        *kinds.entry(fault.kind).or_default() += 1;
        let world = Arc::clone(world);
        if fault.alone {
            world.suffer(&fault).await;
            let due = began + late + fault.at + fault.lasts;
            late += record.now().saturating_sub(due);
        } else {
            under_way.spawn_local(async move { world.suffer(&fault).await });
        }
    }
    under_way.join_all().await;
    // The supervisor goes on until the end of the run.
    supervising.detach_all();
    kinds
}

/// All that providers do.
struct Talk {
    conversations: JoinSet<Outcome>,
    poison: JoinSet<Vec<Poison>>,
}

impl Talk {
    async fn begin(
        world: &Arc<World>,
        record: &Arc<Record>,
        options: &Options,
        seed: u64,
    ) -> (Self, watch::Sender<Phase>) {
        let (phase, watching) = watch::channel(Phase::Talking);
        let mut talk = Self {
            conversations: JoinSet::new(),
            poison: JoinSet::new(),
        };
        let names: Vec<String> = world
            .tenants
            .iter()
            .map(|tenant| tenant.id.clone())
            .collect();
        let reader = world.jetstream().await;
        for stream in ["GREENTIC_OUTBOUND", "GREENTIC_DEADLETTER"] {
            let reading = record::read(Arc::clone(record), reader.clone(), stream, names.clone());
            tokio::spawn(reading);
        }
        let providers = [world.jetstream().await, world.jetstream().await];
        for (n, name) in names.iter().enumerate() {
            let subject = format!("inbound.{name}");
            talk.poison.spawn(poison::send(
                n,
                subject,
                providers[0].clone(),
                watching.clone(),
            ));
        }
        for n in 0..options.conversations {
            // The same names in both tenants.
            let place = (n % TENANTS, format!("c{}", n / TENANTS));
            let (listener, replies) = mpsc::unbounded_channel();
            record.listen(place.clone(), listener);
            let conversation = Conversation {
                tenant: names[place.0].clone(),
                place,
                style: [Style::Plain, Style::Racing, Style::Juggling][(n / TENANTS) % 3],
                providers: providers.clone(),
                record: Arc::clone(record),
                replies,
                phase: watching.clone(),
                rng: Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(n as u64)),
                says_goodbye: (n / TENANTS).is_multiple_of(2),
                model: Model::default(),
            };
            talk.conversations.spawn(conversation.hold());
        }
        (talk, phase)
    }

    /// Waits until all has been said and answered; what has no answer by then has none.
    async fn end(mut self, phase: &watch::Sender<Phase>) -> (Vec<Outcome>, Vec<Poison>) {
        let mut outcomes = Vec::new();
        let resting = async {
            while let Some(outcome) = self.conversations.join_next().await {
                outcomes.push(outcome.expect("a conversation does not panic"));
            }
        };
        if timeout(REST, resting).await.is_err() {
            phase.send_replace(Phase::Over);
            outcomes.extend(self.conversations.join_all().await);
        }
        let poison = self.poison.join_all().await;
        (outcomes, poison.into_iter().flatten().collect())
    }
}

/// Tells what is wrong, in full, and how to see it again.
fn tell(ledger: &Ledger, record: &Record, logs: &Path, options: &Options, seed: u64) {
    for place in ledger
        .wrong_places()
        .iter()
        .filter(|place| !place.1.is_empty())
    {
        let (tenant, conversation) = place;
        let file = logs.join(format!("conversation-{tenant}-{conversation}.txt"));
        fs::write(&file, record.transcript(place)).expect("a transcript can be written");
    }
    println!(
        "logs of the workers and transcripts of these conversations: {}",
        logs.display()
    );
    if let Some(place) = ledger
        .wrong_places()
        .iter()
        .find(|place| !place.1.is_empty())
    {
        println!(
            "\ntenant {}, {}:\n{}",
            place.0,
            place.1,
            record.transcript(place)
        );
    }
    let Options {
        minutes,
        conversations,
        appendfsync,
        only,
        ..
    } = options;
    let only: String = only.iter().map(|word| format!(" --only {word}")).collect();
    println!(
        "\nagain: ./dev chaos --minutes {minutes} --seed {seed} --conversations {conversations} --appendfsync {appendfsync}{only}"
    );
}
