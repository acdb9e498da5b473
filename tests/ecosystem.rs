//! Archives that tools of the ecosystem made from small sources of our own, unchanged: `tests/packs/`, named after the tool.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails by panicking"
)]

use std::fs;
use std::path::Path;

use greentic_worker::pack::{Limits, Listing, Pack, PackSummary, open};

/// The public half of the key that `greentic-pack sign` was given.
const PUBLISHER: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA4i8rY0yo28/3YVr1wP2bb2XuyQiZCDwuNXpnNYjLRhA=
-----END PUBLIC KEY-----";

fn opened(name: &str) -> Pack {
    let packs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packs");
    let bytes = fs::read(packs.join(name)).unwrap();
    open(&bytes, None, &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn greentic_pack_build_makes_what_opens_whole() {
    let mut pack = opened("greentic-pack-1.2.1.gtpack");
    assert!(pack.notes.is_empty(), "{}", pack.notes);
    assert_eq!(pack.listing, Listing::File("sbom.cbor"));
    assert_eq!(pack.manifest.pack_id.as_str(), "example.eco");
    let [component] = &pack.components[..] else {
        panic!("{:?}", pack.components);
    };
    assert_eq!(component.id, "example.echo");
    assert_eq!(pack.code(component), Some(&b"\0asm\x0d\0\x01\0"[..]));
    let state = component.capabilities.as_ref().unwrap().host.state.as_ref();
    assert!(state.is_some_and(|state| state.read && state.write));

    let summary = PackSummary::of(&pack).to_string();
    for line in [
        "main: starts at ask, tagged default",
        "code    components/example.echo.wasm, 8 bytes",
        "needs   state:read, state:write",
        "greentic.pack-mode.v1 1, nothing is made of it",
    ] {
        assert!(
            summary.lines().any(|l| l.trim() == line),
            "{line}\nis not in\n{summary}"
        );
    }
    // The tool puts what `pack.yaml` lists there a second time.
    let assets: Vec<_> = pack.take_assets().map(|(path, _)| path).collect();
    assert_eq!(
        assets,
        ["assets/assets/cards/hello.json", "assets/cards/hello.json"]
    );
}

#[test]
fn greentic_pack_sign_makes_a_signature_that_holds() {
    let pack = opened("greentic-pack-1.2.1-signed.gtpack");
    assert_eq!(pack.vouched(&[PUBLISHER.parse().unwrap()]), Ok(()));
    assert!(pack.vouched(&["7".repeat(64).parse().unwrap()]).is_err());
}

#[test]
fn the_builder_library_makes_the_older_form_signed_as_a_whole() {
    /// The public key of the certificate that the library made up for the archive.
    const KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAzA4BV4/5/dhbtzppe5BuxF/0Xs7q5wtpIhNFUXpKfWM=
-----END PUBLIC KEY-----";
    let pack = opened("greentic-pack-lib-1.2.1.gtpack");
    assert!(pack.notes.is_empty(), "{}", pack.notes);
    assert_eq!(pack.listing, Listing::File("sbom.json"));
    assert_eq!(pack.vouched(&[KEY.parse().unwrap()]), Ok(()));
    assert!(pack.vouched(&[PUBLISHER.parse().unwrap()]).is_err());
    let flow = &pack.manifest.flows[0].flow;
    let kinds: Vec<_> = flow
        .nodes
        .values()
        .map(|n| n.component.id.as_str())
        .collect();
    assert_eq!(kinds, ["session.wait", "emit.message"]);
    assert_eq!(pack.components[0].id, "templating.handlebars");
    assert!(pack.code(&pack.components[0]).is_some());
}
