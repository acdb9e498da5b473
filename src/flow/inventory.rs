//! What a pack holds besides its flows.

use std::collections::BTreeSet;

use super::assets::Assets;

/// What the nodes of a pack may call and show. The default is a pack that holds nothing but its flows.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// The components, by the names that nodes call them by.
    pub components: BTreeSet<String>,
    /// The providers that `provider.invoke` finds.
    pub providers: Vec<Provider>,
    /// The files.
    pub assets: Assets,
}

/// A provider that a pack brings along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its own id, if it has one besides its type.
    pub id: Option<String>,
    /// Its type.
    pub provider_type: String,
    /// The component that stands behind it.
    pub component: String,
}

impl Inventory {
    /// The name under which a component is there that a node calls by this name, for this operation where that is known.
    /// Names that end with the operation are of old, when it had no place of its own.
    pub(super) fn component<'n>(&self, name: &'n str, operation: Option<&str>) -> Option<&'n str> {
        if self.components.contains(name) {
            return Some(name);
        }
        let (component, suffix) = name.rsplit_once('.')?;
        (operation == Some(suffix) && self.components.contains(component)).then_some(component)
    }

    /// The one provider with this id, or of this type. The error says why there is none.
    pub(super) fn provider(
        &self,
        id: Option<&str>,
        provider_type: Option<&str>,
    ) -> Result<&Provider, String> {
        let (id, provider_type) = match (id, provider_type) {
            (None, None) => return Err("it names no provider".to_owned()),
            given => given,
        };
        let has_id = |provider: &&Provider| {
            id.is_none_or(|id| provider.id.as_deref().unwrap_or(&provider.provider_type) == id)
        };
        let is_of_type =
            |provider: &&Provider| provider_type.is_none_or(|name| provider.provider_type == name);
        let mut fitting = self.providers.iter().filter(has_id).filter(is_of_type);
        let wanted = [id, provider_type]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>();
        match (fitting.next(), fitting.next()) {
            (Some(provider), None) => Ok(provider),
            (None, _) => Err(format!(
                "the pack has no provider `{}`",
                wanted.join("`, `")
            )),
            (Some(_), Some(_)) => Err(format!(
                "the pack has several providers `{}`",
                wanted.join("`, `")
            )),
        }
    }

    /// The names of the components, for people.
    pub(super) fn component_names(&self) -> String {
        let names: Vec<_> = self.components.iter().map(String::as_str).collect();
        names.join(", ")
    }
}
