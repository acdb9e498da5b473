//! Packs that are not bound, for the sake of conversations that are parked in them: from the cache, or from where the worker
//! that parked them had them.

use std::path::Path;
use std::sync::Arc;

use super::{Loader, Parts, aside, prepare};
use crate::adapters::wasm::WasmComponents;
use crate::catalog;
use crate::model::{PackId, PackRef, Problem, Problems, TenantId};
use crate::registry::{BoundPack, Live, Loading, Shelf, WantedPack};

impl Parts {
    /// A pack of the cache, ready to run; none if it is not there.
    fn kept(
        &self,
        components: &WasmComponents,
        pack: PackId,
        tenant: &TenantId,
    ) -> Option<Result<BoundPack, Problems>> {
        let cache = self.cache.as_ref()?;
        let archive = cache.file(&pack);
        match cache.take(&pack, self.limits.archive_bytes) {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(error) => {
                let problem = Problem::error(format!("the archive cannot be read: {error}"));
                let problem = problem.in_file(&archive);
                return Some(Err(problem
                    .remedy("give the worker the right to read it")
                    .into()));
            }
        }
        let resolver = self.resolver();
        let binding = catalog::unbound(tenant, pack, PackRef::File(archive));
        let found = catalog::load_unbound(&self.sources(&resolver), &binding);
        Some(found.and_then(|(bound, code)| {
            prepare(components, &code)?;
            Ok(bound)
        }))
    }
}

/// The cache is where packs are found that are not bound any more.
impl Shelf for Loader {
    fn load<'a>(&'a self, pack: PackId, tenant: &'a TenantId) -> Loading<'a> {
        let (parts, components) = (Arc::clone(&self.parts), Arc::clone(&self.components));
        let owner = tenant.clone();
        Box::pin(async move {
            let found = aside(move || parts.kept(&components, pack, &owner)).await;
            match found.ok().flatten()? {
                Ok(found) => {
                    tracing::info!(%pack, name = found.name, "a conversation goes on in a pack that is not bound any more");
                    Some(found)
                }
                Err(problems) => {
                    tracing::error!("{problems}");
                    None
                }
            }
        })
    }
}

impl Loader {
    /// Looks for a pack where the worker had it that parked a conversation in it, so that it is here when its message comes
    /// back.
    pub(in crate::app) async fn look_for(self: Arc<Self>, wanted: WantedPack, live: Arc<Live>) {
        let (pack, tenant) = (wanted.pack, &wanted.tenant);
        let reference = wanted.reference.as_deref().unwrap_or("nowhere");
        let found = self.find(&wanted).await;
        match &found {
            Ok(found) => {
                tracing::info!(
                    %pack,
                    name = found.name,
                    reference,
                    "fetched a pack for a conversation that another worker has parked in it"
                );
            }
            Err(problems) if wanted.is_first => {
                tracing::warn!(
                    %pack,
                    %tenant,
                    %problems,
                    "a conversation is parked in a pack that this worker does not have; its messages are left to other workers \
                     for packs.gone_after"
                );
            }
            Err(problems) => tracing::debug!(%pack, %tenant, %problems, "a pack is still missing"),
        }
        live.looked_for(pack, found.ok());
    }

    async fn find(&self, wanted: &WantedPack) -> Result<BoundPack, Problems> {
        let unknown = |why: &str| {
            Problem::error(format!("its session does not say where to find it: {why}"))
                .remedy("bind the pack, or put its archive into packs.cache_dir")
        };
        let reference = wanted.reference.as_deref();
        let reference = reference.ok_or_else(|| unknown("it names no reference"))?;
        let reference = PackRef::parse(reference, Path::new(""));
        let reference = reference.map_err(|error| unknown(&error.to_string()))?;
        let binding = catalog::unbound(&wanted.tenant, wanted.pack, reference);
        let fetched = self.fetch(std::slice::from_ref(&binding)).await;
        let (parts, components) = (Arc::clone(&self.parts), Arc::clone(&self.components));
        aside(move || {
            let resolver = parts.resolver().with_fetched(fetched).keeping();
            let sources = parts.sources(&resolver);
            let (bound, code) = catalog::load_unbound(&sources, &binding)?;
            prepare(&components, &code)?;
            Ok(bound)
        })
        .await?
    }
}
