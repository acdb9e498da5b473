//! Leases and the count of attempts.

use std::time::Duration;

use greentic_worker::ports::{Begun, Claim, TurnStore};

use super::talk::{LEASE, Talk, Turn, applied, begin, busy, exclusive, ready};
use super::{Backend, DEDUPE_WINDOW};

const A_SECOND: Duration = Duration::from_secs(1);

pub async fn a_lease_keeps_others_out(backend: &impl Backend) {
    let talk = Talk::of(backend);
    ready(backend, &talk.says("1"), exclusive("me")).await;
    let begun = begin(backend, &talk.says("2"), exclusive("you")).await;
    let Begun::Busy { retry_after } = begun else {
        panic!("{begun:?}")
    };
    assert!(retry_after > LEASE / 2 && retry_after <= LEASE);
    assert!(busy(backend, &talk.says("2"), Claim::Optimistic).await);
    // The same activity, delivered again to another worker.
    assert!(busy(backend, &talk.says("1"), exclusive("you")).await);
    backend.pass(LEASE + A_SECOND).await;
    ready(backend, &talk.says("2"), exclusive("you")).await;
}

pub async fn a_lease_covers_its_conversation_only(backend: &impl Backend) {
    let talk = Talk::of(backend);
    ready(backend, &talk.says("1"), exclusive("me")).await;
    for other in [
        talk.but(|t| t.conversation = Some("d".to_owned())),
        talk.but(|t| t.thread = Some("t".to_owned())),
    ] {
        ready(backend, &other.says("2"), exclusive("you")).await;
    }
    // An echo is still the same conversation.
    assert!(busy(backend, &talk.echoes("k", "2"), exclusive("you")).await);
}

pub async fn the_holder_may_ask_again_and_is_counted_once(backend: &impl Backend) {
    let talk = Talk::of(backend);
    for _ in 0..2 {
        let opening = ready(backend, &talk.says("1"), exclusive("me")).await;
        assert_eq!(opening.claims, 1);
        backend.pass(LEASE / 2 + A_SECOND).await;
    }
    // Asking again has prolonged the lease.
    assert!(busy(backend, &talk.says("2"), exclusive("you")).await);
}

pub async fn attempts_are_counted_for_each_activity(backend: &impl Backend) {
    let talk = Talk::of(backend);
    for (key, expected) in [("1", 1), ("1", 2), ("2", 1), ("1", 3), ("2", 2)] {
        let activity = talk.says(key);
        let opening = ready(backend, &activity, exclusive("me")).await;
        assert_eq!(opening.claims, expected, "{key}");
        backend.store().release(&activity, "me").await.unwrap();
    }
}

pub async fn an_attempt_that_is_withdrawn_does_not_count(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let activity = talk.says("1");
    for _ in 0..3 {
        let opening = ready(backend, &activity, exclusive("me")).await;
        assert_eq!(opening.claims, 1);
        // Only its holder's.
        backend.store().withdraw(&activity, "you").await.unwrap();
        assert!(busy(backend, &talk.says("2"), exclusive("you")).await);
        backend.store().withdraw(&activity, "me").await.unwrap();
        // Once only.
        backend.store().withdraw(&activity, "me").await.unwrap();
    }
    ready(backend, &talk.says("2"), exclusive("you")).await;
}

pub async fn attempts_are_counted_across_expired_leases(backend: &impl Backend) {
    let activity = Talk::of(backend).says("1");
    for expected in 1..4 {
        let opening = ready(backend, &activity, exclusive("me")).await;
        assert_eq!(opening.claims, expected);
        backend.pass(LEASE + A_SECOND).await;
    }
}

pub async fn attempts_are_forgotten_after_the_window(backend: &impl Backend) {
    let activity = Talk::of(backend).says("1");
    ready(backend, &activity, exclusive("me")).await;
    backend.pass(DEDUPE_WINDOW - A_SECOND).await;
    let opening = ready(backend, &activity, exclusive("me")).await;
    assert_eq!(opening.claims, 2);
    backend.pass(DEDUPE_WINDOW + A_SECOND).await;
    let opening = ready(backend, &activity, exclusive("me")).await;
    assert_eq!(opening.claims, 1);
}

pub async fn attempts_of_a_dead_letter_are_forgotten(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let (activity, other) = (talk.says("1"), talk.says("2"));
    for expected in [1, 2] {
        for activity in [&activity, &other] {
            let opening = ready(backend, activity, exclusive("me")).await;
            assert_eq!(opening.claims, expected);
            backend.store().release(activity, "me").await.unwrap();
        }
    }
    for _ in 0..2 {
        backend.store().forget_claims(&activity).await.unwrap();
    }
    for (activity, expected) in [(&activity, 1), (&other, 3)] {
        let opening = ready(backend, activity, exclusive("me")).await;
        assert_eq!(opening.claims, expected);
        backend.store().release(activity, "me").await.unwrap();
    }
}

pub async fn an_optimistic_turn_takes_and_counts_nothing(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let opening = ready(backend, &talk.says("1"), Claim::Optimistic).await;
    assert_eq!(opening.claims, 0);
    let opening = ready(backend, &talk.says("1"), exclusive("me")).await;
    assert_eq!(opening.claims, 1);
}

pub async fn a_commit_frees_its_lease(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let activity = talk.says("1");
    let opening = ready(backend, &activity, exclusive("me")).await;
    Turn::after(&opening)
        .holding("me")
        .done(backend, &activity)
        .await;
    ready(backend, &talk.says("2"), exclusive("you")).await;
}

pub async fn a_release_frees_only_its_own_lease(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let activity = talk.says("1");
    ready(backend, &activity, exclusive("me")).await;
    backend.store().release(&activity, "you").await.unwrap();
    assert!(busy(backend, &talk.says("2"), exclusive("you")).await);
    backend.store().release(&activity, "me").await.unwrap();
    ready(backend, &talk.says("2"), exclusive("you")).await;
}

pub async fn an_expired_lease_is_lost_even_if_nobody_took_it(backend: &impl Backend) {
    let activity = Talk::of(backend).says("1");
    let opening = ready(backend, &activity, exclusive("me")).await;
    backend.pass(LEASE + A_SECOND).await;
    let turn = Turn::after(&opening).holding("me");
    turn.conflicts(backend, &activity).await;
    assert_eq!(applied(backend, &activity).await, None);
}

pub async fn a_lease_that_went_to_another_is_lost(backend: &impl Backend) {
    let activity = Talk::of(backend).says("1");
    let opening = ready(backend, &activity, exclusive("me")).await;
    backend.pass(LEASE + A_SECOND).await;
    ready(backend, &activity, exclusive("you")).await;
    let turn = Turn::after(&opening);
    turn.clone()
        .holding("me")
        .conflicts(backend, &activity)
        .await;
    turn.holding("you").done(backend, &activity).await;
}

pub async fn an_optimistic_commit_gives_way_to_a_lease(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let (one, two) = (talk.says("1"), talk.says("2"));
    let opening = ready(backend, &one, Claim::Optimistic).await;
    ready(backend, &two, exclusive("me")).await;
    let turn = Turn::after(&opening);
    turn.conflicts(backend, &one).await;
    backend.store().release(&two, "me").await.unwrap();
    turn.done(backend, &one).await;
}

pub async fn without_a_reply_scope_the_lease_covers_the_activity(backend: &impl Backend) {
    let talk = Talk::of(backend).but(|t| t.conversation = None);
    let opening = ready(backend, &talk.says("1"), exclusive("me")).await;
    assert!(busy(backend, &talk.says("1"), exclusive("you")).await);
    ready(backend, &talk.says("2"), exclusive("you")).await;
    let turn = Turn::after(&opening);
    turn.conflicts(backend, &talk.says("1")).await;
    turn.holding("me").done(backend, &talk.says("1")).await;
}

pub async fn an_applied_activity_needs_no_lease(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let activity = talk.says("1");
    let opening = ready(backend, &activity, Claim::Optimistic).await;
    Turn::after(&opening)
        .replies("hi")
        .done(backend, &activity)
        .await;
    ready(backend, &talk.says("2"), exclusive("you")).await;
    assert!(applied(backend, &activity).await.is_some());
}
