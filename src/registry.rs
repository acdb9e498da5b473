//! (tenant, pack, flow) to what a turn needs of it; and which flow a message starts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use semver::Version;

use crate::flow::Program;
use crate::model::{ComponentDigest, FlowId, FlowKey, FlowTarget, Grants, PackId, TenantId};

mod default;
mod entry;
mod live;
mod table;
mod wanted;

pub use default::{DefaultError, DefaultFlow, InvalidDefaultFlow};
pub use entry::{Entry, EntryError};
pub use live::{Live, Loading, Shelf};
pub use table::Table;
pub use wanted::WantedPack;

use entry::{Unfit, choose, names, wanted};

/// A pack as one tenant has it: what a turn needs of it.
#[derive(Debug)]
pub struct BoundPack {
    /// Whose binding it is.
    pub tenant: TenantId,
    /// The pack.
    pub id: PackId,
    /// The pack's name for itself.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// Where other workers may find it; told to those that take up its parked conversations.
    pub reference: Option<Arc<str>>,
    /// Its flows, compiled; shared by all tenants that bind the pack.
    pub program: Arc<Program>,
    /// The flows that may be started from outside.
    pub flows: BTreeSet<FlowId>,
    /// The code of its components, by the names that its flows call them by.
    pub components: BTreeMap<String, ComponentDigest>,
    /// What it may reach: its templates the variables, its components all of it.
    pub grants: Arc<Grants>,
}

/// Everything that is bound. It does not change; another set of bindings is another registry.
#[derive(Debug, Default)]
pub struct Registry {
    tenants: HashMap<TenantId, Tenant>,
}

#[derive(Debug, Default)]
struct Tenant {
    packs: BTreeMap<PackId, Arc<BoundPack>>,
    default: Option<Entry>,
    /// What a message without headers starts, worked out once: a tenant may have a thousand packs.
    plain: Option<Entry>,
    /// What a message starts whose headers name this flow and no pack, where that is clear.
    by_flow: HashMap<FlowId, Entry>,
}

impl BoundPack {
    /// Whether a run of this flow may have effects outside that a commit cannot hold back.
    pub fn reaches_out(&self, flow: &FlowId) -> bool {
        let declared = |component: &String| self.grants.declared.get(component);
        let mut called = self.program.components(flow).iter();
        called.any(|component| declared(component).is_some_and(|declared| declared.http))
    }
}

impl Registry {
    /// A registry of these packs. A default that names nothing comes back as an error; the rest stands without it.
    pub fn new(
        packs: impl IntoIterator<Item = impl Into<Arc<BoundPack>>>,
        defaults: &BTreeMap<TenantId, DefaultFlow>,
    ) -> (Self, Vec<DefaultError>) {
        let mut tenants: HashMap<TenantId, Tenant> = HashMap::new();
        for pack in packs {
            let pack: Arc<BoundPack> = pack.into();
            let tenant = tenants.entry(pack.tenant.clone()).or_default();
            tenant.packs.insert(pack.id, pack);
        }
        let mut errors = Vec::new();
        for (id, tenant) in &mut tenants {
            if let Some(default) = defaults.get(id) {
                match tenant.find_default(id, default) {
                    Ok(entry) => tenant.default = Some(entry),
                    Err(error) => errors.push(error),
                }
            }
            tenant.plain = tenant.choose(&FlowTarget::default()).ok();
            tenant.by_flow = tenant.clear_flows();
        }
        (Self { tenants }, errors)
    }

    /// The pack that holds this flow, whether or not the flow may be started from outside: what a parked flow goes on
    /// with.
    pub fn find(&self, key: &FlowKey) -> Option<&Arc<BoundPack>> {
        let pack = self.pack(&key.tenant, &key.pack)?;
        pack.program.flow(&key.flow).map(|_| pack)
    }

    /// A tenant's pack.
    pub fn pack(&self, tenant: &TenantId, pack: &PackId) -> Option<&Arc<BoundPack>> {
        self.tenants.get(tenant)?.packs.get(pack)
    }

    /// The tenants that have bindings, in order.
    pub fn tenants(&self) -> Vec<&TenantId> {
        let mut tenants: Vec<_> = self.tenants.keys().collect();
        tenants.sort();
        tenants
    }

    /// The packs of a tenant.
    pub fn packs_of(&self, tenant: &TenantId) -> impl Iterator<Item = &Arc<BoundPack>> {
        let bound = self.tenants.get(tenant).into_iter();
        bound.flat_map(|tenant| tenant.packs.values())
    }

    /// All bound packs, by tenant, name and version.
    pub fn packs(&self) -> Vec<&Arc<BoundPack>> {
        let packs = self.tenants.values().flat_map(|t| t.packs.values());
        let mut packs: Vec<_> = packs.collect();
        packs.sort_by(|a, b| {
            (&a.tenant, &a.name, &a.version, a.id).cmp(&(&b.tenant, &b.name, &b.version, b.id))
        });
        packs
    }

    /// The flow that a message starts if it answers no wait. Only flows that the tenant's gtbinds list can be started.
    ///
    /// The headers narrow the choice; of several flows left, the tenant's default is taken, else the only one tagged
    /// `default`, else the only one named `main`.
    pub fn entry(&self, tenant: &TenantId, target: &FlowTarget) -> Result<Entry, EntryError> {
        if let Some(entry) = self.clear_entry(tenant, target) {
            return Ok(entry);
        }
        let bound = self
            .tenants
            .get(tenant)
            .ok_or_else(|| EntryError::TenantNotBound(tenant.clone()))?;
        bound.choose(target).map_err(|unfit| match unfit {
            Unfit::None => EntryError::NoSuchFlow {
                tenant: tenant.clone(),
                wanted: wanted(target),
                candidates: names(&bound.listed()),
            },
            Unfit::Several(candidates) => EntryError::AmbiguousFlow {
                tenant: tenant.clone(),
                candidates: names(&candidates),
            },
        })
    }

    /// The flow that [`Registry::entry`] tells, or nothing where there is none. Why there is none lists all that might be
    /// meant, which takes long where a tenant has many packs.
    pub fn clear_entry(&self, tenant: &TenantId, target: &FlowTarget) -> Option<Entry> {
        let bound = self.tenants.get(tenant)?;
        match (&target.pack, &target.flow) {
            (None, None) => bound.plain.clone(),
            (None, Some(flow)) => bound.by_flow.get(flow).cloned(),
            (Some(_), _) => bound.choose(target).ok(),
        }
    }

    /// The table of everything that is bound, for people.
    pub fn table(&self) -> Table {
        Table::of(self)
    }
}

impl Tenant {
    /// The flows that may be started from outside.
    fn listed(&self) -> Vec<Entry> {
        self.packs.values().flat_map(entries).collect()
    }

    fn choose(&self, target: &FlowTarget) -> Result<Entry, Unfit> {
        let listed = match &target.pack {
            Some(pack) => self.packs.get(pack).into_iter().flat_map(entries).collect(),
            None => self.listed(),
        };
        choose(listed, self.default.as_ref(), target)
    }

    /// The flows whose names alone tell what a message starts.
    fn clear_flows(&self) -> HashMap<FlowId, Entry> {
        let mut named: HashMap<FlowId, Vec<Entry>> = HashMap::new();
        for entry in self.listed() {
            named.entry(entry.flow.clone()).or_default().push(entry);
        }
        let chosen = |(flow, entries): (FlowId, Vec<Entry>)| {
            let entry = choose(entries, self.default.as_ref(), &FlowTarget::default()).ok()?;
            Some((flow, entry))
        };
        named.into_iter().filter_map(chosen).collect()
    }

    fn find_default(
        &self,
        tenant: &TenantId,
        default: &DefaultFlow,
    ) -> Result<Entry, DefaultError> {
        let listed = self.listed();
        let named: Vec<Entry> = listed
            .iter()
            .filter(|entry| entry.flow == default.flow && default.is_in(&entry.pack))
            .cloned()
            .collect();
        let (tenant, default) = (tenant.clone(), default.clone());
        match named.as_slice() {
            [entry] => Ok(entry.clone()),
            [] => Err(DefaultError::Missing {
                tenant,
                default,
                candidates: names(&listed),
            }),
            several => Err(DefaultError::Several {
                tenant,
                default,
                candidates: names(several),
            }),
        }
    }
}

/// The flows of a pack that may be started from outside.
fn entries(pack: &Arc<BoundPack>) -> impl Iterator<Item = Entry> {
    pack.flows.iter().map(|flow| Entry {
        pack: Arc::clone(pack),
        flow: flow.clone(),
    })
}

#[cfg(test)]
pub(crate) mod tests;
