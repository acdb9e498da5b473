//! Parking, finding and clearing waits.

use std::time::Duration;

use greentic_types::SessionKey;
use greentic_worker::ports::{Begin, Begun, Claim, Commit, Park, Quotas, StoreError, TurnStore};

use super::Backend;
use super::talk::{Talk, Turn, WAIT, found, ready, session_data};

/// A whole turn in which `activity` takes the wait it finds and parks nothing.
async fn takes(backend: &impl Backend, activity: &greentic_worker::model::Activity) -> String {
    let opening = ready(backend, activity, Claim::Optimistic).await;
    Turn::after(&opening).done(backend, activity).await;
    opening.wait.expect("a wait to take").key.0
}

pub async fn a_parked_flow_is_found_again_as_it_was(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let hello = talk.says("1");
    let opening = ready(backend, &hello, Claim::Optimistic).await;
    assert!(opening.wait.is_none() && opening.head.is_none());
    let turn = Turn::after(&opening).park(&hello, "w", Some("k"));
    turn.done(backend, &hello).await;

    let (key, data, ..) = turn.park.unwrap();
    let opening = ready(backend, &talk.says("2"), Claim::Optimistic).await;
    let wait = opening.wait.unwrap();
    assert_eq!((&wait.key, &wait.data), (&key, &data));
    assert_eq!(opening.head, Some(key));
}

pub async fn each_conversation_and_thread_resumes_its_own(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let talks = [
        ("w1", talk.clone()),
        ("w2", talk.but(|t| t.conversation = Some("d".to_owned()))),
        ("w3", talk.but(|t| t.thread = Some("t1".to_owned()))),
        ("w4", talk.but(|t| t.thread = Some("t2".to_owned()))),
    ];
    for (session, talk) in &talks {
        talk.parks(backend, session, session).await;
    }
    // Answered out of order, each resumes its own; clearing one leaves the others.
    for i in [2, 0, 3, 1] {
        let (session, talk) = &talks[i];
        let answer = talk.says(&format!("answers-{session}"));
        assert_eq!(takes(backend, &answer).await, *session);
        assert_eq!(talk.resumes(backend).await, None);
    }
}

pub async fn the_echo_leads_before_the_latest(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w1", "k1").await;
    talk.parks(backend, "w2", "k2").await;
    for (echo, session) in [("k1", "w1"), ("k2", "w2"), ("unknown", "w2")] {
        let opening = ready(backend, &talk.echoes(echo, "asks"), Claim::Optimistic).await;
        let wait = opening.wait.unwrap();
        assert_eq!(wait.key.as_str(), session, "{echo}");
        assert_eq!(opening.head, Some(SessionKey::new("w2")), "{echo}");
    }
    // Once it is answered, its echo leads to the latest.
    takes(backend, &talk.echoes("k1", "answers")).await;
    let again = found(backend, &talk.echoes("k1", "asks")).await;
    assert_eq!(again.as_deref(), Some("w2"));
}

pub async fn the_latest_wait_answers_where_nothing_is_echoed(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w1", "k1").await;
    talk.parks(backend, "w2", "k2").await;
    assert_eq!(talk.resumes(backend).await.as_deref(), Some("w2"));
}

pub async fn a_cleared_wait_gives_way_to_the_one_it_had_pushed_aside(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w1", "k1").await;
    talk.parks(backend, "w2", "k2").await;
    assert_eq!(takes(backend, &talk.echoes("k2", "answers-2")).await, "w2");
    assert_eq!(talk.head(backend).await.as_deref(), Some("w1"));
    assert_eq!(takes(backend, &talk.says("answers-1")).await, "w1");
    assert_eq!(talk.head(backend).await, None);
}

pub async fn a_restored_wait_is_the_first_that_is_still_there(backend: &impl Backend) {
    let talk = Talk::of(backend);
    for session in ["w1", "w2", "w3", "w4"] {
        talk.parks(backend, session, session).await;
    }
    takes(backend, &talk.echoes("w3", "answers-3")).await;
    let answer = talk.says("answers-4");
    let opening = ready(backend, &answer, Claim::Optimistic).await;
    let mut turn = Turn::after(&opening);
    let shadowed = r#"{"correlation":"w4","shadowed":["w3","never","w2","w1"]}"#;
    turn.taken.as_mut().unwrap().data.context_json = shadowed.to_owned();
    turn.done(backend, &answer).await;
    assert_eq!(talk.resumes(backend).await.as_deref(), Some("w2"));
}

pub async fn a_restored_wait_expires_when_it_would_have(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w1", "k1").await;
    backend.pass(WAIT / 2).await;
    talk.parks(backend, "w2", "k2").await;
    takes(backend, &talk.says("answers-2")).await;
    assert_eq!(talk.head(backend).await.as_deref(), Some("w1"));
    backend.pass(WAIT / 2 + Duration::from_secs(1)).await;
    assert_eq!(talk.head(backend).await, None);
}

pub async fn clearing_an_older_wait_leaves_the_latest(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w1", "k1").await;
    talk.parks(backend, "w2", "k2").await;
    assert_eq!(takes(backend, &talk.echoes("k1", "answers-1")).await, "w1");
    assert_eq!(talk.head(backend).await.as_deref(), Some("w2"));
    let echoed = found(backend, &talk.echoes("k2", "asks")).await;
    assert_eq!(echoed.as_deref(), Some("w2"));
}

pub async fn a_turn_that_parks_again_is_the_latest(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w1", "k1").await;
    talk.parks(backend, "w2", "k2").await;
    for (echo, next) in [("k2", "w3"), ("k1", "w4")] {
        let answer = talk.echoes(echo, &format!("answers-{echo}"));
        let opening = ready(backend, &answer, Claim::Optimistic).await;
        Turn::after(&opening)
            .park(&answer, next, Some(next))
            .done(backend, &answer)
            .await;
        assert_eq!(talk.head(backend).await.as_deref(), Some(next));
    }
    let echoed = found(backend, &talk.echoes("w3", "asks")).await;
    assert_eq!(echoed.as_deref(), Some("w3"));
}

pub async fn a_new_wait_may_keep_the_correlation_of_the_one_it_follows(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w1", "k").await;
    let answer = talk.echoes("k", "answers");
    let opening = ready(backend, &answer, Claim::Optimistic).await;
    Turn::after(&opening)
        .park(&answer, "w2", Some("k"))
        .done(backend, &answer)
        .await;
    talk.parks(backend, "w3", "other").await;
    let echoed = found(backend, &talk.echoes("k", "asks")).await;
    assert_eq!(echoed.as_deref(), Some("w2"));
}

/// Two flows of one conversation may come to share a correlation id; it leads to the later one.
pub async fn clearing_a_wait_leaves_a_correlation_that_names_another(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w1", "k").await;
    let opening = ready(backend, &talk.says("asks"), Claim::Optimistic).await;
    talk.parks(backend, "w2", "k").await;
    talk.parks(backend, "w3", "other").await;
    let activity = talk.says("1");
    let turn = Turn {
        head: Some(SessionKey::new("w3")),
        ..Turn::after(&opening)
    };
    turn.done(backend, &activity).await;
    let echoed = found(backend, &talk.echoes("k", "asks")).await;
    assert_eq!(echoed.as_deref(), Some("w2"));
}

pub async fn a_wait_expires(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w", "k").await;
    backend.pass(WAIT - Duration::from_secs(1)).await;
    assert_eq!(talk.resumes(backend).await.as_deref(), Some("w"));
    backend.pass(Duration::from_secs(2)).await;
    assert_eq!(talk.resumes(backend).await, None);
    assert_eq!(talk.head(backend).await, None);
    assert_eq!(found(backend, &talk.echoes("k", "asks")).await, None);
}

pub async fn a_wait_may_be_for_no_time_and_for_ever(backend: &impl Backend) {
    let talk = Talk::of(backend);
    for (key, lasts, found) in [("1", Duration::ZERO, None), ("2", Duration::MAX, Some("2"))] {
        let activity = talk.says(key);
        let opening = ready(backend, &activity, Claim::Optimistic).await;
        Turn::after(&opening)
            .park_for(lasts, &activity, key, None)
            .done(backend, &activity)
            .await;
        backend.pass(Duration::from_secs(1)).await;
        assert_eq!(talk.resumes(backend).await.as_deref(), found);
    }
}

pub async fn a_wait_that_expires_leaves_the_others(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w1", "k1").await;
    backend.pass(WAIT / 2).await;
    talk.parks(backend, "w2", "k2").await;
    backend.pass(WAIT / 2 + Duration::from_secs(1)).await;
    assert_eq!(talk.head(backend).await.as_deref(), Some("w2"));
    let echoed = found(backend, &talk.echoes("k1", "asks")).await;
    assert_eq!(echoed.as_deref(), Some("w2"));
}

pub async fn a_turn_may_pass_over_what_waits(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w", "k").await;
    let activity = talk.echoes("k", "starts-another");
    let begin = Begin {
        activity: &activity,
        claim: Claim::Optimistic,
        resume: false,
        state: &[],
        state_bytes: 0,
    };
    let begun = backend.store().begin(&begin).await.unwrap();
    let Begun::Ready(opening) = begun else {
        panic!("{begun:?}")
    };
    assert!(opening.wait.is_none());
    assert_eq!(opening.head, Some(SessionKey::new("w")));
    Turn::after(&opening).done(backend, &activity).await;
    assert_eq!(talk.resumes(backend).await.as_deref(), Some("w"));
}

pub async fn without_a_reply_scope_nothing_waits(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w", "k").await;
    let scopeless = talk.but(|t| t.conversation = None);
    let activity = scopeless.says("1");
    let opening = ready(backend, &activity, Claim::Optimistic).await;
    assert!(opening.wait.is_none() && opening.head.is_none());
    Turn::after(&opening)
        .replies("hi")
        .done(backend, &activity)
        .await;
    assert!(super::talk::applied(backend, &activity).await.is_some());
}

pub async fn a_wait_without_a_reply_scope_is_refused(backend: &impl Backend) {
    let activity = Talk::of(backend).but(|t| t.conversation = None).says("1");
    let (key, data) = (SessionKey::new("w"), session_data(&activity, "{}"));
    let commit = Commit {
        activity: &activity,
        lease: None,
        head: None,
        taken: None,
        park: Some(Park {
            key: &key,
            data: &data,
            correlation: None,
            ttl: WAIT,
        }),
        state_read: &[],
        state_written: &[],
        outbox: &[],
        quotas: Quotas::default(),
    };
    let answer = backend.store().commit(&commit).await;
    assert!(
        matches!(answer, Err(StoreError::Corrupt { .. })),
        "{answer:?}"
    );
    assert_eq!(super::talk::applied(backend, &activity).await, None);
}
