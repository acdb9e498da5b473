use std::path::Path;

use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::pack::sbom::SBOM;
use crate::pack::{Limits, build, open, write_archive};

/// The PEM text of the private key that is 32 times 7, as `openssl genpkey -algorithm ed25519` would write it.
fn private() -> String {
    let mut der = hex::decode("302e020100300506032b657004220420").unwrap();
    der.extend([7; 32]);
    let body = STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}

/// Its public key, as `openssl pkey -pubout` writes it.
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=
-----END PUBLIC KEY-----
";

fn signing_key() -> SigningKey {
    SigningKey::from_pem(&private()).unwrap()
}

fn known() -> [PublicKey; 1] {
    [PUBLIC.parse().unwrap()]
}

fn stranger() -> [PublicKey; 1] {
    ["7".repeat(64).parse().unwrap()]
}

fn opened(archive: &[u8]) -> Pack {
    open(archive, None, &Limits::default()).unwrap()
}

fn unsigned() -> Pack {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/hello-pack");
    opened(&build(&sources).unwrap().bytes)
}

#[test]
fn the_key_is_one_whatever_text_it_is_in() {
    let key = known()[0];
    assert_eq!(signing_key().public(), key);
    assert_eq!(String::from(key).parse(), Ok(key));
    for (text, reason) in [
        ("", "32 bytes"),
        ("zz", "neither"),
        ("00ff", "32 bytes"),
        (
            private().as_str(),
            "expected PEM with the label `PUBLIC KEY`",
        ),
    ] {
        let error = text.parse::<PublicKey>().unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
    assert!(SigningKey::from_pem(PUBLIC).is_err());
}

#[test]
fn who_signed_an_archive_vouches_for_all_of_it() {
    assert_eq!(unsigned().vouched(&known()), Err(NotVouched::Unsigned));
    let archive = sign(unsigned(), &signing_key(), None).unwrap();
    assert_eq!(
        archive,
        sign(opened(&archive), &signing_key(), None).unwrap()
    );

    let pack = opened(&archive);
    assert_eq!(pack.vouched(&known()), Ok(()));
    let name = known()[0].fingerprint();
    let signed = Signed {
        by: name.clone(),
        whole: true,
    };
    assert_eq!(pack.signatures(), [signed]);
    assert_eq!(pack.vouched(&stranger()), Err(NotVouched::UnknownKey(name)));

    // With an SBOM that fits the change, everything is in order but the signature.
    let mut files = pack.files;
    files.remove(SBOM);
    files.insert("assets/more.txt".to_owned(), b"more".to_vec());
    let changed = opened(&write_archive(files).unwrap());
    assert_eq!(changed.vouched(&known()), Err(NotVouched::Changed));
}

#[test]
fn a_signature_that_is_none_is_told() {
    let mut pack = unsigned();
    pack.files.insert(SIGNATURE.to_owned(), b"junk".to_vec());
    assert!(matches!(
        pack.vouched(&known()),
        Err(NotVouched::Unreadable(_))
    ));
    pack.files.remove(SBOM);
    let envelope = br#"{"alg": "ed25519", "sig": "", "digest": ""}"#;
    pack.files.insert(SIGNATURE.to_owned(), envelope.to_vec());
    assert_eq!(pack.vouched(&known()), Err(NotVouched::NoSbom));
}

/// The pack with a signature of its manifest, as `greentic-pack sign` makes it.
fn with_signed_manifest(mut files: BTreeMap<String, Vec<u8>>) -> Pack {
    let bytes = &files[MANIFEST];
    let mut manifest = decode_pack_manifest(bytes).unwrap();
    let signature = signing_key().sign(bytes);
    manifest
        .signatures
        .signatures
        .push(greentic_types::Signature::new(
            "release".to_owned(),
            SignatureAlgorithm::Ed25519,
            signature,
        ));
    files.insert(
        MANIFEST.to_owned(),
        encode_pack_manifest(&manifest).unwrap(),
    );
    files.remove(SBOM);
    opened(&write_archive(files).unwrap())
}

#[test]
fn a_signed_manifest_vouches_for_what_it_holds() {
    let pack = with_signed_manifest(unsigned().files);
    assert_eq!(pack.vouched(&known()), Ok(()));
    let unknown = NotVouched::UnknownKey("release".to_owned());
    assert_eq!(pack.vouched(&stranger()), Err(unknown));

    let mut files = unsigned().files;
    files.insert("assets/card.json".to_owned(), b"{}".to_vec());
    let pack = with_signed_manifest(files);
    let loose = NotVouched::ManifestOnly(vec!["assets/card.json".to_owned()]);
    assert_eq!(pack.vouched(&known()), Err(loose));
    let whole = sign(pack, &signing_key(), None).unwrap();
    assert_eq!(opened(&whole).vouched(&known()), Ok(()));
}

const CODE: &[u8] = b"\0asm code";
const CODE_FILE: &str = "components/demo.echo.wasm";
const DESCRIPTION_FILE: &str = "components/demo.echo.manifest.cbor";

/// A component that needs nothing, or everything that there is.
fn description(needs: serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        "id": "demo.echo", "version": "1.0.0", "supports": [], "world": "greentic:component/node@0.6.0",
        "profiles": {"default": null, "supported": []}, "capabilities": {"wasi": {}, "host": needs},
        "configurators": null, "operations": [], "config_schema": null, "resources": {},
    })
}

fn needs_nothing() -> serde_json::Value {
    description(serde_json::json!({"state": {"read": false, "write": false}}))
}

/// The files of a pack with a component whose code the manifest has the digest of; described in the manifest, or beside
/// the code.
fn with_component(in_manifest: bool) -> BTreeMap<String, Vec<u8>> {
    let mut files = unsigned().files;
    let mut manifest = decode_pack_manifest(&files[MANIFEST]).unwrap();
    let sources = serde_json::json!({"greentic.pack.component_sources@v1": {
        "kind": "greentic.pack.component_sources@v1", "version": "v1",
        "inline": {"schema_version": 1, "components": [{
            "name": "demo.echo", "component_id": "demo.echo", "source": "oci://example.com/echo:1",
            "resolved": {"digest": format!("blake3:{}", blake3::hash(CODE).to_hex())}, "artifact": "remote",
        }]},
    }});
    manifest.extensions = serde_json::from_value(sources).unwrap();
    let component: greentic_types::ComponentManifest =
        serde_json::from_value(needs_nothing()).unwrap();
    if in_manifest {
        manifest.components.push(component);
    } else {
        files.insert(DESCRIPTION_FILE.to_owned(), cbor(&needs_nothing()));
    }
    files.insert(
        MANIFEST.to_owned(),
        encode_pack_manifest(&manifest).unwrap(),
    );
    files.insert(CODE_FILE.to_owned(), CODE.to_vec());
    files
}

fn cbor(value: &serde_json::Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

/// Opens what somebody makes of the files of a signed pack, with an SBOM that fits. The error is that of opening, or why
/// nobody vouches.
fn tampered(pack: Pack, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Result<(), String> {
    let mut files = pack.files;
    files.remove(SBOM);
    change(&mut files);
    let archive = write_archive(files).unwrap();
    let pack = open(&archive, None, &Limits::default()).map_err(|error| error.to_string())?;
    pack.vouched(&known()).map_err(|error| error.to_string())
}

#[track_caller]
fn check_not_covered(result: Result<(), String>, entries: &[&str]) {
    let reason = result.unwrap_err();
    assert!(reason.contains("does not cover"), "{reason}");
    for entry in entries {
        assert!(reason.contains(&format!("`{entry}`")), "{entry}: {reason}");
    }
}

#[test]
fn a_signed_manifest_does_not_vouch_for_what_lies_beside_it() {
    let signed = || with_signed_manifest(with_component(true));
    let insert = |path: &'static str, content: Vec<u8>| {
        move |files: &mut BTreeMap<String, Vec<u8>>| drop(files.insert(path.to_owned(), content))
    };
    let remove =
        |path: &'static str| move |files: &mut BTreeMap<String, Vec<u8>>| drop(files.remove(path));
    assert_eq!(tampered(signed(), |_| {}), Ok(()));

    // Code: altered, removed, added. A component without code cannot be called.
    let altered = tampered(signed(), insert(CODE_FILE, b"\0asm other".to_vec()));
    assert!(
        altered
            .unwrap_err()
            .contains("is not the code that the manifest names")
    );
    assert_eq!(tampered(signed(), remove(CODE_FILE)), Ok(()));
    let added = tampered(signed(), insert("components/evil.wasm", CODE.to_vec()));
    check_not_covered(
        added,
        &["components/evil.wasm", "components/evil.manifest.cbor"],
    );

    // A description beside the code of what the manifest describes is not read.
    assert_eq!(
        tampered(
            signed(),
            insert(DESCRIPTION_FILE, cbor(&description(serde_json::json!({}))))
        ),
        Ok(())
    );
    // Assets and translations.
    for asset in ["assets/cards/a.json", "assets/i18n/de.json"] {
        check_not_covered(tampered(signed(), insert(asset, b"{}".to_vec())), &[asset]);
    }
    // What the flows were made of is not read.
    assert_eq!(
        tampered(signed(), insert("flows/main.ygtc", b"x".to_vec())),
        Ok(())
    );
    // The manifest itself.
    let altered = tampered(signed(), |files| {
        let mut manifest = decode_pack_manifest(&files[MANIFEST]).unwrap();
        manifest.components.clear();
        files.insert(
            MANIFEST.to_owned(),
            encode_pack_manifest(&manifest).unwrap(),
        );
    });
    assert!(altered.unwrap_err().contains("none of the keys"));
}

#[test]
fn a_component_that_only_a_file_beside_the_manifest_describes_is_not_covered() {
    let signed = || with_signed_manifest(with_component(false));
    let needs = |pack: &Pack| pack.components[0].capabilities.clone().unwrap().host;
    assert!(needs(&signed()).http.is_none());
    check_not_covered(tampered(signed(), |_| {}), &[DESCRIPTION_FILE]);
    let more = serde_json::json!({"http": {"client": true, "server": false}, "state": {"read": true, "write": true}});
    let altered = tampered(signed(), |files| {
        files.insert(DESCRIPTION_FILE.to_owned(), cbor(&description(more)));
    });
    check_not_covered(altered, &[DESCRIPTION_FILE]);
    // Without any, it would be given all that is granted.
    let removed = tampered(signed(), |files| drop(files.remove(DESCRIPTION_FILE)));
    check_not_covered(removed, &[DESCRIPTION_FILE]);
}

#[test]
fn a_signed_manifest_whose_flows_show_cards_does_not_vouch_for_which_there_are() {
    for mapping in [
        serde_json::json!({"component": "x.adaptive-card"}),
        serde_json::json!({"input": [{"card_source": "{{in.x}}"}]}),
        serde_json::json!({"text": "see assets/a.json"}),
    ] {
        let mut files = unsigned().files;
        let mut manifest = decode_pack_manifest(&files[MANIFEST]).unwrap();
        let node = manifest.flows[0].flow.nodes.values_mut().next().unwrap();
        node.input.mapping = mapping;
        files.insert(
            MANIFEST.to_owned(),
            encode_pack_manifest(&manifest).unwrap(),
        );
        check_not_covered(tampered(with_signed_manifest(files), |_| {}), &["assets/"]);
    }
}

#[test]
fn a_signed_archive_vouches_for_each_entry_and_for_there_being_no_others() {
    let signed = || {
        let mut files = with_component(false);
        files.remove(SBOM);
        files.insert("assets/cards/a.json".to_owned(), b"{}".to_vec());
        let archive = write_archive(files).unwrap();
        opened(&sign(opened(&archive), &signing_key(), None).unwrap())
    };
    assert_eq!(signed().vouched(&known()), Ok(()));
    let changed = Err(NotVouched::Changed.to_string());
    for entry in ["assets/cards/a.json", DESCRIPTION_FILE] {
        let other = cbor(&description(serde_json::json!({})));
        let altered = tampered(signed(), |files| {
            drop(files.insert(entry.to_owned(), other))
        });
        assert_eq!(altered, changed, "{entry} altered");
    }
    for entry in ["assets/cards/a.json", DESCRIPTION_FILE, CODE_FILE] {
        let removed = tampered(signed(), |files| drop(files.remove(entry)));
        assert_eq!(removed, changed, "{entry} removed");
    }
    for entry in ["assets/i18n/de.json", "components/evil.wasm", "README.md"] {
        let added = tampered(signed(), |files| {
            drop(files.insert(entry.to_owned(), b"{}".to_vec()))
        });
        assert_eq!(added, changed, "{entry} added");
    }
    // With the SBOM that was signed, it does not open.
    let mut files = signed().files;
    files.insert("assets/cards/a.json".to_owned(), b"[]".to_vec());
    let archive = crate::pack::write::write_zip(&files).unwrap();
    assert!(open(&archive, None, &Limits::default()).is_err());
}

#[test]
fn an_error_names_some_entries_and_counts_the_others() {
    let entries: Vec<_> = (0..10).map(|n| format!("assets/{n}")).collect();
    let text = NotVouched::ManifestOnly(entries).to_string();
    assert!(text.ends_with("`assets/7` and 2 more"), "{text}");
}
