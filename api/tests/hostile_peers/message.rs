//! Messages that show when a byte of them is another, or when one is missing.

/// A message with its number, of at least 16 bytes.
pub fn numbered(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    let mut mixed = number ^ 0x9e37_79b9_7f4a_7c15;
    while bytes.len() < len.max(16) {
        mixed = mixed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(len as u64);
        bytes.extend_from_slice(&mixed.to_le_bytes());
    }
    bytes.truncate(len.max(16));
    bytes
}

/// Its number, if it is whole.
pub fn number(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(*bytes.first_chunk()?);
    (numbered(number, bytes.len()) == bytes).then_some(number)
}
