//! The command, the library and the C API give the same bits for every task, with windows and without.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::path::Path;
use std::ptr;

use bertlet::ffi::{self, Status};
use bertlet::tasks::{
    Aggregation, EntityOptions, Features, Text, WordFeatures, WordPooling, default_overlap,
};
use bertlet::{Layers, Model, Session};
use serde_json::Value;

use crate::command::bertlet;
use crate::common::{Folder, Weights};

/// Texts of less than a window, of one, and of several, and a pair.
fn texts() -> Vec<String> {
    let long =
        "A quiet triumph, funny and humane; unbelievably so, said Angela Merkel in Frankfurt. ";
    let noisy: String = (0..400).map(|i| ["dull ", "Berlin! ", "wonderful, "][i * i % 3]).collect();
    let plain = ["hello".to_owned(), long.repeat(30), noisy.clone(), long.repeat(3) + &noisy];
    let pairs = [format!("hello world\t{noisy}"), format!("{noisy}\t{}", long.repeat(40))];
    [&plain[..], &pairs].concat()
}

fn text(line: &str) -> Text<'_> {
    line.split_once('\t').map_or(Text::Str(line), Text::from)
}

/// A float of the command's JSON, which has the shortest decimals that read back as the same f32.
fn bits(value: &Value) -> u32 {
    value.to_string().parse::<f32>().unwrap().to_bits()
}

fn all_bits(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(bits).collect()
}

fn of(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// What the command answers to each line.
fn command(arguments: &[&str], window: bool, lines: &[String]) -> Vec<Value> {
    let window = if window { &["--window"][..] } else { &[] };
    bertlet(&[arguments, window].concat(), &(lines.join("\n") + "\n")).unwrap()
}

/// A model and an encoder of the C API.
struct Api {
    model: *mut ffi::Model,
    encoder: *mut ffi::Encoder,
    _memory: Vec<u8>,
}

impl Api {
    fn open(path: &Path) -> Self {
        let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        let (mut model, mut encoder, mut size) = (ptr::null_mut(), ptr::null_mut(), 0);
        // SAFETY: all pointers are to values that live as long as they are used.
        unsafe {
            let opened = ffi::bertlet_model_open(path.as_ptr(), &mut model, ptr::null_mut(), 0);
            assert_eq!(opened, Status::Ok);
            let tokens = Self::limit(model);
            assert_eq!(ffi::bertlet_encoder_size(model, tokens, &mut size), Status::Ok);
            let mut memory = vec![0_u8; size];
            let place = memory.as_mut_ptr().cast::<c_void>();
            let made =
                ffi::bertlet_encoder_new(model, tokens, ptr::null(), place, size, &mut encoder);
            assert_eq!(made, Status::Ok);
            Self { model, encoder, _memory: memory }
        }
    }

    /// The most tokens of an input.
    fn limit(model: *const ffi::Model) -> usize {
        let mut config = std::mem::MaybeUninit::uninit();
        // SAFETY: the model is open, and the call writes the configuration.
        unsafe {
            assert_eq!(ffi::bertlet_model_config(model, config.as_mut_ptr()), Status::Ok);
            config.assume_init().max_tokens
        }
    }

    /// The overlap that the command has for a line, -1 without windows.
    fn overlap(&self, line: &str, window: bool) -> isize {
        let pair = line.contains('\t');
        if window { default_overlap(Self::limit(self.model), pair) as isize } else { -1 }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        // SAFETY: the model is from `bertlet_model_open`, and no encoder is used after it.
        unsafe { ffi::bertlet_model_free(self.model) }
    }
}

/// Address, length, and both of the second text of a line.
fn parts(line: &str) -> (*const c_char, usize, *const c_char, usize) {
    match line.split_once('\t') {
        Some((a, b)) => (a.as_ptr().cast(), a.len(), b.as_ptr().cast(), b.len()),
        None => (line.as_ptr().cast(), line.len(), ptr::null(), 0),
    }
}

fn session(path: &Path, window: bool) -> Session<'static> {
    Session::open(path).unwrap().with_windows(window)
}

#[test]
fn labels() {
    let folder = Folder::new("bits-labels");
    let path = folder.model("tiny-sst2", Weights::F32);
    let (lines, api) = (texts(), Api::open(&path));
    for window in [false, true] {
        let mut session = session(&path, window);
        let answers = command(&["classify", path.to_str().unwrap()], window, &lines);
        assert_eq!(answers.len(), lines.len());
        for (line, answer) in lines.iter().zip(&answers) {
            let found = session.classify(text(line)).unwrap();
            assert_eq!(all_bits(&answer["logits"]), of(&found.logits));
            assert_eq!(answer["label"], *found.label);
            let scores = answer["scores"].as_object().unwrap();
            let label = |i| session.model().labels().get(i).unwrap();
            let by_command: Vec<u32> = (0..scores.len()).map(|i| bits(&scores[label(i)])).collect();
            assert_eq!(by_command, of(&found.scores));
            let (first, length, second, second_length) = parts(line);
            let (mut scores, mut cut) = ([0.0; 2], false);
            // SAFETY: all pointers are to values that live on, with their lengths.
            let status = unsafe {
                let overlap = api.overlap(line, window);
                ffi::bertlet_classify(
                    api.encoder,
                    first,
                    length,
                    second,
                    second_length,
                    overlap,
                    scores.as_mut_ptr(),
                    &mut 2,
                    &mut cut,
                )
            };
            assert_eq!(status, Status::Ok);
            assert_eq!(of(&scores), of(&found.scores));
            assert_eq!(
                (cut, answer.get("truncated").is_some()),
                (found.truncated, found.truncated)
            );
        }
        assert_eq!(answers[1].get("truncated").is_some(), !window);
    }
}

#[test]
fn vectors() {
    let folder = Folder::new("bits-vectors");
    let path = folder.model_with("micro", Weights::Int8, |extras| extras.normalize = true);
    let (lines, api) = (texts(), Api::open(&path));
    for (layers, pooling) in [(None, None), (Some("concat:0,-1"), Some("mean-max"))] {
        for window in [false, true] {
            let mut session = session(&path, window);
            let mut features = Features::of(&session.model());
            let mut arguments = vec!["embed", path.to_str().unwrap()];
            if let (Some(layers), Some(pooling)) = (layers, pooling) {
                arguments.extend(["--layers", layers, "--pooling", pooling, "--normalize"]);
                (features.layers, features.pooling) =
                    (layers.parse().unwrap(), pooling.parse().unwrap());
            }
            for (line, answer) in lines.iter().zip(command(&arguments, window, &lines)) {
                let found = session.embed_with(text(line), &features).unwrap();
                assert_eq!(all_bits(&answer["embedding"]), of(&found));
                let (mut vector, mut other) = (vec![0.0; found.len()], vec![0.0; found.len()]);
                let (first, length, second, second_length) = parts(line);
                let mut count = vector.len();
                let layers = layers.map(|layers| std::ffi::CString::new(layers).unwrap());
                // SAFETY: all pointers are to values that live on, with their lengths.
                let status = unsafe {
                    ffi::bertlet_embed(
                        api.encoder,
                        first,
                        length,
                        second,
                        second_length,
                        layers.as_ref().map_or(ptr::null(), |layers| layers.as_ptr()),
                        features.pooling as u32,
                        true,
                        api.overlap(line, window),
                        vector.as_mut_ptr(),
                        other.as_mut_ptr(),
                        &mut count,
                        ptr::null_mut(),
                    )
                };
                assert_eq!(status, Status::Ok);
                assert_eq!(of(&vector), of(&found));
            }
        }
    }
}

/// The C API has no vectors of words and no tokens' vectors: command and library.
#[test]
fn vectors_of_words_and_tokens() {
    let folder = Folder::new("bits-words");
    let path = folder.model("micro", Weights::F32);
    let lines = texts();
    for window in [false, true] {
        let mut session = session(&path, window);
        let arguments = ["embed", path.to_str().unwrap(), "--words", "mean", "--normalize"];
        let features =
            WordFeatures { layers: Layers::LAST, pooling: WordPooling::Mean, normalize: true };
        for (line, answer) in lines.iter().zip(command(&arguments, window, &lines)) {
            let words: Vec<&str> =
                line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
            let found = session.word_vectors(&words, &features).unwrap();
            let rows = answer["embedding"].as_array().unwrap();
            assert_eq!(rows.len(), found.vectors.len());
            for (row, vector) in rows.iter().zip(&found.vectors) {
                match vector {
                    Some(vector) => assert_eq!(all_bits(row), of(vector)),
                    None => assert!(row.is_null()),
                }
            }
        }
    }
    let mut session = session(&path, false);
    let arguments = ["embed", path.to_str().unwrap(), "--pooling", "none"];
    let mut features = Features::of(&session.model());
    features.pooling = bertlet::Pooling::None;
    for (line, answer) in lines.iter().zip(command(&arguments, false, &lines)) {
        let found = session.embed_with(text(line), &features).unwrap();
        let rows: Vec<u32> =
            answer["embedding"].as_array().unwrap().iter().flat_map(all_bits).collect();
        assert_eq!(rows, of(&found));
    }
}

#[test]
fn entities() {
    let folder = Folder::new("bits-entities");
    let path = folder.model("tiny-ner", Weights::F32);
    let (api, lines) = (Api::open(&path), texts()[..4].to_vec());
    for (window, (name, aggregation)) in
        [false, true].into_iter().flat_map(|w| Aggregation::NAMES.map(|named| (w, named)))
    {
        let mut session = session(&path, window);
        let arguments = ["ner", path.to_str().unwrap(), "--aggregation", name];
        let options = EntityOptions { aggregation, constrained: false };
        for (line, answer) in lines.iter().zip(command(&arguments, window, &lines)) {
            let found = session.entities_with(line, &options).unwrap();
            let by_command = answer["entities"].as_array().unwrap();
            let (overlap, mut size, mut count) = (api.overlap(line, window), 0, found.len());
            let (first, length, ..) = parts(line);
            let mut by_c: Vec<std::mem::MaybeUninit<ffi::Entity>> = Vec::new();
            by_c.resize_with(found.len(), std::mem::MaybeUninit::uninit);
            // SAFETY: all pointers are to values that live on, with their lengths.
            unsafe {
                let status =
                    ffi::bertlet_entities_size(api.encoder, first, length, overlap, &mut size);
                assert_eq!(status, Status::Ok);
                let mut memory = vec![0_u8; size];
                let status = ffi::bertlet_entities(
                    api.encoder,
                    first,
                    length,
                    Aggregation::NAMES.iter().position(|(n, _)| *n == name).unwrap() as u32,
                    overlap,
                    memory.as_mut_ptr().cast(),
                    size,
                    by_c.as_mut_ptr().cast(),
                    &mut count,
                    ptr::null_mut(),
                );
                assert_eq!(status, Status::Ok);
            }
            assert_eq!((by_command.len(), count), (found.len(), found.len()));
            for ((found, by_command), by_c) in found.iter().zip(by_command).zip(by_c) {
                // SAFETY: the call has written as many entities as it counted.
                let by_c = unsafe { by_c.assume_init() };
                assert_eq!(by_command["label"], *found.label);
                assert_eq!(by_command["text"], *found.text);
                assert_eq!(bits(&by_command["score"]), found.score.to_bits());
                assert_eq!(by_c.score.to_bits(), found.score.to_bits());
                assert_eq!(by_command["start"], found.start.byte);
                assert_eq!(by_command["end_utf16"], found.end.utf16);
                assert_eq!((by_c.bytes.start, by_c.bytes.end), (found.start.byte, found.end.byte));
                assert_eq!((by_c.chars.start, by_c.utf16.end), (found.start.char, found.end.utf16));
            }
        }
    }
}

#[test]
fn answers() {
    let folder = Folder::new("bits-answers");
    let path = folder.model("micro-qa", Weights::F32);
    let (api, lines) = (Api::open(&path), texts()[..4].to_vec());
    let question = "where is the market";
    for window in [false, true] {
        let mut session = session(&path, window);
        let arguments = ["answer", path.to_str().unwrap(), "--question", question];
        let overlap = {
            let limit = Api::limit(api.model);
            session.runner(limit).unwrap().answer_overlap(question).unwrap() as isize
        };
        for (line, answer) in lines.iter().zip(command(&arguments, window, &lines)) {
            let found = session.answer(question, line).unwrap().unwrap();
            assert_eq!(answer["text"], *found.text);
            assert_eq!(bits(&answer["score"]), found.score.to_bits());
            let no_answer = session.answers(question, line, 1).unwrap().no_answer;
            assert_eq!(bits(&answer["no_answer"]), no_answer.to_bits());
            let mut by_c = ffi::Answer::default();
            // SAFETY: all pointers are to values that live on, with their lengths.
            let status = unsafe {
                ffi::bertlet_answer_question(
                    api.encoder,
                    question.as_ptr().cast(),
                    question.len(),
                    line.as_ptr().cast(),
                    line.len(),
                    15,
                    if window { overlap } else { -1 },
                    &mut by_c,
                    ptr::null_mut(),
                )
            };
            assert_eq!(status, Status::Ok);
            assert_eq!(by_c.score.to_bits(), found.score.to_bits());
            assert_eq!((by_c.bytes.start, by_c.bytes.end), (found.start.byte, found.end.byte));
            assert_eq!(answer["start_char"], by_c.chars.start);
        }
    }
}

#[test]
fn masked_words() {
    let folder = Folder::new("bits-masks");
    let path = folder.model("micro", Weights::F32);
    let api = Api::open(&path);
    let lines = ["the [MASK] of [MASK]".to_owned(), "[MASK] ".repeat(99)];
    let mut session = session(&path, false);
    let vocab = session.model().config().vocab_size;
    let arguments = ["fill-mask", path.to_str().unwrap(), "--top", "3"];
    for (line, answer) in lines.iter().zip(command(&arguments, false, &lines)) {
        let masks = session.fill_mask(line, 3).unwrap();
        let by_command = answer["fills"].as_array().unwrap();
        assert_eq!(by_command.len(), masks.len());
        assert_eq!(answer["truncated"] == true, masks.truncated);
        for (i, (found, by_command)) in masks.iter().zip(by_command).enumerate() {
            assert_eq!(by_command["position"], found.position);
            let (mut logits, mut by_c, mut count) =
                (vec![0.0; vocab], [ffi::Fill::default(); 3], 3);
            let mut cut = false;
            // SAFETY: all pointers are to values that live on, with their lengths.
            let status = unsafe {
                ffi::bertlet_fill_mask(
                    api.encoder,
                    line.as_ptr().cast(),
                    line.len(),
                    i,
                    logits.as_mut_ptr(),
                    vocab,
                    by_c.as_mut_ptr(),
                    &mut count,
                    &mut cut,
                )
            };
            assert_eq!((status, count, cut), (Status::Ok, 3, masks.truncated));
            let tokens = by_command["tokens"].as_array().unwrap();
            for (((fill, word), token), by_c) in found.words.iter().zip(tokens).zip(by_c) {
                assert_eq!(
                    (&token["token"], &token["id"]),
                    (&Value::from(&**word), &fill.id.into())
                );
                assert_eq!(bits(&token["score"]), fill.score.to_bits());
                assert_eq!((by_c.id, by_c.score.to_bits()), (fill.id, fill.score.to_bits()));
            }
        }
    }
}

#[test]
fn next_sentences() {
    let folder = Folder::new("bits-next");
    let path = folder.model("micro", Weights::F32);
    let (api, lines) = (Api::open(&path), texts()[4..].to_vec());
    // The command cuts pairs; library and C API also have windows.
    let by_command = command(&["next-sentence", path.to_str().unwrap()], false, &lines);
    for window in [false, true] {
        let mut session = session(&path, window);
        for (line, answer) in lines.iter().zip(&by_command) {
            let (first, second) = line.split_once('\t').unwrap();
            let found = session.next_sentence(first, second).unwrap();
            let (mut by_c, mut cut) = (0.0, false);
            let (first, length, second, second_length) = parts(line);
            // SAFETY: all pointers are to values that live on, with their lengths.
            let status = unsafe {
                let overlap = api.overlap(line, window);
                ffi::bertlet_next_sentence(
                    api.encoder,
                    first,
                    length,
                    second,
                    second_length,
                    overlap,
                    &mut by_c,
                    &mut cut,
                )
            };
            assert_eq!((status, by_c.to_bits()), (Status::Ok, found.is_next.to_bits()));
            assert_eq!(cut, found.truncated);
            if !window {
                assert_eq!(bits(&answer["is_next"]), found.is_next.to_bits());
                assert_eq!(answer["truncated"] == true, found.truncated);
            }
        }
    }
}

#[test]
fn models_are_views_or_files() {
    let folder = Folder::new("bits-sessions");
    let path = folder.model("micro", Weights::F32);
    let file = bertlet::ModelFile::open(&path).unwrap();
    let model: Model<'_> = file.model();
    let of_view = Session::new(model).embed("A quiet house.").unwrap();
    assert_eq!(Session::open(&path).unwrap().embed("A quiet house.").unwrap(), of_view);
}
