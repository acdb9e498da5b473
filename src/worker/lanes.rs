//! Keeps the turns of one conversation in the order in which their messages came.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::model::Activity;

/// The conversations that have turns in this worker. It spares work only: another worker may run a turn of the same
/// conversation, and COMMIT finds that out.
#[derive(Clone, Debug, Default)]
pub struct Lanes(Arc<Mutex<Taken>>);

/// The lanes that someone is in, each with those who wait behind, in order.
type Taken = HashMap<Lane, VecDeque<oneshot::Sender<()>>>;

/// What names a conversation here.
type Lane = Arc<str>;

/// A place in a conversation's lane; leaving it lets the next one in.
#[derive(Debug)]
pub struct Place {
    lanes: Lanes,
    lane: Lane,
    /// Told when it is this one's turn; nothing if it is.
    behind: Option<oneshot::Receiver<()>>,
}

impl Lanes {
    /// Queues up behind the turns of the same conversation. Call it in the order in which the messages came.
    pub fn queue(&self, activity: &Activity) -> Place {
        let lane = lane(activity);
        let behind = match self.taken().entry(Arc::clone(&lane)) {
            Entry::Vacant(free) => {
                free.insert(VecDeque::new());
                None
            }
            Entry::Occupied(mut queue) => {
                let (call, called) = oneshot::channel();
                queue.get_mut().push_back(call);
                Some(called)
            }
        };
        Place {
            lanes: self.clone(),
            lane,
            behind,
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tenant, team, user and base scope. None of them can hold a line feed, and those that may be missing are never empty.
fn lane(activity: &Activity) -> Lane {
    let scope = activity.reply_scope.as_ref();
    [
        activity.tenant.as_str(),
        activity.team.as_ref().map_or("", |team| team.as_str()),
        activity.user.as_str(),
        scope.map_or("", |scope| &scope.conversation),
        scope
            .and_then(|scope| scope.thread.as_deref())
            .unwrap_or_default(),
        scope
            .and_then(|scope| scope.reply_to.as_deref())
            .unwrap_or_default(),
    ]
    .join("\n")
    .into()
}

impl Place {
    /// Returns whether a turn before it has not left yet.
    pub fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// Waits until all turns before have left.
    pub async fn reached(&mut self) {
        if let Some(called) = &mut self.behind {
            // Nobody leaves without a call.
            let _called = called.await;
            self.behind = None;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.lanes.taken();
        // Calls are made with the lock held, so one that has not come by now finds nobody and goes to the next.
        if let Some(mut called) = self.behind.take()
            && called.try_recv().is_err()
        {
            return;
        }
        let Entry::Occupied(mut queue) = taken.entry(Arc::clone(&self.lane)) else {
            return;
        };
        while let Some(next) = queue.get_mut().pop_front() {
            if next.send(()).is_ok() {
                return;
            }
        }
        queue.remove();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::model::{EnvId, InboundMessage, TenantId, decode};

    fn activity(user: &str) -> Activity {
        let body = serde_json::json!({"id": "1", "from": {"id": user}, "reply_scope": {"conversation": "c"}});
        let message = InboundMessage {
            tenant: TenantId::new("t").unwrap(),
            headers: crate::model::Headers::default(),
            body: body.to_string().into(),
            sequence: None,
        };
        decode(&message, &EnvId::new("dev").unwrap()).unwrap()
    }

    #[test]
    fn one_conversation_goes_in_order_and_leaves_nothing_behind() {
        let lanes = Lanes::default();
        let mut first = lanes.queue(&activity("a"));
        let mut second = lanes.queue(&activity("a"));
        let mut third = lanes.queue(&activity("a"));
        let mut other = lanes.queue(&activity("b"));
        assert!(first.reached().now_or_never().is_some());
        assert!(other.reached().now_or_never().is_some());
        assert!(
            second.reached().now_or_never().is_none(),
            "overtook the first"
        );
        let mut fourth = lanes.queue(&activity("a"));
        drop(first);
        assert!(
            third.reached().now_or_never().is_none(),
            "overtook the second"
        );
        drop(third);
        assert!(
            fourth.reached().now_or_never().is_none(),
            "overtook the second when the third left early"
        );
        // It was called, but leaves before it has noticed.
        drop(second);
        assert!(fourth.reached().now_or_never().is_some(), "forgotten");
        drop((fourth, other));
        assert!(lanes.taken().is_empty());
    }
}
