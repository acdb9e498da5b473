//! The size of a component, looked at before it is compiled: the cost of compiling follows from how many functions there
//! are and how large each is, and can be thousands of times the bytes.
//!
//! The look reads each function once and keeps nothing. The largest public components (18 MB) have some 20,000 functions,
//! the largest of some 100 kB.

use wasmparser::{
    BinaryReaderError, ElementItems, FunctionBody, Operator, Parser, Payload, SectionLimited,
};

/// The bounds that are settings; the others are fixed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The setting `components.compile.functions`.
    pub(super) functions: u64,
    /// The setting `components.compile.function_bytes`.
    pub(super) function_bytes: u64,
}

/// Locals of one function. Unoptimised code has some thousands.
const LOCALS: u64 = 20_000;
/// Blocks, loops and conditions inside one another. A `switch` becomes one block a case.
const NESTING: u64 = 10_000;
/// Targets of all `br_table`s of one function.
const BRANCH_TARGETS: u64 = 100_000;
/// Core modules and components inside one another.
const DEPTH: u64 = 16;

/// A thing of which a component may have so many in all, nested modules and components included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Functions,
    Types,
    TypeBytes,
    Imports,
    Exports,
    Tables,
    TableElements,
    Memories,
    Globals,
    Segments,
    Modules,
    Instances,
    Aliases,
}

impl Kind {
    const COUNT: usize = 13;

    fn name(self) -> &'static str {
        match self {
            Self::Functions => "functions",
            Self::Types => "types",
            Self::TypeBytes => "bytes of types",
            Self::Imports => "imports",
            Self::Exports => "exports",
            Self::Tables => "tables",
            Self::TableElements => "elements of tables",
            Self::Memories => "memories",
            Self::Globals => "globals",
            Self::Segments => "segments of data and elements",
            Self::Modules => "nested modules and components",
            Self::Instances => "instances",
            Self::Aliases => "aliases",
        }
    }

    fn bound(self, bounds: &Bounds) -> u64 {
        match self {
            Self::Functions => bounds.functions,
            Self::Types | Self::Imports | Self::Exports | Self::Globals => 100_000,
            Self::TypeBytes => 4 * 1024 * 1024,
            Self::Tables | Self::Memories => 200,
            Self::TableElements | Self::Aliases => 1_000_000,
            Self::Segments => 200_000,
            Self::Modules => 1_000,
            Self::Instances => 10_000,
        }
    }

    fn setting(self) -> Option<&'static str> {
        (self == Self::Functions).then_some("components.compile.functions")
    }
}

/// A component that is not compiled.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum SizeError {
    #[error("{owner} has {found} {what}, more than the {bound} that are compiled{}", in_setting(.setting))]
    Exceeded {
        /// `it`, or the function.
        owner: String,
        what: &'static str,
        found: u64,
        bound: u64,
        setting: Option<&'static str>,
    },
    #[error("it is not a component: {0}")]
    Malformed(#[from] BinaryReaderError),
}

fn in_setting(setting: &Option<&'static str>) -> String {
    setting.map_or_else(String::new, |setting| format!(" (`{setting}`)"))
}

/// Checks a component against the bounds. Reads no type: those nest, and are read by recursion.
pub(super) fn check(bytes: &[u8], bounds: Bounds) -> Result<(), SizeError> {
    let mut census = Census {
        bounds,
        counts: [0; Kind::COUNT],
        depth: 0,
        function: 0,
    };
    for payload in Parser::new(0).parse_all(bytes) {
        census.payload(&payload?)?;
    }
    Ok(())
}

struct Census {
    bounds: Bounds,
    counts: [u64; Kind::COUNT],
    depth: u64,
    /// Functions whose bodies were read.
    function: u64,
}

impl Census {
    fn payload(&mut self, payload: &Payload<'_>) -> Result<(), SizeError> {
        // What is not named here has no size of its own.
        if let Payload::ModuleSection { .. } | Payload::ComponentSection { .. } = payload {
            self.depth += 1;
            within("it", "levels of nested components", self.depth, DEPTH)?;
            return self.add(Kind::Modules, 1);
        }
        if let Payload::End(_) = payload {
            self.depth = self.depth.saturating_sub(1);
        }
        self.types(payload)?;
        self.links(payload)?;
        self.storage(payload)?;
        if let Payload::CodeSectionStart { count, .. } = payload {
            self.add(Kind::Functions, u64::from(*count))?;
        }
        if let Payload::CodeSectionEntry(body) = payload {
            self.function(body)?;
        }
        Ok(())
    }

    fn types(&mut self, payload: &Payload<'_>) -> Result<(), SizeError> {
        let (count, range) = if let Payload::TypeSection(types) = payload {
            (types.count(), types.range())
        } else if let Payload::CoreTypeSection(types) = payload {
            (types.count(), types.range())
        } else if let Payload::ComponentTypeSection(types) = payload {
            (types.count(), types.range())
        } else {
            return Ok(());
        };
        self.add(Kind::Types, u64::from(count))?;
        self.add(Kind::TypeBytes, range.len() as u64)
    }

    fn links(&mut self, payload: &Payload<'_>) -> Result<(), SizeError> {
        let (kind, count) = if let Payload::ImportSection(imports) = payload {
            (Kind::Imports, imports.count())
        } else if let Payload::ComponentImportSection(imports) = payload {
            (Kind::Imports, imports.count())
        } else if let Payload::ExportSection(exports) = payload {
            (Kind::Exports, exports.count())
        } else if let Payload::ComponentExportSection(exports) = payload {
            (Kind::Exports, exports.count())
        } else if let Payload::InstanceSection(instances) = payload {
            (Kind::Instances, instances.count())
        } else if let Payload::ComponentInstanceSection(instances) = payload {
            (Kind::Instances, instances.count())
        } else if let Payload::ComponentAliasSection(aliases) = payload {
            (Kind::Aliases, aliases.count())
        } else if let Payload::ComponentCanonicalSection(functions) = payload {
            // Each is compiled as a small function.
            (Kind::Functions, functions.count())
        } else {
            return Ok(());
        };
        self.add(kind, u64::from(count))
    }

    fn storage(&mut self, payload: &Payload<'_>) -> Result<(), SizeError> {
        if let Payload::TableSection(tables) = payload {
            self.add(Kind::Tables, u64::from(tables.count()))?;
            for table in tables.clone() {
                self.add(Kind::TableElements, table?.ty.initial)?;
            }
        } else if let Payload::ElementSection(segments) = payload {
            self.add(Kind::Segments, u64::from(segments.count()))?;
            for segment in segments.clone() {
                let items = match segment?.items {
                    ElementItems::Functions(items) => SectionLimited::count(&items),
                    ElementItems::Expressions(_, items) => items.count(),
                };
                self.add(Kind::TableElements, u64::from(items))?;
            }
        } else if let Payload::DataSection(segments) = payload {
            self.add(Kind::Segments, u64::from(segments.count()))?;
        } else if let Payload::GlobalSection(globals) = payload {
            self.add(Kind::Globals, u64::from(globals.count()))?;
        } else if let Payload::MemorySection(memories) = payload {
            self.add(Kind::Memories, u64::from(memories.count()))?;
        }
        Ok(())
    }

    fn function(&mut self, body: &FunctionBody<'_>) -> Result<(), SizeError> {
        let name = format!("function {} of its code", self.function);
        self.function += 1;
        let found = body.range().len() as u64;
        if found > self.bounds.function_bytes {
            return Err(SizeError::Exceeded {
                owner: name,
                what: "bytes",
                found,
                bound: self.bounds.function_bytes,
                setting: Some("components.compile.function_bytes"),
            });
        }
        let mut locals = 0_u64;
        for group in body.get_locals_reader()? {
            locals += u64::from(group?.0);
            within(&name, "locals", locals, LOCALS)?;
        }
        let (mut nesting, mut targets) = (0_u64, 0_u64);
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let operator = operators.read()?;
            if opens(&operator) {
                nesting += 1;
                within(&name, "levels of nested blocks", nesting, NESTING)?;
            } else if let Operator::End = operator {
                nesting = nesting.saturating_sub(1);
            } else if let Operator::BrTable { targets: table } = operator {
                // And the default.
                targets += u64::from(table.len()) + 1;
                within(&name, "branch targets", targets, BRANCH_TARGETS)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, kind: Kind, more: u64) -> Result<(), SizeError> {
        let count = &mut self.counts[kind as usize];
        *count = count.saturating_add(more);
        let (found, bound) = (*count, kind.bound(&self.bounds));
        if found <= bound {
            return Ok(());
        }
        Err(SizeError::Exceeded {
            owner: "it".to_owned(),
            what: kind.name(),
            found,
            bound,
            setting: kind.setting(),
        })
    }
}

fn within(owner: &str, what: &'static str, found: u64, bound: u64) -> Result<(), SizeError> {
    if found <= bound {
        return Ok(());
    }
    Err(SizeError::Exceeded {
        owner: owner.to_owned(),
        what,
        found,
        bound,
        setting: None,
    })
}

fn opens(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::Try { .. }
            | Operator::TryTable { .. }
    )
}

#[cfg(test)]
mod tests;
