//! Keeps the turns of one conversation in the order in which their messages came.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use greentic_types::ReplyScope;
use tokio::sync::oneshot;

use crate::model::{Activity, TeamId, TenantId, UserId};

/// The conversations that have turns in this worker. It spares work only: another worker may run a turn of the same
/// conversation, and COMMIT finds that out.
#[derive(Clone, Debug, Default)]
pub struct Lanes(Arc<Mutex<HashMap<Lane, Tail>>>);

/// What names a conversation here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Lane {
    tenant: TenantId,
    team: Option<TeamId>,
    user: UserId,
    scope: Option<ReplyScope>,
}

/// The last one in a lane: who comes next waits for it.
#[derive(Debug)]
struct Tail {
    place: u64,
    left: oneshot::Receiver<()>,
}

/// A place in a conversation's lane; leaving it lets the next one in.
#[derive(Debug)]
pub struct Place {
    lanes: Lanes,
    lane: Lane,
    place: u64,
    before: Option<oneshot::Receiver<()>>,
    // Dropped with the place, which is what the next one waits for.
    _leave: oneshot::Sender<()>,
}

impl Lanes {
    /// Queues up behind the turns of the same conversation. Call it in the order in which the messages came.
    pub fn queue(&self, activity: &Activity) -> Place {
        let lane = Lane {
            tenant: activity.tenant.clone(),
            team: activity.team.clone(),
            user: activity.user.clone(),
            scope: activity.base_scope(),
        };
        let (leave, left) = oneshot::channel();
        let mut tails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (place, before) = match tails.remove(&lane) {
            Some(tail) => (tail.place + 1, Some(tail.left)),
            None => (0, None),
        };
        tails.insert(lane.clone(), Tail { place, left });
        drop(tails);
        Place {
            lanes: self.clone(),
            lane,
            place,
            before,
            _leave: leave,
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Place {
    /// Waits until all turns before have left.
    pub async fn reached(&mut self) {
        if let Some(before) = self.before.take() {
            // An error is how a dropped sender says that it has left.
            let _ = before.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut tails = self.lanes.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tails
            .get(&self.lane)
            .is_some_and(|tail| tail.place == self.place)
        {
            tails.remove(&self.lane);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::model::{EnvId, InboundMessage, decode};

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
        // `reached` was cancelled above, so the order must be asked of the third one.
        drop(first);
        assert!(
            third.reached().now_or_never().is_none(),
            "overtook the second"
        );
        drop((second, third, other));
        assert_eq!(lanes.len(), 0);
    }
}
