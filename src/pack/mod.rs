//! `.gtpack` archives, and the authoring format that they are built from.
//!
//! An archive is a zip with `manifest.cbor` (a `greentic_types::PackManifest` with its flows), `sbom.cbor` (size and
//! BLAKE3 of every other file), the code of its components, and whatever else the pack carries. Its identity is the
//! SHA-256 of its bytes. `docs/pack-format.md` says what is read and from where.
//! [`open`] trusts nothing in it; [`build`] makes one from `pack.yaml` and `flows/*.ygtc`, the same bytes every time;
//! [`Resolver`] finds the archive that a gtbind refers to; [`Cache`] keeps archives by their ids.

mod archive;
mod author;
mod cache;
mod component;
mod inspect;
mod manifest;
mod older;
mod open;
mod runtime_flows;
mod sbom;
mod signature;
mod signing_key;
mod store;
mod unpack;
mod write;

pub use archive::{ArchiveError, Limits};
pub use author::{BuiltPack, build, parse_flow, place_of};
pub use cache::Cache;
pub use component::{Code, Component, Description};
pub use inspect::{ComponentSummary, ExtensionSummary, FileSummary, FlowSummary, PackSummary};
pub use open::{Pack, open};
pub use sbom::Listing;
pub use signature::{NotVouched, SignaturePolicy, Signatures, Signed, sign};
pub use signing_key::{InvalidKey, PublicKey, SigningKey};
pub use store::{NotFetched, ResolveError, Resolver};
pub use write::{WriteError, write_archive};
