//! Work that takes processor time and nothing else.

use std::ops::ControlFlow;

use crate::model::TenantId;

/// Runs computations apart from the threads that turns run on.
pub trait Compute: Send + Sync + 'static {
    /// Runs a computation to its end, slice by slice, in turn with those of other tenants. One that can no longer be run
    /// is dropped.
    fn run(&self, tenant: &TenantId, computation: Box<dyn Computation>);
}

/// A computation in slices.
pub trait Computation: Send {
    /// Computes for a while. Breaks when the computation is over.
    fn slice(&mut self) -> ControlFlow<()>;
}
