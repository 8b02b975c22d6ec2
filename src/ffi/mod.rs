//! The C API: `include/bertlet.h`, which is generated from this file.
//!
//! Every function checks its pointers, lengths and numbers, and returns a [`Status`]. A panic, which
//! would be a defect of this library, ends the process: it cannot unwind into C.
#![allow(unsafe_code)]
// The same for all of them, and said in the header: a pointer is NULL, or good for what it is said to be.
#![allow(clippy::missing_safety_doc)]

mod raw;
mod status;

use core::ffi::{CStr, c_char, c_void};
use core::fmt::Write;
use core::mem::MaybeUninit;

use raw::{Array, address, answer, place, prepare, shared, slice, slice_mut, target, unique, utf8};

use crate::encoder;
use crate::heads::{self, MaskedLm, NextSentence, SequenceClassifier};
use crate::kernels::Isa;
use crate::outputs::{self, Layers, features_len};
#[cfg(feature = "std")]
use crate::owned::ModelFile;
use crate::tasks::{
    self, EntityOptions, EntityRecognizer, Features, Label, Offset, Question, TextRunner,
    mask_positions,
};
use crate::tokenizer::{TokenBuffer, Tokenizer};

/// How a call went. A number keeps its meaning in all versions.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Success. Any other status but `BERTLET_STATUS_NOT_FINITE`: no output was written, except for the count of
    /// `BUFFER_TOO_SMALL`.
    Ok = 0,
    /// A required pointer is NULL.
    NullPointer = 1,
    /// A pointer is misaligned: an array's to its elements, a model's bytes to a multiple of 64.
    Misaligned = 2,
    /// A text, path or name is not UTF-8.
    InvalidUtf8 = 3,
    /// A buffer is too small. An array's count has been set to what is needed; a function tells the size
    /// of memory.
    BufferTooSmall = 4,
    /// No array can have that many elements.
    WrongCount = 5,
    /// The file cannot be opened or mapped.
    File = 6,
    /// The bytes are not a bertlet file.
    NotAModel = 7,
    /// A format version that this library does not read.
    Version = 8,
    /// The file has fewer or more bytes than its header says.
    FileLength = 9,
    /// The file's contents do not match their checksum, or contradict each other.
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
    /// The number or spelling is not that of any layers, pooling or aggregation.
    NoSuchChoice = 17,
    /// The checkpoint did not have this head.
    MissingHead = 18,
    /// The model has no vocabulary; it takes ids only.
    MissingTokenizer = 19,
    /// No label, token or `[MASK]` has this number.
    NoSuchIndex = 20,
    /// The text is too long: over 4 GiB, or what is asked for (a `[MASK]`, a passage) does not fit into the
    /// encoder's limit.
    TextTooLong = 21,
    /// Windows cannot share this many tokens.
    OverlapTooLarge = 22,
    /// A value of the answer is NaN or infinite: the weights overflow. Values in an array that the call
    /// fills are of no use.
    NotFinite = 23,
}

/// How the vectors of an input's tokens become one. Means and maxima run over all unmasked tokens, the
/// special ones included.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Not at all: one vector per token.
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

/// How the labels of tokens become entities. `BERTLET_AGGREGATION_FIRST` is the usual choice.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// Not at all: each token with a label other than `O` is an entity.
    None = 0,
    /// Neighbouring tokens of the same entity are joined. Entities may end within a word.
    Simple = 1,
    /// Words have the label of their first token; neighbouring words are joined.
    First = 2,
    /// Words have the label of the largest mean probability.
    Average = 3,
    /// Words have the label of their most confident token.
    Max = 4,
}

/// Bytes for a model's handle; see `bertlet_model_from_memory`.
pub const BERTLET_MODEL_SIZE: usize = 320;

// `place` skips up to 63 bytes and takes whole blocks of 64.
const _: () = assert!(63 + size_of::<Model>().next_multiple_of(64) <= BERTLET_MODEL_SIZE);

/// A text of UTF-8 inside the model's file. It does not end with NUL.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// Its first byte.
    pub bytes: *const c_char,
    /// Number of bytes.
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
    runner: TextRunner<'static, 'static>,
    isa: Isa,
    /// `[labels]`: logits of a text, and of one of its windows.
    logits: [&'static mut [f32]; 2],
    /// `[max_tokens][2]`: logits of answers.
    spans: &'static mut [f32],
}

impl Encoder {
    /// Tokens that windows share, `None` if `overlap` is negative. Whether that many are allowed does not
    /// depend on the text, only on how many of a window's tokens are `special`.
    fn overlap(&self, overlap: isize, special: usize) -> Result<Option<usize>, Status> {
        let overlap = usize::try_from(overlap).ok();
        let room = self.runner.max_tokens().saturating_sub(special).max(1);
        if overlap.is_some_and(|overlap| overlap >= room) {
            return Err(Status::OverlapTooLarge);
        }
        Ok(overlap)
    }

    /// The runner, with windows unless `overlap` is negative.
    fn runner(
        &mut self,
        overlap: isize,
        special: usize,
    ) -> Result<&mut TextRunner<'static, 'static>, Status> {
        let overlap = self.overlap(overlap, special)?;
        self.runner.set_overlap(overlap);
        Ok(&mut self.runner)
    }
}

/// Special tokens of a text, and of a pair.
const ONE_TEXT: usize = 2;
const PAIR: usize = 3;

/// The shape of a model.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Hidden size: number of values of a token's vector.
    pub hidden_size: usize,
    /// Encoder layers.
    pub num_hidden_layers: usize,
    /// Attention heads per layer.
    pub num_attention_heads: usize,
    /// Inner size of the feed-forward network.
    pub intermediate_size: usize,
    /// Words in the vocabulary.
    pub vocab_size: usize,
    /// Tokens that the checkpoint cuts texts to, special ones included; an encoder may be made for more, up
    /// to the model's positions.
    pub max_tokens: usize,
    /// Token types (segments).
    pub type_vocab_size: usize,
    /// Labels of the classifier; 0 if there is none.
    pub labels: usize,
    /// The pooling that the checkpoint was made for: a `bertlet_pooling`.
    pub pooling: u32,
    /// Whether pooled vectors are meant to be of length 1.
    pub normalize: bool,
    /// For later versions; 0 in this one.
    pub reserved: [usize; 8],
}

/// Tokens as they are.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// `[tokens]`: ids in the model's vocabulary, `[CLS]` and `[SEP]` included.
    pub input_ids: *const u32,
    /// `[tokens]`: token types; all 0 if this is NULL.
    pub token_type_ids: *const u8,
    /// `[tokens]`: 0 for tokens to ignore, 1 for others; all 1 if this is NULL.
    pub attention_mask: *const u8,
    /// Number of tokens.
    pub tokens: usize,
}

/// A range of a text: `start` is the first position, `end` one past the last.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// First position.
    pub start: u32,
    /// One past the last position.
    pub end: u32,
}

/// A named entity.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Entity {
    /// `PER`; the whole label, `B-PER`, where tokens are not joined.
    pub label: Text,
    /// Mean probability of the labels of its tokens or words, in [0, 1].
    pub score: f32,
    /// Its range in the text, in bytes.
    pub bytes: Span,
    /// The same in code points (Python).
    pub chars: Span,
    /// The same in UTF-16 units (Java, JavaScript, Swift).
    pub utf16: Span,
    /// For later versions; 0 in this one.
    pub reserved: [u32; 4],
}

/// An answer to a question.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer {
    /// Probability of its start times probability of its end, in [0, 1].
    pub score: f32,
    /// Its range in the passage, in bytes.
    pub bytes: Span,
    /// The same in code points (Python).
    pub chars: Span,
    /// The same in UTF-16 units (Java, JavaScript, Swift).
    pub utf16: Span,
    /// For later versions; 0 in this one.
    pub reserved: [u32; 4],
}

/// A word for a `[MASK]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Fill {
    /// Its id; see `bertlet_model_token`.
    pub id: u32,
    /// Its probability among all words of the vocabulary, in [0, 1].
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
/// The handle lives in `memory`, of `memory_size` (at least `BERTLET_MODEL_SIZE`) bytes of any
/// alignment, which belongs to the model as long as it is used.
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
            max_tokens: model.max_tokens(),
            type_vocab_size: shape.type_vocab_size,
            labels: model.labels().len(),
            pooling: model.default_pooling() as u32,
            normalize: model.default_normalize(),
            reserved: [0; _],
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

/// The tokens of a text with `[CLS]` before and `[SEP]` after them, however many they are: their ids and,
/// unless `spans` is NULL, their ranges of bytes in the text (0, 0 for special tokens). `spans` has room for
/// as many elements as `ids`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_tokenize(
    model: *const Model,
    text: *const c_char,
    length: usize,
    ids: *mut u32,
    spans: *mut Span,
    count: *mut usize,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let (model, text) = (shared(model)?.view(), utf8(text, length)?);
        let mut array = Array::new(ids, count)?;
        let spans = slice_mut(spans, if spans.is_null() { 0 } else { *count })?;
        let tokenizer = model.tokenizer()?;
        let need = tokenizer.count(text)? + ONE_TEXT;
        let Some(ids) = array.fit(need)? else { return Ok(()) };
        spans.iter_mut().take(need).for_each(|span| *span = Span::default());
        (ids[0], ids[need - 1]) = (tokenizer.cls_id(), tokenizer.sep_id());
        for (i, token) in (1..need - 1).zip(tokenizer.tokens(text)) {
            let token = token?;
            ids[i] = token.id;
            if let Some(span) = spans.get_mut(i) {
                *span = Span { start: token.start, end: token.end };
            }
        }
        array.finish(need)
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
        check_tokens(&model, max_tokens)?;
        size.write(encoder_size(&model, max_tokens));
        Ok(())
    })
}

/// An encoder for inputs of up to `max_tokens` tokens, special ones included. It allocates nothing, here
/// or later: it lives in `memory`, of at least `bertlet_encoder_size` bytes of any alignment, which
/// belongs to it as long as it is used. There is nothing to free. The model must outlive it.
///
/// `isa` is the name of an instruction set, or NULL for the fastest that the CPU has: "portable" on every
/// CPU; "avx2", "avxvnni" and "avx512vnni" on x86-64; "neon" on AArch64. All give the same bits. A library
/// built without `std` has one, the best that the compiler was told to use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_encoder_new(
    model: *const Model,
    max_tokens: usize,
    isa: *const c_char,
    memory: *mut c_void,
    memory_size: usize,
    encoder: *mut *mut Encoder,
) -> Status {
    // SAFETY: the pointers are what the header asks for; each `place` gives room for that many values, of which any bytes
    // are valid ones but for the handle, which is written first.
    Status::of(|| unsafe {
        let (model, encoder) = (shared(model)?.view(), target(encoder)?);
        check_tokens(&model, max_tokens)?;
        let isa = match isa.is_null() {
            true => Isa::detect(),
            false => isa_named(CStr::from_ptr(isa).to_str().map_err(|_| Status::InvalidUtf8)?)?,
        };
        address(memory)?;
        // Once, so that no call computes with what was there before: tokens past the end of an input take part
        // in the arithmetic, though not in the result.
        let used = memory_size.min(encoder_size(&model, max_tokens));
        memory.cast::<u8>().write_bytes(0, used);
        let mut rest = slice_mut::<u8>(memory.cast(), used)?;
        let handle = place::<Encoder>(&mut rest, 1)?;
        let buffer = TokenBuffer {
            input_ids: slice_mut(place(&mut rest, max_tokens)?, max_tokens)?,
            token_type_ids: slice_mut(place(&mut rest, max_tokens)?, max_tokens)?,
            offsets: prepare(place(&mut rest, max_tokens)?, max_tokens),
            words: slice_mut(place(&mut rest, max_tokens)?, max_tokens)?,
        };
        let spans = 2 * max_tokens;
        let spans = slice_mut(place(&mut rest, spans)?, spans)?;
        let labels = model.labels().len();
        let logits = [
            slice_mut(place(&mut rest, labels)?, labels)?,
            slice_mut(place(&mut rest, labels)?, labels)?,
        ];
        let inner = encoder::Encoder::new(model, isa, rest, max_tokens)?;
        let runner = TextRunner::new(inner, buffer).with_max_tokens(max_tokens);
        handle.write(Encoder { runner, isa, logits, spans });
        encoder.write(handle);
        Ok(())
    })
}

/// Number of values that `bertlet_encode` writes for an input of `tokens` tokens. With a pooling it does not
/// depend on them.
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
        check_tokens(&model, tokens)?;
        let (layers, pooling) = selection(layers, pooling)?;
        count.write(features_len(model.config(), tokens, &layers, pooling)?);
        Ok(())
    })
}

/// Runs the model on tokens and writes hidden states to `features`: a vector, or `[tokens][width]` without
/// pooling. `bertlet_features_count` tells the count, too.
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
    count: *mut usize,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let (encoder, input) = (unique(encoder)?, shared(input)?);
        let mut array = Array::new(features, count)?;
        let (layers, pooling) = selection(layers, pooling)?;
        if input.tokens > encoder.runner.max_tokens() {
            return Err(Status::TooManyTokens);
        }
        let config = *encoder.runner.model().config();
        let need = features_len(&config, input.tokens, &layers, pooling)?;
        let optional = |values: *const u8| match values.is_null() {
            true => Ok(None),
            false => slice(values, input.tokens).map(Some),
        };
        let input = encoder::Input {
            input_ids: slice(input.input_ids, input.tokens)?,
            token_type_ids: optional(input.token_type_ids)?,
            attention_mask: optional(input.attention_mask)?,
        };
        let Some(out) = array.fit(need)? else { return Ok(()) };
        let features = Features { layers, pooling, normalize };
        encoder.runner.encoder().encode(&input, &mut [features.output(out)])?;
        array.finish(need)
    })
}

/// As `bertlet_encode`, on a text, or a pair of texts unless `second` is NULL. `layers` (NULL), `pooling` and
/// `normalize` (those of `bertlet_model_config`) are what the checkpoint was made for.
/// If it has a default prompt, that stands before the text.
///
/// Without pooling the answer is `[tokens][width]`, so `count` depends on the text: ask for it first, with
/// NULL for `features` and a count of 0. This only counts tokens.
///
/// If `overlap` is -1, a text longer than the encoder's limit is cut, and `truncated` (may be NULL) says
/// whether it was. Otherwise the text is read in windows that share `overlap` tokens, and the features are the
/// mean over the windows, normalised once at the end; then a pooling is needed, and `window` is scratch for
/// as many values as the answer has. It may be NULL if `overlap` is -1.
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
    overlap: isize,
    features: *mut f32,
    window: *mut f32,
    count: *mut usize,
    truncated: *mut bool,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let encoder = unique(encoder)?;
        let (text, special) = text_or_pair(text, length, second, second_length)?;
        let mut array = Array::new(features, count)?;
        let (layers, pooling) = selection(layers, pooling)?;
        let runner = encoder.runner(overlap, special)?;
        let tokens = match pooling {
            outputs::Pooling::None if overlap >= 0 => return Err(Status::NoSuchChoice),
            outputs::Pooling::None => tokens_of(runner, &text)?,
            _ => 1,
        };
        let need = features_len(runner.model().config(), tokens, &layers, pooling)?;
        let Some(out) = array.fit(need)? else { return Ok(()) };
        let window = slice_mut(window, if overlap < 0 { 0 } else { need })?;
        let wanted = Features { layers, pooling, normalize };
        let run = runner.embed(text, &wanted, out, window)?;
        answer(truncated, run.truncated)?;
        array.finish(need)
    })
}

/// The scores of a text, or of a pair of texts unless `second` is NULL: one per label
/// (`bertlet_model_label`). The checkpoint says what they are: probabilities over the labels, one probability per
/// label (also if there is one label), or the logits themselves.
///
/// If `overlap` is -1, a text longer than the encoder's limit is cut, and `truncated` (may be NULL) says
/// so. Otherwise the text is read in windows that share `overlap` tokens, and the scores are those of the mean
/// of their logits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_classify(
    encoder: *mut Encoder,
    text: *const c_char,
    length: usize,
    second: *const c_char,
    second_length: usize,
    overlap: isize,
    scores: *mut f32,
    count: *mut usize,
    truncated: *mut bool,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let encoder = unique(encoder)?;
        let (text, special) = text_or_pair(text, length, second, second_length)?;
        let mut array = Array::new(scores, count)?;
        let head = SequenceClassifier::new(&encoder.runner.model())?;
        encoder.runner(overlap, special)?;
        let need = head.logits_len();
        let Some(scores) = array.fit(need)? else { return Ok(()) };
        let [logits, window] = &mut encoder.logits;
        let run = encoder.runner.classify(text, logits, window)?;
        head.scores(logits);
        scores.copy_from_slice(logits);
        answer(truncated, run.truncated)?;
        array.finish(need)
    })
}

/// The probability that the second text follows the first. `overlap` and `truncated` are those of
/// `bertlet_classify`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_next_sentence(
    encoder: *mut Encoder,
    first: *const c_char,
    first_length: usize,
    second: *const c_char,
    second_length: usize,
    overlap: isize,
    is_next: *mut f32,
    truncated: *mut bool,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let (encoder, is_next) = (unique(encoder)?, target(is_next)?);
        let text = (utf8(first, first_length)?, utf8(second, second_length)?);
        let head = NextSentence::new(&encoder.runner.model())?;
        let (logits, run) = encoder.runner(overlap, PAIR)?.next_sentence(text)?;
        answer(truncated, run.truncated)?;
        is_next.write(head.score(logits));
        Ok(())
    })
}

/// The part of a passage that answers a question. `found` is all zero if the passage is empty.
///
/// `max_answer` is the number of tokens of the longest answer; 15 is usual. `overlap` is -1, or the tokens of
/// the passage that neighbouring windows share; then the answer is the most probable one of all windows.
/// Windows share at least `max_answer` - 1 tokens, so that no answer is lost where a window ends.
/// `truncated` (may be NULL) says whether the passage was cut.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_answer_question(
    encoder: *mut Encoder,
    question: *const c_char,
    question_length: usize,
    passage: *const c_char,
    passage_length: usize,
    max_answer: usize,
    overlap: isize,
    found: *mut Answer,
    truncated: *mut bool,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let (encoder, found) = (unique(encoder)?, target(found)?);
        let text = utf8(question, question_length)?;
        let passage = utf8(passage, passage_length)?;
        encoder.runner(overlap, PAIR)?;
        let question = Question { text, max_answer };
        let (best, run) = encoder.runner.answer(question, passage, encoder.spans)?;
        answer(truncated, run.truncated)?;
        let tasks::Answer { start, end, score, .. } = best.unwrap_or_default();
        let [bytes, chars, utf16] = spans(start, end);
        found.write(Answer { score, bytes, chars, utf16, reserved: [0; _] });
        Ok(())
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
        let model = encoder.runner.model();
        let (labels, window) = (model.labels().len(), encoder.runner.max_tokens());
        let windows = encoder.overlap(overlap, ONE_TEXT)?.is_some();
        let all = encoder.runner.tokenizer()?.count(text)?;
        let tokens = if windows { all } else { all.min(window) };
        let names = (labels * size_of::<Label<'_>>()).next_multiple_of(64);
        let scratch = tasks::entities_scratch_len(labels, window, tokens.saturating_add(2));
        size.write((63 + names).checked_add(scratch).ok_or(Status::TextTooLong)?);
        Ok(())
    })
}

/// The named entities of a text, in order. There are never more than tokens. If there are more than
/// `entities` has room for, the first of them are written there all the same.
///
/// `aggregation` is a `bertlet_aggregation`. If `overlap` is -1, a text longer than the encoder's limit is
/// cut, and `truncated` (may be NULL) says so. Otherwise the text is read in windows that share `overlap` tokens.
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
    count: *mut usize,
    truncated: *mut bool,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let (encoder, text) = (unique(encoder)?, utf8(text, length)?);
        let mut array = Array::<MaybeUninit<Entity>>::new(entities.cast(), count)?;
        let options = entity_options(aggregation)?;
        let model = encoder.runner.model();
        address(memory)?;
        let (recognizer, rest) = recognizer(&model, slice_mut(memory.cast(), memory_size)?)?;
        let tagged = recognizer.tag(encoder.runner(overlap, ONE_TEXT)?, text, rest)?;
        let (was_cut, mut found) = (tagged.run.truncated, 0);
        recognizer.entities(tagged, &options, |entity| {
            if let Some(to) = array.values().get_mut(found) {
                let tasks::Entity { label, score, start, end, .. } = entity;
                let [bytes, chars, utf16] = spans(start, end);
                let label = Text::of(label);
                to.write(Entity { label, score, bytes, chars, utf16, reserved: [0; _] });
            }
            found += 1;
        });
        answer(truncated, was_cut)?;
        array.finish(found)
    })
}

/// A text with every entity replaced by its label in brackets, such as `[PER] lives in [LOC].`: whole words,
/// also where an entity ends within one. `redacted` gets it as UTF-8, without a NUL at its end.
///
/// `count` is in bytes: the room at `redacted` before the call, the length of the answer after it.
///
/// `aggregation` is a `bertlet_aggregation`. The text is read in windows that share `overlap` tokens. If `overlap`
/// is -1, a text longer than the encoder's limit is refused with `BERTLET_STATUS_TOO_MANY_TOKENS`, as its rest
/// would stay as it is. `memory` has at least `bertlet_entities_size` bytes for this text and overlap, of any
/// alignment.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_redact(
    encoder: *mut Encoder,
    text: *const c_char,
    length: usize,
    aggregation: u32,
    overlap: isize,
    memory: *mut c_void,
    memory_size: usize,
    redacted: *mut c_char,
    count: *mut usize,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let (encoder, text) = (unique(encoder)?, utf8(text, length)?);
        let mut array = Array::<u8>::new(redacted.cast(), count)?;
        let options = entity_options(aggregation)?;
        let model = encoder.runner.model();
        address(memory)?;
        let (recognizer, rest) = recognizer(&model, slice_mut(memory.cast(), memory_size)?)?;
        let tagged = recognizer.tag(encoder.runner(overlap, ONE_TEXT)?, text, rest)?;
        let text = recognizer.redact(tagged, &options)?;
        let mut counted = Writer { room: &mut [], count: 0 };
        let _ = write!(counted, "{text}");
        let Some(room) = array.fit(counted.count)? else { return Ok(()) };
        let _ = write!(Writer { room, count: 0 }, "{text}");
        array.finish(counted.count)
    })
}

/// Counts what is written, and keeps as much of it as there is room for.
struct Writer<'w> {
    room: &'w mut [u8],
    count: usize,
}

impl Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let to = self.count + text.len();
        if let Some(room) = self.room.get_mut(self.count..to) {
            room.copy_from_slice(text.as_bytes());
        }
        self.count = to;
        Ok(())
    }
}

/// The options of this `bertlet_aggregation`.
fn entity_options(aggregation: u32) -> Result<EntityOptions, Status> {
    let aggregation = tasks::Aggregation::NAMES.get(aggregation as usize);
    let &(_, aggregation) = aggregation.ok_or(Status::NoSuchChoice)?;
    Ok(EntityOptions { aggregation, constrained: false })
}

/// An entity recogniser whose labels are at the start of `memory`, and the rest of `memory`.
fn recognizer(
    model: &crate::Model<'static>,
    mut memory: &'static mut [u8],
) -> Result<(EntityRecognizer<'static, 'static>, &'static mut [u8]), Status> {
    let names = model.labels().len();
    let labels = place::<Label<'_>>(&mut memory, names)?;
    // SAFETY: `place` gives room for that many labels, and nothing else uses it.
    let labels = unsafe { prepare(labels, names) };
    Ok((EntityRecognizer::new(model, labels)?, memory))
}

/// The likeliest words for the `[MASK]` with index `mask` (from 0) in a text, best first: as many as `fills`
/// has room for, or all words of the vocabulary if they are fewer.
///
/// A text longer than the encoder's limit is cut, and `truncated` (may be NULL) says so; a `[MASK]` in what
/// is cut off is `TEXT_TOO_LONG`. `scratch` has `scratch_count` values, at least `vocab_size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertlet_fill_mask(
    encoder: *mut Encoder,
    text: *const c_char,
    length: usize,
    mask: usize,
    scratch: *mut f32,
    scratch_count: usize,
    fills: *mut Fill,
    count: *mut usize,
    truncated: *mut bool,
) -> Status {
    // SAFETY: the pointers are what the header asks for; the two kinds of fill are laid out alike.
    Status::of(|| unsafe {
        let (encoder, text) = (unique(encoder)?, utf8(text, length)?);
        let mut fills = Array::new(fills.cast::<heads::Fill>(), count)?;
        let logits = slice_mut(scratch, scratch_count)?;
        let runner = encoder.runner(-1, ONE_TEXT)?;
        let (head, tokenizer) = (MaskedLm::new(&runner.model())?, runner.tokenizer()?);
        let logits = logits.get_mut(..head.logits_len(1)).ok_or(Status::BufferTooSmall)?;
        let mut found = false;
        let run = runner.each_window(text, |encoder, window| {
            let position = mask_positions(&tokenizer, window.input.input_ids).nth(mask);
            found = position.is_some();
            let Some(position) = position else { return Ok(()) };
            Ok(head.logits(encoder, &window.input, &[position], logits)?)
        })?;
        if !found {
            let cut_off = run.truncated && mask < count_masks(&tokenizer, text)?;
            return Err(if cut_off { Status::TextTooLong } else { Status::NoSuchIndex });
        }
        answer(truncated, run.truncated)?;
        let words = head.top(logits, fills.values());
        fills.finish(words)
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

/// Bytes of an encoder, at any alignment.
fn encoder_size(model: &crate::Model<'_>, max_tokens: usize) -> usize {
    let labels = model.labels().len();
    let parts = [
        size_of::<Encoder>(),
        4 * max_tokens,
        max_tokens,
        8 * max_tokens,
        4 * max_tokens,
        8 * max_tokens,
        4 * labels,
        4 * labels,
        model.config().scratch_len(max_tokens),
    ];
    63 + parts.iter().map(|part| part.next_multiple_of(64)).sum::<usize>()
}

/// The model takes inputs of that many tokens.
fn check_tokens(model: &crate::Model<'_>, tokens: usize) -> Result<(), Status> {
    let fits = tokens <= model.config().max_position_embeddings;
    if fits { Ok(()) } else { Err(Status::TooManyTokens) }
}

/// Tokens of a text that is cut to the encoder's limit.
fn tokens_of(runner: &TextRunner<'_, '_>, text: &tasks::Text<'_>) -> Result<usize, Status> {
    let tokenizer = runner.tokenizer()?;
    let all = match *text {
        tasks::Text::Pair(a, b) => tokenizer.count(a)? + tokenizer.count(b)? + PAIR,
        tasks::Text::Str(text) => tokenizer.count(text)? + ONE_TEXT,
        _ => 0,
    };
    Ok(all.min(runner.max_tokens()))
}

/// Every `[MASK]` of a text.
fn count_masks(tokenizer: &Tokenizer<'_>, text: &str) -> Result<usize, Status> {
    let mut count = 0;
    for token in tokenizer.tokens(text) {
        count += usize::from(Some(token?.id) == tokenizer.mask_id());
    }
    Ok(count)
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

/// One text, or two unless `second` is NULL, and how many special tokens it gets.
unsafe fn text_or_pair<'t>(
    text: *const c_char,
    length: usize,
    second: *const c_char,
    second_length: usize,
) -> Result<(tasks::Text<'t>, usize), Status> {
    // SAFETY: the pointers are what the header asks for about the texts.
    unsafe {
        let first = utf8(text, length)?;
        Ok(match second.is_null() {
            true => (first.into(), ONE_TEXT),
            false => ((first, utf8(second, second_length)?).into(), PAIR),
        })
    }
}

/// A range in bytes, code points and UTF-16 units.
fn spans(start: Offset, end: Offset) -> [Span; 3] {
    [
        Span { start: start.byte, end: end.byte },
        Span { start: start.char, end: end.char },
        Span { start: start.utf16, end: end.utf16 },
    ]
}
