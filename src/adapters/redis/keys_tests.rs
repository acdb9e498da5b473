use std::collections::HashSet;

use greentic_types::{EnvId, FlowId, ReplyScope, StateKey, TeamId, TenantId, UserId};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::model::{Content, ContentDigest, FlowTarget, IdempotencyKey, PackId};

/// All that a key may depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    env: String,
    tenant: String,
    team: Option<String>,
    user: String,
    pack: PackId,
    flow: String,
    key: String,
}

impl Place {
    fn activity(&self) -> Activity {
        let (user, target) = (UserId::new(&self.user).unwrap(), FlowTarget::default());
        let content = Content::new((&user, None), None, &target, (None, &Value::Null));
        Activity {
            content: ContentDigest::of(&content),
            env: EnvId::new(&self.env).unwrap(),
            tenant: TenantId::new(&self.tenant).unwrap(),
            key: IdempotencyKey::new("1"),
            user,
            team: self.team.as_ref().map(|team| TeamId::new(team).unwrap()),
            reply_scope: None,
            channel: String::new(),
            session_id: "s".to_owned(),
            from: None,
            target,
            caller: None,
            trace: None,
            payload: Value::Null.into(),
        }
    }

    fn slot(&self) -> StateSlot {
        StateSlot {
            pack: self.pack,
            flow: FlowId::new(&self.flow).unwrap(),
            key: self.key.clone(),
        }
    }

    fn redis_key(&self) -> String {
        Keys::new("greentic", &self.activity()).state(&self.slot())
    }

    /// The place that a state key belongs to, told from the key alone. That this can be done proves that no two places
    /// share a key.
    fn read_back(redis_key: &str) -> Self {
        let rest = redis_key.strip_prefix("greentic:state:").unwrap();
        // No identifier holds a slash, so the first `:pack/` ends the scope; with a team it has one segment more.
        let (scope, rest) = rest.split_once(":pack/").unwrap();
        let scope: Vec<_> = scope.split(':').map(str::to_owned).collect();
        let (team, user) = match &scope[2..] {
            [user] => (None, user.clone()),
            [team, user] => (Some(team.clone()), user.clone()),
            other => panic!("{other:?}"),
        };
        let (pack, rest) = rest.split_once("/flow/").unwrap();
        let (flow, rest) = rest.split_once("/user/").unwrap();
        let (prefix_user, key) = rest.split_once(':').unwrap();
        assert_eq!(prefix_user, user);
        Self {
            env: scope[0].clone(),
            tenant: scope[1].clone(),
            team,
            user,
            pack: pack.parse().unwrap(),
            flow: flow.to_owned(),
            key: key.to_owned(),
        }
    }
}

/// Identifiers from an alphabet in which near misses are likely.
fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-b._-]{1,3}",
        "(pack|flow|user|state)",
        "[A-Za-z0-9._-]{1,20}"
    ]
}

fn any_place() -> impl Strategy<Value = Place> {
    let key = prop_oneof!["[a-b:/]{0,6}", ":?pack/sha256-a/flow/a/user/a:.?", ".*"];
    let pack = any::<[u8; 4]>().prop_map(|bytes| PackId::of_archive(&bytes));
    (id(), id(), prop::option::of(id()), id(), pack, id(), key).prop_map(
        |(env, tenant, team, user, pack, flow, key)| Place {
            env,
            tenant,
            team,
            user,
            pack,
            flow,
            key,
        },
    )
}

proptest! {
    #[test]
    fn state_keys_are_greentic_states_own(place in any_place()) {
        let activity = place.activity();
        let prefix = format!("pack/{}/flow/{}/user/{}", place.pack.stored(), place.flow, place.user);
        let theirs = greentic_state::key::fqn(&activity.tenant_ctx(), &prefix, &StateKey::new(&place.key));
        prop_assert_eq!(place.redis_key(), theirs.as_str());
    }

    #[test]
    fn a_state_key_tells_whose_it_is(place in any_place()) {
        prop_assert_eq!(&Place::read_back(&place.redis_key()), &place);
    }

    #[test]
    fn different_activities_share_no_key(
        places in prop::collection::hash_set(any_place(), 2..6),
        scopes in prop::collection::hash_set("[a-b:/ ]{1,3}", 2..4),
        names in prop::collection::hash_set("[a-b:{}]{1,3}", 2..4),
    ) {
        let mut owners = HashSet::new();
        let mut keys = HashSet::new();
        let mut expected = 0;
        for place in &places {
            // A team of this name is refused by the decoder, for just this reason.
            let dash = place.team.as_deref() == Some("-");
            let Place { env, tenant, team, user, .. } = place;
            if dash || !owners.insert((env, tenant, team, user)) {
                continue;
            }
            let mut activity = place.activity();
            keys.insert(Keys::new("greentic", &activity).user_waits().to_string());
            expected += 1;
            for conversation in &scopes {
                activity.reply_scope = Some(scope(conversation).into());
                let of = Keys::new("greentic", &activity);
                keys.extend([of.scope(&scope(conversation).scope_hash()), of.lease()].map(|key| key.to_string()));
                expected += 2;
            }
        }
        let tenants: HashSet<_> = places.iter().map(|place| (&place.env, &place.tenant)).collect();
        for (env, tenant) in tenants {
            for name in &names {
                let mut activity = places.iter().next().unwrap().activity();
                activity.env = EnvId::new(env).unwrap();
                activity.tenant = TenantId::new(tenant).unwrap();
                activity.key = IdempotencyKey::new(name);
                let of = Keys::new("greentic", &activity);
                keys.extend([of.applied(), of.claims(), of.lease()].map(|key| key.to_string()));
                expected += 3;
            }
        }
        prop_assert_eq!(keys.len(), expected);
    }
}

#[test]
fn the_keys_of_a_wait_are_greentic_sessions() {
    let place = Place {
        env: "dev".to_owned(),
        tenant: "dev.local".to_owned(),
        team: None,
        user: "u1".to_owned(),
        pack: PackId::of_archive(b"p"),
        flow: "main".to_owned(),
        key: "k".to_owned(),
    };
    let mut activity = place.activity();
    activity.reply_scope = Some(scope("c1").into());
    let keys = Keys::new("greentic", &activity);
    let hash = scope("c1").scope_hash();
    for (key, expected) in [
        (
            keys.session_prefix(),
            "greentic:{dev.local}:session:".to_owned(),
        ),
        (
            keys.scope(&hash),
            format!("greentic:{{dev.local}}:waits:scope:dev:dev.local:-:u1:{hash}"),
        ),
        (
            keys.user_waits(),
            "greentic:{dev.local}:waits:user:dev:dev.local:-:u1".to_owned(),
        ),
        (
            keys.applied(),
            "greentic:{dev.local}:applied:dev:1".to_owned(),
        ),
        (
            keys.claims(),
            "greentic:{dev.local}:claims:dev:1".to_owned(),
        ),
        (
            keys.lease(),
            format!("greentic:{{dev.local}}:lease:scope:dev:dev.local:-:u1:{hash}"),
        ),
    ] {
        assert_eq!(key.to_string(), expected);
    }
    activity.reply_scope = None;
    assert_eq!(
        Keys::new("greentic", &activity).lease().to_string(),
        "greentic:{dev.local}:lease:activity:dev:1"
    );
}

fn scope(conversation: &str) -> ReplyScope {
    ReplyScope {
        conversation: conversation.to_owned(),
        thread: None,
        reply_to: None,
        correlation: None,
    }
}
