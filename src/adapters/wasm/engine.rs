//! The one wasmtime engine of a worker.

use wasmtime::{
    Config as EngineConfig, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
};

use super::config::Config;

/// What is kept of a stack for what we do on behalf of a component: our own functions run on it, too.
const OUR_STACK: usize = 1024 * 1024;
/// Core modules and tables of one component: one that a language's tools put together has a handful, one that links
/// shared libraries some dozens.
const PARTS: u32 = 32;
/// The most elements of one table, such as the function pointers of a program.
const TABLE_ELEMENTS: usize = 64 * 1024;
/// What of a slot's memory and table is cleared by writing zeros, where giving the pages back to the system and taking
/// them again would cost more.
const KEPT_BYTES: usize = 64 * 1024;

/// Room for as many calls at once as the settings say, each in a slot of the pool with copy-on-write memory.
pub(super) fn new(config: &Config) -> wasmtime::Result<Engine> {
    let instances = config.instances.get();
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_stacks(instances)
        .total_core_instances(instances.saturating_mul(PARTS))
        .max_core_instances_per_component(PARTS * 4)
        // A component that is composed of others has the memories of all.
        .total_memories(instances.saturating_mul(2))
        .max_memories_per_component(16)
        .max_memory_size(config.memory())
        .total_tables(instances.saturating_mul(4))
        .max_tables_per_component(PARTS)
        .table_elements(TABLE_ELEMENTS)
        .linear_memory_keep_resident(KEPT_BYTES)
        .table_keep_resident(KEPT_BYTES);
    let mut engine = compilation(config.stack_bytes.get());
    engine.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&engine)
}

/// An engine that compiles for that one and runs nothing: it reserves no slots.
pub(super) fn for_compiling(stack_bytes: usize) -> wasmtime::Result<Engine> {
    Engine::new(&compilation(stack_bytes))
}

/// All that machine code depends on.
fn compilation(stack_bytes: usize) -> EngineConfig {
    let mut engine = EngineConfig::new();
    engine
        .epoch_interruption(true)
        .max_wasm_stack(stack_bytes)
        .async_stack_size(stack_bytes.saturating_add(OUR_STACK));
    engine
}
