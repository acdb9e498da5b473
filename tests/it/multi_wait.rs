//! One user waits in several places at once; each answer finds its own.

use crate::harness::{Message, Provider, Servers, WorkerProcess, fresh_tenant};

#[tokio::test]
async fn multi_wait() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("approval-pack", &["main"]);
    let _worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;

    // Two conversations, and two threads of a third one: four waits of one user.
    let places = [
        ("c1", None),
        ("c2", None),
        ("c3", Some("t1")),
        ("c3", Some("t2")),
    ];
    let at = |place: (&str, Option<&str>), text: &str| {
        let message = Message::new(place.0, text);
        if let Some(thread) = place.1 {
            message.thread(thread)
        } else {
            message
        }
    };
    for place in places {
        provider.send(&at(place, "hi")).await;
        assert!(provider.expect_reply().await.expects_reply());
    }
    let what =
        |place: (&str, Option<&str>)| format!("thing-{}-{}", place.0, place.1.unwrap_or("none"));
    // Answered out of order; each goes on where it was asked.
    for n in [2, 0, 3, 1] {
        provider.send(&at(places[n], &what(places[n]))).await;
        let second = provider.expect_reply().await;
        assert!(second.text().contains(&what(places[n])), "{second:?}");
        assert_eq!(second.body["reply_scope"]["conversation"], places[n].0);
    }
    // And once more, in another order: each knows what was asked for in its own conversation.
    for n in [3, 1, 2, 0] {
        provider
            .send(&at(places[n], if n % 2 == 0 { "yes" } else { "no" }))
            .await;
        let decision = provider.expect_reply().await;
        assert!(decision.text().contains(&what(places[n])), "{decision:?}");
        let verdict = if n % 2 == 0 { "Approved" } else { "Rejected" };
        assert!(decision.text().contains(verdict), "{decision:?}");
    }
}

#[tokio::test]
async fn the_echoed_correlation_finds_an_older_wait_of_the_same_conversation() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("approval-pack", &["main"]);
    let _worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    let start = |text| Message::new("c1", text).header("Greentic-Flow-Id", "main");

    provider.send(&start("first")).await;
    let first = provider.expect_reply().await;
    provider.send(&start("second")).await;
    let second = provider.expect_reply().await;
    let (first, second) = (first.correlation().unwrap(), second.correlation().unwrap());
    assert_ne!(first, second);

    // In the body, and in the header: both are the echo.
    provider
        .send(&Message::new("c1", "for the first").correlation(first))
        .await;
    assert!(
        provider
            .expect_reply()
            .await
            .text()
            .contains("for the first")
    );
    provider
        .send(&Message::new("c1", "for the second").header("Greentic-Correlation-Id", second))
        .await;
    let asked = provider.expect_reply().await;
    assert!(asked.text().contains("for the second"), "{asked:?}");
    assert_eq!(
        asked.body["correlation_id"],
        asked.body["metadata"]["correlation_id"]
    );
    assert_eq!(
        asked.body["reply_scope"]["correlation"],
        asked.body["correlation_id"]
    );
    assert_eq!(asked.correlation(), asked.body["correlation_id"].as_str());

    // Without an echo the latest one goes on, and then the one that it had pushed aside.
    provider.send(&Message::new("c1", "yes")).await;
    assert!(
        provider
            .expect_reply()
            .await
            .text()
            .contains("for the second")
    );
    provider.send(&Message::new("c1", "yes")).await;
    assert!(
        provider
            .expect_reply()
            .await
            .text()
            .contains("for the first")
    );
}
