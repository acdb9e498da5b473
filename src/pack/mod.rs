//! `.gtpack` archives, and the authoring format that they are built from.
//!
//! An archive is a zip with `manifest.cbor` (a `greentic_types::PackManifest` with its flows), `sbom.cbor` (size and
//! BLAKE3 of every other file) and whatever else the pack carries. Its identity is the SHA-256 of its bytes.
//! [`open`] trusts nothing in it; [`build`] makes one from `pack.yaml` and `flows/*.ygtc`, the same bytes every time;
//! [`Resolver`] finds the archive that a gtbind refers to.

mod archive;
mod author;
mod inspect;
mod sbom;
mod store;
mod write;

pub use archive::{ArchiveError, Limits, Pack, open};
pub use author::{BuiltPack, build, parse_flow};
pub use inspect::{FileSummary, FlowSummary, PackSummary};
pub use store::{ResolveError, Resolver};
pub use write::{WriteError, write_archive};
