//! Artifacts in an OCI registry on this machine.

use super::*;

/// A registry with one artifact `org/pack:1`, whose layers are these; it wants a login if one is given.
async fn registry(layers: &'static [(&'static str, &'static [u8])], login: &'static str) -> Server {
    Server::start(move |_, asked| {
        if asked.2 != login {
            let refused = Response::builder().status(401);
            let refused = refused.header("www-authenticate", "Basic realm=\"packs\"");
            return refused.body(Body::empty()).unwrap();
        }
        let digest = |bytes: &[u8]| PackId::of_archive(bytes).to_string();
        let described = |(media, bytes): &(&str, &[u8])| {
            serde_json::json!({"mediaType": media, "digest": digest(bytes), "size": bytes.len()})
        };
        if asked.1 == "/v2/" {
            return answer(200, b"{}");
        }
        if let Some(wanted) = asked.1.strip_prefix("/v2/org/pack/blobs/") {
            let blob = layers.iter().find(|(_, bytes)| digest(bytes) == wanted);
            return blob.map_or_else(|| answer(404, b""), |(_, bytes)| answer(200, bytes));
        }
        if asked.1 != "/v2/org/pack/manifests/1" {
            let unknown = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such tag"}]}"#;
            return answer(404, unknown);
        }
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described(&("application/vnd.oci.empty.v1+json", b"{}")),
            "layers": layers.iter().map(described).collect::<Vec<_>>(),
        });
        let media = "application/vnd.oci.image.manifest.v1+json";
        let response = Response::builder().header("content-type", media);
        response.body(Body::from(manifest.to_string())).unwrap()
    })
    .await
}

fn plain(server: &Server, username: Option<&str>) -> Access {
    let host = Host {
        username: username.map(str::to_owned),
        password: username.map(|_| Secret::new("p")),
        plain_http: true,
        ..Host::default()
    };
    Access {
        hosts: BTreeMap::from([(server.address.to_string(), host)]),
        ..Access::default()
    }
}

const LAYERS: &[(&str, &[u8])] = &[
    ("text/markdown", b"read me"),
    ("application/vnd.anything", ARCHIVE),
];

#[tokio::test]
async fn an_artifact_gives_the_layer_that_is_the_pack() {
    let server = registry(LAYERS, "").await;
    let at = |what: &str| format!("oci://{}/{what}", server.address);
    let fetched = fetch(plain(&server, None), &at("org/pack:1")).await;
    assert_eq!(fetched.unwrap(), ARCHIVE);
    let fetched = fetch(plain(&server, None), &at("org/pack:2")).await;
    assert!(
        matches!(fetched, Err(FetchError::NotFound(_))),
        "{fetched:?}"
    );
    // Not listed as plain, so it is asked over TLS.
    let fetched = fetch(Access::default(), &at("org/pack:1")).await;
    assert!(
        matches!(fetched, Err(FetchError::Unavailable(_))),
        "{fetched:?}"
    );
}

#[tokio::test]
async fn an_artifact_without_the_pack_says_what_it_has() {
    let server = registry(&[("text/plain", b"another")], "").await;
    let at = format!("oci://{}/org/pack:1", server.address);
    let error = fetch(plain(&server, None), &at).await.unwrap_err();
    assert!(matches!(error, FetchError::NoLayer { .. }), "{error:?}");
    assert!(error.to_string().contains("(text/plain)"), "{error}");
}

#[tokio::test]
async fn a_registry_gets_the_login_of_the_settings() {
    let server = registry(LAYERS, "Basic dTpw").await;
    let at = format!("oci://{}/org/pack:1", server.address);
    let fetched = fetch(plain(&server, Some("u")), &at).await;
    assert_eq!(fetched.unwrap(), ARCHIVE);
    let fetched = fetch(plain(&server, None), &at).await;
    assert!(matches!(fetched, Err(FetchError::Denied(_))), "{fetched:?}");
}
