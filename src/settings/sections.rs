//! The sections that no adapter owns. The meaning of each key is said once more, for operators, in
//! `config/default.yaml`, which a test compares with the defaults here.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::memory::MemoryLimit;

use crate::adapters::packs::Access;
use crate::adapters::packs::config::{Az, Gs, Host, S3};
use crate::adapters::wasm::HostPattern;
use crate::model::StateLimits;
use crate::pack::Signatures;
use crate::registry::DefaultFlow;

/// Where packs come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Packs {
    /// The folder that `store://` references look in.
    pub store: PathBuf,
    /// What to do about archives that nobody vouches for.
    pub signatures: Signatures,
    /// The folder that keeps archives by their ids; none keeps nothing.
    pub cache_dir: Option<PathBuf>,
    /// How long the answer to a conversation is left to other workers that is parked in a pack which is not here.
    #[serde(with = "humantime_serde")]
    pub gone_after: Duration,
    /// For archives of other machines: a PEM file of authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// What single web hosts and OCI registries need.
    pub hosts: BTreeMap<String, Host>,
    /// Amazon S3, or what speaks its protocol.
    pub s3: S3,
    /// Google Cloud Storage.
    pub gs: Gs,
    /// Azure Blob Storage.
    pub az: Az,
}

/// When bindings are loaded again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reload {
    /// How often a running worker looks whether its gtbinds have changed; zero: only SIGHUP makes it load them again.
    #[serde(with = "humantime_serde")]
    pub every: Duration,
}

impl Packs {
    /// How archives are fetched from other machines.
    pub fn access(&self) -> Access {
        Access {
            ca_file: self.ca_file.clone(),
            hosts: self.hosts.clone(),
            s3: self.s3.clone(),
            gs: self.gs.clone(),
            az: self.az.clone(),
        }
    }
}

/// What is set for one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tenant {
    /// The flow that an activity starts when it answers no wait and names no flow.
    pub default_flow: Option<DefaultFlow>,
    /// Most turns in flight for this tenant in one worker; in place of [`Worker::tenant_slots`].
    pub max_in_flight: Option<NonZeroUsize>,
    /// State of one user of this tenant, in bytes; in place of [`State::user_bytes`].
    pub state_user_bytes: Option<NonZeroU64>,
    /// State of all users of this tenant, in bytes; in place of [`State::tenant_bytes`].
    pub state_tenant_bytes: Option<NonZeroU64>,
    /// The tenant's components on the network.
    pub http: TenantHttp,
}

/// What the components of one tenant may reach over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantHttp {
    /// The hosts, in place of those of `components.http.allow`; none leaves it at those.
    pub allow: Option<Vec<HostPattern>>,
}

/// How turns are run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// Threads that turns run on.
    pub threads: NonZeroUsize,
    /// Threads that runs go on on which compute for long; none means half as many as there are cores.
    pub compute_threads: Option<NonZeroUsize>,
    /// Turns in flight at once.
    pub slots: NonZeroUsize,
    /// Most of them for one tenant; none means all of them.
    pub tenant_slots: Option<NonZeroUsize>,
    /// Messages of one tenant that may wait behind another one of their conversation without holding a slot.
    pub tenant_queue: usize,
    /// How often a turn that fails by its own fault is tried before its message is dead-lettered.
    pub attempts: NonZeroU32,
    /// How long a turn may run.
    #[serde(with = "humantime_serde")]
    pub turn_timeout: Duration,
    /// The pause between attempts.
    pub retry: Retry,
    /// How long a conversation stays leased to a worker that died.
    #[serde(with = "humantime_serde")]
    pub lease_ttl: Duration,
    /// How long a parked flow waits for its answer.
    #[serde(with = "humantime_serde")]
    pub wait_ttl: Duration,
    /// How long a worker that is told to stop may finish what it has begun.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// Text sent to the user whose message is dead-lettered; none sends nothing.
    pub apology: Option<String>,
}

/// The pause between attempts: doubles from `initial` up to `max`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// The first pause.
    #[serde(with = "humantime_serde")]
    pub initial: Duration,
    /// The longest one.
    #[serde(with = "humantime_serde")]
    pub max: Duration,
}

/// How far a turn may go. What goes further fails by its own fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The largest body of an activity, in bytes; a larger one is dead-lettered.
    pub payload_bytes: NonZeroUsize,
    /// Nodes that one turn may run.
    pub nodes_per_turn: NonZeroU32,
    /// `flow.goto` jumps in one turn.
    pub jumps_per_turn: NonZeroU32,
    /// Nested `flow.call`s.
    pub call_depth: NonZeroU32,
    /// What the templates of one turn may produce in all, in bytes.
    pub rendered_bytes: NonZeroUsize,
    /// Steps that one node may take.
    pub steps_per_node: NonZeroU64,
    /// Steps that one turn may take.
    pub steps_per_turn: NonZeroU64,
    /// The most memory of messages, turns and components together.
    pub memory: MemoryLimit,
    /// Replies that one turn may send.
    pub replies_per_turn: NonZeroU32,
    /// Keys of state that one turn may read, and that it may write.
    pub state_keys: NonZeroU32,
    /// State that one turn may read, and that it may write, in bytes each.
    pub state_bytes: NonZeroUsize,
    /// The longest key of state, in bytes.
    pub state_key_bytes: NonZeroUsize,
    /// The largest session of a flow that waits, in bytes.
    pub session_bytes: NonZeroUsize,
    /// What one turn may store in all, in bytes.
    pub commit_bytes: NonZeroUsize,
    /// Open waits that one user may have.
    pub waits_per_user: NonZeroU32,
}

impl Limits {
    /// How much state a turn may read, and how much it may write.
    pub fn state(&self) -> StateLimits {
        StateLimits {
            keys: self.state_keys.get(),
            bytes: self.state_bytes.get(),
            key_bytes: self.state_key_bytes.get(),
        }
    }
}

/// How much state is kept. What would make it more fails by its own fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// State of one user, in bytes; none is no limit.
    pub user_bytes: Option<NonZeroU64>,
    /// State of all users of one tenant, in bytes; none is no limit.
    pub tenant_bytes: Option<NonZeroU64>,
}

impl Default for Packs {
    fn default() -> Self {
        Self {
            store: PathBuf::from("./packs/store"),
            signatures: Signatures::default(),
            cache_dir: Some(PathBuf::from("./cache/packs")),
            gone_after: Duration::from_secs(5 * 60),
            ca_file: None,
            hosts: BTreeMap::new(),
            s3: S3::default(),
            gs: Gs::default(),
            az: Az::default(),
        }
    }
}

impl Default for Reload {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(2),
        }
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            threads: NonZeroUsize::MIN,
            compute_threads: None,
            slots: const { NonZeroUsize::new(256).unwrap() },
            tenant_slots: None,
            tenant_queue: 4096,
            attempts: const { NonZeroU32::new(5).unwrap() },
            turn_timeout: Duration::from_secs(30),
            retry: Retry::default(),
            lease_ttl: Duration::from_secs(30),
            wait_ttl: Duration::from_secs(7 * 24 * 60 * 60),
            drain_timeout: Duration::from_secs(25),
            apology: None,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(30),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_bytes: const { NonZeroUsize::new(1024 * 1024).unwrap() },
            nodes_per_turn: const { NonZeroU32::new(10_000).unwrap() },
            jumps_per_turn: const { NonZeroU32::new(3).unwrap() },
            call_depth: const { NonZeroU32::new(16).unwrap() },
            rendered_bytes: const { NonZeroUsize::new(16 * 1024 * 1024).unwrap() },
            steps_per_node: const { NonZeroU64::new(1_000_000).unwrap() },
            steps_per_turn: const { NonZeroU64::new(10_000_000).unwrap() },
            memory: MemoryLimit::Auto,
            replies_per_turn: const { NonZeroU32::new(100).unwrap() },
            state_keys: const { NonZeroU32::new(256).unwrap() },
            state_bytes: const { NonZeroUsize::new(1024 * 1024).unwrap() },
            state_key_bytes: const { NonZeroUsize::new(512).unwrap() },
            session_bytes: const { NonZeroUsize::new(1024 * 1024).unwrap() },
            commit_bytes: const { NonZeroUsize::new(2 * 1024 * 1024).unwrap() },
            waits_per_user: const { NonZeroU32::new(100).unwrap() },
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            user_bytes: NonZeroU64::new(8 * 1024 * 1024),
            tenant_bytes: NonZeroU64::new(1024 * 1024 * 1024),
        }
    }
}
