//! Bytes, or changes to small checkpoints, to every reader of the converter.
#![no_main]

mod support;

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::OnceLock;

use bertlet_convert::source::{OpenOptions, open};
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

macro_rules! fixture {
    ($path:literal) => {
        include_bytes!(concat!("../../../convert/tests/fixtures/", $path)).as_slice()
    };
}

/// The names that weights files have.
const NAMES: [&str; 4] =
    ["model.safetensors", "pytorch_model.bin", "bert_model.ckpt.index", "tokenizer.json"];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder")).path();
    for name in NAMES {
        let _ = fs::remove_file(folder.join(name));
    }
    let changed = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        support::change(&mut bytes, data);
        bytes
    };
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("written");
    write("config.json", fixture!("micro/config.json"));
    write("vocab.txt", fixture!("micro/vocab.txt"));
    match mode % 15 {
        0 => write("model.safetensors", data),
        1 => write(
            "model.safetensors",
            &changed(fixture!("formats/f16-safetensors/model.safetensors")),
        ),
        2 => {
            let mut file = (data.len() as u64).to_le_bytes().to_vec();
            file.extend(data);
            file.resize(file.len() + 64, 0);
            write("model.safetensors", &file);
        }
        3 => write("pytorch_model.bin", data),
        4 => write("pytorch_model.bin", &changed(fixture!("formats/f16-pt-zip/pytorch_model.bin"))),
        5 => write("pytorch_model.bin", &changed(fixture!("formats/pt-legacy/pytorch_model.bin"))),
        6 => write("pytorch_model.bin", &archive(data)),
        7 => write("pytorch_model.bin", &archive(&changed(pickle()))),
        8 | 9 => {
            let index = fixture!("formats/tf1/bert_model.ckpt.index");
            write("bert_config.json", fixture!("formats/tf1/bert_config.json"));
            write("bert_model.ckpt.data-00000-of-00001", tensorflow_data());
            let index = if mode % 15 == 8 { data.to_vec() } else { changed(index) };
            write("bert_model.ckpt.index", &index);
        }
        10 => {
            write("config.json", data);
            write("model.safetensors", fixture!("formats/f16-safetensors/model.safetensors"));
        }
        11 => {
            write("config.json", &changed(fixture!("micro/config.json")));
            write("model.safetensors", fixture!("formats/f16-safetensors/model.safetensors"));
        }
        12 => {
            write("tokenizer.json", &changed(fixture!("micro/tokenizer.json")));
            write("model.safetensors", fixture!("formats/f16-safetensors/model.safetensors"));
        }
        13 => {
            write("vocab.txt", data);
            write("model.safetensors", fixture!("formats/f16-safetensors/model.safetensors"));
        }
        _ => {
            write("tokenizer.json", data);
            write("model.safetensors", fixture!("formats/f16-safetensors/model.safetensors"));
        }
    }
    read(folder);
});

fn tensorflow_data() -> &'static [u8] {
    fixture!("formats/tf1/bert_model.ckpt.data-00000-of-00001")
}

/// The program inside of a PyTorch archive.
fn pickle() -> &'static [u8] {
    static PICKLE: OnceLock<Vec<u8>> = OnceLock::new();
    PICKLE.get_or_init(|| {
        let file = Cursor::new(fixture!("formats/pt-zip/pytorch_model.bin"));
        let mut archive = zip::ZipArchive::new(file).expect("a zip file");
        let is_program = |i: &usize| {
            matches!(archive.name_for_index(*i), Some(Ok(name)) if name.ends_with("data.pkl"))
        };
        let index = (0..archive.len()).find(is_program).expect("a program");
        let mut bytes = Vec::new();
        let mut file = archive.by_index(index).expect("it is there");
        std::io::copy(&mut file, &mut bytes).expect("readable");
        bytes
    })
}

/// A PyTorch archive with this program.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in [
        ("archive/data.pkl", pickle),
        ("archive/data/0", &[0; 64]),
        ("archive/data/1", &[1; 512]),
        ("archive/version", b"3\n"),
    ] {
        archive.start_file(name, options).expect("to memory");
        archive.write_all(bytes).expect("to memory");
    }
    archive.finish().expect("to memory").into_inner()
}

fn read(folder: &Path) {
    match open(folder, OpenOptions::default()) {
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains('\n'), "an error of several lines: {text:?}");
        }
        Ok(source) => {
            let names: Vec<_> = source.tensors().map(|t| t.name.clone()).take(50).collect();
            for name in names {
                let _ = source.read_f32(&name);
            }
            let _ = bertlet_convert::load::bert(&source, true);
        }
    }
}
