//! Archives that nest as deep as they are told.

/// An archive in which `levels` arrays of values, one in the other, hold a null.
pub(crate) fn arrays(levels: u32) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    for _ in 0..levels {
        bytes.extend([7, 0, 0, 0]);
        bytes.extend((-20_i32).to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend([0; 4]);
    }
    bytes
}
