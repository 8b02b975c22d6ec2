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

use raw::{address, answer, place, prepare, shared, slice, slice_mut, target, unique, utf8};

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
use crate::tokenizer::TokenBuffer;

/// How a call went. A number keeps its meaning in all versions.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Success. Any other status: no output was written.
    Ok = 0,
    /// A required pointer is NULL.
    NullPointer = 1,
    /// A pointer is misaligned: an array's to its elements, a model's bytes to a multiple of 64.
    Misaligned = 2,
    /// A text, path or name is not UTF-8.
    InvalidUtf8 = 3,
    /// A buffer is too small; ask the function's size or count first.
    BufferTooSmall = 4,
    /// An array has another number of elements than the answer.
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
    /// The text is too long: over 4 GiB, or it cannot be cut to the limit.
    TextTooLong = 21,
    /// Windows cannot share this many tokens.
    OverlapTooLarge = 22,
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
    /// The runner, with windows unless `overlap` is negative.
    fn runner(&mut self, overlap: isize) -> &mut TextRunner<'static, 'static> {
        self.runner.set_overlap(usize::try_from(overlap).ok());
        &mut self.runner
    }
}

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
    /// Tokens of the longest input, special ones included.
    pub max_tokens: usize,
    /// Token types (segments).
    pub type_vocab_size: usize,
    /// Labels of the classifier; 0 if there is none.
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

/// The tokens of a text with `[CLS]` before and `[SEP]` after them: their ids and, unless `spans` is NULL,
/// their ranges of bytes in the text (0, 0 for special tokens). `count` gets their number.
///
/// `ids` and `spans` have room for `capacity` elements; if that is too little, nothing is written. If `ids`
/// is NULL the tokens are only counted.
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
                8 * max_tokens,
                4 * max_tokens,
                8 * max_tokens,
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
/// or later: it lives in `memory`, of at least `bertlet_encoder_size` bytes of any alignment, which
/// belongs to it as long as it is used. There is nothing to free. The model must outlive it.
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
    // SAFETY: the pointers are what the header asks for; each `place` gives room for that many values, of which any bytes
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
        handle.write(Encoder { runner: TextRunner::new(inner, buffer), isa, logits, spans });
        encoder.write(handle);
        Ok(())
    })
}

/// Number of values that `bertlet_encode` writes for an input of `tokens` tokens.
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
        let features = Features { layers, pooling, normalize };
        encoder.runner.encoder().encode(&input, &mut [features.output(out)])?;
        Ok(())
    })
}

/// As `bertlet_encode`, on a text, or a pair of texts unless `second` is NULL.
///
/// If `overlap` is -1, a text longer than the encoder's limit is cut, and `truncated` (may be NULL) says
/// whether it was. Otherwise the text is read in windows that share `overlap` tokens, and the features are the
/// mean over the windows, normalised once at the end; then a pooling is needed, and `window` is scratch of
/// `count` values. It may be NULL if `overlap` is -1.
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
    count: usize,
    truncated: *mut bool,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let encoder = unique(encoder)?;
        let text = text_or_pair(text, length, second, second_length)?;
        let (layers, pooling) = selection(layers, pooling)?;
        let out = slice_mut(features, count)?;
        let window = slice_mut(window, if overlap < 0 { 0 } else { count })?;
        let wanted = Features { layers, pooling, normalize };
        let run = encoder.runner(overlap).embed(text, &wanted, out, window)?;
        answer(truncated, run.truncated)
    })
}

/// The scores of a text, or of a pair of texts unless `second` is NULL: one per label
/// (`bertlet_model_label`); `count` is the number of labels. The checkpoint says what they are: probabilities
/// over the labels, one probability per label, or (regression) plain values.
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
    count: usize,
    truncated: *mut bool,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let encoder = unique(encoder)?;
        let text = text_or_pair(text, length, second, second_length)?;
        let scores = slice_mut(scores, count)?;
        let head = SequenceClassifier::new(&encoder.runner.model())?;
        if count != head.logits_len() {
            return Err(Status::WrongCount);
        }
        encoder.runner(overlap);
        let [logits, window] = &mut encoder.logits;
        let run = encoder.runner.classify(text, logits, window)?;
        head.scores(logits);
        scores.copy_from_slice(logits);
        answer(truncated, run.truncated)
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
        let (logits, run) = encoder.runner(overlap).next_sentence(text)?;
        answer(truncated, run.truncated)?;
        is_next.write(head.score(logits));
        Ok(())
    })
}

/// The part of a passage that answers a question. `found` is all zero if the passage is empty.
///
/// `max_answer` is the number of tokens of the longest answer; 15 is usual. `overlap` is -1, or the tokens of
/// the passage that neighbouring windows share; then the answer is the most probable one of all windows.
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
        encoder.runner(overlap);
        let question = Question { text, max_answer };
        let (best, run) = encoder.runner.answer(question, passage, encoder.spans)?;
        answer(truncated, run.truncated)?;
        let tasks::Answer { start, end, score, .. } = best.unwrap_or_default();
        let [bytes, chars, utf16] = spans(start, end);
        found.write(Answer { score, bytes, chars, utf16 });
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
        let all = encoder.runner.tokenizer()?.count(text)?;
        let tokens = if overlap < 0 { all.min(window) } else { all };
        let names = (labels * size_of::<Label<'_>>()).next_multiple_of(64);
        let scratch = tasks::entities_scratch_len(labels, window, tokens.saturating_add(2));
        size.write((63 + names).checked_add(scratch).ok_or(Status::TextTooLong)?);
        Ok(())
    })
}

/// The named entities of a text, in order. `count` gets their number; the first `capacity` of them are
/// written to `entities`. If `count` is more, call again with more room. There are never more entities than
/// tokens.
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
    capacity: usize,
    count: *mut usize,
    truncated: *mut bool,
) -> Status {
    // SAFETY: the pointers are what the header asks for.
    Status::of(|| unsafe {
        let (encoder, text, count) = (unique(encoder)?, utf8(text, length)?, target(count)?);
        let options = entity_options(aggregation)?;
        let entities: &mut [MaybeUninit<Entity>] = slice_mut(entities.cast(), capacity)?;
        let model = encoder.runner.model();
        address(memory)?;
        let (recognizer, rest) = recognizer(&model, slice_mut(memory.cast(), memory_size)?)?;
        let tagged = recognizer.tag(encoder.runner(overlap), text, rest)?;
        let (was_cut, mut found) = (tagged.run.truncated, 0);
        recognizer.entities(tagged, &options, |entity| {
            if let Some(to) = entities.get_mut(found) {
                let tasks::Entity { label, score, start, end, .. } = entity;
                let [bytes, chars, utf16] = spans(start, end);
                to.write(Entity { label: Text::of(label), score, bytes, chars, utf16 });
            }
            found += 1;
        });
        count.write(found);
        answer(truncated, was_cut)
    })
}

/// A text with every entity replaced by its label in brackets, such as `[PER] lives in [LOC].`: whole words,
/// also where an entity ends within one. `redacted` gets it as UTF-8, without a NUL at its end.
///
/// `count` is the room in bytes at `redacted` before the call, and the number of bytes written after it. If there
/// is too little room, nothing is written. If `redacted` is NULL, the bytes are only counted.
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
        let (encoder, text, count) = (unique(encoder)?, utf8(text, length)?, unique(count)?);
        let options = entity_options(aggregation)?;
        let room = if redacted.is_null() { 0 } else { *count };
        let room = slice_mut::<u8>(redacted.cast(), room)?;
        let model = encoder.runner.model();
        address(memory)?;
        let (recognizer, rest) = recognizer(&model, slice_mut(memory.cast(), memory_size)?)?;
        let tagged = recognizer.tag(encoder.runner(overlap), text, rest)?;
        let text = recognizer.redact(tagged, &options)?;
        let mut counted = Writer { room: &mut [], count: 0 };
        let _ = write!(counted, "{text}");
        let need = counted.count;
        if !redacted.is_null() {
            let room = room.get_mut(..need).ok_or(Status::BufferTooSmall)?;
            let _ = write!(Writer { room, count: 0 }, "{text}");
        }
        *count = need;
        Ok(())
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

/// The likeliest words for the `[MASK]` with index `mask` (from 0) in a text, best first. `count` gets the
/// number written to `fills`: `capacity`, or all words of the vocabulary if they are fewer.
///
/// `scratch` has `words` values, as many as the vocabulary has words.
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
        let runner = encoder.runner(-1);
        let (head, tokenizer) = (MaskedLm::new(&runner.model())?, runner.tokenizer()?);
        let mut found = false;
        runner.each_window(text, |encoder, window| {
            let position = mask_positions(&tokenizer, window.input.input_ids).nth(mask);
            found = position.is_some();
            let Some(position) = position else { return Ok(()) };
            Ok(head.logits(encoder, &window.input, &[position], logits)?)
        })?;
        if !found {
            return Err(Status::NoSuchIndex);
        }
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
unsafe fn text_or_pair<'t>(
    text: *const c_char,
    length: usize,
    second: *const c_char,
    second_length: usize,
) -> Result<tasks::Text<'t>, Status> {
    // SAFETY: the pointers are what the header asks for about the texts.
    unsafe {
        let first = utf8(text, length)?;
        Ok(match second.is_null() {
            true => first.into(),
            false => (first, utf8(second, second_length)?).into(),
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
