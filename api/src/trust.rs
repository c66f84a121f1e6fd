//! How far an endpoint believes its peers.

#[doc(inline)]
pub use memit_engine::{FullTrust, Trust};
