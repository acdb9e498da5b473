//! Names that are made of what others wrote: no two things share one, and none breaks out of where it stands.

use std::collections::HashSet;

use greentic_worker::model::{
    Headers, IdempotencyKey, Outbound, PackId, TenantId, apology_id, dead_letter_id, header,
    storage_user_id,
};
use greentic_worker::worker::dead_letter;
use proptest::prelude::*;
use time::OffsetDateTime;

use super::json;

/// Tenants among which near misses are likely.
fn tenant() -> impl Strategy<Value = String> {
    prop_oneof!["[ab._-]{1,4}", "[ab]{120,130}"]
}

/// Keys that look like parts of the ids that are made of them.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab:0-2]{1,5}",
        "[ab]?(:dead)?(:apology)?(:[0-9])?",
        "[ab]{120,135}",
        json::text(),
    ]
}

proptest! {
    #![proptest_config(super::cases(3_000))]

    #[test]
    fn messages_that_differ_have_ids_that_differ(
        names in prop::collection::hash_set((tenant(), key()), 1..5),
        count in 1_usize..4,
    ) {
        // Both keys of one digest are the same activity, on purpose.
        let activities: HashSet<_> = names
            .iter()
            .map(|(tenant, key)| (TenantId::new(tenant).unwrap(), IdempotencyKey::new(key)))
            .collect();
        let mut ids = HashSet::new();
        for (tenant, key) in &activities {
            for n in 0..count {
                ids.insert(Outbound::msg_id(tenant, key, n));
            }
            ids.insert(apology_id(tenant, key));
        }
        prop_assert_eq!(ids.len(), activities.len() * (count + 1));
        for id in &ids {
            prop_assert!(id.len() <= 128 && id.bytes().all(|b| b.is_ascii_graphic()), "{}", id);
        }
        let dead: HashSet<_> = activities
            .iter()
            .flat_map(|(tenant, key)| (1..=2).map(move |n| dead_letter_id(tenant, Some(key), (n, None))))
            .collect();
        prop_assert_eq!(dead.len(), activities.len() * 2);
    }

    #[test]
    fn keys_and_users_that_differ_stay_apart(a in key(), b in key()) {
        prop_assert_eq!(a == b, IdempotencyKey::new(&a) == IdempotencyKey::new(&b));
        prop_assert_eq!(a == b, storage_user_id(&a) == storage_user_id(&b));
    }

    #[test]
    fn a_pack_id_has_two_forms_and_no_third(text in "(sha256)?[:-]?[0-9a-fA-F]{60,66}|.*") {
        if let Ok(id) = text.parse::<PackId>() {
            prop_assert!(text == id.to_string() || text == id.stored(), "{}", text);
        }
    }

    #[test]
    fn a_replay_names_the_activity_as_its_first_publish_did(
        key in prop::option::of(json::text()),
        msg_id in prop::option::of(json::text()),
        id in json::text(),
        dead_of in any::<u64>(),
    ) {
        // What comes from NATS has no control characters in its headers and no white space around their values.
        let clean = |text: String| text.replace(char::is_control, "").trim().to_owned();
        let (key, msg_id) = (key.map(clean), msg_id.map(clean));
        let named = [(header::IDEMPOTENCY_KEY, &key), (header::MSG_ID, &msg_id)];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        let original: Headers = named.collect();
        let body = serde_json::json!({ "id": id }).to_string();
        let message = |headers: &Headers| greentic_worker::model::InboundMessage {
            tenant: TenantId::new("t").unwrap(),
            headers: headers.clone(),
            body: body.clone().into(),
            sequence: Some(dead_of),
        };
        let env = greentic_worker::model::EnvId::new("dev").unwrap();
        let Ok(first) = greentic_worker::model::decode(&message(&original), &env) else {
            return Ok(());
        };
        let rejection = greentic_worker::turn::Rejection {
            error: greentic_worker::turn::TurnError::ReplyScopeMissing,
            attempts: 1,
        };
        let dead = dead_letter::headers(&message(&original), None, Some(&first), &rejection);
        let replay = dead_letter::replayed(&dead, body.as_bytes(), 1, OffsetDateTime::UNIX_EPOCH);
        let again = greentic_worker::model::decode(&message(&replay), &env).unwrap();
        prop_assert_eq!(again.key, first.key);
        if let Some(new) = replay.get(header::MSG_ID) {
            prop_assert_ne!(Some(new), msg_id.as_deref());
        }
        for (name, value) in replay.iter() {
            prop_assert!(!value.contains(['\r', '\n']), "{}", name);
        }
    }
}
