use std::io::{Cursor, Write};

use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;
use crate::pack::manifest::MANIFEST;
use crate::pack::write_archive;

mod forms;

fn manifest() -> PackManifest {
    let flow = serde_json::json!({
        "schema_version": "flow-v1", "id": "main", "kind": "messaging",
        "nodes": {"hi": {
            "id": "hi", "component": {"id": "emit.message"},
            "input": {"mapping": {"text": "Hi"}}, "output": {"mapping": {}}, "routing": "end",
        }},
    });
    let manifest = serde_json::json!({
        "schema_version": "pack-v1", "pack_id": "small", "version": "1.0.0", "kind": "application",
        "publisher": "us", "flows": [{"id": "main", "kind": "messaging", "flow": flow}],
    });
    serde_json::from_value(manifest).unwrap()
}

fn cbor(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

fn files(manifest: Vec<u8>) -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([
        (MANIFEST.to_owned(), manifest),
        ("assets/logo.txt".to_owned(), b"logo".to_vec()),
    ])
}

/// A component's manifest, as greentic-component writes it.
fn component_manifest(id: &str) -> serde_json::Value {
    serde_json::json!({
        "id": id, "version": "1.2.0", "supports": ["messaging"], "world": "greentic:component/node@0.6.0",
        "profiles": {"default": null, "supported": []},
        "capabilities": {"wasi": {"random": true}, "host": {"http": {"client": true}}},
        "operations": [],
    })
}

fn manifest_with_component() -> PackManifest {
    let mut manifest = manifest();
    manifest
        .components
        .push(serde_json::from_value(component_manifest("demo.echo")).unwrap());
    manifest
}

fn files_with_component(code: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let manifest = greentic_types::encode_pack_manifest(&manifest_with_component()).unwrap();
    let mut files = files(manifest);
    files.insert("components/demo.echo.wasm".to_owned(), code.to_vec());
    files
}

fn good() -> Vec<u8> {
    write_archive(files(
        greentic_types::encode_pack_manifest(&manifest()).unwrap(),
    ))
    .unwrap()
}

/// A zip of these entries and nothing else.
fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (path, content) in entries {
        writer.start_file(*path, options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Replaces every occurrence of a text in a stored archive, headers and content alike.
fn patched(archive: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = archive.to_vec();
    let found: Vec<usize> = (0..=bytes.len() - from.len())
        .filter(|at| bytes[*at..].starts_with(from))
        .collect();
    assert!(!found.is_empty());
    for at in found {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

#[track_caller]
fn refused(archive: &[u8], limits: &Limits, expected: &str) {
    let error = open(archive, None, limits).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(expected), "{text}\nlacks\n{expected}");
    assert!(!error.remedy().is_empty());
}

#[test]
fn both_forms_of_a_manifest_open() {
    let plain = write_archive(files(cbor(&manifest()))).unwrap();
    for archive in [good(), plain] {
        let id = PackId::of_archive(&archive);
        let pack = open(&archive, Some(&id), &Limits::default()).unwrap();
        assert_eq!(pack.manifest, manifest());
        assert_eq!(pack.id, id);
        assert_eq!(pack.files["assets/logo.txt"], b"logo");
    }
}

#[test]
fn another_archive_than_the_expected_one_is_not_even_read() {
    let other = PackId::of_archive(b"other");
    let error = open(b"no zip at all", Some(&other), &Limits::default()).unwrap_err();
    assert!(matches!(error, ArchiveError::Identity { expected, .. } if expected == other));
}

#[test]
fn unsafe_paths_and_special_files_are_refused() {
    let limits = Limits::default();
    for (path, reason) in [
        ("../x", "leads out"),
        ("a/../../x", "leads out"),
        ("/etc/passwd", "absolute"),
        ("a\\b", "Windows"),
        ("C:x", "Windows"),
        ("a//b", "empty steps"),
        ("./a", "empty steps"),
        ("a\nb", "control"),
    ] {
        refused(&zip_of(&[(path, b"x")]), &limits, reason);
    }
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    writer.add_symlink("link", "/etc/passwd", options).unwrap();
    let link = writer.finish().unwrap().into_inner();
    refused(&link, &limits, "`link` is a link");
}

#[test]
fn a_doubled_name_is_refused() {
    let twice = patched(&zip_of(&[("aa", b"1"), ("ab", b"2")]), b"ab", b"aa");
    refused(&twice, &Limits::default(), "holds `aa` twice");
}

#[test]
fn what_is_larger_than_the_limits_is_refused() {
    let archive = good();
    let limits = Limits::default();
    let small = Limits {
        archive_bytes: 10,
        ..limits
    };
    refused(&archive, &small, "more than the 10 that are taken");
    refused(&archive, &Limits { files: 2, ..limits }, "has 3 files");
    let small = Limits {
        unpacked_bytes: 5,
        ..limits
    };
    refused(
        &archive,
        &small,
        "with the entry `manifest.cbor` the archive unpacks to more",
    );
    let zeros = vec![0; 3 << 20];
    let bomb = zip_of(&[("zeros", &zeros)]);
    refused(&bomb, &limits, "`zeros` unpacks to more than 100 times");
    let patient = Limits {
        compression_ratio: 10_000,
        ..limits
    };
    refused(&bomb, &patient, "no `manifest.cbor`");
    let one = write_archive(files_with_component(b"code")).unwrap();
    refused(
        &one,
        &Limits {
            components: 0,
            ..limits
        },
        "has 1 components",
    );
    let small = Limits {
        component_bytes: 3,
        ..limits
    };
    refused(&one, &small, "`demo.echo` has 4 bytes");
}

#[test]
fn the_sbom_must_list_what_is_there_as_it_is() {
    let limits = Limits::default();
    let archive = good();
    refused(
        &patched(&archive, b"txtlogo", b"txtLOGO"),
        &limits,
        "Invalid checksum",
    );

    let manifest = cbor(&manifest());
    let sbom = sbom::encode(&files(manifest.clone())).unwrap();
    let complete = [
        (MANIFEST, manifest.as_slice()),
        ("assets/logo.txt", b"logo"),
        ("sbom.cbor", &sbom),
    ];
    open(&zip_of(&complete), None, &limits).unwrap();
    let unlisted = open(&zip_of(&complete[..2]), None, &limits).unwrap();
    assert_eq!(unlisted.listing, Listing::None);
    assert!(
        unlisted.notes.to_string().contains("has no SBOM"),
        "{}",
        unlisted.notes
    );

    let mut changed = complete;
    changed[1].1 = b"LOGO";
    refused(
        &zip_of(&changed),
        &limits,
        "`assets/logo.txt` does not match the SBOM: its content",
    );
    changed[1].1 = b"logo!";
    refused(&zip_of(&changed), &limits, "it has 5 bytes, 4 are listed");
    changed[1] = ("assets/more.txt", b"logo");
    refused(&zip_of(&changed), &limits, "it is listed, but not there");
    let [manifest, logo, sbom] = complete;
    refused(
        &zip_of(&[manifest, logo, sbom, ("extra", b"")]),
        &limits,
        "`extra` does not match the SBOM: it is there, but not listed",
    );
    let signed = zip_of(&[manifest, logo, sbom, ("signatures/pack.sig", b"{}")]);
    open(&signed, None, &limits).unwrap();
    refused(
        &zip_of(&[manifest, ("sbom.cbor", b"junk")]),
        &limits,
        "`sbom.cbor` cannot be read",
    );
    refused(
        &zip_of(&[manifest, ("sbom.json", br#"{"format":"other","files":[]}"#)]),
        &limits,
        "its format is `other`",
    );
}

#[test]
fn what_is_no_pack_is_told() {
    let limits = Limits::default();
    refused(b"hello", &limits, "not a readable zip archive");
    let without = write_archive(BTreeMap::new()).unwrap();
    refused(&without, &limits, "no `manifest.cbor`");
    let junk = write_archive(files(b"junk".to_vec())).unwrap();
    refused(&junk, &limits, "`manifest.cbor` cannot be read");

    let mut twice = manifest();
    twice.flows.push(twice.flows[0].clone());
    refused(
        &write_archive(files(cbor(&twice))).unwrap(),
        &limits,
        "lists flow `main` twice",
    );
    let designed = zip_of(&[("manifest.json", b"{}"), ("metadata.json", b"{}")]);
    refused(&designed, &limits, "the designer wrote it");
}
