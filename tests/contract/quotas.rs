//! Quotas: what a user and a tenant may keep, checked by the commit that would exceed it.

use std::time::Duration;

use greentic_worker::ports::{Begun, Claim, Committed, QuotaExcess, Quotas, TurnStore};

use super::Backend;
use super::talk::{
    LEASE, Talk, Turn, WAIT, applied, begin, busy, exclusive, lease, ready, slot, stored,
};

/// A value that counts some 1,500 bytes with its key.
fn value() -> String {
    format!("\"{}\"", "x".repeat(1_000))
}

/// Room for two of these values, and not for three.
const TWO: u64 = 4_000;

fn user_state(bytes: u64) -> Quotas {
    Quotas {
        user_state_bytes: bytes,
        ..Quotas::default()
    }
}

fn tenant_state(bytes: u64) -> Quotas {
    Quotas {
        tenant_state_bytes: bytes,
        ..Quotas::default()
    }
}

fn waits(waits_per_user: u32) -> Quotas {
    Quotas {
        waits_per_user,
        ..Quotas::default()
    }
}

fn writes(key: &str, quotas: Quotas) -> Turn {
    Turn::default().writes(&slot(key), &value()).within(quotas)
}

pub async fn the_state_of_a_user_is_bounded(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let quotas = user_state(TWO);
    let two = writes("a", quotas).writes(&slot("b"), &value());
    two.done(backend, &talk.says("1")).await;
    let refused = writes("c", quotas).refused(backend, &talk.says("2")).await;
    let QuotaExcess::UserState { used } = refused else {
        panic!("{refused:?}")
    };
    assert!((2_000..TWO).contains(&used), "{used}");
    let found = stored(backend, &talk.says("3"), &[slot("c")]).await;
    assert_eq!(found, [None]);
    // One value in place of another one, and one that makes room for another one.
    writes("a", quotas).done(backend, &talk.says("4")).await;
    let swap = writes("c", quotas).deletes(&slot("a"));
    swap.done(backend, &talk.says("5")).await;
    // Another user, and the same name in a team, have quotas of their own.
    for change in [
        |talk: &mut Talk| talk.user = "bob".to_owned(),
        |talk: &mut Talk| talk.team = Some("red".to_owned()),
    ] {
        let activity = talk.but(change).says("6");
        let activity = greentic_worker::model::Activity {
            key: greentic_worker::model::IdempotencyKey::new(&format!("{activity:?}")),
            ..activity
        };
        writes("c", quotas).done(backend, &activity).await;
    }
}

pub async fn the_state_of_a_tenant_is_bounded(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let of = |user: &str| talk.but(|talk| talk.user = user.to_owned());
    let quotas = tenant_state(TWO);
    writes("a", quotas).done(backend, &of("u1").says("1")).await;
    writes("a", quotas).done(backend, &of("u2").says("2")).await;
    let activity = of("u3").says("3");
    let refused = writes("a", quotas).refused(backend, &activity).await;
    let is_tenant =
        matches!(refused, QuotaExcess::TenantState { used } if used > 2_000 && used < TWO);
    assert!(is_tenant, "{refused:?}");
    let other = talk.but(|talk| talk.tenant = "other".to_owned());
    writes("a", quotas).done(backend, &other.says("4")).await;
    let deletes = Turn::default().deletes(&slot("a")).within(quotas);
    deletes.done(backend, &of("u1").says("5")).await;
    writes("a", quotas).done(backend, &activity).await;
}

pub async fn state_that_shrinks_is_never_refused(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let four = ["a", "b", "c", "d"];
    let all = four.iter().fold(Turn::default(), |turn, key| {
        turn.writes(&slot(key), &value())
    });
    all.done(backend, &talk.says("1")).await;
    let nothing = Quotas {
        user_state_bytes: 1,
        tenant_state_bytes: 1,
        ..Quotas::default()
    };
    let shorter = Turn::default().writes(&slot("a"), "1").within(nothing);
    shorter.done(backend, &talk.says("2")).await;
    let fewer = Turn::default()
        .deletes(&slot("a"))
        .deletes(&slot("absent"))
        .within(nothing);
    fewer.done(backend, &talk.says("3")).await;
    writes("b", nothing).done(backend, &talk.says("4")).await;
    let more = Turn::default().writes(&slot("d"), &format!("[{}]", value()));
    more.within(nothing).refused(backend, &talk.says("5")).await;
}

/// The bytes of the tenant's state after a turn.
async fn told(backend: &impl Backend, key: &str, turn: Turn) -> Option<u64> {
    let committed = turn.commit(backend, &Talk::of(backend).says(key)).await;
    let Committed::Done { tenant_state_bytes } = committed else {
        panic!("{committed:?}")
    };
    tenant_state_bytes
}

pub async fn the_bytes_of_state_are_told(backend: &impl Backend) {
    let one = told(backend, "1", writes("a", Quotas::default())).await;
    let two = told(backend, "2", writes("b", Quotas::default())).await;
    assert_eq!(two, one.map(|one| 2 * one));
    assert_eq!(told(backend, "3", Turn::default()).await, None);
    let deletes = |key: &str| Turn::default().deletes(&slot(key));
    assert_eq!(told(backend, "4", deletes("a")).await, one);
    assert_eq!(told(backend, "5", deletes("absent")).await, one);
    assert_eq!(told(backend, "6", deletes("b")).await, Some(0));
}

/// A turn that parks this session, whatever waits.
async fn parks(talk: &Talk, backend: &impl Backend, session: &str, lasts: Duration) -> Committed {
    let activity = talk.says(&format!("parks-{session}"));
    let opening = ready(backend, &activity, Claim::Optimistic).await;
    let turn = Turn {
        taken: None,
        ..Turn::after(&opening)
    };
    let turn = turn.park_for(lasts, &activity, session, None);
    turn.within(waits(2)).commit(backend, &activity).await
}

pub async fn the_waits_of_a_user_are_bounded(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let other = talk.but(|talk| talk.conversation = Some("other".to_owned()));
    assert!(matches!(
        parks(&talk, backend, "w1", WAIT).await,
        Committed::Done { .. }
    ));
    assert!(matches!(
        parks(&other, backend, "w2", WAIT).await,
        Committed::Done { .. }
    ));
    for talk in [&talk, &other] {
        let refused = parks(talk, backend, "w3", WAIT).await;
        assert!(
            matches!(refused, Committed::Refused(QuotaExcess::Waits)),
            "{refused:?}"
        );
    }
    let bob = talk.but(|talk| talk.user = "bob".to_owned());
    assert!(matches!(
        parks(&bob, backend, "b1", WAIT).await,
        Committed::Done { .. }
    ));
    // One that is answered makes room for the next question.
    let activity = talk.says("answers");
    let opening = ready(backend, &activity, Claim::Optimistic).await;
    let turn = Turn::after(&opening).park(&activity, "w4", None);
    turn.within(waits(2)).done(backend, &activity).await;
    assert_eq!(talk.resumes(backend).await.as_deref(), Some("w4"));
    let activity = other.says("ends");
    let opening = ready(backend, &activity, Claim::Optimistic).await;
    Turn::after(&opening).done(backend, &activity).await;
    assert!(matches!(
        parks(&other, backend, "w5", WAIT).await,
        Committed::Done { .. }
    ));
}

pub async fn waits_that_expired_do_not_count(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let of = |name: &str| talk.but(|talk| talk.conversation = Some(name.to_owned()));
    let short = Duration::from_secs(1);
    let done = async |name: &str, lasts: Duration| {
        let committed = parks(&of(name), backend, name, lasts).await;
        assert!(matches!(committed, Committed::Done { .. }), "{committed:?}");
    };
    done("long", WAIT).await;
    for round in 0..5 {
        done(&format!("short-{round}"), short).await;
        let refused = parks(&of("more"), backend, "more", WAIT).await;
        assert!(matches!(refused, Committed::Refused(_)), "{refused:?}");
        backend.pass(short + Duration::from_millis(1)).await;
    }
    done("more", WAIT).await;
}

pub async fn a_refused_turn_changes_nothing(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w", "k").await;
    let activity = talk.says("1");
    let opening = ready(backend, &activity, exclusive("me")).await;
    for quotas in [user_state(1), tenant_state(1), waits(1)] {
        let taken = match quotas.waits_per_user {
            // The turn that takes the only wait may park another one.
            1 => None,
            _ => opening.wait.as_deref().cloned(),
        };
        let turn = Turn {
            taken,
            ..Turn::after(&opening)
        };
        let turn = turn.holding("me").park(&activity, "next", Some("n"));
        let turn = turn.writes(&slot("a"), "1").replies("hi").within(quotas);
        turn.refused(backend, &activity).await;
    }
    assert!(busy(backend, &talk.says("2"), Claim::Optimistic).await);
    backend
        .store()
        .release(&activity, lease("me"))
        .await
        .unwrap();
    assert!(applied(backend, &activity).await.is_none());
    assert_eq!(talk.head(backend).await.as_deref(), Some("w"));
    assert_eq!(talk.resumes(backend).await.as_deref(), Some("w"));
    let found = stored(backend, &activity, &[slot("a")]).await;
    assert_eq!(found, [None]);
    // What is refused once may be applied later.
    let begun = begin(backend, &activity, exclusive("me")).await;
    let Begun::Ready(opening) = begun else {
        panic!("{begun:?}")
    };
    let turn = Turn::after(&opening).holding("me");
    turn.writes(&slot("a"), "1").done(backend, &activity).await;
    backend.pass(LEASE).await;
    assert_eq!(talk.head(backend).await, None);
}

pub async fn a_conflict_comes_before_a_quota(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let turn = writes("b", user_state(1)).reads(&slot("a"), Some("1"));
    turn.conflicts(backend, &talk.says("1")).await;
}
