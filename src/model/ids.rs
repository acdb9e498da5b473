//! Identifiers. Tenant, team, user, flow and node ids are greentic-types' own, which admit ASCII letters, digits,
//! `.`, `_` and `-` only; the pack id is the digest of the archive.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use greentic_types::{EnvId, FlowId, NodeId, TeamId, TenantId, UserId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::header_text;

/// The identity of a pack: the SHA-256 of its archive's bytes. People and gtbinds see `sha256:<hex>`; what is stored
/// through greentic-types, whose ids admit no colon, is `sha256-<hex>` (see [`PackId::stored`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackId([u8; 32]);

/// A text that is not `sha256:` (or, as stored, `sha256-`) followed by 64 lowercase hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a pack id: expected `sha256:` followed by 64 lowercase hexadecimal digits")]
pub struct InvalidPackId(String);

impl PackId {
    /// The id of the archive with these bytes.
    pub fn of_archive(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The form that greentic-types admits, used in sessions and in Redis keys.
    pub fn stored(&self) -> String {
        self.spelled(b"sha256-").as_str().to_owned()
    }

    /// The stored form as greentic-session's `SessionData` takes it.
    #[expect(
        clippy::expect_used,
        reason = "letters, a dash and hex digits are always a valid id"
    )]
    pub fn to_session(&self) -> greentic_types::PackId {
        greentic_types::PackId::new(self.stored()).expect("a digest is a valid identifier")
    }

    #[expect(clippy::expect_used, reason = "each byte has two digits")]
    fn spelled(&self, algorithm: &[u8; 7]) -> Spelled {
        let mut text = [0; 71];
        text[..7].copy_from_slice(algorithm);
        hex::encode_to_slice(self.0, &mut text[7..]).expect("room for each digit");
        Spelled(text)
    }
}

/// A pack id as text. It is on the stack, for a turn names its pack several times.
struct Spelled([u8; 71]);

impl Spelled {
    #[expect(clippy::expect_used, reason = "it is a word and hex digits")]
    fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("ASCII")
    }
}

impl FromStr for PackId {
    type Err = InvalidPackId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPackId(text.to_owned());
        let digits = text
            .strip_prefix("sha256:")
            .or_else(|| text.strip_prefix("sha256-"))
            .ok_or_else(invalid)?;
        if digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid());
        }
        let mut digest = [0; 32];
        hex::decode_to_slice(digits, &mut digest).map_err(|_| invalid())?;
        Ok(Self(digest))
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spelled(b"sha256:").as_str())
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackId({self})")
    }
}

impl Serialize for PackId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.spelled(b"sha256:").as_str())
    }
}

impl<'de> Deserialize<'de> for PackId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// What names a flow: nothing less than all three finds one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// The tenant whose gtbinds bind the pack.
    pub tenant: TenantId,
    /// The pack that holds the flow.
    pub pack: PackId,
    /// The flow inside the pack.
    pub flow: FlowId,
}

/// The name under which a tenant's activity is applied at most once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey {
    text: String,
    /// What the provider sent, where the key is a digest of it.
    original: Option<Arc<str>>,
}

impl IdempotencyKey {
    /// The longest key taken as it is, in bytes; what is longer is replaced by its digest, so that keys in Redis stay
    /// short whatever a provider sends.
    const MAX_LEN: usize = 128;

    /// Makes a key of what the provider sent: any text that is not empty. Short printable text is the key itself,
    /// anything else its digest.
    pub fn new(raw: &str) -> Self {
        let plain = raw.len() <= Self::MAX_LEN && raw.bytes().all(|b| b.is_ascii_graphic());
        if plain && !is_digest_form(raw, "key-") {
            Self {
                text: raw.to_owned(),
                original: None,
            }
        } else {
            Self {
                text: digest_form(raw, "key-"),
                original: Some(raw.into()),
            }
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What the provider sent.
    pub fn original(&self) -> &str {
        self.original.as_deref().unwrap_or(&self.text)
    }

    /// What the provider sent, as a header carries it: see [`header_text`]. The key itself where it is too long for one.
    pub fn header_value(&self) -> Cow<'_, str> {
        header_text(self.original()).unwrap_or(Cow::Borrowed(&self.text))
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The id under which a provider's user is stored: the id itself where greentic-types admits it, else a digest of it
/// (an e-mail address, a name with spaces). Two users never share one: an id that already looks like such a digest is
/// digested too.
pub fn storage_user_id(raw: &str) -> UserId {
    const PREFIX: &str = "u-";
    // A user id of more than 128 bytes would make every key of that user as long.
    if raw.len() <= 128
        && !is_digest_form(raw, PREFIX)
        && let Ok(id) = UserId::new(raw)
    {
        return id;
    }
    #[expect(
        clippy::expect_used,
        reason = "a prefix of letters and a dash before hex digits is always a valid id"
    )]
    UserId::new(digest_form(raw, PREFIX)).expect("a digest is a valid identifier")
}

fn digest_form(raw: &str, prefix: &str) -> String {
    format!("{prefix}{}", hex::encode(Sha256::digest(raw.as_bytes())))
}

fn is_digest_form(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| {
        rest.len() == 64
            && rest
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_id_reads_both_of_its_forms_and_nothing_else() {
        let id = PackId::of_archive(b"archive");
        assert_eq!(id.to_string().parse::<PackId>().unwrap(), id);
        assert_eq!(id.stored().parse::<PackId>().unwrap(), id);
        assert_eq!(id.to_session().as_str(), id.stored());
        for wrong in [
            "",
            "sha256:",
            "sha256:abc",
            "md5:00",
            &id.to_string().to_uppercase(),
            &format!("{id}0"),
        ] {
            assert!(wrong.parse::<PackId>().is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn users_that_are_no_identifiers_get_a_digest_and_none_can_pose_as_another() {
        assert_eq!(storage_user_id("u1").as_str(), "u1");
        let mail = storage_user_id("ada@example.com");
        assert!(mail.as_str().starts_with("u-"), "{mail}");
        assert_ne!(storage_user_id(mail.as_str()), mail);
        assert_ne!(storage_user_id("a b"), storage_user_id("a  b"));
    }

    #[test]
    fn idempotency_keys_stay_short_and_apart() {
        assert_eq!(IdempotencyKey::new("m-1").as_str(), "m-1");
        let long = IdempotencyKey::new(&"x".repeat(4_000));
        assert!(long.as_str().len() < 80);
        assert_ne!(IdempotencyKey::new(long.as_str()), long);
        assert_ne!(IdempotencyKey::new("a\nb"), IdempotencyKey::new("a b"));
    }

    #[test]
    fn an_idempotency_key_knows_what_the_provider_sent() {
        let long = "x".repeat(200);
        for (sent, header) in [
            ("m-1", "m-1"),
            ("50%", "50%25"),
            ("a b", "a b"),
            (long.as_str(), long.as_str()),
        ] {
            let key = IdempotencyKey::new(sent);
            assert_eq!((key.original(), &*key.header_value()), (sent, header));
        }
        let endless = IdempotencyKey::new(&"x".repeat(5_000));
        assert_eq!(endless.original().len(), 5_000);
        assert_eq!(endless.header_value(), endless.as_str());
    }
}
