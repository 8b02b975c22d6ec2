//! Pointers from C into references, or a status that says what is wrong with them.

use core::ffi::c_char;
use core::mem::MaybeUninit;

use super::Status;
use crate::kernels::{I8x64, take};

/// An address that is not NULL.
pub fn address<T>(pointer: *const T) -> Result<(), Status> {
    if pointer.is_null() { Err(Status::NullPointer) } else { Ok(()) }
}

fn aligned<T>(pointer: *const T) -> Result<(), Status> {
    address(pointer)?;
    if pointer.is_aligned() { Ok(()) } else { Err(Status::Misaligned) }
}

/// # Safety
/// As `&*pointer`, unless it is NULL or misaligned.
pub unsafe fn shared<'a, T>(pointer: *const T) -> Result<&'a T, Status> {
    aligned(pointer)?;
    // SAFETY: the caller's promise.
    Ok(unsafe { &*pointer })
}

/// # Safety
/// As `&mut *pointer`, unless it is NULL or misaligned.
pub unsafe fn unique<'a, T>(pointer: *mut T) -> Result<&'a mut T, Status> {
    aligned(pointer)?;
    // SAFETY: the caller's promise.
    Ok(unsafe { &mut *pointer })
}

/// Where an answer is written, whatever is there now.
///
/// # Safety
/// It can be written, unless it is NULL or misaligned.
pub unsafe fn target<'a, T>(pointer: *mut T) -> Result<&'a mut MaybeUninit<T>, Status> {
    // SAFETY: the caller's promise.
    unsafe { unique(pointer.cast()) }
}

/// Writes an answer that the caller may not want: then the pointer is NULL.
///
/// # Safety
/// It can be written, unless it is NULL or misaligned.
pub unsafe fn answer<T>(pointer: *mut T, value: T) -> Result<(), Status> {
    if !pointer.is_null() {
        // SAFETY: the caller's promise.
        unsafe { target(pointer) }?.write(value);
    }
    Ok(())
}

fn check<T>(pointer: *const T, length: usize) -> Result<(), Status> {
    aligned(pointer)?;
    match length.checked_mul(size_of::<T>()) {
        Some(bytes) if bytes <= isize::MAX as usize => Ok(()),
        _ => Err(Status::WrongCount),
    }
}

/// `length` values. If that is 0, the pointer may be NULL.
///
/// # Safety
/// `length` values are there, unless the pointer is NULL or misaligned.
pub unsafe fn slice<'a, T>(pointer: *const T, length: usize) -> Result<&'a [T], Status> {
    if length == 0 {
        return Ok(&[]);
    }
    check(pointer, length)?;
    // SAFETY: the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts(pointer, length) })
}

/// [`slice()`], to be written.
///
/// # Safety
/// There is memory for `length` values, any bytes are valid values, and nothing else uses them, unless the
/// pointer is NULL or misaligned.
pub unsafe fn slice_mut<'a, T>(pointer: *mut T, length: usize) -> Result<&'a mut [T], Status> {
    if length == 0 {
        return Ok(&mut []);
    }
    check(pointer, length)?;
    // SAFETY: the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts_mut(pointer, length) })
}

/// An array that a call fills. Its count is the number of elements that there is room for, then that of
/// the answer.
pub struct Array<'a, T> {
    values: &'a mut [T],
    room: usize,
    count: &'a mut usize,
    /// There is no array: the caller asks for the number only.
    asked: bool,
}

impl<'a, T> Array<'a, T> {
    /// # Safety
    /// `count` can be read and written, and `values` is as [`slice_mut`] demands for `*count` values.
    pub unsafe fn new(values: *mut T, count: *mut usize) -> Result<Self, Status> {
        // SAFETY: the caller's promise.
        unsafe {
            let count = unique(count)?;
            let (room, asked) = (*count, values.is_null() && *count == 0);
            Ok(Self { values: slice_mut(values, room)?, room, count, asked })
        }
    }

    /// The elements that an answer of `need` fills. If there is too little room, tells the need; `None` if
    /// that is all that the caller asks.
    pub fn fit(&mut self, need: usize) -> Result<Option<&'a mut [T]>, Status> {
        if need <= self.room && !self.asked {
            return Ok(Some(&mut core::mem::take(&mut self.values)[..need]));
        }
        *self.count = need;
        if self.asked { Ok(None) } else { Err(Status::BufferTooSmall) }
    }

    /// The elements that there is room for, for answers whose number is not known before.
    pub fn values(&mut self) -> &mut [T] {
        self.values
    }

    /// Tells the number of elements of the answer, which is an error if there was too little room.
    pub fn finish(self, need: usize) -> Result<(), Status> {
        *self.count = need;
        if self.asked || need <= self.room { Ok(()) } else { Err(Status::BufferTooSmall) }
    }
}

/// A text of `length` bytes.
///
/// # Safety
/// As [`slice()`].
pub unsafe fn utf8<'t>(text: *const c_char, length: usize) -> Result<&'t str, Status> {
    if length != 0 {
        address(text)?;
    }
    // Offsets have 32 bits.
    if u32::try_from(length).is_err() || isize::try_from(length).is_err() {
        return Err(Status::TextTooLong);
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { slice(text.cast(), length) }?;
    core::str::from_utf8(bytes).map_err(|_| Status::InvalidUtf8)
}

/// Takes room for `count` values off the front of `rest`, at the next multiple of 64.
pub fn place<T>(rest: &mut &'static mut [u8], count: usize) -> Result<*mut T, Status> {
    const { assert!(align_of::<T>() <= 64) };
    let bytes = size_of::<T>().checked_mul(count).ok_or(Status::BufferTooSmall)?;
    let blocks = take::<I8x64>(rest, bytes.div_ceil(64)).ok_or(Status::BufferTooSmall)?;
    Ok(blocks.as_mut_ptr().cast())
}

/// Writes `count` default values.
///
/// # Safety
/// `values` is from [`place`] for `count` values, and nothing else uses them.
pub unsafe fn prepare<T: Copy + Default>(values: *mut T, count: usize) -> &'static mut [T] {
    // SAFETY: there is room for `count` values, and they are written before they are used as such.
    unsafe {
        core::slice::from_raw_parts_mut(values.cast::<MaybeUninit<T>>(), count)
            .fill(MaybeUninit::new(T::default()));
        core::slice::from_raw_parts_mut(values, count)
    }
}

/// The path that C means by these bytes: any on Unix, UTF-8 elsewhere.
#[cfg(feature = "std")]
pub fn path(path: &core::ffi::CStr) -> Result<&std::path::Path, Status> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        Ok(std::ffi::OsStr::from_bytes(path.to_bytes()).as_ref())
    }
    #[cfg(not(unix))]
    path.to_str().map(AsRef::as_ref).map_err(|_| Status::InvalidUtf8)
}

/// Writes `text` and a NUL, cut at the end of a character to what `room` holds.
#[cfg(feature = "std")]
pub fn write_message(room: &mut [u8], text: &impl std::fmt::Display) {
    let Some(most) = room.len().checked_sub(1) else { return };
    let text = text.to_string();
    let text = &text.as_bytes()[..text.floor_char_boundary(most)];
    room[..text.len()].copy_from_slice(text);
    room[text.len()] = 0;
}
