//! Who is held up by what.

use super::refusals::{FIRST_PROBE, FORGOTTEN_AFTER, LONGEST_PROBE, MOST_PASSED_OVER};
use super::*;
use crate::ports::RefusalReason;

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn refusal() -> Refusal {
    Refusal {
        reason: RefusalReason::Permission,
        detail: "no".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_holds_its_tenant_only_but_for_one_probe_at_a_time() {
    let (outage, one, other) = (Outage::default(), tenant("one"), tenant("other"));
    assert_eq!(outage.hold(&one, None), None);
    for _ in 0..20 {
        outage.refuse(&one, Part::Outbound, &refusal());
    }
    let first = outage.pause(&one).unwrap();
    assert!(
        first <= FIRST_PROBE,
        "many refusals at once are one: {first:?}"
    );
    assert!(
        outage.hold(&one, None).unwrap() < first,
        "it is there before the probe"
    );
    assert_eq!(
        (outage.hold(&other, None), outage.pause(&other)),
        (None, None)
    );

    let mut longest = first;
    for _ in 0..12 {
        tokio::time::advance(outage.pause(&one).unwrap()).await;
        assert_eq!(outage.hold(&one, None), None, "a probe");
        assert!(outage.hold(&one, None).is_some(), "one at a time");
        outage.refuse(&one, Part::Outbound, &refusal());
        longest = outage.pause(&one).unwrap();
    }
    assert!(
        longest > LONGEST_PROBE / 2 && longest <= LONGEST_PROBE,
        "{longest:?}"
    );
    outage.allow(&one, Part::Store);
    assert_eq!(outage.refusals().len(), 1, "another part does not end it");
    outage.allow(&one, Part::Outbound);
    assert_eq!(
        (outage.hold(&one, None), outage.refusals().len()),
        (None, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn the_oldest_message_is_the_probe_unless_it_does_not_come() {
    let (outage, one) = (Outage::default(), tenant("one"));
    outage.refuse(&one, Part::Outbound, &refusal());
    assert!(outage.hold(&one, Some(2)).is_some() && outage.hold(&one, Some(1)).is_some());
    tokio::time::advance(outage.pause(&one).unwrap()).await;
    assert!(outage.hold(&one, Some(2)).is_some(), "1 is older");
    assert_eq!(outage.hold(&one, Some(1)), None);
    outage.refuse(&one, Part::Outbound, &refusal());
    tokio::time::advance(outage.pause(&one).unwrap()).await;
    for _ in 0..MOST_PASSED_OVER {
        assert!(outage.hold(&one, Some(2)).is_some());
    }
    assert_eq!(outage.hold(&one, Some(2)), None, "another worker has 1");
    outage.unmet(&one, Some(2));
    assert_eq!(outage.hold(&one, Some(3)), None);
}

#[tokio::test(start_paused = true)]
async fn refused_dead_letters_hold_nothing_up_and_are_told_of() {
    let (outage, one) = (Outage::default(), tenant("one"));
    outage.refuse(&one, Part::DeadLetters, &refusal());
    assert_eq!(outage.hold(&one, None), None);
    assert_eq!(outage.refusals().len(), 1);
    tokio::time::advance(FORGOTTEN_AFTER).await;
    assert_eq!(outage.refusals().len(), 0, "nothing has met it");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_is_named_and_a_refusal_is_none() {
    let (outage, one) = (Outage::default(), tenant("one"));
    let mut calls = 0;
    let seen = outage.clone();
    let answer = outage.ride_out(&one, Part::Store, || {
        calls += 1;
        let away = calls == 1;
        if !away {
            assert!(seen.is_away(Server::Redis) && !seen.is_away(Server::Nats));
        }
        async move {
            match away {
                true => Err(StoreError::Unavailable("away".into())),
                false => Err::<(), _>(StoreError::Refused(refusal())),
            }
        }
    });
    assert!(matches!(answer.await, Err(StoreError::Refused(_))));
    assert!(!outage.is_active());
    assert!(outage.pause(&one).is_some());
}
