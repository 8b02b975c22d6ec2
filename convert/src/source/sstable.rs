//! LevelDB's table format, as far as TensorFlow's checkpoint indexes use it.
//!
//! The last 48 bytes, the footer, state where the index block is. The values of the index block state where the
//! data blocks are. A block is a sequence of entries, and each key shares a prefix with the key before it. After
//! every block come one byte (0: plain, 1: snappy) and a masked CRC-32C.

use super::checksum::verify;

const MAGIC: [u8; 8] = 0xdb47_7524_8b80_fb57_u64.to_le_bytes();
const FOOTER: usize = 48;
/// Bytes after a block: compression and checksum.
const TRAILER: usize = 5;
/// Limit for the expansion by snappy, whose copies turn three bytes into at most 64.
const MAX_SNAPPY: usize = 24;

type Problem = String;
/// Keys and values of a block, in order.
pub(super) type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// All entries of a table.
pub(super) fn read(file: &[u8]) -> Result<Entries, Problem> {
    let footer = file
        .len()
        .checked_sub(FOOTER)
        .map(|at| &file[at..])
        .filter(|footer| footer.ends_with(&MAGIC))
        .ok_or("does not end like a table: is the download complete?")?;
    let mut handles = footer;
    handle(&mut handles)?; // the metaindex, which TensorFlow leaves empty
    let index = block(file, handle(&mut handles)?)?;
    let mut all = Entries::new();
    let mut size = 0;
    for (_, value) in index {
        for entry in block(file, handle(&mut value.as_slice())?)? {
            // A hostile index may name one block many times, and keys share prefixes.
            size += entry.0.len() + entry.1.len();
            if size > 64 * file.len() {
                return Err("expands too much".into());
            }
            if all.last().is_some_and(|(last, _)| *last >= entry.0) {
                return Err("its keys are not in order".into());
            }
            all.push(entry);
        }
    }
    Ok(all)
}

/// Offset and size of a block.
fn handle(bytes: &mut &[u8]) -> Result<(usize, usize), Problem> {
    Ok((varint(bytes)?, varint(bytes)?))
}

fn varint(bytes: &mut &[u8]) -> Result<usize, Problem> {
    prost::encoding::decode_varint(bytes)
        .ok()
        .and_then(|v| usize::try_from(v).ok())
        .ok_or_else(|| "has a bad number".into())
}

fn block(file: &[u8], (offset, size): (usize, usize)) -> Result<Entries, Problem> {
    let end = offset
        .checked_add(size)
        .and_then(|end| end.checked_add(TRAILER))
        .filter(|&end| end <= file.len())
        .ok_or("has a block outside the file")?;
    let (body, checksum) = file[offset..end].split_at(size + 1);
    let mut expected = [0; 4];
    expected.copy_from_slice(checksum);
    verify(body, u32::from_le_bytes(expected))?;
    match body.split_last() {
        Some((0, plain)) => entries(plain),
        Some((1, packed)) => {
            let len = snap::raw::decompress_len(packed).map_err(|e| e.to_string())?;
            if len > packed.len().saturating_mul(MAX_SNAPPY) {
                return Err("has a block that expands too much".into());
            }
            let plain = snap::raw::Decoder::new().decompress_vec(packed);
            entries(&plain.map_err(|e| e.to_string())?)
        }
        _ => Err("has a block of unknown compression".into()),
    }
}

fn entries(block: &[u8]) -> Result<Entries, Problem> {
    // The block ends with offsets for binary search and their number.
    let (rest, count) = block.split_last_chunk::<4>().ok_or("has an empty block")?;
    let restarts = 4 * u64::from(u32::from_le_bytes(*count));
    let mut rest = usize::try_from(restarts)
        .ok()
        .and_then(|n| rest.len().checked_sub(n))
        .map(|end| &rest[..end])
        .ok_or("has a block with too many restarts")?;
    let mut key = Vec::new();
    let mut entries = Entries::new();
    let mut size = 0;
    while !rest.is_empty() {
        let shared = varint(&mut rest)?;
        let unshared = varint(&mut rest)?;
        let value = varint(&mut rest)?;
        if shared > key.len() || unshared > rest.len() || value > rest.len() - unshared {
            return Err("has an entry outside its block".into());
        }
        key.truncate(shared);
        key.extend_from_slice(&rest[..unshared]);
        size += key.len();
        if size > 64 * block.len() {
            return Err("has a block that expands too much".into());
        }
        let (value, after) = rest[unshared..].split_at(value);
        entries.push((key.clone(), value.to_vec()));
        rest = after;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_shared() {
        let block = b"\0\x03\x01abcX\x02\x01\x02dYZ\0\0\0\0\x01\0\0\0";
        let expected: Entries =
            vec![(b"abc".to_vec(), b"X".to_vec()), (b"abd".to_vec(), b"YZ".to_vec())];
        assert_eq!(entries(block).unwrap(), expected);
        for n in 0..block.len() - 1 {
            // Cut before its restarts, a block may look like a shorter one, but never panics.
            let _ = entries(&block[..n]);
        }
        assert!(entries(b"\x01\x03\x01abcX\0\0\0\0").is_err());
        assert!(entries(b"\0\x7f\x01abcX\0\0\0\0").is_err());
        assert!(entries(b"\xff\xff\xff\xff").is_err());
    }

    #[test]
    fn a_table_needs_its_footer() {
        assert!(read(b"").is_err());
        assert!(read(&[0; 100]).is_err());
        let mut outside = vec![0xff, 0x7f, 0x10, 0xff, 0x7f, 0x10];
        outside.resize(FOOTER - 8, 0);
        outside.extend_from_slice(&MAGIC);
        assert!(read(&outside).unwrap_err().contains("outside"));
    }
}
