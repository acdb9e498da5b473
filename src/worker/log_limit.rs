//! A line of the log that a tenant's provider could cause with each of its messages is written once a minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::TenantId;

/// How often such a line is written.
const EVERY: Duration = Duration::from_secs(60);

/// The last line of each tenant.
#[derive(Default)]
pub struct LogLimit(Mutex<HashMap<TenantId, LastLine>>);

struct LastLine {
    at: Instant,
    left_out: u64,
}

impl LogLimit {
    /// Counts a line of this tenant. If it may be written, returns how many were left out before it.
    pub fn take(&self, tenant: &TenantId) -> Option<u64> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now();
        let Some(last) = lines.get_mut(tenant) else {
            lines.insert(tenant.clone(), LastLine { at, left_out: 0 });
            return Some(0);
        };
        if at - last.at < EVERY {
            last.left_out += 1;
            return None;
        }
        last.at = at;
        Some(std::mem::take(&mut last.left_out))
    }

    /// Forgets a tenant that is not served any more.
    pub fn forget(&self, tenant: &TenantId) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.remove(tenant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_tenant_has_a_line_a_minute() {
        let (limit, ours) = (LogLimit::default(), TenantId::new("a").unwrap());
        assert_eq!(limit.take(&ours), Some(0));
        assert_eq!(limit.take(&TenantId::new("b").unwrap()), Some(0));
        for _ in 0..3 {
            assert_eq!(limit.take(&ours), None);
        }
        tokio::time::advance(EVERY).await;
        assert_eq!(limit.take(&ours), Some(3));
        assert_eq!(limit.take(&ours), None);
        limit.forget(&ours);
        assert_eq!(limit.take(&ours), Some(0));
    }
}
