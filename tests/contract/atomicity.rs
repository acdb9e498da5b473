//! All of a turn or none of it, and once.

use std::time::Duration;

use futures_util::future::join_all;
use greentic_worker::model::{Activity, Outbound};
use greentic_worker::ports::{Begun, Claim, Committed, TurnStore};

use super::talk::{
    LEASE, Talk, Turn, WAIT, applied, begin, bodies, exclusive, found, ready, reply, slot, stored,
};
use super::{Backend, DEDUPE_WINDOW};

/// What an activity would do to the conversation as it is now.
async fn drafts(backend: &impl Backend, activity: &Activity) -> Turn {
    Turn::after(&ready(backend, activity, Claim::Optimistic).await)
}

#[track_caller]
fn check_already_applied(answer: Committed, expected: &[&str]) {
    let Committed::AlreadyApplied(record) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(bodies(&record.outbox), expected);
}

const HI: &str = r#"{ "text" :"hi"}"#;

pub async fn a_wait_is_taken_once(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w", "k").await;
    let (one, two) = (talk.says("1"), talk.echoes("k", "2"));
    let (first, second) = (drafts(backend, &one).await, drafts(backend, &two).await);
    assert_eq!(first.taken.as_ref().unwrap().key.as_str(), "w");
    assert_eq!(second.taken.as_ref().unwrap().key.as_str(), "w");
    first.done(backend, &one).await;
    second.conflicts(backend, &two).await;
}

/// The same reply given to many workers, and the same delivery to some of them twice.
pub async fn of_many_racing_turns_one_takes_a_wait(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w", "k").await;
    let activities: Vec<_> = (0..20).map(|i| talk.says(&format!("{}", i / 2))).collect();
    let mut turns = Vec::new();
    for activity in &activities {
        let turn = drafts(backend, activity).await;
        turns.push(turn.park(activity, "next", None).replies("hi"));
    }
    let racing = turns.iter().zip(&activities);
    let answers = join_all(racing.map(|(turn, activity)| turn.commit(backend, activity))).await;
    let count = |is: fn(&Committed) -> bool| answers.iter().filter(|answer| is(answer)).count();
    assert_eq!(count(|answer| matches!(answer, Committed::Done { .. })), 1);
    assert_eq!(
        count(|answer| matches!(answer, Committed::AlreadyApplied(_))),
        1
    );
    assert_eq!(count(|answer| matches!(answer, Committed::Conflict)), 18);
    assert_eq!(talk.resumes(backend).await.as_deref(), Some("next"));
}

pub async fn two_turns_that_start_a_flow_are_one_too_many(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let (one, two) = (talk.says("1"), talk.says("2"));
    let first = drafts(backend, &one).await.park(&one, "w1", Some("k1"));
    let second = drafts(backend, &two).await.park(&two, "w2", Some("k2"));
    first.done(backend, &one).await;
    second.conflicts(backend, &two).await;
    assert_eq!(talk.head(backend).await.as_deref(), Some("w1"));
}

pub async fn a_turn_that_saw_another_head_conflicts(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w1", "k1").await;
    let one = talk.echoes("k1", "1");
    let turn = drafts(backend, &one).await;
    // The wait that it takes stays, but it is not the latest any more.
    talk.parks(backend, "w2", "k2").await;
    turn.conflicts(backend, &one).await;
    drafts(backend, &one).await.done(backend, &one).await;
}

pub async fn an_older_wait_is_taken_once_though_the_head_stays(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w1", "k1").await;
    talk.parks(backend, "w2", "k2").await;
    let (one, two) = (talk.echoes("k1", "1"), talk.echoes("k1", "2"));
    let (first, second) = (drafts(backend, &one).await, drafts(backend, &two).await);
    first.done(backend, &one).await;
    assert_eq!(talk.head(backend).await.as_deref(), Some("w2"));
    second.conflicts(backend, &two).await;
}

pub async fn a_wait_that_expired_meanwhile_cannot_be_taken(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w", "k").await;
    let answer = talk.says("1");
    let turn = drafts(backend, &answer).await;
    backend.pass(WAIT + Duration::from_secs(1)).await;
    turn.conflicts(backend, &answer).await;
}

pub async fn a_conflict_leaves_nothing_behind(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w", "k").await;
    let (one, two) = (talk.says("1"), talk.says("2"));
    let second = drafts(backend, &two)
        .await
        .park(&two, "w2", Some("k2"))
        .writes(&slot("visits"), "2")
        .replies("hi");
    let first = drafts(backend, &one).await.park(&one, "w1", Some("k1"));
    first.done(backend, &one).await;
    second.conflicts(backend, &two).await;

    assert_eq!(applied(backend, &two).await, None);
    let state = stored(backend, &two, &[slot("visits")]).await;
    assert_eq!(state, [None]);
    assert_eq!(talk.head(backend).await.as_deref(), Some("w1"));
    let echoed = found(backend, &talk.echoes("k2", "asks")).await;
    assert_eq!(echoed.as_deref(), Some("w1"));
}

pub async fn an_activity_is_applied_once(backend: &impl Backend) {
    let activity = Talk::of(backend).says("1");
    let first = drafts(backend, &activity)
        .await
        .writes(&slot("visits"), "1")
        .replies("hi");
    let second = first
        .clone()
        .park(&activity, "w", Some("k"))
        .writes(&slot("visits"), "2")
        .replies("other");
    first.done(backend, &activity).await;
    check_already_applied(second.commit(backend, &activity).await, &[HI]);

    let state = stored(backend, &activity, &[slot("visits")]).await;
    assert_eq!(state, [Some("1".to_owned())]);
    assert_eq!(Talk::of(backend).head(backend).await, None);
}

pub async fn a_commit_whose_answer_was_lost_finds_itself(backend: &impl Backend) {
    let talk = Talk::of(backend);
    talk.parks(backend, "w", "k").await;
    let activity = talk.says("1");
    let opening = ready(backend, &activity, exclusive("me")).await;
    let turn = Turn::after(&opening)
        .holding("me")
        .park(&activity, "w2", Some("k2"))
        .reads(&slot("visits"), None)
        .writes(&slot("visits"), "1")
        .replies("hi");
    turn.done(backend, &activity).await;
    for _ in 0..2 {
        check_already_applied(turn.commit(backend, &activity).await, &[HI]);
    }
    assert_eq!(talk.head(backend).await.as_deref(), Some("w2"));
}

pub async fn an_applied_activity_hands_back_its_outbox(backend: &impl Backend) {
    let activity = Talk::of(backend).says("1");
    let turn = drafts(backend, &activity).await;
    let turn = turn.replies("hi").replies("and bye");
    turn.done(backend, &activity).await;
    let expected = vec![HI.to_owned(), r#"{ "text" :"and bye"}"#.to_owned()];
    assert_eq!(applied(backend, &activity).await, Some(expected));
}

pub async fn a_published_outbox_is_empty(backend: &impl Backend) {
    let activity = Talk::of(backend).says("1");
    let turn = drafts(backend, &activity).await.replies("hi");
    turn.done(backend, &activity).await;
    backend.store().published(&activity).await.unwrap();
    assert_eq!(applied(backend, &activity).await, Some(vec![]));
    check_already_applied(turn.commit(backend, &activity).await, &[]);
}

pub async fn an_outbox_that_is_published_in_part_holds_the_rest(backend: &impl Backend) {
    let activity = Talk::of(backend).says("1");
    let turn = drafts(backend, &activity).await.replies("hi");
    turn.done(backend, &activity).await;
    let rest = Outbound {
        position: Some(1),
        ..reply("rest")
    };
    let rest = [rest];
    backend
        .store()
        .published_but(&activity, &rest)
        .await
        .unwrap();
    let begun = begin(backend, &activity, Claim::Optimistic).await;
    let Begun::Applied(found) = begun else {
        panic!("{begun:?}")
    };
    let found = found.outbox;
    let positions: Vec<_> = found.iter().map(|reply| reply.position).collect();
    assert_eq!(positions, [Some(1)]);
    assert_eq!(found[0].body.get(), rest[0].body.get());
    // It lasts no longer for that, and nothing is applied by it.
    backend.pass(DEDUPE_WINDOW + LEASE).await;
    backend
        .store()
        .published_but(&activity, &rest)
        .await
        .unwrap();
    assert_eq!(applied(backend, &activity).await, None);
}

/// Whoever has another message of the same id must be able to tell, at every stage of the record.
pub async fn a_record_tells_whose_content_it_is(backend: &impl Backend) {
    let talk = Talk::of(backend);
    let (activity, other) = (talk.says("1"), talk.says_what("1", "other".into()));
    assert_ne!(activity.content, other.content);
    let turn = drafts(backend, &activity).await.replies("hi");
    let too_late = drafts(backend, &other).await.replies("ho");
    turn.done(backend, &activity).await;
    let (store, rest) = (backend.store(), [reply("rest")]);
    for stage in ["committed", "published in part", "published"] {
        match stage {
            "published in part" => store.published_but(&activity, &rest).await.unwrap(),
            "published" => store.published(&activity).await.unwrap(),
            _ => {}
        }
        for claim in [Claim::Optimistic, exclusive("me")] {
            let begun = begin(backend, &other, claim).await;
            let Begun::Applied(record) = begun else {
                panic!("{begun:?}")
            };
            assert_eq!(record.content, Some(activity.content), "{stage}");
        }
        let answer = too_late.commit(backend, &other).await;
        let Committed::AlreadyApplied(record) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(record.content, Some(activity.content), "{stage}");
    }
}

pub async fn an_applied_activity_is_forgotten_after_the_window(backend: &impl Backend) {
    let activity = Talk::of(backend).says("1");
    let turn = drafts(backend, &activity).await.replies("hi");
    turn.done(backend, &activity).await;
    backend.pass(DEDUPE_WINDOW - LEASE).await;
    assert!(applied(backend, &activity).await.is_some());
    backend.pass(LEASE + Duration::from_secs(1)).await;
    assert_eq!(applied(backend, &activity).await, None);
}

pub async fn publishing_does_not_prolong_the_memory_of_an_activity(backend: &impl Backend) {
    let activity = Talk::of(backend).says("1");
    drafts(backend, &activity)
        .await
        .replies("hi")
        .done(backend, &activity)
        .await;
    backend.pass(DEDUPE_WINDOW - LEASE).await;
    backend.store().published(&activity).await.unwrap();
    assert_eq!(applied(backend, &activity).await, Some(vec![]));
    backend.pass(LEASE + Duration::from_secs(1)).await;
    assert_eq!(applied(backend, &activity).await, None);
}

pub async fn publishing_does_not_apply_what_was_not(backend: &impl Backend) {
    let activity = Talk::of(backend).says("1");
    backend.store().published(&activity).await.unwrap();
    assert_eq!(applied(backend, &activity).await, None);
}
