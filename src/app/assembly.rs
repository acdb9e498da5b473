//! The registry of a load in which not everything is in order. What is wrong with one tenant stands in the way of no other one.
//!
//! A tenant of which something cannot be used is not changed at all: at the start nothing of it is in force, and later what it
//! had before. With half of its bindings, a message could start another flow than the one that is meant. Packs whose
//! components take too much to compile are left out one by one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::left_out::{Effect, Unusable};
use crate::adapters::wasm::{FailedComponent, Preparation};
use crate::bindings::UnusableGtbind;
use crate::catalog::{self, Candidate};
use crate::model::{ComponentDigest, PackId, Problems, TenantId};
use crate::registry::{BoundPack, DefaultFlow, Registry};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Assembly {
    pub(super) registry: Registry,
    /// What is wrong, by tenant, and what that means for it.
    pub(super) unusable: Vec<Unusable>,
    /// What is legal, but perhaps not meant.
    pub(super) warnings: Problems,
    /// How many packs of each tenant are bound and not in force.
    pub(super) left_out: BTreeMap<TenantId, u64>,
    /// Whether a pack comes into force once its components are compiled.
    pub(super) is_waiting: bool,
    faults: Faults,
}

/// What is wrong with whom.
#[derive(Debug, Default)]
struct Faults {
    /// What an author or operator must mend.
    mistakes: BTreeMap<TenantId, Problems>,
    /// Components that take too much to compile.
    excesses: BTreeMap<TenantId, Problems>,
    /// Gtbinds of which nobody knows whose they are.
    of_nobody: Problems,
}

/// The state of one candidate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    Ready,
    Pending,
    Excessive,
    Mistaken,
}

type Packs = BTreeMap<TenantId, Vec<Arc<BoundPack>>>;

/// The candidates, by what they are fit for.
#[derive(Default)]
struct Gathered {
    packs: Packs,
    /// Those that are not fit, by tenant and name.
    absent: Vec<(TenantId, String)>,
    /// The tenants that have a pending one.
    waiting: BTreeSet<TenantId>,
    /// All but the pending ones, with their ids as far as they could be opened.
    wanted: Vec<(TenantId, Option<PackId>)>,
}

impl Assembly {
    /// Puts together what is in order. In place of a pack that takes too much to compile, a tenant keeps the pack of that name
    /// which was in force before; a tenant that had nothing before gets nothing while a pack of it is pending.
    pub(super) fn new(
        (candidates, gtbinds): (Vec<Candidate>, Vec<UnusableGtbind>),
        prepared: &Preparation,
        before: &Registry,
        defaults: &BTreeMap<TenantId, DefaultFlow>,
    ) -> Self {
        let mut assembly = Self::default();
        for gtbind in gtbinds {
            assembly.faults.gtbind(gtbind);
        }
        let Gathered {
            mut packs,
            absent,
            waiting,
            mut wanted,
        } = assembly.gather(candidates, prepared);
        packs.retain(|tenant, _| before.is_bound(tenant) || !waiting.contains(tenant));
        for (tenant, name) in absent {
            if let Some(own) = packs.get_mut(&tenant) {
                keep(own, before, |pack| {
                    pack.tenant == tenant && name == pack.name
                });
            }
        }
        for tenant in assembly.faults.mistakes.keys() {
            packs.insert(tenant.clone(), had(before, tenant));
        }
        let whole = assembly.put_together(packs, before, defaults);
        assembly.is_waiting = !waiting.is_empty();
        // What is pending is not left out, nor is what waits for it.
        wanted.retain(|(tenant, _)| {
            assembly.faults.concern(tenant) || assembly.registry.is_bound(tenant)
        });
        assembly.count(wanted);
        assembly.conclude(&whole);
        let unusable = assembly.unusable.iter();
        let known: BTreeSet<_> = unusable.filter_map(|entry| entry.tenant.as_ref()).collect();
        let mut odd = Problems::default();
        catalog::warn(&assembly.registry, defaults, &known, &mut odd);
        assembly.warnings.extend(odd);
        assembly
    }

    /// Sorts the candidates.
    fn gather(&mut self, candidates: Vec<Candidate>, prepared: &Preparation) -> Gathered {
        let failed = prepared.failed.iter();
        let failed = failed.map(|failed| (failed.digest, failed)).collect();
        let mut gathered = Gathered::default();
        for candidate in candidates {
            let fitness = self.judge(&candidate, &failed, &prepared.pending);
            let Candidate { tenant, bound, .. } = candidate;
            let own = gathered.packs.entry(tenant.clone()).or_default();
            if fitness == Fitness::Pending {
                gathered.waiting.insert(tenant.clone());
            } else {
                let id = bound.as_ref().map(|bound| bound.id);
                gathered.wanted.push((tenant.clone(), id));
            }
            match (fitness, bound) {
                (Fitness::Ready, Some(bound)) => own.push(Arc::new(bound)),
                (_, Some(bound)) => gathered.absent.push((tenant, bound.name)),
                (_, None) => {}
            }
        }
        gathered
    }

    /// Sorts what is wrong with a candidate.
    fn judge(
        &mut self,
        candidate: &Candidate,
        failed: &HashMap<ComponentDigest, &FailedComponent>,
        pending: &HashSet<ComponentDigest>,
    ) -> Fitness {
        let mut mistakes = Problems::default();
        for problem in candidate.problems.iter().cloned() {
            match problem.is_error() {
                true => mistakes.push(problem),
                false => self.warnings.push(problem),
            }
        }
        let mut fitness = match candidate.bound.is_none() || mistakes.has_errors() {
            true => Fitness::Mistaken,
            false => Fitness::Ready,
        };
        let mut excesses = Problems::default();
        let bound = candidate.bound.iter();
        for digest in bound.flat_map(|bound| bound.components.values()) {
            if pending.contains(digest) {
                fitness = fitness.max(Fitness::Pending);
            }
            let Some(failed) = failed.get(digest) else {
                continue;
            };
            let (kind, problems) = match failed.is_excess {
                true => (Fitness::Excessive, &mut excesses),
                false => (Fitness::Mistaken, &mut mistakes),
            };
            fitness = fitness.max(kind);
            problems.extend(failed.problems.clone());
        }
        let tenant = &candidate.tenant;
        let faults = &mut self.faults;
        if fitness == Fitness::Mistaken {
            faults.mistake(tenant).extend(mistakes);
        }
        if !excesses.is_empty() {
            let known = faults.excesses.entry(tenant.clone()).or_default();
            known.extend(excesses);
        }
        fitness
    }

    /// Puts the registry together. A tenant whose default flow is not there has all that it had before, and is among those
    /// that come back: a message must not start another flow.
    fn put_together(
        &mut self,
        mut packs: Packs,
        before: &Registry,
        defaults: &BTreeMap<TenantId, DefaultFlow>,
    ) -> BTreeSet<TenantId> {
        let all = packs.values().flatten().cloned();
        let (registry, errors) = Registry::new(all, defaults);
        self.registry = registry;
        let mut whole = BTreeSet::new();
        for error in &errors {
            let tenant = error.tenant();
            let problem = catalog::wrong_default(error);
            match self.faults.excesses.get_mut(tenant) {
                Some(known) => known.push(problem),
                None => self.faults.mistake(tenant).push(problem),
            }
            packs.insert(tenant.clone(), had(before, tenant));
            whole.insert(tenant.clone());
        }
        if !errors.is_empty() {
            self.registry = Registry::new(packs.into_values().flatten(), defaults).0;
        }
        whole
    }

    /// Counts what is bound and not in force.
    fn count(&mut self, wanted: Vec<(TenantId, Option<PackId>)>) {
        for (tenant, pack) in wanted {
            let in_force = pack.is_some_and(|pack| self.registry.pack(&tenant, &pack).is_some());
            if !in_force {
                *self.left_out.entry(tenant).or_default() += 1;
            }
        }
    }

    /// Says what comes of it for each tenant. Those in `whole` have all that they had before.
    fn conclude(&mut self, whole: &BTreeSet<TenantId>) {
        let Faults {
            mistakes,
            excesses,
            of_nobody,
        } = &self.faults;
        if !of_nobody.is_empty() {
            let problems = of_nobody.clone().each_once();
            self.unusable.push(Unusable::of_nobody(problems));
        }
        let tenants: BTreeSet<&TenantId> = mistakes.keys().chain(excesses.keys()).collect();
        for tenant in tenants {
            let found = [mistakes, excesses].map(|all| all.get(tenant).cloned());
            let problems = Problems::of(found.into_iter().flatten().flatten());
            let is_whole = mistakes.contains_key(tenant) || whole.contains(tenant);
            let effect = match (self.registry.is_bound(tenant), is_whole) {
                (false, _) => Effect::Stopped,
                (true, true) => Effect::Unchanged,
                (true, false) => Effect::Partial,
            };
            let problems = problems.each_once();
            self.unusable
                .push(Unusable::of(tenant.clone(), effect, problems));
        }
    }

    /// All that is wrong, each of it once.
    pub(super) fn problems(&self) -> Problems {
        let each = self.unusable.iter();
        let all = each.flat_map(|unusable| unusable.problems.iter().cloned());
        Problems::of(all).each_once()
    }

    /// The assembly, for a worker that starts.
    ///
    /// # Errors
    /// All that is wrong, if nobody can be served for it, or if nothing is to be left out.
    pub(super) fn for_a_start(self, strict: bool) -> Result<Self, Problems> {
        let Faults {
            mistakes,
            of_nobody,
            ..
        } = &self.faults;
        let is_mistaken = !mistakes.is_empty() || !of_nobody.is_empty();
        let serves_nobody = self.registry.tenants().is_empty() && !self.is_waiting;
        match is_mistaken && serves_nobody {
            true => Err(self.into_problems()),
            false if strict => self.all(),
            false => Ok(self),
        }
    }

    /// The assembly, if nothing is left out of it.
    ///
    /// # Errors
    /// All that is wrong.
    pub(super) fn all(self) -> Result<Self, Problems> {
        match self.unusable.is_empty() {
            true => Ok(self),
            false => Err(self.into_problems()),
        }
    }

    fn into_problems(self) -> Problems {
        let mut all = self.problems();
        all.extend(self.warnings);
        all
    }
}

impl Faults {
    fn concern(&self, tenant: &TenantId) -> bool {
        self.mistakes.contains_key(tenant) || self.excesses.contains_key(tenant)
    }

    fn mistake(&mut self, tenant: &TenantId) -> &mut Problems {
        self.mistakes.entry(tenant.clone()).or_default()
    }

    fn gtbind(&mut self, gtbind: UnusableGtbind) {
        let UnusableGtbind {
            tenants, problems, ..
        } = gtbind;
        if tenants.is_empty() {
            self.of_nobody.extend(problems.clone());
        }
        for tenant in &tenants {
            self.mistake(tenant).extend(problems.clone());
        }
    }
}

/// All that a tenant had before.
fn had(before: &Registry, tenant: &TenantId) -> Vec<Arc<BoundPack>> {
    before.packs_of(tenant).cloned().collect()
}

/// Keeps packs that were in force before, if they are wanted and not there already.
fn keep(own: &mut Vec<Arc<BoundPack>>, before: &Registry, wanted: impl Fn(&BoundPack) -> bool) {
    for pack in before.packs() {
        if wanted(pack) && own.iter().all(|other| other.id != pack.id) {
            own.push(Arc::clone(pack));
        }
    }
}

#[cfg(test)]
mod tests;
