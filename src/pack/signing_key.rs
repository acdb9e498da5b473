//! Ed25519 keys, in the texts that people keep them in.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

/// What stands before the 32 bytes of a public key in DER.
const PUBLIC_DER: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// The key of one who may sign packs.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

/// The key that packs are signed with.
pub struct SigningKey(Ed25519KeyPair);

/// A text that is no such key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no Ed25519 {what}: {reason}")]
pub struct InvalidKey {
    what: &'static str,
    reason: String,
}

impl PublicKey {
    /// Whether the holder of this key signed this.
    pub(super) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        key.verify(message, signature).is_ok()
    }

    /// A name for it: the BLAKE3 digest of its bytes, in hex.
    pub fn fingerprint(&self) -> String {
        blake3::hash(&self.0).to_hex().to_string()
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |reason: &str| InvalidKey {
            what: "public key",
            reason: reason.to_owned(),
        };
        let text = text.trim();
        let bytes = if text.starts_with("-----BEGIN ") {
            let der = pem(text, "PUBLIC KEY").map_err(|reason| invalid(&reason))?;
            let key = der.strip_prefix(&PUBLIC_DER);
            key.ok_or_else(|| invalid("it is a key of another kind"))?
                .to_vec()
        } else {
            let decoded = hex::decode(text)
                .ok()
                .or_else(|| STANDARD.decode(text).ok());
            decoded.ok_or_else(|| invalid("it is neither PEM nor hex nor base64"))?
        };
        let bytes = bytes
            .try_into()
            .map_err(|_| invalid("it does not have 32 bytes"))?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for PublicKey {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        STANDARD.encode(key.0)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

impl SigningKey {
    /// Reads a private key as `openssl genpkey -algorithm ed25519` writes it.
    pub fn from_pem(text: &str) -> Result<Self, InvalidKey> {
        let invalid = |reason: String| InvalidKey {
            what: "private key",
            reason,
        };
        let der = pem(text.trim(), "PRIVATE KEY").map_err(invalid)?;
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
        key.map(Self).map_err(|error| invalid(error.to_string()))
    }

    /// The key that its signatures are checked with.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

/// What a PEM text of this label holds.
fn pem(text: &str, label: &str) -> Result<Vec<u8>, String> {
    let body = text
        .strip_prefix(&format!("-----BEGIN {label}-----"))
        .and_then(|rest| {
            rest.trim_end()
                .strip_suffix(&format!("-----END {label}-----"))
        });
    let body = body.ok_or_else(|| format!("expected PEM with the label `{label}`"))?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).map_err(|error| error.to_string())
}
