//! Packs that are not bound any more, from the cache.

use std::sync::Arc;

use super::{Loader, Parts, aside, prepare};
use crate::adapters::wasm::WasmComponents;
use crate::catalog;
use crate::model::{PackId, Problem, Problems, TenantId};
use crate::registry::{BoundPack, Loading, Shelf};

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
        let found = catalog::load_kept(&self.sources(&resolver), (pack, &archive), tenant);
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
