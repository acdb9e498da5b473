//! The interfaces that components can be called through. A component exports one or several; the first of the order here
//! is the one that is used.

mod caller;
mod envelope;
mod node_0_6;
mod node_json;
mod output;
mod provider;
mod run;

use wasmtime::Store;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, Instance, Lift, Lower, TypedFunc,
};

use super::guest::Guest;
use crate::model::InvocationForm;
pub(super) use output::Output;

/// What nodes call, in this order.
const NODE: &[(Interface, &str, &str)] = &[
    (Interface::Node06, "greentic:component/node@0.6.0", "invoke"),
    (Interface::Node05, "greentic:component/node@0.5.0", "invoke"),
    (Interface::Node04, "greentic:component/node@0.4.0", "invoke"),
    (
        Interface::Run,
        "greentic:component/component-runtime@0.6.0",
        "run",
    ),
];

/// What provider nodes call: the same functions under three names.
const PROVIDER: &[(Interface, &str, &str)] = &[
    (
        Interface::Provider,
        "greentic:provider-schema-core/schema-core-api@1.0.0",
        "invoke",
    ),
    (
        Interface::Provider,
        "greentic:provider/schema-core-api@1.0.0",
        "invoke",
    ),
    (
        Interface::Provider,
        "greentic:provider-core/schema-core-api@1.0.0",
        "invoke",
    ),
];

/// An interface of the ecosystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interface {
    Node06,
    Node05,
    Node04,
    Run,
    Provider,
}

/// Where a component is entered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    interface: Interface,
    function: ComponentExportIndex,
}

/// The ways into one component.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entries {
    node: Option<Entry>,
    provider: Option<Entry>,
}

impl Entries {
    pub(super) fn of(component: &Component) -> Self {
        let first = |known: &[(Interface, &str, &str)]| {
            known.iter().find_map(|(interface, instance, function)| {
                let instance = component.get_export_index(None, *instance)?;
                let function = component.get_export_index(Some(&instance), *function)?;
                Some(Entry {
                    interface: *interface,
                    function,
                })
            })
        };
        Self {
            node: first(NODE),
            provider: first(PROVIDER),
        }
    }

    /// Whether there is no way in at all.
    pub(super) fn is_empty(&self) -> bool {
        self.node.is_none() && self.provider.is_none()
    }

    /// The way in for calls of this form.
    pub(super) fn entry(&self, form: InvocationForm) -> Option<Entry> {
        match form {
            InvocationForm::Node | InvocationForm::Card => self.node,
            InvocationForm::Provider => self.provider,
        }
    }
}

impl Entry {
    /// Calls a fresh instance.
    pub(super) async fn invoke(
        &self,
        store: &mut Store<Guest>,
        instance: &Instance,
    ) -> wasmtime::Result<Output> {
        let function = &self.function;
        match self.interface {
            Interface::Node06 => node_0_6::invoke(store, instance, function).await,
            Interface::Node05 => node_json::invoke_0_5(store, instance, function).await,
            Interface::Node04 => node_json::invoke_0_4(store, instance, function).await,
            Interface::Run => run::run(store, instance, function).await,
            Interface::Provider => provider::invoke(store, instance, function).await,
        }
    }
}

/// A component exports a function under a name of the ecosystem that takes or gives something else.
#[derive(Debug, thiserror::Error)]
#[error("its interface is not what its name says: {0}")]
pub(super) struct Mismatch(String);

fn typed<P, R>(
    store: &mut Store<Guest>,
    instance: &Instance,
    function: &ComponentExportIndex,
) -> wasmtime::Result<TypedFunc<P, R>>
where
    P: ComponentNamedList + Lower,
    R: ComponentNamedList + Lift,
{
    let found = instance.get_typed_func(store, function);
    found.map_err(|error| Mismatch(format!("{error:#}")).into())
}
