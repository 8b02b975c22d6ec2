/* bertlet: BERT inference. Generated from src/ffi/mod.rs; do not edit.
 *
 * Ownership: the caller owns every buffer; the only function that allocates is bertlet_model_open. A model
 * and the memory given to a model or an encoder stay where they are as long as these are used. Texts that
 * are handed out (labels, tokens) are parts of the model's file.
 *
 * Arguments: texts are UTF-8 of a given length; names, paths and layers end with NUL. An array of no
 * elements may be NULL. Buffers of one call do not overlap. Neighbouring windows share fewer tokens than one
 * holds without its special tokens (2, for a pair 3); a negative overlap asks for no windows.
 *
 * Arrays that a call fills have a count, in and out. It is the number of elements that there is room for;
 * after the call, that of the answer. If there is too little room, the status is
 * BERTLET_STATUS_BUFFER_TOO_SMALL, and the count is what is needed. A caller that only asks gives NULL and a
 * count of 0: then the count is what is needed, the status BERTLET_STATUS_OK, and no other output is written.
 * Memory that a call works in has a size, which a function or constant tells.
 *
 * Errors: every function that can fail returns a bertlet_status. An output is written on success only, but
 * for the count; BERTLET_STATUS_NOT_FINITE may leave values in an output array that are of no use.
 *
 * Later versions: structs that may get more fields have reserved ones, which are 0 now. Statuses are added.
 *
 * Threads: there is no global state. Any thread may use any model, many at once; an encoder serves one
 * thread at a time.
 */

#ifndef BERTLET_H
#define BERTLET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The version of this header; `bertlet_version` tells that of the library.
#define BERTLET_VERSION_MAJOR 0
#define BERTLET_VERSION_MINOR 1
#define BERTLET_VERSION_PATCH 0
#define BERTLET_VERSION "0.1.0"


// Bytes for a model's handle; see `bertlet_model_from_memory`.
#define BERTLET_MODEL_SIZE 320

// How a call went. A number keeps its meaning in all versions.
enum bertlet_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Success. Any other status but `BERTLET_STATUS_NOT_FINITE`: no output was written, except for the count of
  // `BUFFER_TOO_SMALL`.
  BERTLET_STATUS_OK = 0,
  // A required pointer is NULL.
  BERTLET_STATUS_NULL_POINTER = 1,
  // A pointer is misaligned: an array's to its elements, a model's bytes to a multiple of 64.
  BERTLET_STATUS_MISALIGNED = 2,
  // A text, path or name is not UTF-8.
  BERTLET_STATUS_INVALID_UTF8 = 3,
  // A buffer is too small. An array's count has been set to what is needed; a function tells the size
  // of memory.
  BERTLET_STATUS_BUFFER_TOO_SMALL = 4,
  // No array can have that many elements.
  BERTLET_STATUS_WRONG_COUNT = 5,
  // The file cannot be opened or mapped.
  BERTLET_STATUS_FILE = 6,
  // The bytes are not a bertlet file.
  BERTLET_STATUS_NOT_A_MODEL = 7,
  // A format version that this library does not read.
  BERTLET_STATUS_VERSION = 8,
  // The file has fewer or more bytes than its header says.
  BERTLET_STATUS_FILE_LENGTH = 9,
  // The file's contents do not match their checksum, or contradict each other.
  BERTLET_STATUS_DAMAGED = 10,
  // This library has no instruction set of that name.
  BERTLET_STATUS_UNKNOWN_ISA = 11,
  // The CPU (or, without `std`, the build) lacks this instruction set.
  BERTLET_STATUS_UNAVAILABLE_ISA = 12,
  // The input has no token, or all are masked.
  BERTLET_STATUS_NO_TOKENS = 13,
  // More tokens than the encoder was made for or the model takes.
  BERTLET_STATUS_TOO_MANY_TOKENS = 14,
  // A token's id or type is not in the model.
  BERTLET_STATUS_UNKNOWN_TOKEN = 15,
  // The model has no such layer.
  BERTLET_STATUS_NO_SUCH_LAYER = 16,
  // The number or spelling is not that of any layers, pooling or aggregation.
  BERTLET_STATUS_NO_SUCH_CHOICE = 17,
  // The checkpoint did not have this head.
  BERTLET_STATUS_MISSING_HEAD = 18,
  // The model has no vocabulary; it takes ids only.
  BERTLET_STATUS_MISSING_TOKENIZER = 19,
  // No label, token or `[MASK]` has this number.
  BERTLET_STATUS_NO_SUCH_INDEX = 20,
  // The text is too long: over 4 GiB, or what is asked for (a `[MASK]`, a passage) does not fit into the
  // encoder's limit.
  BERTLET_STATUS_TEXT_TOO_LONG = 21,
  // Windows cannot share this many tokens.
  BERTLET_STATUS_OVERLAP_TOO_LARGE = 22,
  // A value of the answer is NaN or infinite: the weights overflow. Values in an array that the call
  // fills are of no use.
  BERTLET_STATUS_NOT_FINITE = 23,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bertlet_status bertlet_status;
#else
typedef uint32_t bertlet_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How the vectors of an input's tokens become one. Means and maxima run over all unmasked tokens, the
// special ones included.
enum bertlet_pooling
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Not at all: one vector per token.
  BERTLET_POOLING_NONE = 0,
  // The first token's.
  BERTLET_POOLING_CLS = 1,
  // That of the checkpoint's pooler.
  BERTLET_POOLING_POOLER = 2,
  // Mean.
  BERTLET_POOLING_MEAN = 3,
  // Largest value of each feature.
  BERTLET_POOLING_MAX = 4,
  // Mean, then maximum: twice as wide.
  BERTLET_POOLING_MEAN_MAX = 5,
  // Sum over the square root of the number of tokens.
  BERTLET_POOLING_MEAN_SQRT = 6,
  // The last unmasked token's.
  BERTLET_POOLING_SEP = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bertlet_pooling bertlet_pooling;
#else
typedef uint32_t bertlet_pooling;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How the labels of tokens become entities. `BERTLET_AGGREGATION_FIRST` is the usual choice.
enum bertlet_aggregation
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // Not at all: each token with a label other than `O` is an entity.
  BERTLET_AGGREGATION_NONE = 0,
  // Neighbouring tokens of the same entity are joined. Entities may end within a word.
  BERTLET_AGGREGATION_SIMPLE = 1,
  // Words have the label of their first token; neighbouring words are joined.
  BERTLET_AGGREGATION_FIRST = 2,
  // Words have the label of the largest mean probability.
  BERTLET_AGGREGATION_AVERAGE = 3,
  // Words have the label of their most confident token.
  BERTLET_AGGREGATION_MAX = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum bertlet_aggregation bertlet_aggregation;
#else
typedef uint32_t bertlet_aggregation;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What runs a model: a view of it, and memory of the caller. One thread at a time may use it.
typedef struct bertlet_encoder bertlet_encoder;

// A model: a validated view of a file, which is not copied. It never changes, so any number of
// threads may use it at once.
typedef struct bertlet_model bertlet_model;

// The shape of a model.
typedef struct {
  // Hidden size: number of values of a token's vector.
  size_t hidden_size;
  // Encoder layers.
  size_t num_hidden_layers;
  // Attention heads per layer.
  size_t num_attention_heads;
  // Inner size of the feed-forward network.
  size_t intermediate_size;
  // Words in the vocabulary.
  size_t vocab_size;
  // Tokens that the checkpoint cuts texts to, special ones included; an encoder may be made for more, up
  // to the model's positions.
  size_t max_tokens;
  // Token types (segments).
  size_t type_vocab_size;
  // Labels of the classifier; 0 if there is none.
  size_t labels;
  // The pooling that the checkpoint was made for: a `bertlet_pooling`.
  uint32_t pooling;
  // Whether pooled vectors are meant to be of length 1.
  bool normalize;
  // For later versions; 0 in this one.
  size_t reserved[8];
} bertlet_config;

// A text of UTF-8 inside the model's file. It does not end with NUL.
typedef struct {
  // Its first byte.
  const char *bytes;
  // Number of bytes.
  size_t length;
} bertlet_text;

// A range of a text: `start` is the first position, `end` one past the last.
typedef struct {
  // First position.
  uint32_t start;
  // One past the last position.
  uint32_t end;
} bertlet_span;

// Tokens as they are.
typedef struct {
  // `[tokens]`: ids in the model's vocabulary, `[CLS]` and `[SEP]` included.
  const uint32_t *input_ids;
  // `[tokens]`: token types; all 0 if this is NULL.
  const uint8_t *token_type_ids;
  // `[tokens]`: 0 for tokens to ignore, 1 for others; all 1 if this is NULL.
  const uint8_t *attention_mask;
  // Number of tokens.
  size_t tokens;
} bertlet_input;

// An answer to a question.
typedef struct {
  // Probability of its start times probability of its end, in [0, 1].
  float score;
  // Its range in the passage, in bytes.
  bertlet_span bytes;
  // The same in code points (Python).
  bertlet_span chars;
  // The same in UTF-16 units (Java, JavaScript, Swift).
  bertlet_span utf16;
  // For later versions; 0 in this one.
  uint32_t reserved[4];
} bertlet_answer;

// A named entity.
typedef struct {
  // `PER`; the whole label, `B-PER`, where tokens are not joined.
  bertlet_text label;
  // Mean probability of the labels of its tokens or words, in [0, 1].
  float score;
  // Its range in the text, in bytes.
  bertlet_span bytes;
  // The same in code points (Python).
  bertlet_span chars;
  // The same in UTF-16 units (Java, JavaScript, Swift).
  bertlet_span utf16;
  // For later versions; 0 in this one.
  uint32_t reserved[4];
} bertlet_entity;

// A word for a `[MASK]`.
typedef struct {
  // Its id; see `bertlet_model_token`.
  uint32_t id;
  // Its probability among all words of the vocabulary, in [0, 1].
  float score;
} bertlet_fill;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of this library, such as "0.1.0".
const char *bertlet_version(void);

// What a status means and what to do about it, in English, ended by NUL; never NULL.
const char *bertlet_status_message(uint32_t status);

// Maps a model file and validates its header; no weight is read. Give it back with
// `bertlet_model_free`. While it is mapped nobody may overwrite the file in place: replace it by
// renaming another to its name. Not part of a library that was built without `std`.
//
// `message` (may be NULL) gets a sentence about what is wrong with which file on failure, cut to
// `message_size` bytes and ended by NUL.
bertlet_status bertlet_model_open(const char *path,
                                  bertlet_model **model,
                                  char *message,
                                  size_t message_size);

// Validates the header of a model file in memory; copies and allocates nothing. `bytes` starts at a
// multiple of 64, and stays unchanged as long as the model is used.
//
// The handle lives in `memory`, of `memory_size` (at least `BERTLET_MODEL_SIZE`) bytes of any
// alignment, which belongs to the model as long as it is used.
bertlet_status bertlet_model_from_memory(const void *bytes,
                                         size_t length,
                                         void *memory,
                                         size_t memory_size,
                                         bertlet_model **model);

// Gives back what `bertlet_model_open` took. Does nothing for a model from memory, and for NULL.
void bertlet_model_free(bertlet_model *model);

// Reads the whole file and compares its checksums.
bertlet_status bertlet_model_verify(const bertlet_model *model);

// The model's shape.
bertlet_status bertlet_model_config(const bertlet_model *model, bertlet_config *config);

// The name of label `index`, from 0.
bertlet_status bertlet_model_label(const bertlet_model *model, size_t index, bertlet_text *label);

// The text of a token of the vocabulary, with the `##` of a word's later pieces.
bertlet_status bertlet_model_token(const bertlet_model *model, uint32_t id, bertlet_text *token);

// The tokens of a text with `[CLS]` before and `[SEP]` after them, however many they are: their ids and,
// unless `spans` is NULL, their ranges of bytes in the text (0, 0 for special tokens). `spans` has room for
// as many elements as `ids`.
bertlet_status bertlet_tokenize(const bertlet_model *model,
                                const char *text,
                                size_t length,
                                uint32_t *ids,
                                bertlet_span *spans,
                                size_t *count);

// Bytes of memory that an encoder for inputs of up to `max_tokens` tokens needs.
bertlet_status bertlet_encoder_size(const bertlet_model *model, size_t max_tokens, size_t *size);

// An encoder for inputs of up to `max_tokens` tokens, special ones included. It allocates nothing, here
// or later: it lives in `memory`, of at least `bertlet_encoder_size` bytes of any alignment, which
// belongs to it as long as it is used. There is nothing to free. The model must outlive it.
//
// `isa` is the name of an instruction set, or NULL for the fastest that the CPU has: "portable" on every
// CPU; "avx2", "avxvnni" and "avx512vnni" on x86-64; "neon" on AArch64. All give the same bits. A library
// built without `std` has one, the best that the compiler was told to use.
bertlet_status bertlet_encoder_new(const bertlet_model *model,
                                   size_t max_tokens,
                                   const char *isa,
                                   void *memory,
                                   size_t memory_size,
                                   bertlet_encoder **encoder);

// Number of values that `bertlet_encode` writes for an input of `tokens` tokens. With a pooling it does not
// depend on them.
bertlet_status bertlet_features_count(const bertlet_model *model,
                                      size_t tokens,
                                      const char *layers,
                                      uint32_t pooling,
                                      size_t *count);

// Runs the model on tokens and writes hidden states to `features`: a vector, or `[tokens][width]` without
// pooling. `bertlet_features_count` tells the count, too.
//
// `layers` says which, as the command does: "last", "-2", "sum:last4", "concat:last4", "mean:1,2",
// "weighted:0=0.1,5=0.4"; NULL is "last". `pooling` is a `bertlet_pooling`; `normalize` divides each
// vector by its Euclidean length.
bertlet_status bertlet_encode(bertlet_encoder *encoder,
                              const bertlet_input *input,
                              const char *layers,
                              uint32_t pooling,
                              bool normalize,
                              float *features,
                              size_t *count);

// As `bertlet_encode`, on a text, or a pair of texts unless `second` is NULL. `layers` (NULL), `pooling` and
// `normalize` (those of `bertlet_model_config`) are what the checkpoint was made for.
// If it has a default prompt, that stands before the text.
//
// Without pooling the answer is `[tokens][width]`, so `count` depends on the text: ask for it first, with
// NULL for `features` and a count of 0. This only counts tokens.
//
// If `overlap` is -1, a text longer than the encoder's limit is cut, and `truncated` (may be NULL) says
// whether it was. Otherwise the text is read in windows that share `overlap` tokens, and the features are the
// mean over the windows, normalised once at the end; then a pooling is needed, and `window` is scratch for
// as many values as the answer has. It may be NULL if `overlap` is -1.
bertlet_status bertlet_embed(bertlet_encoder *encoder,
                             const char *text,
                             size_t length,
                             const char *second,
                             size_t second_length,
                             const char *layers,
                             uint32_t pooling,
                             bool normalize,
                             ptrdiff_t overlap,
                             float *features,
                             float *window,
                             size_t *count,
                             bool *truncated);

// The scores of a text, or of a pair of texts unless `second` is NULL: one per label
// (`bertlet_model_label`). The checkpoint says what they are: probabilities over the labels, one probability per
// label (also if there is one label), or the logits themselves.
//
// If `overlap` is -1, a text longer than the encoder's limit is cut, and `truncated` (may be NULL) says
// so. Otherwise the text is read in windows that share `overlap` tokens, and the scores are those of the mean
// of their logits.
bertlet_status bertlet_classify(bertlet_encoder *encoder,
                                const char *text,
                                size_t length,
                                const char *second,
                                size_t second_length,
                                ptrdiff_t overlap,
                                float *scores,
                                size_t *count,
                                bool *truncated);

// The probability that the second text follows the first. `overlap` and `truncated` are those of
// `bertlet_classify`.
bertlet_status bertlet_next_sentence(bertlet_encoder *encoder,
                                     const char *first,
                                     size_t first_length,
                                     const char *second,
                                     size_t second_length,
                                     ptrdiff_t overlap,
                                     float *is_next,
                                     bool *truncated);

// The part of a passage that answers a question. `found` is all zero if the passage is empty.
//
// `max_answer` is the number of tokens of the longest answer; 15 is usual. `overlap` is -1, or the tokens of
// the passage that neighbouring windows share; then the answer is the most probable one of all windows.
// Windows share at least `max_answer` - 1 tokens, so that no answer is lost where a window ends.
// `truncated` (may be NULL) says whether the passage was cut.
bertlet_status bertlet_answer_question(bertlet_encoder *encoder,
                                       const char *question,
                                       size_t question_length,
                                       const char *passage,
                                       size_t passage_length,
                                       size_t max_answer,
                                       ptrdiff_t overlap,
                                       bertlet_answer *found,
                                       bool *truncated);

// Bytes of memory that `bertlet_entities` needs for this text.
bertlet_status bertlet_entities_size(const bertlet_encoder *encoder,
                                     const char *text,
                                     size_t length,
                                     ptrdiff_t overlap,
                                     size_t *size);

// The named entities of a text, in order. There are never more than tokens. If there are more than
// `entities` has room for, the first of them are written there all the same.
//
// `aggregation` is a `bertlet_aggregation`. If `overlap` is -1, a text longer than the encoder's limit is
// cut, and `truncated` (may be NULL) says so. Otherwise the text is read in windows that share `overlap` tokens.
// `memory` has at least `bertlet_entities_size` bytes for this text and overlap, of any alignment.
bertlet_status bertlet_entities(bertlet_encoder *encoder,
                                const char *text,
                                size_t length,
                                uint32_t aggregation,
                                ptrdiff_t overlap,
                                void *memory,
                                size_t memory_size,
                                bertlet_entity *entities,
                                size_t *count,
                                bool *truncated);

// A text with every entity replaced by its label in brackets, such as `[PER] lives in [LOC].`: whole words,
// also where an entity ends within one. `redacted` gets it as UTF-8, without a NUL at its end.
//
// `count` is in bytes: the room at `redacted` before the call, the length of the answer after it.
//
// `aggregation` is a `bertlet_aggregation`. The text is read in windows that share `overlap` tokens. If `overlap`
// is -1, a text longer than the encoder's limit is refused with `BERTLET_STATUS_TOO_MANY_TOKENS`, as its rest
// would stay as it is. `memory` has at least `bertlet_entities_size` bytes for this text and overlap, of any
// alignment.
bertlet_status bertlet_redact(bertlet_encoder *encoder,
                              const char *text,
                              size_t length,
                              uint32_t aggregation,
                              ptrdiff_t overlap,
                              void *memory,
                              size_t memory_size,
                              char *redacted,
                              size_t *count);

// The likeliest words for the `[MASK]` with index `mask` (from 0) in a text, best first: as many as `fills`
// has room for, or all words of the vocabulary if they are fewer.
//
// A text longer than the encoder's limit is cut, and `truncated` (may be NULL) says so; a `[MASK]` in what
// is cut off is `TEXT_TOO_LONG`. `scratch` has `scratch_count` values, at least `vocab_size`.
bertlet_status bertlet_fill_mask(bertlet_encoder *encoder,
                                 const char *text,
                                 size_t length,
                                 size_t mask,
                                 float *scratch,
                                 size_t scratch_count,
                                 bertlet_fill *fills,
                                 size_t *count,
                                 bool *truncated);

// The name of the instruction set that an encoder uses.
bertlet_status bertlet_encoder_isa(const bertlet_encoder *encoder, bertlet_text *name);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* BERTLET_H */
