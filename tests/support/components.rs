//! The components of `tests/components`, built from their text: a core module with the interfaces that its first line
//! names.

use std::fs;
use std::path::{Path, PathBuf};

use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve};

/// Interfaces that only tests have.
const STRANGER: &str = "
package tests:stranger;
interface first { go: func(); }
interface second { go: func(); }
";

/// The component `tests/components/{name}.wat`. The same text gives the same bytes.
pub fn component(name: &str) -> Vec<u8> {
    let text = read(&format!("tests/components/{name}.wat"));
    let (first, _) = text.split_once('\n').unwrap();
    let world = first.strip_prefix(";; world:").unwrap();
    let prelude = read("tests/components/prelude.wat");
    from_text(world, &format!("{text}\n{prelude}"))
}

/// A component of a core module's fields and a world's items.
pub fn from_text(world: &str, fields: &str) -> Vec<u8> {
    let mut module = wat::parse_str(format!("(module\n{fields}\n)")).unwrap();
    let mut resolve = Resolve::default();
    resolve.push_dir(path("wit")).unwrap();
    resolve.push_str("stranger.wit", STRANGER).unwrap();
    let world = format!("package tests:subject;\nworld component {{ {world} }}");
    let package = resolve.push_str("subject.wit", &world).unwrap();
    let world = resolve.select_world(&[package], Some("component")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    encode(&module)
}

/// A component that imports all that a worker says it has.
pub fn everything() -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(path("wit")).unwrap();
    let world = resolve.select_world(&[package], Some("imports")).unwrap();
    let mut module = dummy_module(&resolve, world, ManglingAndAbi::Legacy(LiftLowerAbi::Sync));
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    encode(&module)
}

/// Fields of a module: so many functions that are slow to compile for their size. Each has many variables that are alive all
/// the time, across many branches.
pub fn heavy_functions(count: usize) -> String {
    const LOCALS: usize = 1_000;
    const BRANCHES: usize = 4_000;
    let mut text = String::new();
    for function in 0..count {
        text.push_str("(func (param i64) (local");
        text.push_str(&" i64".repeat(LOCALS));
        text.push_str(")\n");
        for branch in 0..BRANCHES {
            let (from, to) = (
                branch * 7 % LOCALS + 1,
                (branch * 13 + function) % LOCALS + 1,
            );
            text.push_str(&format!(
                "local.get 0 i64.eqz if local.get {from} i64.const {branch} i64.add local.set {to} end\n"
            ));
        }
        text.push_str(")\n");
    }
    text
}

/// A component whose type nests so deep.
pub fn nested_types(levels: usize) -> Vec<u8> {
    // One type, a component with one declaration, which is such a type.
    let mut section = vec![1];
    for _ in 0..levels {
        section.extend([0x41, 1, 1]);
    }
    section.push(0x7f);
    let mut bytes = b"\0asm\x0d\0\x01\0\x07".to_vec();
    let mut length = section.len();
    while length >= 0x80 {
        bytes.push((length % 0x80) as u8 | 0x80);
        length /= 0x80;
    }
    bytes.push(length as u8);
    bytes.extend(section);
    bytes
}

/// A core module, which is no component.
pub fn core_module() -> Vec<u8> {
    wat::parse_str("(module)").unwrap()
}

fn encode(module: &[u8]) -> Vec<u8> {
    // One component may import two versions of an interface.
    let encoder = ComponentEncoder::default()
        .validate(true)
        .merge_imports_based_on_semver(false);
    encoder.module(module).unwrap().encode().unwrap()
}

fn read(file: &str) -> String {
    let read = fs::read_to_string(path(file));
    read.unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}
