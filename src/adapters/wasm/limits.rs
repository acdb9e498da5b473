//! What one call may use of the machine.

use wasmtime::ResourceLimiter;

/// The memory of one call, all its modules together. A component that is denied more may still end well; one that does
/// not has gone past the limit.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    left: usize,
    denied: bool,
}

impl MemoryLimit {
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            left: bytes,
            denied: false,
        }
    }

    /// Whether more was asked for than there is.
    pub(super) fn was_denied(&self) -> bool {
        self.denied
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
            Some(left) => self.left = left,
            None => self.denied = true,
        }
        Ok(!self.denied)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        // Past the size of a slot.
        self.denied = true;
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

    #[test]
    fn memory_is_given_until_none_is_left_and_the_denial_is_remembered() {
        let mut limit = MemoryLimit::new(300);
        assert!(limit.memory_growing(0, 200, None).unwrap());
        assert!(!limit.memory_growing(0, 60, Some(50)).unwrap());
        assert!(limit.memory_growing(0, 100, Some(100)).unwrap());
        assert!(!limit.was_denied());
        assert!(!limit.memory_growing(200, 201, None).unwrap());
        assert!(limit.was_denied());
    }
}
