//! The packs that were opened, and what the worker keeps of each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use greentic_types::PackManifest;

use crate::bindings::PackBinding;
use crate::flow::{self, Assets, Inventory, Program, Provider};
use crate::model::{ComponentDigest, Declared, PackId, Problem, Problems, UndeclaredState};
use crate::pack::{self, Code, Pack, SignaturePolicy};

use super::{Sources, capabilities, in_files};

/// The code of a component, on its way to what runs it.
#[derive(Clone)]
pub struct ComponentCode {
    /// Its identity.
    pub digest: ComponentDigest,
    /// What its pack calls it.
    pub name: String,
    /// The file of the pack that brought it.
    pub file: PathBuf,
    /// The code.
    pub bytes: Bytes,
}

/// Leaves the code out.
impl std::fmt::Debug for ComponentCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComponentCode")
            .field("digest", &self.digest)
            .field("name", &self.name)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// The packs that were opened, each once however many tenants bind it.
#[derive(Default)]
pub(super) struct Shelf {
    undeclared_state: UndeclaredState,
    opened: HashMap<(PackId, PathBuf), Shelved>,
    code: BTreeMap<ComponentDigest, ComponentCode>,
    /// Whether it was said that the cache cannot be written to.
    said: bool,
}

/// A pack that was opened, or why it was not.
struct Shelved {
    opened: Option<Arc<Opened>>,
    errors: Vec<Problem>,
}

/// What is kept of a pack.
pub(super) struct Opened {
    pub manifest: PackManifest,
    /// None if the flows do not compile; that is reported once.
    pub program: Option<Arc<Program>>,
    /// The code of its components.
    pub components: BTreeMap<String, ComponentDigest>,
    /// What each of them says that it needs.
    pub declared: BTreeMap<String, Declared>,
    /// The secrets that it does not work without.
    pub secrets: BTreeSet<String>,
}

impl Shelf {
    pub fn new(undeclared_state: UndeclaredState) -> Self {
        Self {
            undeclared_state,
            ..Self::default()
        }
    }

    /// The pack that a gtbind binds.
    pub fn take(
        &mut self,
        sources: &Sources<'_>,
        binding: &PackBinding,
        problems: &mut Problems,
    ) -> Option<Arc<Opened>> {
        let file = sources.resolver.locate(&binding.pack_ref.value);
        let key = (binding.pack_id.value, file);
        if let Some(shelved) = self.opened.get(&key) {
            problems.extend(shelved.errors_of(binding));
            return shelved.opened.clone();
        }
        let mut found = Problems::default();
        let opened = match open(sources, binding, &mut found) {
            Ok((pack, bytes)) => {
                self.keep(sources, (&pack.id, &bytes), &mut found);
                let unpacked = self.unpack(sources.flow_limits, pack, &key.1, &mut found);
                Some(Arc::new(unpacked))
            }
            Err(problem) => {
                found.push(problem);
                None
            }
        };
        let errors = found.iter().filter(|problem| problem.is_error()).cloned();
        let shelved = Shelved {
            opened: opened.clone(),
            errors: errors.collect(),
        };
        self.opened.insert(key, shelved);
        problems.extend(found);
        opened
    }

    /// The code that the flows of all packs call.
    pub fn into_code(self) -> Vec<ComponentCode> {
        self.code.into_values().collect()
    }

    /// Keeps an archive, where it is to be kept.
    fn keep(
        &mut self,
        sources: &Sources<'_>,
        (pack, bytes): (&PackId, &[u8]),
        problems: &mut Problems,
    ) {
        if let Err((folder, error)) = sources.resolver.keep(pack, bytes)
            && !std::mem::replace(&mut self.said, true)
        {
            let message = format!(
                "archives cannot be kept here: {error}; once this worker stops, no conversation can go on that is \
                 parked in a pack which is not bound any more"
            );
            let remedy = "name a folder that the worker may write to, or leave the setting empty";
            problems.push(
                Problem::warning(message)
                    .in_file(&folder)
                    .at("setting packs.cache_dir")
                    .remedy(remedy),
            );
        }
    }

    /// Takes out of a pack what is kept. The code goes a way of its own, as far as any flow calls it.
    pub fn unpack(
        &mut self,
        limits: flow::Limits,
        mut pack: Pack,
        file: &Path,
        problems: &mut Problems,
    ) -> Opened {
        let notes = std::mem::take(&mut pack.notes);
        problems.extend(in_files(notes, file));
        problems.extend(in_files(oddities(&pack), file));
        let inventory = holdings(&mut pack);
        let flows = &pack.manifest.flows;
        let compiled = Program::compile(flows, inventory, limits);
        let (Ok((_, found)) | Err(found)) = &compiled;
        problems.extend(in_files(found.clone(), file));
        let program = compiled.ok().map(|(program, _)| Arc::new(program));
        let called: BTreeSet<&str> = match &program {
            Some(program) => (flows.iter())
                .flat_map(|entry| program.components(&entry.id))
                .map(String::as_str)
                .collect(),
            None => BTreeSet::new(),
        };
        let mut components = BTreeMap::new();
        for component in &pack.components {
            let id = component.id.as_str();
            if let (true, Some(code)) = (called.contains(id), pack.code(component)) {
                let digest = ComponentDigest::of(code);
                components.insert(id.to_owned(), digest);
                self.code.entry(digest).or_insert_with(|| ComponentCode {
                    digest,
                    name: id.to_owned(),
                    file: file.to_owned(),
                    bytes: Bytes::copy_from_slice(code),
                });
            }
        }
        let undeclared = capabilities::undeclared_state(&pack, &called, self.undeclared_state);
        problems.extend(in_files(undeclared, file));
        Opened {
            components,
            declared: capabilities::declared(&pack, self.undeclared_state),
            secrets: secrets(&pack, &called),
            program,
            manifest: pack.manifest,
        }
    }
}

impl Shelved {
    /// The errors, for another gtbind. A pack that could not be opened is the trouble of each gtbind that names it.
    fn errors_of(&self, binding: &PackBinding) -> impl Iterator<Item = Problem> {
        let is_opened = self.opened.is_some();
        self.errors.iter().map(move |error| match is_opened {
            true => error.clone(),
            false => binding.pack_ref.origin.locate(error.clone()),
        })
    }
}

/// The opened pack, if it may be used, and its archive.
fn open(
    sources: &Sources<'_>,
    binding: &PackBinding,
    problems: &mut Problems,
) -> Result<(Pack, Vec<u8>), Problem> {
    let origin = &binding.pack_ref.origin;
    let reference = &binding.pack_ref.value;
    let limits = sources.limits;
    let bytes = sources
        .resolver
        .fetch(&binding.pack_id.value, reference, limits.archive_bytes)
        .map_err(|error| origin.locate(Problem::error(error.to_string()).remedy(error.remedy())))?;
    let pack = pack::open(&bytes, Some(&binding.pack_id.value), limits).map_err(|error| {
        let message = format!("{reference} is refused: {error}");
        origin.locate(Problem::error(message).remedy(error.remedy()))
    })?;
    let signatures = sources.signatures;
    if signatures.policy == SignaturePolicy::Off {
        return Ok((pack, bytes));
    }
    let Err(error) = pack.vouched(&signatures.keys) else {
        return Ok((pack, bytes));
    };
    let located = |problem: Problem| origin.locate(problem.remedy(error.remedy()));
    if signatures.policy == SignaturePolicy::Strict {
        let message = format!("{reference} is refused: {error}");
        return Err(located(Problem::error(message)));
    }
    let message = format!("nobody vouches for {reference}: {error}");
    problems.push(located(Problem::warning(message)));
    Ok((pack, bytes))
}

/// What the flows of a pack may call and show. Takes the assets out of it.
fn holdings(pack: &mut Pack) -> Inventory {
    let components = pack.components.iter();
    let inline = pack.manifest.provider_extension_inline();
    let providers = inline.map_or(&[][..], |inline| &inline.providers).iter();
    Inventory {
        components: components
            .filter(|component| component.file().is_some())
            .map(|component| component.id.clone())
            .collect(),
        providers: providers
            .map(|provider| Provider {
                id: None,
                provider_type: provider.provider_type.clone(),
                component: provider.runtime.component_ref.clone(),
            })
            .collect(),
        assets: Assets::new(pack.take_assets()),
    }
}

/// What a pack brings along and this worker makes no use of, where an author might expect it to.
fn oddities(pack: &Pack) -> Problems {
    let mut found = Problems::default();
    for component in &pack.components {
        let place = match &component.code {
            Code::File(_) => continue,
            Code::Elsewhere(reference) => format!("it is at `{reference}`"),
            Code::Missing => format!("there is no `components/{}.wasm`", component.id),
        };
        let id = &component.id;
        found.push(
            Problem::warning(format!(
                "the archive does not hold the code of component `{id}`: {place}"
            ))
            .at(format!("component {id}"))
            .remedy(
                "build the pack with its components in it: `greentic-pack build --bundle cache`",
            ),
        );
    }
    let dependencies: Vec<String> = (pack.manifest.dependencies.iter())
        .map(|dependency| format!("`{}` {}", dependency.pack_id, dependency.version_req))
        .collect();
    if !dependencies.is_empty() {
        found.push(
            Problem::warning(format!(
                "it depends on {}, which is not looked up: packs do not call one another here",
                dependencies.join(", ")
            ))
            .at("manifest.cbor, dependencies")
            .remedy("bind those packs too, if messages are to start their flows"),
        );
    }
    found
}

/// The secrets that the pack, or a component that its flows call, does not work without.
fn secrets(pack: &Pack, called: &BTreeSet<&str>) -> BTreeSet<String> {
    let called = pack
        .components
        .iter()
        .filter(|c| called.contains(c.id.as_str()));
    let of_components = called
        .filter_map(|component| component.capabilities.as_ref()?.host.secrets.as_ref())
        .flat_map(|secrets| &secrets.required);
    let all = pack
        .manifest
        .secret_requirements
        .iter()
        .chain(of_components);
    all.filter(|secret| secret.required)
        .map(|secret| secret.key.as_str().to_owned())
        .collect()
}
