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
    let loose = NotVouched::ManifestOnly("assets/card.json".to_owned());
    assert_eq!(pack.vouched(&known()), Err(loose));
    let whole = sign(pack, &signing_key(), None).unwrap();
    assert_eq!(opened(&whole).vouched(&known()), Ok(()));
}
