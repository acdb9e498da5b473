//! Leases and the count of attempts.

use std::time::Duration;

use greentic_worker::ports::{Attempts, Begun, Claim, TurnStore};

use super::talk::{
    LEASE, Talk, Turn, applied, begin, busy, exclusive, lease, ready, slot, user_lease,
};
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
        backend
            .store()
            .release(&activity, lease("me"))
            .await
            .unwrap();
    }
}

pub async fn an_attempt_that_is_withdrawn_does_not_count(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let activity = talk.says("1");
    for _ in 0..3 {
        let opening = ready(backend, &activity, exclusive("me")).await;
        assert_eq!(opening.claims, 1);
        // Only its holder's.
        backend
            .store()
            .withdraw(&activity, lease("you"))
            .await
            .unwrap();
        assert!(busy(backend, &talk.says("2"), exclusive("you")).await);
        backend
            .store()
            .withdraw(&activity, lease("me"))
            .await
            .unwrap();
        // Once only.
        backend
            .store()
            .withdraw(&activity, lease("me"))
            .await
            .unwrap();
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
            backend
                .store()
                .release(activity, lease("me"))
                .await
                .unwrap();
        }
    }
    for _ in 0..2 {
        backend.store().forget_claims(&activity).await.unwrap();
    }
    for (activity, expected) in [(&activity, 1), (&other, 3)] {
        let opening = ready(backend, activity, exclusive("me")).await;
        assert_eq!(opening.claims, expected);
        backend
            .store()
            .release(activity, lease("me"))
            .await
            .unwrap();
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
    backend
        .store()
        .release(&activity, lease("you"))
        .await
        .unwrap();
    assert!(busy(backend, &talk.says("2"), exclusive("you")).await);
    backend
        .store()
        .release(&activity, lease("me"))
        .await
        .unwrap();
    ready(backend, &talk.says("2"), exclusive("you")).await;
}

pub async fn an_expired_lease_counts_while_nobody_else_has_it(backend: &impl Backend) {
    let activity = Talk::of(backend).says("1");
    let opening = ready(backend, &activity, exclusive("me")).await;
    backend.pass(LEASE + A_SECOND).await;
    let turn = Turn::after(&opening).holding("me");
    turn.done(backend, &activity).await;
    assert!(applied(backend, &activity).await.is_some());
}

pub async fn a_lease_is_prolonged_by_its_holder_only(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let activity = talk.says("1");
    ready(backend, &activity, exclusive("me")).await;
    backend.pass(LEASE - A_SECOND).await;
    let store = backend.store();
    store.prolong(&activity, lease("me"), LEASE).await.unwrap();
    backend.pass(LEASE - A_SECOND).await;
    assert!(busy(backend, &talk.says("2"), Claim::Optimistic).await);
    store.prolong(&activity, lease("you"), LEASE).await.unwrap();
    backend.pass(A_SECOND * 2).await;
    store.prolong(&activity, lease("me"), LEASE).await.unwrap();
    ready(backend, &talk.says("2"), Claim::Optimistic).await;
}

pub async fn attempts_that_failed_are_told_from_those_that_ended_in_silence(
    backend: &impl Backend,
) {
    let (activity, store) = (Talk::of(backend).says("1"), backend.store());
    let counts = async |claimed, open| {
        let attempts = store.attempts(&activity).await.unwrap();
        assert_eq!(attempts, Attempts { claimed, open });
    };
    counts(0, 0).await;
    ready(backend, &activity, exclusive("me")).await;
    counts(1, 1).await;
    // Only its holder's, and once only.
    store.release(&activity, lease("you")).await.unwrap();
    store.release(&activity, lease("me")).await.unwrap();
    store.release(&activity, lease("me")).await.unwrap();
    counts(1, 0).await;
    ready(backend, &activity, exclusive("me")).await;
    backend.pass(LEASE + A_SECOND).await;
    counts(2, 1).await;
    ready(backend, &activity, exclusive("me")).await;
    store.withdraw(&activity, lease("me")).await.unwrap();
    counts(2, 1).await;
    let opening = ready(backend, &activity, exclusive("me")).await;
    let turn = Turn::after(&opening).holding("me");
    turn.done(backend, &activity).await;
    counts(0, 0).await;
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
    backend.store().release(&two, lease("me")).await.unwrap();
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

pub async fn a_lease_on_a_user_keeps_other_conversations_from_its_state(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let other = talk.but(|t| t.conversation = Some("d".to_owned()));
    let stranger = talk.but(|t| t.user = "stranger".to_owned());
    let of_user = |token| {
        let lease = user_lease(token);
        Claim::Exclusive { lease, ttl: LEASE }
    };
    let (one, two) = (talk.says("1"), other.says("2"));
    let opening = ready(backend, &one, of_user("me")).await;
    assert!(busy(backend, &two, of_user("you")).await);
    // The conversations themselves are free, and so are other users.
    let writes = |n: &str| Turn::default().writes(&slot("a"), n);
    writes("2").conflicts(backend, &two).await;
    ready(backend, &two, exclusive("you")).await;
    writes("2").holding("you").conflicts(backend, &two).await;
    let reads = Turn::default().reads(&slot("a"), None);
    reads.holding("you").done(backend, &two).await;
    writes("3").done(backend, &stranger.says("3")).await;

    let turn = Turn::after(&opening).writes(&slot("a"), "1");
    turn.holding_user("me").done(backend, &one).await;
    let four = other.says("4");
    let opening = ready(backend, &four, of_user("you")).await;
    let turn = Turn::after(&opening);
    turn.holding_user("you").done(backend, &four).await;
    writes("5").done(backend, &other.says("5")).await;
}

pub async fn a_lease_on_a_user_is_prolonged_and_given_up_as_others_are(backend: &impl Backend) {
    let (talk, store) = (Talk::of(backend), backend.store());
    let other = talk.but(|t| t.conversation = Some("d".to_owned()));
    let (one, two) = (talk.says("1"), other.says("2"));
    let claim = |token| {
        let lease = user_lease(token);
        Claim::Exclusive { lease, ttl: LEASE }
    };
    ready(backend, &one, claim("me")).await;
    backend.pass(LEASE - A_SECOND).await;
    store.prolong(&one, user_lease("me"), LEASE).await.unwrap();
    backend.pass(LEASE - A_SECOND).await;
    assert!(busy(backend, &two, claim("you")).await);
    store.release(&one, user_lease("me")).await.unwrap();
    ready(backend, &two, claim("you")).await;
    store.withdraw(&two, user_lease("you")).await.unwrap();
    ready(backend, &one, claim("me")).await;
}
