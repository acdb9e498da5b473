//! `*.gtbind` files: which tenant runs which pack, which of its flows, and which variables it sees.
//!
//! [`load`] reads files and folders, [`merge`] makes one [`PackBinding`] of all that is said of a tenant's pack, and
//! [`EnvPolicy`] decides which of the variables that are asked for are granted.

mod env;
mod gtbind;
mod load;
mod merge;
mod owners;
mod rebind;

pub use env::{Denial, EnvPattern, EnvPolicy, InvalidPattern, grant, granted_always};
pub use gtbind::{Entry, GtBind, Origin, render};
pub use load::{Fingerprint, Gtbinds, fingerprint, load};
pub use merge::{PackBinding, merge};
pub use owners::{Owners, UnusableGtbind};
pub use rebind::rebind;
