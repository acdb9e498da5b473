//! What one call may use of the machine.

use wasmtime::ResourceLimiter;

use crate::budget::{MemoryCharge, MemoryKind};

/// The memory of one call, all its modules together. A component that is denied more may still end well; one that does
/// not has gone past the limit.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    left: usize,
    /// What the worker may use in all.
    charge: MemoryCharge,
    denial: Option<Denial>,
}

/// Why a component got no more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// It would go past the limit of a call.
    Call,
    /// The worker has no more for its tenant at the moment.
    Worker,
}

impl MemoryLimit {
    pub(super) fn new(bytes: usize, charge: MemoryCharge) -> Self {
        Self {
            left: bytes,
            charge,
            denial: None,
        }
    }

    /// Why less was given than was asked for.
    pub(super) fn denial(&self) -> Option<Denial> {
        self.denial
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        if maximum.is_some_and(|most| desired > most) {
            // The module's own limit, which is not ours to report.
            return Ok(false);
        }
        match self.left.checked_sub(more) {
            Some(left) if self.denial.is_none() => {
                match self.charge.try_add(MemoryKind::Components, more as u64) {
                    true => self.left = left,
                    false => self.denial = Some(Denial::Worker),
                }
            }
            Some(_) => {}
            None => self.denial = Some(Denial::Call),
        }
        Ok(self.denial.is_none())
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        // Past the size of a slot.
        self.denial = Some(Denial::Call);
        Ok(())
    }

    fn table_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        // The pool bounds it.
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::MemoryBudget;

    #[test]
    fn memory_is_given_until_none_is_left_and_the_denial_is_remembered() {
        let budget = MemoryBudget::unlimited();
        let tenant = budget.tenant(&"t".parse().unwrap());
        let mut limit = MemoryLimit::new(300, tenant.charge(MemoryKind::Components, 5));
        assert!(limit.memory_growing(0, 200, None).unwrap());
        assert!(!limit.memory_growing(0, 60, Some(50)).unwrap());
        assert!(limit.memory_growing(0, 100, Some(100)).unwrap());
        assert_eq!(limit.denial(), None);
        assert!(!limit.memory_growing(200, 201, None).unwrap());
        assert_eq!(limit.denial(), Some(Denial::Call));
        assert_eq!(budget.uses()[0].bytes, [0, 0, 305]);
        drop(limit);
        assert_eq!(budget.uses()[0].bytes, [0, 0, 0]);
    }

    #[test]
    fn what_the_worker_does_not_have_is_told_from_what_a_call_may_not() {
        let budget = MemoryBudget::new(1000);
        let tenant = budget.tenant(&"t".parse().unwrap());
        let mut limit = MemoryLimit::new(10_000, tenant.charge(MemoryKind::Components, 0));
        assert!(limit.memory_growing(0, 800, None).unwrap());
        assert!(!limit.memory_growing(800, 801, None).unwrap());
        assert_eq!(limit.denial(), Some(Denial::Worker));
    }
}
