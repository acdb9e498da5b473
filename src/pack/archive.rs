//! How much of an archive is taken, and why one is not.

use zip::result::ZipError;

use crate::model::PackId;

/// How much of an archive is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The archive itself, in bytes.
    pub archive_bytes: u64,
    /// The files in it.
    pub files: usize,
    /// All files in it together, unpacked, in bytes.
    pub unpacked_bytes: u64,
    /// A file's unpacked size over its packed size; files up to 1 MiB are not held to it.
    pub compression_ratio: u64,
    /// The components in it.
    pub components: usize,
    /// The code of one of them, in bytes.
    pub component_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            archive_bytes: 64 << 20,
            files: 4_096,
            unpacked_bytes: 256 << 20,
            compression_ratio: 100,
            components: 128,
            component_bytes: 48 << 20,
        }
    }
}

/// Why an archive is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Another archive than the one that was asked for.
    #[error("the archive is {found}, not {expected}")]
    Identity {
        /// The pack id that was asked for.
        expected: PackId,
        /// What the archive's digest is.
        found: PackId,
    },
    /// Larger than [`Limits::archive_bytes`].
    #[error("the archive has {bytes} bytes, more than the {limit} that are taken")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Not a zip archive, or a broken one.
    #[error("this is not a readable zip archive: {0}")]
    NotZip(#[source] ZipError),
    /// More than [`Limits::files`].
    #[error("the archive has {files} files, more than the {limit} that are taken")]
    TooManyFiles {
        /// Their number.
        files: usize,
        /// The limit.
        limit: usize,
    },
    /// Two entries have one name.
    #[error("the archive holds `{entry}` twice")]
    Duplicate {
        /// The name.
        entry: String,
    },
    /// A path that leads out of the archive, or may be read as such somewhere.
    #[error("the entry `{entry}` has an unsafe path: {reason}")]
    UnsafePath {
        /// The path.
        entry: String,
        /// What is unsafe about it.
        reason: &'static str,
    },
    /// A link, device or other thing that is no file.
    #[error("the entry `{entry}` is a link or another special file")]
    NotAFile {
        /// Its path.
        entry: String,
    },
    /// It cannot be unpacked.
    #[error("the entry `{entry}` cannot be unpacked: {source}")]
    Entry {
        /// Its path.
        entry: String,
        /// Why not.
        source: ZipError,
    },
    /// With this entry, more than [`Limits::unpacked_bytes`].
    #[error(
        "with the entry `{entry}` the archive unpacks to more than the {limit} bytes that are taken"
    )]
    UnpackedTooLarge {
        /// Its path.
        entry: String,
        /// The limit.
        limit: u64,
    },
    /// More than [`Limits::compression_ratio`].
    #[error("the entry `{entry}` unpacks to more than {limit} times its packed size")]
    OverCompressed {
        /// Its path.
        entry: String,
        /// The limit.
        limit: u64,
    },
    /// A file that every pack has.
    #[error("the archive has no `{entry}`")]
    Missing {
        /// Its path.
        entry: &'static str,
    },
    /// The SBOM cannot be read.
    #[error("`{entry}` cannot be read: {reason}")]
    SbomUnreadable {
        /// The SBOM's path.
        entry: &'static str,
        /// Why not.
        reason: String,
    },
    /// The SBOM and the file differ.
    #[error("the entry `{entry}` does not match the SBOM: {reason}")]
    SbomMismatch {
        /// The file's path.
        entry: String,
        /// What differs.
        reason: String,
    },
    /// A pack of the ecosystem's designer, which has another manifest.
    #[error(
        "the archive has a `manifest.json` and no `manifest.cbor`: the designer wrote it, for agents"
    )]
    Designer,
    /// A flow's own file cannot be read.
    #[error("the flow in `{entry}` cannot be read: {reason}")]
    FlowFile {
        /// Its path.
        entry: String,
        /// Why not.
        reason: String,
    },
    /// A component's code is not what the manifest says it is.
    #[error(
        "`{entry}` is not the code that the manifest names for component `{component}`: it has another digest"
    )]
    ComponentMismatch {
        /// The component.
        component: String,
        /// The file.
        entry: String,
    },
    /// More than [`Limits::components`].
    #[error("the pack has {components} components, more than the {limit} that are taken")]
    TooManyComponents {
        /// Their number.
        components: usize,
        /// The limit.
        limit: usize,
    },
    /// More than [`Limits::component_bytes`].
    #[error("component `{component}` has {bytes} bytes, more than the {limit} that are taken")]
    ComponentTooLarge {
        /// The component.
        component: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The manifest cannot be read.
    #[error("`manifest.cbor` cannot be read: {reason}")]
    Manifest {
        /// Why not.
        reason: String,
    },
}

impl ArchiveError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Identity { .. } => {
                "if this archive is the right one, put its id into the gtbind; if not, the store holds another one under this name"
            }
            Self::TooLarge { .. }
            | Self::TooManyFiles { .. }
            | Self::UnpackedTooLarge { .. }
            | Self::TooManyComponents { .. }
            | Self::ComponentTooLarge { .. } => {
                "leave build output and other ballast out of the pack"
            }
            Self::Designer => "give this pack to a worker that drives agents",
            Self::NotZip(_) | Self::Entry { .. } => "fetch or build the archive again",
            Self::Missing { .. } | Self::Manifest { .. } | Self::FlowFile { .. } => {
                "build the archive with `greentic-worker pack build` or greentic-pack"
            }
            Self::Duplicate { .. }
            | Self::UnsafePath { .. }
            | Self::NotAFile { .. }
            | Self::OverCompressed { .. }
            | Self::ComponentMismatch { .. }
            | Self::SbomUnreadable { .. }
            | Self::SbomMismatch { .. } => {
                "do not use this archive: it was changed after it was built, or built to do harm"
            }
        }
    }
}
