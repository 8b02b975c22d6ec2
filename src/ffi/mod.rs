//! The C face: `include/bertlet.h`, which is generated from this file.
//!
//! Every function checks its pointers, lengths and numbers, and returns a [`Status`]. A panic, which
//! would be a defect of this library, ends the process: it cannot unwind into C.
#![allow(unsafe_code)]
// The same for all of them, and said in the header: a pointer is NULL, or good for what it is said to be.
#![allow(clippy::missing_safety_doc)]

mod raw;
mod status;

use core::ffi::{CStr, c_char, c_void};
use core::mem::MaybeUninit;

use raw::{address, answer, place, prepare, shared, slice, slice_mut, target, unique, utf8};

use crate::encoder;
use crate::heads::{self, MaskedLm, SequenceClassifier};
use crate::kernels::Isa;
use crate::outputs::{self, Layers, Output, features_len};
#[cfg(feature = "std")]
use crate::owned::ModelFile;
use crate::tasks::{self, EntityOptions, EntityRecognizer, Label, Offset, Pair};
use crate::tokenizer::{Limits, TokenBuffer};

/// How a call went. A number keeps its meaning in all versions.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Success. Any other status: no output was written.
    Ok = 0,
    /// A pointer is NULL that must not be.
    NullPointer = 1,
    /// A pointer is misaligned: an array's to its elements, a model's bytes to a multiple of 64.
    Misaligned = 2,
    /// A text, path or name is not UTF-8.
    InvalidUtf8 = 3,
    /// A buffer is too small; ask the function's size or count first.
    BufferTooSmall = 4,
    /// An array has not as many elements as the answer.
    WrongCount = 5,
    /// The file cannot be opened or mapped.
    File = 6,
    /// The bytes are no bertlet file.
    NotAModel = 7,
    /// A format version that this library does not read.
    Version = 8,
    /// The file has fewer or more bytes than its header says.
    FileLength = 9,
    /// The file's contents have not their checksum, or contradict each other.
    Damaged = 10,
    /// This library has no instruction set of that name.
    UnknownIsa = 11,
    /// The CPU (or, without `std`, the build) lacks this instruction set.
    UnavailableIsa = 12,
    /// The input has no token, or all are masked.
    NoTokens = 13,
    /// More tokens than the encoder was made for or the model takes.
    TooManyTokens = 14,
    /// A token's id or type is not in the model.
    UnknownToken = 15,
    /// The model has no such layer.
    NoSuchLayer = 16,
    /// The number or spelling names no layers, pooling or aggregation.
    NoSuchChoice = 17,
    /// The checkpoint did not have this head.
    MissingHead = 18,
    /// The model has no vocabulary; it takes ids only.
    MissingTokenizer = 19,
    /// No label, token or `[MASK]` has this number.
    NoSuchIndex = 20,
    /// The text is too long: over 4 GiB, or it cannot be cut to the limit.
    TextTooLong = 21,
    /// Windows cannot share so many tokens.
    OverlapTooLarge = 22,
}

/// How the vectors of an input's tokens become one. Means and maxima run over all unmasked tokens, the
/// special ones included.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Not at all: a vector a token.
    None = 0,
    /// The first token's.
    Cls = 1,
    /// That of the checkpoint's pooler.
    Pooler = 2,
    /// Mean.
    Mean = 3,
    /// Largest value of each feature.
    Max = 4,
    /// Mean, then maximum: twice as wide.
    MeanMax = 5,
    /// Sum over the square root of the number of tokens.
    MeanSqrt = 6,
    /// The last unmasked token's.
    Sep = 7,
}

/// How the labels of tokens become entities.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// Not at all: each token with a label but `O` is an answer.
    None = 0,
    /// Neighbouring tokens of the same entity are joined.
    Simple = 1,
    /// Words have the label of their first token; neighbouring words are joined.
    First = 2,
    /// Words have the label of the largest mean probability.
    Average = 3,
    /// Words have the label of their surest token.
    Max = 4,
}

/// Bytes for a model's handle; see `bertlet_model_from_memory`.
pub const BERTLET_MODEL_SIZE: usize = 320;

// `place` skips up to 63 bytes and takes whole blocks of 64.
const _: () = assert!(63 + size_of::<Model>().next_multiple_of(64) <= BERTLET_MODEL_SIZE);

/// A text of `length` bytes of UTF-8 inside the model's file; no NUL ends it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// Its first byte.
    pub bytes: *const c_char,
    /// Bytes.
    pub length: usize,
}

impl Text {
    fn of(text: &str) -> Self {
        Self { bytes: text.as_ptr().cast(), length: text.len() }
    }
}

/// A model: a validated view of a file, which is not copied. It never changes, so any number of
/// threads may use it at once.
pub struct Model {
    held: Held,
}

enum Held {
    Memory(crate::Model<'static>),
    #[cfg(feature = "std")]
    File(ModelFile),
}

impl Model {
    fn view(&'static self) -> crate::Model<'static> {
        match &self.held {
            Held::Memory(model) => *model,
            #[cfg(feature = "std")]
            Held::File(file) => file.model(),
        }
    }
}

/// What runs a model: a view of it, and memory of the caller. One thread at a time may use it.
pub struct Encoder {
    inner: encoder::Encoder<'static, 'static>,
    isa: Isa,
    /// `[max_tokens]`.
    ids: &'static mut [u32],
    /// `[max_tokens]`.
    type_ids: &'static mut [u8],
    /// `[labels]`: logits of a text, and of one of its windows.
    logits: [&'static mut [f32]; 2],
}

/// The shape of a model.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Hidden size: values of a token's vector.
    pub hidden_size: usize,
    /// Encoder layers.
    pub num_hidden_layers: usize,
    /// Attention heads a layer.
    pub num_attention_heads: usize,
    /// Inner size of the feed-forward network.
    pub intermediate_size: usize,
    /// Words in the vocabulary.
    pub vocab_size: usize,
    /// Tokens of the longest input, special ones included.
    pub max_tokens: usize,
    /// Token types (segments).
    pub type_vocab_size: usize,
    /// Labels of the classifier; 0 where there is none.
    pub labels: usize,
    /// The pooling that the checkpoint was made for: a `bertlet_pooling`.
    pub pooling: u32,
    /// Whether pooled vectors are meant to be of length 1.
    pub normalize: bool,
}

/// Tokens as they are.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// `[tokens]`: ids in the model's vocabulary, `[CLS]` and `[SEP]` included.
    pub input_ids: *const u32,
    /// `[tokens]`: token types; all 0 where this is NULL.
    pub token_type_ids: *const u8,
    /// `[tokens]`: 0 for a token to be ignored; none is where this is NULL.
    pub attention_mask: *const u8,
    /// How many.
    pub tokens: usize,
}

/// A stretch of a text, in bytes: `start` is the first, `end` the one behind the last.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// Byte behind the last.
    pub end: u32,
}

/// A named entity.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Entity {
    /// `PER`; the whole label, `B-PER`, where tokens are not joined.
    pub label: Text,
    /// Mean probability of the labels of its tokens (or words).
    pub score: f32,
    /// Where it stands in the text, in bytes.
    pub bytes: Span,
    /// The same in code points (Python).
    pub chars: Span,
    /// The same in UTF-16 units (Java, JavaScript, Swift).
    pub utf16: Span,
}

/// A word for a `[MASK]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Fill {
    /// Its id; see `bertlet_model_token`.
    pub id: u32,
    /// Its probability among all words.
    pub score: f32,
}

/// The version of this library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn bertlet_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// What a status means and what to do about it, in English, ended by NUL; never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn bertlet_status_message(status: u32) -> *const c_char {
    Status::message(status).as_ptr()
}

/// Maps a model file and validates its header; no weight is read. Give it back with
/// `bertlet_model_free`. While it is mapped nobody may overwrite the file in place: replace it by
/// renaming another to its name. Not part of a library that was built without `std`.
///
/// `message` (may be NULL) gets a sentence about what is wrong with which file on failure, cut to
/// `message_size` bytes and ended by NUL.
#[cfg(feature = "std")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_model_open(
    path: *const c_char,
    model: *mut *mut Model,
    message: *mut c_char,
    message_size: usize,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let model = target(model)?;
        let room = if message.is_null() { 0 } else { message_size };
        let message = slice_mut::<u8>(message.cast(), room)?;
        address(path)?;
        let path = raw::path(CStr::from_ptr(path))?;
        let file = ModelFile::open(path).map_err(|error| {
            raw::write_message(message, &error);
            error.format().map_or(Status::File, |error| Status::from(*error))
        })?;
        model.write(Box::into_raw(Box::new(Model { held: Held::File(file) })));
        Ok(())
    })
}

/// Validates the header of a model file in memory; copies and allocates nothing. `bytes` starts at a
/// multiple of 64, and stays unchanged as long as the model is used.
///
/// The handle lies in `memory`, of `memory_size` (at least `BERTLET_MODEL_SIZE`) bytes of any
/// alignment, which belongs to the model until the caller has done with it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_model_from_memory(
    bytes: *const c_void,
    length: usize,
    memory: *mut c_void,
    memory_size: usize,
    model: *mut *mut Model,
) -> Status {
    // SAFETY: the pointers are what the header asks for; `place` gives room for a handle.
    Status::of(|| unsafe {
        let model = target(model)?;
        address(bytes)?;
        let held = Held::Memory(crate::Model::from_bytes(slice(bytes.cast(), length)?)?);
        address(memory)?;
        let handle = place::<Model>(&mut slice_mut(memory.cast(), memory_size)?, 1)?;
        handle.write(Model { held });
        model.write(handle);
        Ok(())
    })
}

/// Gives back what `bertlet_model_open` took. Does nothing for a model from memory, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_model_free(model: *mut Model) {
    #[cfg(feature = "std")]
    // SAFETY: the pointers are what the header asks for; files are boxed.
    unsafe {
        if matches!(model.as_ref(), Some(Model { held: Held::File(_) })) {
            drop(Box::from_raw(model));
        }
    }
    #[cfg(not(feature = "std"))]
    let _ = model;
}

/// Reads the whole file and compares its checksums.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_model_verify(model: *const Model) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe { Ok(shared(model)?.view().verify()?) })
}

/// The model's shape.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_model_config(model: *const Model, config: *mut Config) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let (model, config) = (shared(model)?.view(), target(config)?);
        let shape = model.config();
        config.write(Config {
            hidden_size: shape.hidden_size,
            num_hidden_layers: shape.num_hidden_layers,
            num_attention_heads: shape.num_attention_heads,
            intermediate_size: shape.intermediate_size,
            vocab_size: shape.vocab_size,
            max_tokens: shape.max_position_embeddings,
            type_vocab_size: shape.type_vocab_size,
            labels: model.labels().len(),
            pooling: model.default_pooling() as u32,
            normalize: model.default_normalize(),
        });
        Ok(())
    })
}

/// The name of label `index`, from 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_model_label(
    model: *const Model,
    index: usize,
    label: *mut Text,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let (model, label) = (shared(model)?.view(), target(label)?);
        label.write(Text::of(model.labels().get(index).ok_or(Status::NoSuchIndex)?));
        Ok(())
    })
}

/// The text of a token of the vocabulary, with the `##` of a word's later pieces.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_model_token(
    model: *const Model,
    id: u32,
    token: *mut Text,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let (model, token) = (shared(model)?.view(), target(token)?);
        token.write(Text::of(model.tokenizer()?.token(id).ok_or(Status::NoSuchIndex)?));
        Ok(())
    })
}

/// The tokens of a text, `[CLS]` in front and `[SEP]` behind: their ids and (unless `spans` is NULL)
/// where they stand in the text, special ones at 0, 0. `count` gets their number.
///
/// `ids` and `spans` have room for `capacity`; where that is too little nothing is written. With `ids`
/// NULL the tokens are only counted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_tokenize(
    model: *const Model,
    text: *const c_char,
    length: usize,
    ids: *mut u32,
    spans: *mut Span,
    capacity: usize,
    count: *mut usize,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let (model, text, count) = (shared(model)?.view(), utf8(text, length)?, target(count)?);
        let tokenizer = model.tokenizer()?;
        let need = tokenizer.count(text)? + 2;
        if !ids.is_null() {
            let ids = slice_mut(ids, capacity)?.get_mut(..need).ok_or(Status::BufferTooSmall)?;
            let spans = match spans.is_null() {
                true => &mut [],
                false => &mut slice_mut(spans, capacity)?[..need],
            };
            spans.fill(Span::default());
            (ids[0], ids[need - 1]) = (tokenizer.cls_id(), tokenizer.sep_id());
            for (i, token) in (1..need - 1).zip(tokenizer.tokens(text)) {
                let token = token?;
                ids[i] = token.id;
                if let Some(span) = spans.get_mut(i) {
                    *span = Span { start: token.start, end: token.end };
                }
            }
        }
        count.write(need);
        Ok(())
    })
}

/// Bytes of memory that an encoder for inputs of up to `max_tokens` tokens needs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_encoder_size(
    model: *const Model,
    max_tokens: usize,
    size: *mut usize,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let (model, size) = (shared(model)?.view(), target(size)?);
        if max_tokens > model.config().max_position_embeddings {
            return Err(Status::TooManyTokens);
        }
        size.write(
            63 + [
                size_of::<Encoder>(),
                4 * max_tokens,
                max_tokens,
                4 * model.labels().len(),
                4 * model.labels().len(),
                model.config().scratch_len(max_tokens),
            ]
            .map(|part| part.next_multiple_of(64))
            .iter()
            .sum::<usize>(),
        );
        Ok(())
    })
}

/// An encoder for inputs of up to `max_tokens` tokens, special ones included. It allocates nothing, here
/// or later: it lies in `memory`, of at least `bertlet_encoder_size` bytes of any alignment, which
/// belongs to it until the caller has done with it. There is nothing to free. The model must outlive it.
///
/// `isa` is the name of an instruction set ("portable", "avx2", ...; README.md lists them) or NULL for
/// the fastest that the CPU has. A library built without `std` has one, the best that the compiler was told
/// to use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_encoder_new(
    model: *const Model,
    max_tokens: usize,
    isa: *const c_char,
    memory: *mut c_void,
    memory_size: usize,
    encoder: *mut *mut Encoder,
) -> Status {
    // SAFETY: the pointers are what the header asks for; each `place` gives room for so many values, of which any bytes
    // are valid ones but for the handle, which is written first.
    Status::of(|| unsafe {
        let (model, encoder) = (shared(model)?.view(), target(encoder)?);
        let isa = match isa.is_null() {
            true => Isa::detect(),
            false => isa_named(CStr::from_ptr(isa).to_str().map_err(|_| Status::InvalidUtf8)?)?,
        };
        address(memory)?;
        let mut rest = slice_mut::<u8>(memory.cast(), memory_size)?;
        let handle = place::<Encoder>(&mut rest, 1)?;
        let ids = slice_mut(place(&mut rest, max_tokens)?, max_tokens)?;
        let type_ids = slice_mut(place(&mut rest, max_tokens)?, max_tokens)?;
        let labels = model.labels().len();
        let logits = [
            slice_mut(place(&mut rest, labels)?, labels)?,
            slice_mut(place(&mut rest, labels)?, labels)?,
        ];
        let inner = encoder::Encoder::new(model, isa, rest, max_tokens)?;
        handle.write(Encoder { inner, isa, ids, type_ids, logits });
        encoder.write(handle);
        Ok(())
    })
}

/// Values that `bertlet_encode` writes for an input of so many tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_features_count(
    model: *const Model,
    tokens: usize,
    layers: *const c_char,
    pooling: u32,
    count: *mut usize,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let (model, count) = (shared(model)?.view(), target(count)?);
        let (layers, pooling) = selection(layers, pooling)?;
        count.write(features_len(model.config(), tokens, &layers, pooling)?);
        Ok(())
    })
}

/// Runs the model on tokens and writes hidden states to `features`, which has exactly `count` values (see
/// `bertlet_features_count`): a vector, or `[tokens][width]` without pooling.
///
/// `layers` says which, as the command does: "last", "-2", "sum:last4", "concat:last4", "mean:1,2",
/// "weighted:0=0.1,5=0.4"; NULL is "last". `pooling` is a `bertlet_pooling`; `normalize` divides each
/// vector by its Euclidean length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_encode(
    encoder: *mut Encoder,
    input: *const Input,
    layers: *const c_char,
    pooling: u32,
    normalize: bool,
    features: *mut f32,
    count: usize,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let (encoder, input) = (unique(encoder)?, shared(input)?);
        let (layers, pooling) = selection(layers, pooling)?;
        let optional = |values: *const u8| match values.is_null() {
            true => Ok(None),
            false => slice(values, input.tokens).map(Some),
        };
        let input = encoder::Input {
            input_ids: slice(input.input_ids, input.tokens)?,
            token_type_ids: optional(input.token_type_ids)?,
            attention_mask: optional(input.attention_mask)?,
        };
        let out = slice_mut(features, count)?;
        encoder
            .inner
            .encode(&input, &mut [Output::Features { layers, pooling, normalize, out }])?;
        Ok(())
    })
}

/// As `bertlet_encode`, on a text, or a pair of texts unless `second` is NULL. What is longer than the
/// encoder's limit is cut, and `truncated` (may be NULL) says whether it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_embed(
    encoder: *mut Encoder,
    text: *const c_char,
    length: usize,
    second: *const c_char,
    second_length: usize,
    layers: *const c_char,
    pooling: u32,
    normalize: bool,
    features: *mut f32,
    count: usize,
    truncated: *mut bool,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let encoder = unique(encoder)?;
        let text = pair(text, length, second, second_length)?;
        let (layers, pooling) = selection(layers, pooling)?;
        let out = slice_mut(features, count)?;
        let mut buffer = TokenBuffer {
            input_ids: encoder.ids,
            token_type_ids: encoder.type_ids,
            ..Default::default()
        };
        let limits = Limits::new(encoder.inner.max_tokens());
        let tokenizer = encoder.inner.model().tokenizer()?;
        let encoded = tokenizer.encode(text.first, text.second, &limits, &mut buffer)?;
        let input = encoder::Input {
            input_ids: &encoder.ids[..encoded.len],
            token_type_ids: Some(&encoder.type_ids[..encoded.len]),
            attention_mask: None,
        };
        encoder
            .inner
            .encode(&input, &mut [Output::Features { layers, pooling, normalize, out }])?;
        answer(truncated, encoded.truncated)
    })
}

/// The scores of a text, or a pair of texts unless `second` is NULL: one a label (`bertlet_model_label`),
/// which `count` has to be the number of. What they are the checkpoint says: probabilities of one of the
/// labels, of each label by itself, or (regression) plain values.
///
/// `overlap` is -1, and a text longer than the encoder's limit is cut, and `truncated` (may be NULL) says
/// so; or the text is read in windows that share so many tokens, and the scores are those of the mean.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_classify(
    encoder: *mut Encoder,
    text: *const c_char,
    length: usize,
    second: *const c_char,
    second_length: usize,
    overlap: isize,
    scores: *mut f32,
    count: usize,
    truncated: *mut bool,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let encoder = unique(encoder)?;
        let text = pair(text, length, second, second_length)?;
        let scores = slice_mut(scores, count)?;
        let model = encoder.inner.model();
        let head = SequenceClassifier::new(&model)?;
        if count != head.logits_len() {
            return Err(Status::WrongCount);
        }
        let [logits, window] = &mut encoder.logits;
        let run = head.classify(
            &model.tokenizer()?,
            &mut encoder.inner,
            text,
            usize::try_from(overlap).ok(),
            &mut TokenBuffer {
                input_ids: encoder.ids,
                token_type_ids: encoder.type_ids,
                ..Default::default()
            },
            logits,
            window,
        )?;
        head.scores(logits);
        scores.copy_from_slice(logits);
        answer(truncated, run.truncated)
    })
}

/// Bytes of memory that `bertlet_entities` needs for this text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_entities_size(
    encoder: *const Encoder,
    text: *const c_char,
    length: usize,
    overlap: isize,
    size: *mut usize,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let (encoder, text, size) = (shared(encoder)?, utf8(text, length)?, target(size)?);
        let model = encoder.inner.model();
        let (labels, window) = (model.labels().len(), encoder.inner.max_tokens());
        let all = model.tokenizer()?.count(text)?;
        let tokens = if overlap < 0 { all.min(window) } else { all };
        let names = (labels * size_of::<Label<'_>>()).next_multiple_of(64);
        let scratch = EntityRecognizer::rows_len(labels, window, tokens.saturating_add(2));
        size.write((63 + names).checked_add(scratch).ok_or(Status::TextTooLong)?);
        Ok(())
    })
}

/// The named entities of a text, in order. `count` gets their number; the first `capacity` of them are
/// written to `entities`, so where `count` is more, ask again with more room. There are never more than
/// tokens.
///
/// `aggregation` is a `bertlet_aggregation`. `overlap` is -1, and a text longer than the encoder's limit
/// is cut, and `truncated` (may be NULL) says so; or the text is read in windows that share so many tokens.
/// `memory` has at least `bertlet_entities_size` bytes for this text and overlap, of any alignment.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_entities(
    encoder: *mut Encoder,
    text: *const c_char,
    length: usize,
    aggregation: u32,
    overlap: isize,
    memory: *mut c_void,
    memory_size: usize,
    entities: *mut Entity,
    capacity: usize,
    count: *mut usize,
    truncated: *mut bool,
) -> Status {
    // SAFETY: the pointers are what the header asks for; `place` gives room for so many labels, which are written before
    // they are read.
    Status::of(|| unsafe {
        let (encoder, text, count) = (unique(encoder)?, utf8(text, length)?, target(count)?);
        let aggregation = tasks::Aggregation::NAMES.get(aggregation as usize);
        let &(_, aggregation) = aggregation.ok_or(Status::NoSuchChoice)?;
        let entities: &mut [MaybeUninit<Entity>] = slice_mut(entities.cast(), capacity)?;
        let model = encoder.inner.model();
        address(memory)?;
        let mut rest = slice_mut(memory.cast(), memory_size)?;
        let names = model.labels().len();
        let labels = prepare(place::<Label<'_>>(&mut rest, names)?, names);
        let recognizer = EntityRecognizer::new(&model, labels)?;
        let overlap = usize::try_from(overlap).ok();
        let text = tasks::Text::Str(text);
        let tagged = recognizer.tag(&mut encoder.inner, text, overlap, rest)?;
        let (was_cut, mut found) = (tagged.truncated, 0);
        let options = EntityOptions { aggregation, constrained: false };
        recognizer.entities(tagged, &options, |entity| {
            if let Some(to) = entities.get_mut(found) {
                let tasks::Entity { label, score, start, end, .. } = entity;
                let span = |unit: fn(&Offset) -> u32| Span { start: unit(&start), end: unit(&end) };
                to.write(Entity {
                    label: Text::of(label),
                    score,
                    bytes: span(|at| at.byte),
                    chars: span(|at| at.char),
                    utf16: span(|at| at.utf16),
                });
            }
            found += 1;
        });
        count.write(found);
        answer(truncated, was_cut)
    })
}

/// The likeliest words for the `[MASK]` of number `mask` (from 0) in a text, best first. `count` gets how
/// many were written to `fills`: `capacity`, or all words.
///
/// `scratch` has as many values as the vocabulary has words: `words`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_fill_mask(
    encoder: *mut Encoder,
    text: *const c_char,
    length: usize,
    mask: usize,
    scratch: *mut f32,
    words: usize,
    fills: *mut Fill,
    capacity: usize,
    count: *mut usize,
) -> Status {
    // SAFETY: the pointers are what the header asks for; the two kinds of fill are laid out alike.
    Status::of(|| unsafe {
        let (encoder, text, count) = (unique(encoder)?, utf8(text, length)?, target(count)?);
        let logits = slice_mut(scratch, words)?;
        let fills = slice_mut(fills.cast::<heads::Fill>(), capacity)?;
        let model = encoder.inner.model();
        let head = MaskedLm::new(&model)?;
        let tokenizer = model.tokenizer()?;
        let mut buffer = TokenBuffer { input_ids: encoder.ids, ..Default::default() };
        let limits = Limits::new(encoder.inner.max_tokens());
        let encoded = tokenizer.encode(text, None, &limits, &mut buffer)?;
        let ids = &encoder.ids[..encoded.len];
        let is_mask = |id: &u32| Some(*id) == tokenizer.mask_id();
        let place = ids.iter().enumerate().filter(|(_, id)| is_mask(id)).nth(mask);
        let (position, _) = place.ok_or(Status::NoSuchIndex)?;
        head.logits(&mut encoder.inner, &encoder::Input::new(ids), &[position], logits)?;
        count.write(head.top(logits, fills));
        Ok(())
    })
}

/// The name of the instruction set that an encoder uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_encoder_isa(encoder: *const Encoder, name: *mut Text) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        target(name)?.write(Text::of(shared(encoder)?.isa.name()));
        Ok(())
    })
}

fn isa_named(name: &str) -> Result<Isa, Status> {
    // Without detection there is nothing to choose from, and the linker drops the other kernels.
    let detected = Isa::detect();
    if cfg!(feature = "std") {
        Ok(Isa::named(name)?)
    } else if name == detected.name() {
        Ok(detected)
    } else {
        Err(Status::UnavailableIsa)
    }
}

/// A layer selection in the command's spelling, and a pooling by its number.
unsafe fn selection(
    layers: *const c_char,
    pooling: u32,
) -> Result<(Layers, outputs::Pooling), Status> {
    let pooling = outputs::Pooling::from_number(pooling).ok_or(Status::NoSuchChoice)?;
    if layers.is_null() {
        return Ok((Layers::LAST, pooling));
    }
    // SAFETY: the caller has it end with NUL.
    let layers = unsafe { CStr::from_ptr(layers) }.to_str().map_err(|_| Status::InvalidUtf8)?;
    Ok((layers.parse().map_err(|_| Status::NoSuchChoice)?, pooling))
}

/// One text, or two unless `second` is NULL.
unsafe fn pair<'t>(
    text: *const c_char,
    length: usize,
    second: *const c_char,
    second_length: usize,
) -> Result<Pair<'t>, Status> {
    // SAFETY: the pointers are what the header asks for about the texts.
    unsafe {
        let first = utf8(text, length)?;
        let second = if second.is_null() { None } else { Some(utf8(second, second_length)?) };
        Ok(Pair { first, second })
    }
}
