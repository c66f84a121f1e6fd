//! How far an endpoint believes its peers.

pub use memit_engine::{FullTrust, Trust};
