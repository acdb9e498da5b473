//! `greentic:component/control`: whether to stop, and a pause. A call that is to stop is ended from outside.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::super::guest::Guest;

pub(super) const NAMES: &[&str] = &[
    "greentic:component/control@0.4.0",
    "greentic:component/control@0.5.0",
    "greentic:component/control@0.6.0",
];

pub(super) fn add(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    for name in NAMES {
        let mut instance = linker.instance(name)?;
        instance.func_wrap("should-cancel", |_: StoreContextMut<'_, Guest>, (): ()| {
            Ok((false,))
        })?;
        instance.func_wrap_async("yield-now", |_: StoreContextMut<'_, Guest>, (): ()| {
            Box::new(async {
                tokio::task::yield_now().await;
                Ok(())
            })
        })?;
    }
    Ok(())
}
