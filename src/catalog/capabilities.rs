//! The capabilities that the components of a pack declare.

use std::collections::{BTreeMap, BTreeSet};

use memchr::memmem;

use crate::model::{Declared, Problem, Problems, UndeclaredState};
use crate::pack::{Component, Pack};

/// Part of the name of every interface to the user's state. The code of a component that imports one holds the name.
const STATE_INTERFACE: &[u8] = b"greentic:state/state-store@";

/// The capabilities of each component.
pub(super) fn declared(pack: &Pack, undeclared: UndeclaredState) -> BTreeMap<String, Declared> {
    let secrets = !pack.manifest.secret_requirements.is_empty();
    let of = |component: &Component| {
        let declared = needs(component, undeclared);
        let declared = Declared {
            secrets: declared.secrets || secrets,
            ..declared
        };
        (component.id.clone(), declared)
    };
    pack.components.iter().map(of).collect()
}

/// The capabilities that a component declares. Tools write no manifest at all of some components: those declare
/// everything, within what is granted. Tools leave the state out of other manifests though the component uses it.
fn needs(component: &Component, undeclared: UndeclaredState) -> Declared {
    let undeclared = undeclared == UndeclaredState::Allow;
    let Some(capabilities) = &component.capabilities else {
        return Declared {
            http: true,
            secrets: true,
            state_read: undeclared,
            state_write: undeclared,
        };
    };
    let host = &capabilities.host;
    let (state_read, state_write) = match &host.state {
        Some(state) => (state.read, state.write),
        None => (undeclared, undeclared),
    };
    Declared {
        http: host.http.as_ref().is_some_and(|http| http.client),
        secrets: host.secrets.is_some(),
        state_read,
        state_write,
    }
}

/// A warning for each component that a flow calls, that can use the user's state, and whose manifest does not say so.
pub(super) fn undeclared_state(
    pack: &Pack,
    called: &BTreeSet<&str>,
    undeclared: UndeclaredState,
) -> Problems {
    let state = memmem::Finder::new(STATE_INTERFACE);
    let uses_state = |component: &Component| {
        let code = pack.code(component);
        code.is_some_and(|code| state.find(code).is_some())
    };
    let components = pack.components.iter();
    let mut problems = Problems::default();
    problems.extend(components
        .filter(|component| called.contains(component.id.as_str()) && !declares_state(component))
        .filter(|component| uses_state(component))
        .map(|component| {
            let (id, pack) = (&component.id, &pack.manifest.pack_id);
            let (outcome, choice) = match undeclared {
                UndeclaredState::Allow => ("it reads and writes it all the same", "deny"),
                UndeclaredState::Deny => ("each access is refused", "allow"),
            };
            Problem::warning(format!(
                "component `{id}` of pack `{pack}` uses the user's state and does not declare `host.state`: {outcome}"
            ))
            .at(format!("component {id}"))
            .remedy(format!(
                "declare `capabilities: {{host: {{state: {{read: true, write: true}}}}}}` for the component, or set `components.undeclared_state: {choice}`"
            ))
        }));
    problems
}

fn declares_state(component: &Component) -> bool {
    let capabilities = component.capabilities.as_ref();
    capabilities.is_some_and(|capabilities| capabilities.host.state.is_some())
}
