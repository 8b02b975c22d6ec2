//! Arrays of vectors as `npy` and `safetensors` files. Vectors are written as they come, so memory does
//! not grow with their number, except by four bytes per text in [`Ragged`].

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::str::FromStr;

use bertlet::AtomicFile;

use crate::failure::Failure;
use crate::output::{create, name};

/// How vectors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON, one object per line.
    Jsonl,
    /// NumPy's format, version 1.0.
    Npy,
    /// <https://github.com/huggingface/safetensors>.
    Safetensors,
}

impl FromStr for Format {
    type Err = &'static str;
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "jsonl" => Ok(Self::Jsonl),
            "npy" => Ok(Self::Npy),
            "safetensors" => Ok(Self::Safetensors),
            _ => Err("no such format; try jsonl, npy or safetensors"),
        }
    }
}

/// Bytes of the header of [`Rows`], enough for any number of rows.
const HEADER: usize = 128;

/// One array `[rows, width]`, whose header is completed when the number of rows is known.
pub struct Rows {
    name: String,
    out: AtomicFile,
    /// The same file after its header, or, where that cannot be completed later, a file of their own.
    values: BufWriter<File>,
    format: Format,
    width: usize,
    rows: u64,
}

impl Rows {
    pub fn create(path: &Path, format: Format, width: usize) -> Result<Self, Failure> {
        let (name, mut out) = (name(path), create(path)?);
        let values = match out.temporary_path() {
            Some(_) => out.write_all(&[0; HEADER]).and_then(|()| out.file().try_clone()),
            None => out.spool(),
        };
        let values = values.map_err(|error| Failure::write(&name, &error))?;
        let values = BufWriter::with_capacity(1 << 16, values);
        Ok(Self { name, out, values, format, width, rows: 0 })
    }

    pub fn push(&mut self, row: &[f32]) -> Result<(), Failure> {
        self.rows += 1;
        write_floats(&mut self.values, row).map_err(|error| Failure::write(&self.name, &error))
    }

    pub fn finish(mut self) -> Result<(), Failure> {
        let header = match self.format {
            Format::Safetensors => safetensors_header(self.rows, self.width),
            _ => npy_header(self.rows, self.width),
        };
        let complete = || {
            self.values.flush()?;
            if self.out.temporary_path().is_some() {
                self.out.file().seek(SeekFrom::Start(0))?;
                self.out.write_all(&header)?;
            } else {
                self.out.write_all(&header)?;
                copy(self.values.get_mut(), self.out.file())?;
            }
            self.out.finish()
        };
        complete().map_err(|error| Failure::write(&self.name, &error))
    }
}

fn npy_header(rows: u64, width: usize) -> Vec<u8> {
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((HEADER as u16 - 10).to_le_bytes());
    let shape = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    header.extend(shape.bytes());
    header.resize(HEADER - 1, b' ');
    header.push(b'\n');
    header
}

fn safetensors_header(rows: u64, width: usize) -> Vec<u8> {
    let mut header = (HEADER as u64 - 8).to_le_bytes().to_vec();
    let bytes = rows * width as u64 * 4;
    let table = format!(
        "{{\"embeddings\":{{\"dtype\":\"F32\",\"shape\":[{rows},{width}],\"data_offsets\":[0,{bytes}]}}}}"
    );
    header.extend(table.bytes());
    header.resize(HEADER, b' ');
    header
}

fn write_floats(out: &mut impl Write, values: &[f32]) -> io::Result<()> {
    values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
}

/// The longest header that readers of safetensors accept, in bytes.
const LONGEST_HEADER: usize = 100_000_000;

/// One array `[tokens, width]` per text, named `0`, `1` and so on. The header of a safetensors file
/// comes first and names them all, so the values wait in a file of their own.
pub struct Ragged {
    name: String,
    out: AtomicFile,
    values: BufWriter<File>,
    width: usize,
    tokens: Vec<u32>,
}

impl Ragged {
    pub fn create(path: &Path, width: usize) -> Result<Self, Failure> {
        let (name, out) = (name(path), create(path)?);
        let values = out.spool().map_err(|error| Failure::write(&name, &error))?;
        let values = BufWriter::with_capacity(1 << 16, values);
        Ok(Self { name, out, values, width, tokens: Vec::new() })
    }

    pub fn push(&mut self, rows: &[f32]) -> Result<(), Failure> {
        self.tokens.push((rows.len() / self.width) as u32);
        write_floats(&mut self.values, rows).map_err(|error| Failure::write(&self.name, &error))
    }

    pub fn finish(mut self) -> Result<(), Failure> {
        let mut header = String::from("{");
        let mut end = 0;
        for (i, tokens) in self.tokens.iter().enumerate() {
            let (start, width) = (end, self.width);
            end += u64::from(*tokens) * width as u64 * 4;
            let comma = if i == 0 { "" } else { "," };
            header.push_str(&format!(
                "{comma}\"{i}\":{{\"dtype\":\"F32\",\"shape\":[{tokens},{width}],\"data_offsets\":[{start},{end}]}}"
            ));
            if header.len() > LONGEST_HEADER {
                return Err(Failure::work(
                    &self.name,
                    "too many texts for one safetensors file; use --format jsonl, or several files",
                ));
            }
        }
        header.push('}');
        // Values start at a multiple of eight.
        header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));

        let complete = || {
            self.values.flush()?;
            self.out.write_all(&(header.len() as u64).to_le_bytes())?;
            self.out.write_all(header.as_bytes())?;
            copy(self.values.get_mut(), self.out.file())?;
            self.out.finish()
        };
        complete().map_err(|error| Failure::write(&self.name, &error))
    }
}

/// Copies a file that has been written from its start.
fn copy(from: &mut File, to: &mut File) -> io::Result<()> {
    from.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            n => to.write_all(&buffer[..n])?,
        }
    }
}
