//! Conversations, activities and turns as the cases speak of them.

use std::time::Duration;

use greentic_types::{EnvId, SessionCursor, SessionData, SessionKey, TeamId, TenantId, UserId};
use greentic_worker::model::{
    Activity, Content, ContentDigest, FlowId, FlowTarget, HashedScope, IdempotencyKey, Outbound,
    OutboundHeaders, PackId, ReplyScope,
};
use greentic_worker::ports::{
    Begin, Begun, Claim, Commit, Committed, Lease, LeaseScope, Opening, Park, ParkedWait,
    QuotaExcess, Quotas, StateSlot, StoreError, StoredState, Taken, TurnStore,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Backend;

/// How long waits wait, unless a case says otherwise.
pub const WAIT: Duration = Duration::from_secs(600);

/// How long leases last, unless a case says otherwise.
pub const LEASE: Duration = Duration::from_secs(30);

/// The largest value of state that is read, unless a case says otherwise.
pub const STATE_BYTES: usize = 10_000;

/// Someone in a conversation.
#[derive(Clone, Debug)]
pub struct Talk {
    pub env: String,
    pub tenant: String,
    pub team: Option<String>,
    pub user: String,
    pub conversation: Option<String>,
    pub thread: Option<String>,
}

impl Talk {
    /// User `ada` of tenant `acme` in conversation `c`.
    pub fn of(backend: &impl Backend) -> Self {
        Self {
            env: backend.env().to_owned(),
            tenant: "acme".to_owned(),
            team: None,
            user: "ada".to_owned(),
            conversation: Some("c".to_owned()),
            thread: None,
        }
    }

    /// The same, changed.
    pub fn but(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut other = self.clone();
        change(&mut other);
        other
    }

    /// A message with this idempotency key.
    pub fn says(&self, key: &str) -> Activity {
        self.says_what(key, Value::Null)
    }

    /// A message with this idempotency key and this content.
    pub fn says_what(&self, key: &str, payload: Value) -> Activity {
        let user = UserId::new(&self.user).unwrap();
        let team = self.team.as_ref().map(|team| TeamId::new(team).unwrap());
        let scope = self.conversation.clone().map(|conversation| ReplyScope {
            conversation,
            thread: self.thread.clone(),
            reply_to: None,
            correlation: None,
        });
        let target = FlowTarget::default();
        let content = Content::new(
            (&user, team.as_ref()),
            scope.as_ref(),
            &target,
            (None, &payload),
        );
        Activity {
            content: ContentDigest::of(&content),
            env: EnvId::new(&self.env).unwrap(),
            tenant: TenantId::new(&self.tenant).unwrap(),
            key: IdempotencyKey::new(key),
            user,
            team,
            reply_scope: scope.map(HashedScope::from),
            channel: "test".to_owned(),
            session_id: "s".to_owned(),
            from: None,
            target,
            caller: None,
            trace: None,
            payload: payload.into(),
        }
    }

    /// A message that echoes a correlation id.
    pub fn echoes(&self, correlation: &str, key: &str) -> Activity {
        let mut activity = self.says(key);
        let scope = activity.reply_scope.unwrap().with(Some(correlation));
        activity.reply_scope = Some(scope.into());
        activity
    }

    /// A whole turn that parks `session` under `correlation`, whatever waits.
    pub async fn parks(&self, backend: &impl Backend, session: &str, correlation: &str) {
        let activity = self.says(&format!("parks-{session}"));
        let opening = ready(backend, &activity, Claim::Optimistic).await;
        let turn = Turn {
            taken: None,
            ..Turn::after(&opening)
        };
        turn.park(&activity, session, Some(correlation))
            .done(backend, &activity)
            .await;
    }

    /// The session that a message would resume.
    pub async fn resumes(&self, backend: &impl Backend) -> Option<String> {
        found(backend, &self.says("asks")).await
    }

    /// The session that the base scope names.
    pub async fn head(&self, backend: &impl Backend) -> Option<String> {
        let opening = ready(backend, &self.says("asks"), Claim::Optimistic).await;
        opening.head.map(|key| key.0)
    }
}

/// The session that an activity would resume.
pub async fn found(backend: &impl Backend, activity: &Activity) -> Option<String> {
    let opening = ready(backend, activity, Claim::Optimistic).await;
    opening.wait.map(|wait| wait.key.0)
}

/// What BEGIN answers.
pub async fn begin(backend: &impl Backend, activity: &Activity, claim: Claim<'_>) -> Begun {
    begin_with(backend, activity, claim, &[]).await
}

/// What BEGIN answers, with state.
pub async fn begin_with(
    backend: &impl Backend,
    activity: &Activity,
    claim: Claim<'_>,
    state: &[StateSlot],
) -> Begun {
    let begin = Begin {
        activity,
        claim,
        resume: true,
        state,
        state_bytes: STATE_BYTES,
    };
    backend.store().begin(&begin).await.unwrap()
}

/// The state that is stored.
pub async fn stored(
    backend: &impl Backend,
    activity: &Activity,
    slots: &[StateSlot],
) -> Vec<Option<String>> {
    let mut values = Vec::new();
    for slot in slots {
        let read = backend.store().read_state(activity, slot, STATE_BYTES);
        values.push(match read.await.unwrap() {
            StoredState::Absent => None,
            StoredState::Text(text) => Some(text),
            StoredState::TooLarge => panic!("{slot:?} is too large"),
        });
    }
    values
}

/// What a turn that may run starts from.
pub async fn ready(backend: &impl Backend, activity: &Activity, claim: Claim<'_>) -> Opening {
    let begun = begin(backend, activity, claim).await;
    let Begun::Ready(opening) = begun else {
        panic!("not ready: {begun:?}")
    };
    opening
}

/// Whether BEGIN finds the conversation busy.
pub async fn busy(backend: &impl Backend, activity: &Activity, claim: Claim<'_>) -> bool {
    matches!(
        begin(backend, activity, claim).await,
        Begun::Busy { retry_after } if retry_after > Duration::ZERO && retry_after <= LEASE
    )
}

/// An exclusive claim.
pub fn exclusive(token: &str) -> Claim<'_> {
    let lease = lease(token);
    Claim::Exclusive { lease, ttl: LEASE }
}

/// A lease on a conversation.
pub fn lease(token: &str) -> Lease<'_> {
    let scope = LeaseScope::Conversation;
    Lease { token, scope }
}

/// A lease on a conversation and on the state of its user.
pub fn user_lease(token: &str) -> Lease<'_> {
    let scope = LeaseScope::User;
    Lease { token, scope }
}

/// What a turn changes, owned.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    pub lease: Option<String>,
    /// The lease covers the state of the user, too.
    pub of_user: bool,
    pub head: Option<SessionKey>,
    pub taken: Option<ParkedWait>,
    pub park: Option<(SessionKey, SessionData, Option<String>, Duration)>,
    pub read: Vec<(StateSlot, Option<String>)>,
    pub written: Vec<(StateSlot, Option<String>)>,
    pub outbox: Vec<Outbound>,
    pub quotas: Quotas,
}

/// What these cases keep in a session's `context_json`, which is the turn's own affair.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Snapshot {
    correlation: Option<String>,
    shadowed: Vec<SessionKey>,
}

impl Turn {
    /// A turn that takes the wait it found and says nothing.
    pub fn after(opening: &Opening) -> Self {
        Self {
            head: opening.head.clone(),
            taken: opening.wait.as_deref().cloned(),
            ..Self::default()
        }
    }

    /// It holds a lease.
    pub fn holding(mut self, token: &str) -> Self {
        self.lease = Some(token.to_owned());
        self
    }

    /// It holds a lease that covers the state of its user.
    pub fn holding_user(self, token: &str) -> Self {
        Self {
            of_user: true,
            ..self.holding(token)
        }
    }

    /// It ends in a wait, which pushes aside the latest one unless that was taken, and whatever the taken one had.
    pub fn park(self, activity: &Activity, session: &str, correlation: Option<&str>) -> Self {
        self.park_for(WAIT, activity, session, correlation)
    }

    /// The same, for another time.
    pub fn park_for(
        mut self,
        ttl: Duration,
        activity: &Activity,
        session: &str,
        correlation: Option<&str>,
    ) -> Self {
        let taken = self.taken.as_ref();
        let mut shadowed = taken
            .map(|wait| snapshot(wait).shadowed)
            .unwrap_or_default();
        if let Some(head) = &self.head
            && taken.is_none_or(|wait| wait.key != *head)
        {
            shadowed.insert(0, head.clone());
        }
        let correlation = correlation.map(str::to_owned);
        let snapshot = Snapshot {
            correlation: correlation.clone(),
            shadowed,
        };
        let data = session_data(activity, &serde_json::to_string(&snapshot).unwrap());
        self.park = Some((SessionKey::new(session), data, correlation, ttl));
        self
    }

    /// It has read this.
    pub fn reads(mut self, slot: &StateSlot, value: Option<&str>) -> Self {
        self.read.push((slot.clone(), value.map(str::to_owned)));
        self
    }

    /// It writes this.
    pub fn writes(mut self, slot: &StateSlot, value: &str) -> Self {
        self.written.push((slot.clone(), Some(value.to_owned())));
        self
    }

    /// It deletes this.
    pub fn deletes(mut self, slot: &StateSlot) -> Self {
        self.written.push((slot.clone(), None));
        self
    }

    /// It sends this.
    pub fn replies(mut self, text: &str) -> Self {
        self.outbox.push(reply(text));
        self
    }

    /// Commits.
    pub async fn commit(&self, backend: &impl Backend, activity: &Activity) -> Committed {
        self.try_commit(backend, activity).await.unwrap()
    }

    /// Commits, which may fail.
    pub async fn try_commit(
        &self,
        backend: &impl Backend,
        activity: &Activity,
    ) -> Result<Committed, StoreError> {
        let snapshot = self.taken.as_ref().map(snapshot).unwrap_or_default();
        let commit = Commit {
            activity,
            lease: self.lease.as_deref().map(match self.of_user {
                true => user_lease,
                false => lease,
            }),
            head: self.head.as_ref(),
            taken: self.taken.as_ref().map(|wait| Taken {
                key: &wait.key,
                correlation: snapshot.correlation.as_deref(),
                shadowed: &snapshot.shadowed,
            }),
            park: self
                .park
                .as_ref()
                .map(|(key, data, correlation, ttl)| Park {
                    key,
                    data,
                    correlation: correlation.as_deref(),
                    ttl: *ttl,
                }),
            state_read: &self.read,
            state_written: &self.written,
            outbox: &self.outbox,
            quotas: self.quotas,
        };
        backend.store().commit(&commit).await
    }

    /// Commits, which must succeed.
    pub async fn done(&self, backend: &impl Backend, activity: &Activity) {
        let answer = self.commit(backend, activity).await;
        assert!(matches!(answer, Committed::Done { .. }), "{answer:?}");
    }

    /// Within these quotas.
    pub fn within(mut self, quotas: Quotas) -> Self {
        self.quotas = quotas;
        self
    }

    /// Commits, which must be refused; tells why.
    pub async fn refused(&self, backend: &impl Backend, activity: &Activity) -> QuotaExcess {
        let answer = self.commit(backend, activity).await;
        let Committed::Refused(refused) = answer else {
            panic!("{answer:?}")
        };
        refused
    }

    /// Commits, which must find that another turn came first.
    pub async fn conflicts(&self, backend: &impl Backend, activity: &Activity) {
        let answer = self.commit(backend, activity).await;
        assert!(matches!(answer, Committed::Conflict), "{answer:?}");
    }
}

fn snapshot(wait: &ParkedWait) -> Snapshot {
    // A session that a stock store registered has a context of another kind.
    serde_json::from_str(&wait.data.context_json).unwrap_or_default()
}

/// A session of an activity's user.
pub fn session_data(activity: &Activity, context_json: &str) -> SessionData {
    SessionData {
        tenant_ctx: activity.tenant_ctx(),
        flow_id: FlowId::new("main").unwrap(),
        pack_id: Some(greentic_types::PackId::new(pack("p").stored()).unwrap()),
        cursor: SessionCursor::new("ask").with_wait_reason("name"),
        context_json: context_json.to_owned(),
    }
}

/// A pack.
pub fn pack(name: &str) -> PackId {
    PackId::of_archive(name.as_bytes())
}

/// A place in the state of flow `main` of pack `p`.
pub fn slot(key: &str) -> StateSlot {
    StateSlot {
        pack: pack("p"),
        flow: FlowId::new("main").unwrap(),
        key: key.to_owned(),
    }
}

/// A reply whose body is not laid out as serde_json would.
pub fn reply(text: &str) -> Outbound {
    let body = serde_json::value::RawValue::from_string(format!("{{ \"text\" :\"{text}\"}}"));
    Outbound {
        position: None,
        headers: OutboundHeaders {
            pack: pack("p"),
            flow: FlowId::new("main").unwrap(),
            correlation: Some("k".to_owned()),
            trace: None,
        },
        body: body.unwrap(),
    }
}

/// The bodies of an outbox.
pub fn bodies(outbox: &[Outbound]) -> Vec<String> {
    for outbound in outbox {
        assert_eq!(outbound.headers, reply("").headers);
    }
    outbox
        .iter()
        .map(|outbound| outbound.body.get().to_owned())
        .collect()
}

/// The bodies that an applied activity is answered with.
pub async fn applied(backend: &impl Backend, activity: &Activity) -> Option<Vec<String>> {
    match begin(backend, activity, Claim::Optimistic).await {
        Begun::Applied(record) => Some(bodies(&record.outbox)),
        Begun::Ready(_) => None,
        other @ Begun::Busy { .. } => panic!("neither applied nor free: {other:?}"),
    }
}
