//! Operands that end where memory ends: reading or writing one byte past them is a fault.

use std::ops::{Deref, DerefMut};

use crate::lanes::Plain;

/// A slice whose last element is followed by memory that cannot be touched (where the system has
/// files that can be mapped past their end; elsewhere a plain vector).
pub struct Guarded<T: Plain> {
    #[cfg(unix)]
    map: memmap2::MmapMut,
    #[cfg(unix)]
    start: usize,
    #[cfg(unix)]
    values: std::marker::PhantomData<T>,
    #[cfg(unix)]
    length: usize,
    #[cfg(not(unix))]
    values: Vec<T>,
}

impl<T: Plain> Guarded<T> {
    pub fn filled(value: T, length: usize) -> Self {
        Self::new(&vec![value; length])
    }
}

#[cfg(not(unix))]
impl<T: Plain> Guarded<T> {
    pub fn new(values: &[T]) -> Self {
        Self { values: values.to_vec() }
    }
}

#[cfg(not(unix))]
impl<T: Plain> Deref for Guarded<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.values
    }
}

#[cfg(not(unix))]
impl<T: Plain> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values
    }
}

/// Larger than any page, so that the guard is at least one.
#[cfg(unix)]
const GUARD: usize = 1 << 16;
/// The file that is mapped past its end; more than any operand.
#[cfg(unix)]
const FILE: usize = 1 << 26;

#[cfg(unix)]
fn file() -> &'static std::fs::File {
    static FILE_ONCE: std::sync::OnceLock<std::fs::File> = std::sync::OnceLock::new();
    FILE_ONCE.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("bertlet-guard-{}", std::process::id()));
        let mut options = std::fs::File::options();
        let file = options.read(true).write(true).create_new(true).open(&path).expect("a new file");
        file.set_len(FILE as u64).expect("a sparse file");
        std::fs::remove_file(&path).expect("removing it leaves it open");
        file
    })
}

#[cfg(unix)]
impl<T: Plain> Guarded<T> {
    pub fn new(values: &[T]) -> Self {
        let bytes = size_of_val(values);
        assert!(bytes <= FILE);
        let pages = bytes.next_multiple_of(GUARD);
        // SAFETY: the file has no name and is written by nobody; the map is private. Touching the
        // part past its end raises SIGBUS, which is what it is for.
        let map = unsafe {
            memmap2::MmapOptions::new()
                .offset((FILE - pages) as u64)
                .len(pages + GUARD)
                .map_copy(file())
                .expect("a private map")
        };
        let mut guarded = Self {
            map,
            start: pages - bytes,
            values: std::marker::PhantomData,
            length: values.len(),
        };
        guarded.copy_from_slice(values);
        guarded
    }
}

#[cfg(unix)]
impl<T: Plain> Deref for Guarded<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `length` values of `T` end where the file ends; any bytes are a `T`. The end is
        // aligned to a page, so the start is aligned to `T`, whose size is a multiple of its
        // alignment.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.start).cast(), self.length) }
    }
}

#[cfg(unix)]
impl<T: Plain> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; the map is writable and borrowed mutably.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.map.as_mut_ptr().add(self.start).cast(),
                self.length,
            )
        }
    }
}
