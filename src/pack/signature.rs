//! Who vouches for an archive.

/// The file in an archive that holds the signature over all its files.
pub(super) const SIGNATURE: &str = "signatures/pack.sig";

/// The certificates that may lie beside it.
pub(super) const SIGNATURE_CHAIN: &str = "signatures/chain.pem";
