//! Who vouches for an archive: Ed25519 signatures in the two forms that the ecosystem's tools write.
//!
//! One lies in the archive as `signatures/pack.sig` and is over all its files, by their digests in the SBOM. The other
//! is in the manifest and over the manifest alone.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use greentic_types::{Flow, Node, SignatureAlgorithm, decode_pack_manifest, encode_pack_manifest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::component::Description;
use super::manifest::MANIFEST;
use super::open::{ASSETS, Pack};
use super::sbom;
use super::signing_key::{PublicKey, SigningKey};
use super::write::{WriteError, write_zip};
use crate::flow;

/// The file in an archive that holds the signature over all its files.
pub(super) const SIGNATURE: &str = "signatures/pack.sig";

/// The certificates that may lie beside it.
pub(super) const SIGNATURE_CHAIN: &str = "signatures/chain.pem";

const ALGORITHM: &str = "ed25519";

/// How many entries an error names.
const SHOWN: usize = 8;

/// Signatures of one thing always have one text, so that signing twice gives the same archive.
const SIGNED_AT: &str = "1970-01-01T00:00:00Z";

/// What to do about archives that nobody vouches for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Signatures {
    /// How much it matters.
    pub policy: SignaturePolicy,
    /// The keys of those who may vouch: PEM as `openssl pkey -pubout` prints it, or the 32 bytes in hex or base64.
    pub keys: Vec<PublicKey>,
}

/// How much it matters who vouches for an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignaturePolicy {
    /// Nobody looks.
    #[default]
    Off,
    /// What is not signed by one of the keys is warned of.
    Warn,
    /// What is not signed by one of the keys is refused.
    Strict,
}

/// A signature that an archive carries. Whether it holds is another question: [`Pack::vouched`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signed {
    /// What it says of its key.
    pub by: String,
    /// Whether it is over the whole archive, and not the manifest alone.
    pub whole: bool,
}

/// Why nobody vouches for an archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotVouched {
    /// It has no signature.
    #[error("it is not signed")]
    Unsigned,
    /// The signature cannot be read.
    #[error("its signature cannot be read: {0}")]
    Unreadable(String),
    /// It is signed over an SBOM that is not there.
    #[error("it is signed, but has no SBOM that the signature could be over")]
    NoSbom,
    /// It is not what was signed.
    #[error("it is not what was signed")]
    Changed,
    /// None of the keys made the signature.
    #[error("it is signed by `{0}`, which is none of the keys in `packs.signatures.keys`")]
    UnknownKey(String),
    /// The signature leaves out what the worker reads.
    #[error("its signature is over the manifest alone, which does not cover {}", list(.0))]
    ManifestOnly(Vec<String>),
}

impl NotVouched {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unsigned | Self::NoSbom | Self::ManifestOnly(_) => {
                "sign it with `greentic-worker pack sign`, and put the new pack_id into the gtbind"
            }
            Self::Unreadable(_) | Self::Changed => {
                "do not use this archive: it was changed after it was signed, or never signed as a whole"
            }
            Self::UnknownKey(_) => {
                "add the publisher's public key to packs.signatures.keys, if you trust it"
            }
        }
    }
}

/// The file with the signature over an archive.
#[derive(Deserialize, Serialize)]
struct Envelope {
    alg: String,
    sig: String,
    digest: String,
    #[serde(default)]
    signed_at_utc: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_fingerprint: Option<String>,
}

impl Pack {
    /// The signatures that it carries.
    pub fn signatures(&self) -> Vec<Signed> {
        let whole = self.files.get(SIGNATURE).map(|bytes| {
            let envelope: Option<Envelope> = serde_json::from_slice(bytes).ok();
            Signed {
                by: key_name(envelope.and_then(|envelope| envelope.key_fingerprint)),
                whole: true,
            }
        });
        let of_manifest = self
            .manifest
            .signatures
            .signatures
            .iter()
            .map(|signature| Signed {
                by: signature.key_id.clone(),
                whole: false,
            });
        whole.into_iter().chain(of_manifest).collect()
    }

    /// Whether a holder of one of these keys signed everything in it that the worker reads.
    pub fn vouched(&self, keys: &[PublicKey]) -> Result<(), NotVouched> {
        match self.archive_signed(keys) {
            Some(Ok(())) => Ok(()),
            whole => match (whole, self.manifest_signed(keys)) {
                (_, Ok(())) => Ok(()),
                (Some(Err(error)), Err(_)) | (_, Err(error)) => Err(error),
            },
        }
    }

    fn archive_signed(&self, keys: &[PublicKey]) -> Option<Result<(), NotVouched>> {
        let envelope = self.files.get(SIGNATURE)?;
        let check = || {
            let unreadable =
                |reason: &dyn std::fmt::Display| NotVouched::Unreadable(reason.to_string());
            let envelope: Envelope =
                serde_json::from_slice(envelope).map_err(|error| unreadable(&error))?;
            if !envelope.alg.eq_ignore_ascii_case(ALGORITHM) {
                return Err(unreadable(&format!(
                    "`{}` is not `{ALGORITHM}`",
                    envelope.alg
                )));
            }
            let digest = digest(&self.files).ok_or(NotVouched::NoSbom)?;
            if !digest.to_hex().eq_ignore_ascii_case(&envelope.digest) {
                return Err(NotVouched::Changed);
            }
            let signature = URL_SAFE_NO_PAD
                .decode(envelope.sig.trim_end_matches('='))
                .map_err(|error| unreadable(&error))?;
            let made_it = |key: &PublicKey| key.signed(digest.as_bytes(), &signature);
            if keys.iter().any(made_it) {
                Ok(())
            } else {
                Err(NotVouched::UnknownKey(key_name(envelope.key_fingerprint)))
            }
        };
        Some(check())
    }

    fn manifest_signed(&self, keys: &[PublicKey]) -> Result<(), NotVouched> {
        let signatures = &self.manifest.signatures.signatures;
        let Some(first) = signatures.first() else {
            return Err(NotVouched::Unsigned);
        };
        let message = self.unsigned_manifest().ok_or(NotVouched::Changed)?;
        let signed = signatures.iter().any(|signature| {
            signature.algorithm == SignatureAlgorithm::Ed25519
                && keys
                    .iter()
                    .any(|key| key.signed(&message, &signature.signature))
        });
        if !signed {
            return Err(NotVouched::UnknownKey(first.key_id.clone()));
        }
        let loose = self.beyond_manifest();
        match loose.is_empty() {
            true => Ok(()),
            false => Err(NotVouched::ManifestOnly(loose)),
        }
    }

    /// The entries that decide what the pack does and that the manifest neither holds nor has the digest of, in order. An
    /// entry that is not there is one of them if it would be read.
    fn beyond_manifest(&self) -> Vec<String> {
        let mut loose = BTreeSet::new();
        for component in &self.components {
            if !component.pinned {
                loose.extend(component.file().map(str::to_owned));
            }
            match &component.description {
                Description::Manifest => {}
                Description::File(path) | Description::Missing(path) => {
                    loose.insert(path.clone());
                }
            }
        }
        let assets = self.files.keys().filter(|path| path.starts_with(ASSETS));
        loose.extend(assets.cloned());
        let flows = &self.manifest.flows;
        if flows.iter().any(|entry| reads_assets(&entry.flow)) {
            loose.insert(ASSETS.to_owned());
        }
        loose.into_iter().collect()
    }

    /// The manifest as it was before it was signed, in the only form that is.
    fn unsigned_manifest(&self) -> Option<Vec<u8>> {
        let mut manifest = decode_pack_manifest(self.files.get(MANIFEST)?).ok()?;
        manifest.signatures.signatures.clear();
        encode_pack_manifest(&manifest).ok()
    }
}

/// Returns whether a flow may show what lies below `assets/`: then it matters which files are there, and which are not.
fn reads_assets(flow: &Flow) -> bool {
    let node_reads = |node: &Node| {
        let called = [
            Some(node.component.id.as_str()),
            node.input.mapping.get("component").and_then(Value::as_str),
            node.input
                .mapping
                .get("component_ref")
                .and_then(Value::as_str),
        ];
        called.into_iter().flatten().any(flow::is_card_component)
            || names_asset(&node.input.mapping)
    };
    flow.nodes.values().any(node_reads)
}

/// Returns whether a mapping names a card of the pack, at any depth. A template may, too.
fn names_asset(value: &Value) -> bool {
    const FIELDS: [&str; 5] = [
        "asset_path",
        "card_source",
        "card_spec",
        "default_card_asset",
        "default_source",
    ];
    match value {
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| FIELDS.contains(&name.as_str()) || names_asset(value)),
        Value::Array(items) => items.iter().any(names_asset),
        Value::String(text) => text.contains(ASSETS),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The first of these entries, and how many more there are.
fn list(entries: &[String]) -> String {
    let shown: Vec<_> = entries
        .iter()
        .take(SHOWN)
        .map(|entry| format!("`{}`", entry.escape_debug()))
        .collect();
    let shown = shown.join(", ");
    match entries.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Signs an opened pack as a whole. The certificates, if any, are for other programs; this one goes by the key.
pub fn sign(
    mut pack: Pack,
    key: &SigningKey,
    chain: Option<Vec<u8>>,
) -> Result<Vec<u8>, WriteError> {
    let files = &mut pack.files;
    if sbom::file_of(files).is_none() {
        sbom::add(files)?;
    }
    let failed = |reason: String| WriteError::Encode {
        entry: SIGNATURE,
        reason,
    };
    let digest = digest(files).ok_or_else(|| failed("there is no SBOM".to_owned()))?;
    let envelope = Envelope {
        alg: ALGORITHM.to_owned(),
        sig: URL_SAFE_NO_PAD.encode(key.sign(digest.as_bytes())),
        digest: digest.to_hex().to_string(),
        signed_at_utc: SIGNED_AT.to_owned(),
        key_fingerprint: Some(key.public().fingerprint()),
    };
    let envelope = serde_json::to_vec_pretty(&envelope).map_err(|e| failed(e.to_string()))?;
    files.insert(SIGNATURE.to_owned(), envelope);
    match chain {
        Some(chain) => files.insert(SIGNATURE_CHAIN.to_owned(), chain),
        None => files.remove(SIGNATURE_CHAIN),
    };
    write_zip(files)
}

/// What a signature over an archive signs: its manifest, its SBOM, and the path and digest of each file in it.
fn digest(files: &BTreeMap<String, Vec<u8>>) -> Option<blake3::Hash> {
    let mut listed = sbom::digests(files)?;
    listed.sort();
    let mut hasher = blake3::Hasher::new();
    hasher.update(files.get(MANIFEST)?);
    hasher.update(files.get(sbom::file_of(files)?)?);
    for (path, digest) in listed {
        hasher.update(path.as_bytes());
        hasher.update(b"\n");
        hasher.update(digest.as_bytes());
    }
    Some(hasher.finalize())
}

fn key_name(fingerprint: Option<String>) -> String {
    fingerprint.unwrap_or_else(|| "an unnamed key".to_owned())
}

#[cfg(test)]
mod tests;
