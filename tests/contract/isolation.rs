//! No effect reaches another tenant, team, user, pack or flow.

use greentic_worker::model::FlowId;
use greentic_worker::ports::{Claim, StateSlot};

use super::Backend;
use super::talk::{Talk, Turn, applied, exclusive, found, pack, ready, slot, stored};

/// Owners that differ from `ada` of `acme` in one thing.
fn others(talk: &Talk) -> Vec<Talk> {
    vec![
        talk.but(|t| t.env.push('2')),
        talk.but(|t| t.tenant = "other".to_owned()),
        talk.but(|t| t.team = Some("t".to_owned())),
        // A team of the user's name, and a user of the team's.
        talk.but(|t| t.team = Some("ada".to_owned())),
        talk.but(|t| t.user = "bob".to_owned()),
        talk.but(|t| t.user = "t".to_owned()),
    ]
}

pub async fn waits_are_each_owners_own(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w", "k").await;
    for (i, other) in others(&talk).iter().enumerate() {
        let answer = other.echoes("k", "answers");
        assert_eq!(found(backend, &answer).await, None, "{other:?}");
        assert_eq!(other.head(backend).await, None, "{other:?}");
        other.parks(backend, &format!("w{i}"), "k").await;
    }
    assert_eq!(talk.resumes(backend).await.as_deref(), Some("w"));
}

pub async fn state_is_each_owners_own(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let activity = talk.says("1");
    Turn::default()
        .writes(&slot("a"), "1")
        .done(backend, &activity)
        .await;
    for other in others(&talk) {
        let read = stored(backend, &other.says("2"), &[slot("a")]).await;
        assert_eq!(read, [None], "{other:?}");
    }
    let strangers = [
        StateSlot {
            pack: pack("other"),
            ..slot("a")
        },
        StateSlot {
            flow: FlowId::new("other").unwrap(),
            ..slot("a")
        },
        slot("b"),
    ];
    let read = stored(backend, &activity, &strangers).await;
    assert_eq!(read, [None, None, None]);
}

/// A flow chooses its keys freely, and may choose what looks like a piece of another's.
pub async fn state_keys_reach_nowhere_else(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let place = format!("pack/{}/flow/main/user", pack("p").stored());
    let keys = [
        "a".to_owned(),
        ":a".to_owned(),
        "a:a".to_owned(),
        "/a".to_owned(),
        String::new(),
        format!("bob:{place}/bob:a"),
        format!("{place}/bob:a"),
        "a\r\nb\0".to_owned(),
    ];
    let mut turn = Turn::default();
    for (i, key) in keys.iter().enumerate() {
        turn = turn.writes(&slot(key), &i.to_string());
    }
    turn.done(backend, &talk.says("1")).await;
    let slots: Vec<_> = keys.iter().map(|key| slot(key)).collect();
    let read = stored(backend, &talk.says("2"), &slots).await;
    for (i, value) in read.into_iter().enumerate() {
        assert_eq!(value, Some(i.to_string()), "{}", keys[i]);
    }
    let bob = talk.but(|t| t.user = "bob".to_owned());
    let read = stored(backend, &bob.says("2"), &slots).await;
    assert!(read.iter().all(Option::is_none), "{read:?}");
}

/// Providers of different tenants may count alike. Inside a tenant the idempotency key alone names an activity.
pub async fn activities_are_each_tenants_own(backend: &impl Backend) {
    let talk = Talk::of(backend);
    Turn::default()
        .replies("hi")
        .done(backend, &talk.says("1"))
        .await;
    for other in [
        talk.but(|t| t.env.push('2')),
        talk.but(|t| t.tenant = "other".to_owned()),
    ] {
        assert_eq!(applied(backend, &other.says("1")).await, None, "{other:?}");
    }
    let bob = talk.but(|t| t.user = "bob".to_owned());
    assert!(applied(backend, &bob.says("1")).await.is_some());
    assert_eq!(applied(backend, &talk.says("2")).await, None);
}

pub async fn leases_are_each_owners_own(backend: &impl Backend) {
    let talk = Talk::of(backend);
    ready(backend, &talk.says("1"), exclusive("me")).await;
    for (i, other) in others(&talk).iter().enumerate() {
        let opening = ready(backend, &other.says(&format!("{i}")), Claim::Optimistic).await;
        Turn::after(&opening)
            .done(backend, &other.says(&format!("{i}")))
            .await;
    }
}
