//! A peer's side of the protocol, written from docs/PROTOCOL.md and not from the engine, so that it checks the document,
//! too. It does nothing wrong by itself.

pub mod handshake;
#[path = "../../common/map.rs"]
pub mod map;
pub mod outbox;
pub mod peer;
pub mod sys;

/// FNV-1a of the payload format's text, plus 1 for the version of dynamic values.
pub fn fingerprint() -> u64 {
    let hash = b"rkyv 0.8 little-endian aligned pointer-32"
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    hash.wrapping_add(1)
}

/// Packs little-endian numbers into a record.
#[derive(Clone, Default)]
pub struct Record(pub Vec<u8>);

impl Record {
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn u16(self, number: u16) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    pub fn u32(self, number: u32) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    pub fn u64(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
