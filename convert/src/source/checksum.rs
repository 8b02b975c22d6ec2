//! The checksum of TensorFlow's checkpoints and of LevelDB's tables: a masked CRC-32C.

/// What masking adds to a rotated checksum.
const MASK_DELTA: u32 = 0xa282_ead8;

/// Compares `bytes` with their masked CRC-32C.
pub(super) fn verify(bytes: &[u8], masked: u32) -> Result<(), String> {
    match self::masked(bytes) == masked {
        true => Ok(()),
        false => Err("its checksum is wrong: the file is damaged".into()),
    }
}

/// The CRC-32C of `bytes`, masked as LevelDB does: rotated right by 15 bits, plus a constant.
pub(super) fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(MASK_DELTA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_a_masked_crc32c() {
        // The check value of the CRC catalogue.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        let masked = 0xe306_9283_u32.rotate_right(15).wrapping_add(MASK_DELTA);
        assert!(verify(b"123456789", masked).is_ok());
        assert!(verify(b"123456780", masked).is_err());
    }
}
