//! What a file or a folder is that is not a checkpoint, and what to do about it.

use std::path::Path;

use serde_json::Value;

use crate::error::Error;

/// What the first bytes of a file tell, where they are no checkpoint's, and what to do.
pub(super) fn about_bytes(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const DOWNLOAD: &str = "download the file itself";
    let start = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let starts = |magic: &str| {
        start.get(..magic.len()).is_some_and(|s| s.eq_ignore_ascii_case(magic.as_bytes()))
    };
    Some(match () {
        () if starts("version https://git-lfs") => (
            "is a pointer of Git LFS, not the file itself",
            "fetch the file with `git lfs pull`, or download it from the site",
        ),
        () if starts("<!doctype html") || starts("<html") => {
            ("is a web page, such as of a failed download", DOWNLOAD)
        }
        () if starts("Entry not found") || starts("Repository not found") => {
            ("is the error message of a download", DOWNLOAD)
        }
        () if bytes.starts_with(b"GGUF") => ("is a GGUF file, whose weights are quantised", SAVE),
        () if bytes.starts_with(b"\x89HDF") => ("is a Keras file (HDF5)", SAVE),
        () if bytes.starts_with(&[0x1f, 0x8b]) => ("is compressed with gzip", "unpack it first"),
        _ => return None,
    })
}

const SAVE: &str = "convert the original: load it in transformers and save it with \
                    save_pretrained, which writes model.safetensors";

/// Endings of weights that are not read: what they are.
const OTHERS: &[(&str, &str)] = &[
    (".h5", "Keras weights"),
    (".keras", "Keras weights"),
    (".onnx", "an ONNX graph"),
    (".msgpack", "Flax weights"),
    (".gguf", "GGUF weights"),
    (".ggml", "GGML weights"),
    (".tflite", "a TensorFlow Lite graph"),
    (".ot", "weights of rust-bert"),
    (".mlmodel", "a Core ML model"),
    (".mlpackage", "a Core ML model"),
    ("openvino_model.xml", "an OpenVINO graph"),
    ("saved_model.pb", "a TensorFlow SavedModel"),
];

/// A file that has no weights of a known format.
pub(super) fn file(path: &Path, bytes: &[u8]) -> Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let other = OTHERS.iter().find(|(end, _)| name.ends_with(end));
    match (bytes.is_empty(), other) {
        (_, Some((_, what))) => {
            Error::new(path, "", format!("no weights of a known format, but {what}")).hint(SAVE)
        }
        (true, None) => Error::new(path, "", "no weights of a known format: it is empty")
            .hint("download the file again"),
        (false, None) => unknown(path),
    }
}

/// A path where nothing is.
pub(super) fn missing(path: &Path) -> Error {
    let name = path.to_string_lossy();
    let word = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
    };
    let parts: Vec<&str> = name.split('/').collect();
    let file = path.extension().is_some_and(|e| {
        ["safetensors", "bin", "pt", "pth", "ckpt", "index", "json"].iter().any(|known| e == *known)
    });
    let error = Error::new(path, "", "there is no such file or folder");
    if parts.len() <= 2 && parts.iter().all(|part| word(part)) && !file {
        let folder = parts[parts.len() - 1];
        return error.hint(format!(
            "if it is a name on the Hugging Face Hub, download it first: `hf download {name} --local-dir \
             {folder}`, then convert the folder {folder}"
        ));
    }
    error.hint("give the folder of a checkpoint, or its weights file")
}

/// A folder of an adapter without the weights of the model. `None` for others.
pub(super) fn adapter(folder: &Path, names: &[String], config: Option<&Value>) -> Option<Error> {
    let has = |name: &str| names.iter().any(|n| n == name);
    if !(has("adapter_config.json") || has("adapter_model.safetensors") || has("adapter_model.bin"))
    {
        return None;
    }
    let base =
        config.and_then(|c| c["base_model_name_or_path"].as_str()).unwrap_or("its base model");
    let kind = config.and_then(|c| c["peft_type"].as_str()).unwrap_or("LoRA");
    let problem = format!("is an adapter ({kind}) for {base}, not a model");
    Some(Error::new(folder, "", problem).hint(
        "merge it first: PeftModel.from_pretrained(...).merge_and_unload().save_pretrained(FOLDER), then \
         convert FOLDER",
    ))
}

/// A folder with nothing that [`super::weights`] looks for.
pub(super) fn folder(folder: &Path, names: &[String]) -> Error {
    let lower: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
    let none = "no weights of a known format";
    let found = |ends: &[&str]| {
        let at = lower.iter().position(|name| ends.iter().any(|end| name.ends_with(end)));
        at.map(|at| names[at].as_str())
    };
    if let Some(shard) = shard(names) {
        let (stem, end) = if shard.ends_with(".bin") {
            ("pytorch_model.bin", "bin")
        } else {
            ("model.safetensors", "safetensors")
        };
        return Error::new(
            folder,
            "",
            format!("{shard} is one of several, and their index is missing"),
        )
        .hint(format!("put {stem}.index.json into the folder, beside all files *.{end}"));
    }
    if let Some(name) = found(&[".pt", ".pth", ".bin", ".ckpt", ".pkl"]) {
        return Error::new(folder, "", format!("{none}, but {name}")).hint(format!(
            "if that is the weights, give its path: {}",
            folder.join(name).display()
        ));
    }
    for (end, what) in OTHERS {
        if let Some(name) = found(&[end]) {
            return Error::new(folder, "", format!("{none}, but {name}: {what}")).hint(SAVE);
        }
    }
    // A folder of a training has the weights in folders below it; a download may be nested once more.
    let inside = names.iter().rev().find(|name| {
        let inner = folder.join(name.as_str());
        ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"]
            .iter()
            .any(|file| inner.join(file).is_file())
    });
    match inside {
        Some(name) => Error::new(folder, "", format!("{none}, but the folder {name} has some"))
            .hint(format!("convert {}", folder.join(name).display())),
        None => unknown(folder),
    }
}

/// The first of `names` that looks like one shard of several.
pub(super) fn shard(names: &[String]) -> Option<&str> {
    let is_shard = |name: &&String| {
        let stem = name.strip_suffix(".safetensors").or(name.strip_suffix(".bin"));
        let parts = stem.and_then(|stem| stem.rsplit_once("-of-"));
        parts.is_some_and(|(_, count)| {
            !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit())
        })
    };
    names.iter().find(is_shard).map(String::as_str)
}

fn unknown(path: &Path) -> Error {
    Error::new(path, "", "no weights of a known format").hint(
        "known are model.safetensors and pytorch_model.bin (or their .index.json), and bert_model.ckpt.index",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_may_be_a_name_on_the_hub() {
        for name in ["bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2"] {
            let message = missing(Path::new(name)).to_string();
            assert!(message.contains(&format!("hf download {name} ")), "{message}");
        }
        for name in ["/models/bert", "./bert", "../a", "a/b/c", "model.safetensors", "C:\\x"] {
            let message = missing(Path::new(name)).to_string();
            assert!(message.contains("no such file") && !message.contains("Hub"), "{message}");
        }
    }
}
