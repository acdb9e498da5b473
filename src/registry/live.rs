//! The registry in force, and the packs that conversations are still parked in after it changed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::OnceCell;

use super::wanted::{WantedPack, WantedPacks};
use super::{BoundPack, Registry};
use crate::model::{PackId, TenantId};

/// How many packs that are not bound any more stay in memory. What falls out is loaded again from where it is kept.
const MAX_KEPT: usize = 64;

/// Finds packs that are not bound any more.
pub trait Shelf: Send + Sync + 'static {
    /// Loads a pack for a tenant, or says that it is nowhere. What is wrong with one that is there is the shelf's to tell.
    fn load<'a>(&'a self, pack: PackId, tenant: &'a TenantId) -> Loading<'a>;
}

/// A pack on its way from the shelf.
pub type Loading<'a> = Pin<Box<dyn Future<Output = Option<BoundPack>> + Send + 'a>>;

/// The registry in force. A turn asks once and works with what it got; another set of bindings takes effect between
/// turns, whole or not at all.
pub struct Live {
    now: RwLock<Arc<Registry>>,
    kept: Mutex<Kept>,
    shelf: Box<dyn Shelf>,
    wanted: WantedPacks,
    /// The variables that every pack is granted.
    always: BTreeMap<String, String>,
}

/// Packs that are not bound any more, by age, and those that are being loaded: once, however many turns ask meanwhile.
#[derive(Default)]
struct Kept {
    packs: HashMap<PackId, Arc<BoundPack>>,
    order: VecDeque<PackId>,
    loading: HashMap<PackId, Arc<OnceCell<Arc<BoundPack>>>>,
}

/// A shelf with nothing on it.
struct Bare;

impl Shelf for Bare {
    fn load<'a>(&'a self, _: PackId, _: &'a TenantId) -> Loading<'a> {
        Box::pin(std::future::ready(None))
    }
}

/// A registry that stands alone: nothing is kept of what was bound before it.
impl From<Registry> for Live {
    fn from(registry: Registry) -> Self {
        Self::new(registry, Box::new(Bare), BTreeMap::new())
    }
}

impl Live {
    /// Puts this registry in force. `always` are the variables that every pack is granted, bound or not.
    pub fn new(
        registry: Registry,
        shelf: Box<dyn Shelf>,
        always: BTreeMap<String, String>,
    ) -> Self {
        Self {
            now: RwLock::new(Arc::new(registry)),
            kept: Mutex::default(),
            shelf,
            wanted: WantedPacks::default(),
            always,
        }
    }

    /// The registry in force.
    pub fn now(&self) -> Arc<Registry> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another registry in force, and keeps the packs that are bound no more.
    pub fn swap(&self, registry: Registry) {
        let registry = Arc::new(registry);
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *now, Arc::clone(&registry));
        drop(now);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for pack in before.packs() {
            if registry.any(&pack.id).is_none() {
                kept.put(Arc::clone(pack));
            }
        }
    }

    /// A pack in which a conversation of this tenant is parked and which the tenant's gtbinds do not bind any more, with
    /// what the tenant grants to a pack of that name now. None if it is nowhere.
    pub async fn parked(
        &self,
        registry: &Registry,
        tenant: &TenantId,
        pack: PackId,
    ) -> Option<Arc<BoundPack>> {
        let found = match registry.any(&pack) {
            Some(bound) => Arc::clone(bound),
            None => self.kept(tenant, pack).await?,
        };
        let namesake = registry.named(tenant, &found.name);
        let env = namesake.map_or_else(|| self.always.clone(), |bound| bound.grants.env.clone());
        Some(Arc::new(found.lent_to(tenant, env)))
    }

    /// Asks for a pack in which a conversation is parked and which is nowhere here. The reference is what its session says.
    pub fn want(&self, tenant: &TenantId, pack: PackId, reference: Option<&str>) {
        self.wanted.ask(tenant, pack, reference);
    }

    /// The next pack that is asked for.
    pub async fn wanted(&self) -> WantedPack {
        self.wanted.next().await
    }

    /// Keeps a pack that was asked for, if it was found.
    pub fn looked_for(&self, pack: PackId, found: Option<BoundPack>) {
        if let Some(found) = found {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.put(Arc::new(found));
        }
        self.wanted.done(pack);
    }

    /// Every pack that a turn may still ask for without its being loaded first: those that are bound, and those that are
    /// kept in memory.
    pub fn packs(&self) -> Vec<Arc<BoundPack>> {
        let mut packs: Vec<_> = self.now().packs().into_iter().cloned().collect();
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        packs.extend(kept.packs.values().cloned());
        packs
    }

    async fn kept(&self, tenant: &TenantId, pack: PackId) -> Option<Arc<BoundPack>> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = {
            let mut kept = lock();
            if let Some(found) = kept.packs.get(&pack) {
                return Some(Arc::clone(found));
            }
            Arc::clone(kept.loading.entry(pack).or_default())
        };
        let load = || async {
            let loaded = self.shelf.load(pack, tenant).await;
            loaded.map(Arc::new).ok_or(())
        };
        let found = cell.get_or_try_init(load).await.ok().cloned();
        // What is absent may come to be there later.
        let mut kept = lock();
        kept.loading.remove(&pack);
        if let Some(found) = &found {
            kept.put(Arc::clone(found));
        }
        found
    }
}

impl Kept {
    fn put(&mut self, pack: Arc<BoundPack>) {
        let id = pack.id;
        self.order.retain(|known| *known != id);
        self.order.push_back(id);
        self.packs.insert(id, pack);
        if self.order.len() > MAX_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.packs.remove(&oldest);
        }
    }
}

impl BoundPack {
    /// The same pack for a tenant that does not bind it any more: no flow of it can be started from outside.
    fn lent_to(&self, tenant: &TenantId, env: BTreeMap<String, String>) -> Self {
        let mut grants = (*self.grants).clone();
        grants.env = env;
        Self {
            tenant: tenant.clone(),
            id: self.id,
            name: self.name.clone(),
            version: self.version.clone(),
            reference: self.reference.clone(),
            program: Arc::clone(&self.program),
            flows: Default::default(),
            components: self.components.clone(),
            grants: Arc::new(grants),
        }
    }
}

impl Registry {
    /// Whether anything is bound for the tenant.
    pub fn is_bound(&self, tenant: &TenantId) -> bool {
        self.tenants.contains_key(tenant)
    }

    /// The pack, whoever binds it.
    fn any(&self, pack: &PackId) -> Option<&Arc<BoundPack>> {
        self.tenants
            .values()
            .find_map(|tenant| tenant.packs.get(pack))
    }

    /// The tenant's pack of this name; of several, the latest version.
    fn named(&self, tenant: &TenantId, name: &str) -> Option<&Arc<BoundPack>> {
        let packs = self.tenants.get(tenant)?.packs.values();
        packs
            .filter(|pack| pack.name == name)
            .max_by(|a, b| a.version.cmp(&b.version))
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::super::tests::{pack, tenant};
    use super::*;

    /// Has the pack `shelved`, and counts how often it was asked.
    #[derive(Default)]
    struct Counting(Arc<AtomicUsize>);

    impl Shelf for Counting {
        fn load<'a>(&'a self, id: PackId, _: &'a TenantId) -> Loading<'a> {
            Box::pin(async move {
                self.0.fetch_add(1, Relaxed);
                tokio::task::yield_now().await;
                Some(pack("shelved", &["main"])).filter(|pack| pack.id == id)
            })
        }
    }

    fn registry(packs: Vec<BoundPack>) -> Registry {
        Registry::new(packs, &BTreeMap::new()).0
    }

    fn id(name: &str) -> PackId {
        PackId::of_archive(name.as_bytes())
    }

    #[tokio::test]
    async fn a_pack_that_is_bound_no_more_stays_with_the_grants_of_its_namesake() {
        let live = Live::from(registry(vec![pack("old", &["main"])]));
        let mut renewed = pack("new", &["main"]);
        renewed.name = "old".to_owned();
        let mut grants = (*renewed.grants).clone();
        grants.env = BTreeMap::from([("NOW".to_owned(), "1".to_owned())]);
        renewed.grants = Arc::new(grants);
        live.swap(registry(vec![renewed]));
        let now = live.now();
        assert!(now.pack(&tenant("t"), &id("old")).is_none());
        let old = live.parked(&now, &tenant("t"), id("old")).await.unwrap();
        assert_eq!((old.id, old.flows.len()), (id("old"), 0));
        assert_eq!(old.grants.env.keys().collect::<Vec<_>>(), ["NOW"]);
        assert_eq!(live.packs().len(), 2);

        live.swap(registry(vec![pack("other", &["main"])]));
        let now = live.now();
        let old = live.parked(&now, &tenant("t"), id("old")).await.unwrap();
        assert!(old.grants.env.is_empty(), "granted by nobody");
    }

    #[tokio::test]
    async fn a_pack_is_loaded_from_the_shelf_once_and_looked_for_again_if_it_was_absent() {
        let asked = Arc::new(AtomicUsize::new(0));
        let shelf = Box::new(Counting(Arc::clone(&asked)));
        let live = Live::new(Registry::default(), shelf, BTreeMap::new());
        let (now, t) = (live.now(), tenant("t"));
        let (a, b) = tokio::join!(
            live.parked(&now, &t, id("shelved")),
            live.parked(&now, &t, id("shelved"))
        );
        assert!(a.is_some() && b.is_some());
        assert_eq!(asked.load(Relaxed), 1);
        for asked_before in [1, 2] {
            assert!(live.parked(&now, &t, id("nowhere")).await.is_none());
            assert_eq!(asked.load(Relaxed), asked_before + 1);
        }
    }

    #[tokio::test]
    async fn no_more_packs_are_kept_than_the_limit_says() {
        let live = Live::from(Registry::default());
        for n in 0..MAX_KEPT + 2 {
            live.swap(registry(vec![pack(&format!("p{n}"), &["main"])]));
        }
        let (now, t) = (live.now(), tenant("t"));
        assert_eq!(live.packs().len(), MAX_KEPT + 1);
        assert!(live.parked(&now, &t, id("p0")).await.is_none());
        assert!(live.parked(&now, &t, id("p1")).await.is_some());
    }
}
