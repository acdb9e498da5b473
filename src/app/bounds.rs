//! From settings to what a turn may store.

use crate::ports::Quotas;
use crate::settings::{Settings, Tenant};
use crate::turn::Bounds;

/// How much a turn may store, and how much is kept for its user and tenant.
pub(super) fn bounds(settings: &Settings) -> Bounds {
    let (limits, state) = (&settings.limits, &settings.state);
    // No limit is more than any store can hold, and less than what Lua can no longer count.
    let bytes = |quota: Option<std::num::NonZeroU64>| quota.map_or(1 << 50, |quota| quota.get());
    let quotas = Quotas {
        user_state_bytes: bytes(state.user_bytes),
        tenant_state_bytes: bytes(state.tenant_bytes),
        waits_per_user: limits.waits_per_user.get(),
    };
    let own = |tenant: &Tenant| Quotas {
        user_state_bytes: bytes(tenant.state_user_bytes.or(state.user_bytes)),
        tenant_state_bytes: bytes(tenant.state_tenant_bytes.or(state.tenant_bytes)),
        ..quotas
    };
    let tenants = settings.tenants.iter();
    Bounds {
        session_bytes: limits.session_bytes.get(),
        commit_bytes: limits.commit_bytes.get(),
        quotas,
        tenants: tenants
            .map(|(id, tenant)| (id.clone(), own(tenant)))
            .collect(),
    }
}
