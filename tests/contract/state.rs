//! State: read with the turn, checked and written by its commit.

use std::time::Duration;

use greentic_worker::ports::{Begin, Begun, Claim, StoredState, TurnStore};

use super::Backend;
use super::talk::{Talk, Turn, begin_with, exclusive, slot, stored};

/// A whole turn that writes these.
async fn writes(backend: &impl Backend, key: &str, values: &[(&str, &str)]) {
    let activity = Talk::of(backend).says(key);
    let mut turn = Turn::default();
    for (key, value) in values {
        turn = turn.writes(&slot(key), value);
    }
    turn.done(backend, &activity).await;
}

pub async fn state_is_read_as_it_was_written(backend: &impl Backend) {
    writes(backend, "1", &[("a", "1"), ("b", r#"{"ü":[null]}"#)]).await;
    writes(backend, "2", &[("a", "2")]).await;
    let activity = Talk::of(backend).says("3");
    let slots = [slot("b"), slot("absent"), slot("a")];
    let expected = [
        Some(r#"{"ü":[null]}"#.to_owned()),
        None,
        Some("2".to_owned()),
    ];

    let begun = begin_with(backend, &activity, Claim::Optimistic, &slots).await;
    let Begun::Ready(opening) = begun else {
        panic!("{begun:?}")
    };
    assert_eq!(opening.state, expected.clone().map(StoredState::from));
    let read = stored(backend, &activity, &slots).await;
    assert_eq!(read, expected);
    let nothing = stored(backend, &activity, &[]).await;
    assert!(nothing.is_empty());
}

pub async fn state_that_changed_meanwhile_conflicts(backend: &impl Backend) {
    writes(backend, "1", &[("a", "1"), ("b", "1")]).await;
    let activity = Talk::of(backend).says("2");
    let turn = Turn::default()
        .reads(&slot("b"), Some("1"))
        .reads(&slot("a"), Some("1"))
        .writes(&slot("c"), "2");
    writes(backend, "3", &[("a", "3")]).await;
    turn.conflicts(backend, &activity).await;
    let read = stored(backend, &activity, &[slot("c")]).await;
    assert_eq!(read, [None]);
}

pub async fn state_that_appeared_meanwhile_conflicts(backend: &impl Backend) {
    let activity = Talk::of(backend).says("1");
    let turn = Turn::default().reads(&slot("a"), None);
    writes(backend, "2", &[("a", "2")]).await;
    turn.conflicts(backend, &activity).await;
}

pub async fn state_that_was_not_read_does_not_conflict(backend: &impl Backend) {
    writes(backend, "1", &[("a", "1")]).await;
    let activity = Talk::of(backend).says("2");
    let turn = Turn::default()
        .reads(&slot("a"), Some("1"))
        .reads(&slot("absent"), None)
        .writes(&slot("a"), "2");
    writes(backend, "3", &[("b", "3")]).await;
    turn.done(backend, &activity).await;
    let read = stored(backend, &activity, &[slot("a")]).await;
    assert_eq!(read, [Some("2".to_owned())]);
}

pub async fn state_does_not_expire(backend: &impl Backend) {
    writes(backend, "1", &[("a", "1")]).await;
    backend
        .pass(Duration::from_secs(10 * 365 * 24 * 3600))
        .await;
    let activity = Talk::of(backend).says("2");
    let read = stored(backend, &activity, &[slot("a")]).await;
    assert_eq!(read, [Some("1".to_owned())]);
}

pub async fn deleted_state_is_gone(backend: &impl Backend) {
    writes(backend, "1", &[("a", "1"), ("b", "1")]).await;
    let talk = Talk::of(backend);
    let deletion = Turn::default()
        .reads(&slot("a"), Some("1"))
        .deletes(&slot("a"))
        .deletes(&slot("absent"));
    deletion.done(backend, &talk.says("2")).await;
    let slots = [slot("a"), slot("absent"), slot("b")];
    let read = stored(backend, &talk.says("3"), &slots).await;
    assert_eq!(read, [None, None, Some("1".to_owned())]);

    let stale = Turn::default()
        .reads(&slot("a"), Some("1"))
        .deletes(&slot("b"));
    stale.conflicts(backend, &talk.says("4")).await;
    writes(backend, "5", &[("a", "2")]).await;
    let read = stored(backend, &talk.says("6"), &slots).await;
    assert_eq!(read, [Some("2".to_owned()), None, Some("1".to_owned())]);
}

pub async fn a_value_that_is_too_large_is_not_read(backend: &impl Backend) {
    writes(backend, "1", &[("a", "12345"), ("b", "123456")]).await;
    let activity = Talk::of(backend).says("2");
    let expected = [StoredState::Text("12345".to_owned()), StoredState::TooLarge];
    let slots = [slot("a"), slot("b")];
    for claim in [Claim::Optimistic, exclusive("me")] {
        let begin = Begin {
            activity: &activity,
            claim,
            resume: true,
            state: &slots,
            state_bytes: 5,
        };
        let begun = backend.store().begin(&begin).await.unwrap();
        let Begun::Ready(opening) = begun else {
            panic!("{begun:?}")
        };
        assert_eq!(opening.state, expected, "{claim:?}");
    }
    for (slot, expected) in slots.iter().zip(&expected) {
        let read = backend.store().read_state(&activity, slot, 5).await;
        assert_eq!(read.unwrap(), *expected);
    }
}
