//! What components may import: the system interfaces of WASI preview 2, and the interfaces of `wit/`.

mod broker;
mod control;
mod http;
mod logger;
mod pack_config;
mod secrets;

mod state;
mod types;

use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker};

use super::guest::Guest;

/// Packages of WASI, of which all of version 0.2 is there.
const WASI: &[&str] = &[
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

/// All of them in one linker, which serves every component.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    broker::add(&mut linker)?;
    control::add(&mut linker)?;
    http::add(&mut linker)?;
    logger::add(&mut linker)?;
    secrets::add(&mut linker)?;
    pack_config::add(&mut linker)?;
    state::add(&mut linker)?;
    Ok(linker)
}

/// What a component imports and does not get.
pub(super) fn unknown(engine: &Engine, component: &Component) -> Vec<String> {
    let known = [
        broker::NAMES,
        control::NAMES,
        http::NAMES,
        logger::NAMES,
        secrets::NAMES,
        pack_config::NAMES,
        state::NAMES,
    ];
    let is_known = |name: &str| {
        let wasi = WASI.iter().any(|package| name.starts_with(package));
        (wasi && name.contains("@0.2.")) || known.iter().any(|names| names.contains(&name))
    };
    let ty = component.component_type();
    ty.imports(engine)
        .filter(|(name, item)| !is_known(name) && !is_only_types(engine, &item.ty))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// An interface without functions is met by there being nothing.
fn is_only_types(engine: &Engine, item: &ComponentItem) -> bool {
    match item {
        ComponentItem::ComponentInstance(instance) => instance
            .exports(engine)
            .all(|(_, item)| matches!(item.ty, ComponentItem::Type(_))),
        ComponentItem::Type(_) => true,
        ComponentItem::ComponentFunc(_)
        | ComponentItem::CoreFunc(_)
        | ComponentItem::Module(_)
        | ComponentItem::Component(_)
        | ComponentItem::Resource(_) => false,
    }
}
