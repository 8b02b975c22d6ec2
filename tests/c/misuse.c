/* Uses and misuses the C API: misuse SST2.bertlet NER.bertlet, the two models of this repository.
 * Run by .ci/c, also under AddressSanitizer. */
#include <bertlet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);             \
            failures++;                                                        \
        }                                                                      \
    } while (0)
#define IS(expected, call) is(BERTLET_STATUS_##expected, (call), #call, __LINE__)

static void is(bertlet_status expected, bertlet_status status, const char *call, int line) {
    if (status != expected) {
        printf("%s:%d: %s\n  is %u (%s), not %u (%s)\n", __FILE__, line, call, (unsigned)status,
               bertlet_status_message(status), (unsigned)expected, bertlet_status_message(expected));
        failures++;
    }
}

static int same(bertlet_text text, const char *expected) {
    return text.length == strlen(expected) && !memcmp(text.bytes, expected, text.length);
}

/* The bytes of a file, at a multiple of 64. */
static unsigned char *read_file(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        exit(2);
    *length = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = aligned_alloc(64, (*length + 127) / 64 * 64);
    if (!bytes || fread(bytes, 1, *length, file) != *length)
        exit(2);
    fclose(file);
    return bytes;
}

static bertlet_encoder *new_encoder(const bertlet_model *model, size_t tokens, const char *isa, void **memory) {
    size_t size = 0;
    bertlet_encoder *encoder = NULL;
    IS(OK, bertlet_encoder_size(model, tokens, &size));
    /* The memory may have any alignment, and hold anything: also bytes that are NaN as floats. */
    *memory = malloc(size + 1);
    memset(*memory, isa ? 0xff : 0xa5, size + 1);
    IS(OK, bertlet_encoder_new(model, tokens, isa, (char *)*memory + 1, size, &encoder));
    return encoder;
}

static void test_models(const char *path) {
    bertlet_model *model = NULL, *const untouched = NULL;
    char message[200] = "x", handle[BERTLET_MODEL_SIZE + 1];
    IS(OK, bertlet_model_open(path, &model, NULL, 0));
    IS(OK, bertlet_model_verify(model));
    bertlet_config config;
    IS(OK, bertlet_model_config(model, &config));
    CHECK(config.hidden_size == 128 && config.num_hidden_layers == 3 && config.labels == 2 && config.max_tokens == 256);
    bertlet_text label = {NULL, 0};
    IS(OK, bertlet_model_label(model, 1, &label));
    CHECK(same(label, "positive"));
    IS(NO_SUCH_INDEX, bertlet_model_label(model, 2, &label));
    IS(NO_SUCH_INDEX, bertlet_model_token(model, 1u << 31, &label));
    CHECK(same(label, "positive"));
    IS(NULL_POINTER, bertlet_model_label(model, 0, NULL));
    IS(NULL_POINTER, bertlet_model_config(NULL, &config));
    IS(NULL_POINTER, bertlet_model_verify(NULL));
    bertlet_model_free(model);
    bertlet_model_free(NULL);

    model = NULL;
    IS(FILE, bertlet_model_open("no/such/model", &model, message, sizeof message));
    CHECK(strstr(message, "no/such/model: no such file"));
    IS(FILE, bertlet_model_open(".", &model, message, 4));
    CHECK(!strcmp(message, ".: "));
    IS(FILE, bertlet_model_open(".", &model, message, 0));
    IS(NOT_A_MODEL, bertlet_model_open("Cargo.lock", &model, message, sizeof message));
    CHECK(strstr(message, "Cargo.lock: not a bertlet file"));
    IS(NULL_POINTER, bertlet_model_open(NULL, &model, NULL, 0));
    IS(NULL_POINTER, bertlet_model_open(path, NULL, NULL, 0));

    size_t length;
    unsigned char *bytes = read_file(path, &length);
    IS(MISALIGNED, bertlet_model_from_memory(bytes + 1, length - 1, handle, sizeof handle, &model));
    IS(FILE_LENGTH, bertlet_model_from_memory(bytes, length - 64, handle, sizeof handle, &model));
    IS(FILE_LENGTH, bertlet_model_from_memory(bytes, 8, handle, sizeof handle, &model));
    IS(BUFFER_TOO_SMALL, bertlet_model_from_memory(bytes, length, handle, 64, &model));
    IS(NULL_POINTER, bertlet_model_from_memory(NULL, length, handle, sizeof handle, &model));
    IS(NULL_POINTER, bertlet_model_from_memory(bytes, length, NULL, sizeof handle, &model));
    bytes[100] ^= 1;
    IS(DAMAGED, bertlet_model_from_memory(bytes, length, handle, sizeof handle, &model));
    bytes[100] ^= 1;
    bytes[8] ^= 0x80;
    IS(VERSION, bertlet_model_from_memory(bytes, length, handle, sizeof handle, &model));
    bytes[8] ^= 0x80;
    CHECK(model == untouched);
    /* The handle may have any alignment. */
    IS(OK, bertlet_model_from_memory(bytes, length, handle + 1, BERTLET_MODEL_SIZE, &model));
    IS(OK, bertlet_model_verify(model));
    bytes[length / 2] ^= 1;
    IS(DAMAGED, bertlet_model_verify(model));
    bertlet_model_free(model);
    free(bytes);
}

static void test_tokens(const bertlet_model *model) {
    const char *text = "A quiet house.";
    uint32_t ids[16] = {9, 9, 9};
    bertlet_span spans[16];
    size_t count = 99;
    size_t counted = 0;
    IS(OK, bertlet_tokenize(model, text, strlen(text), NULL, NULL, &counted));
    CHECK(counted >= 6 && counted <= 16);
    count = 3;
    IS(BUFFER_TOO_SMALL, bertlet_tokenize(model, text, strlen(text), ids, spans, &count));
    CHECK(count == counted && ids[0] == 9);
    count = 16;
    IS(INVALID_UTF8, bertlet_tokenize(model, "\xff", 1, ids, spans, &count));
    IS(NULL_POINTER, bertlet_tokenize(model, NULL, 1, ids, spans, &count));
    IS(NULL_POINTER, bertlet_tokenize(model, text, 1, NULL, spans, &count));
    IS(NULL_POINTER, bertlet_tokenize(model, text, 1, ids, spans, NULL));
    IS(MISALIGNED, bertlet_tokenize(model, text, 1, (uint32_t *)((char *)ids + 1), NULL, &count));
    /* A length that no text has, and a count that no array has. */
    IS(TEXT_TOO_LONG, bertlet_tokenize(model, text, SIZE_MAX, ids, spans, &count));
    CHECK(count == 16 && ids[0] == 9);
    count = SIZE_MAX;
    IS(WRONG_COUNT, bertlet_tokenize(model, text, 1, ids, spans, &count));
    count = 2;
    IS(OK, bertlet_tokenize(model, NULL, 0, ids, spans, &count));
    CHECK(count == 2);
    count = 16;
    IS(OK, bertlet_tokenize(model, text, strlen(text), ids, spans, &count));
    CHECK(count == counted);
    CHECK(spans[0].end == 0 && spans[1].start == 0 && spans[1].end == 1 && spans[count - 1].end == 0);
    CHECK(spans[count - 2].start == 13 && spans[count - 2].end == 14);
    bertlet_text token = {NULL, 0};
    IS(OK, bertlet_model_token(model, ids[0], &token));
    CHECK(same(token, "[CLS]"));
    IS(OK, bertlet_model_token(model, ids[count - 1], &token));
    CHECK(same(token, "[SEP]"));
}

static void test_features(const bertlet_model *model) {
    void *memory;
    bertlet_encoder *encoder = new_encoder(model, 16, NULL, &memory);
    const char *text = "A quiet house.";
    uint32_t ids[16];
    size_t tokens = 16, count = 0, length = strlen(text);
    float of_ids[512], of_text[512], *rows = malloc(16 * 128 * sizeof *rows), *more = malloc(16 * 128 * sizeof *more);
    bool truncated = true;
    IS(OK, bertlet_tokenize(model, text, length, ids, NULL, &tokens));
    bertlet_input input = {ids, NULL, NULL, tokens};
    IS(OK, bertlet_features_count(model, tokens, "concat:1,2", BERTLET_POOLING_MEAN_MAX, &count));
    CHECK(count == 512);
    IS(TOO_MANY_TOKENS, bertlet_features_count(model, SIZE_MAX, NULL, BERTLET_POOLING_NONE, &count));
    IS(OK, bertlet_encode(encoder, &input, "concat:1,2", BERTLET_POOLING_MEAN_MAX, true, of_ids, &count));
    IS(OK, bertlet_embed(encoder, text, length, NULL, 0, "concat:1,2", BERTLET_POOLING_MEAN_MAX, true, -1, of_text,
                         NULL, &count, &truncated));
    CHECK(count == 512 && !memcmp(of_ids, of_text, sizeof of_ids) && !truncated);

    /* Without pooling the count depends on the text, which the call tells. */
    bertlet_config config;
    IS(OK, bertlet_model_config(model, &config));
    CHECK(config.reserved[0] == 0 && config.reserved[7] == 0);
    count = 0;
    truncated = true;
    IS(OK, bertlet_embed(encoder, text, length, NULL, 0, NULL, BERTLET_POOLING_NONE, false, -1, NULL, NULL, &count,
                         &truncated));
    CHECK(count == tokens * 128 && truncated);
    IS(OK, bertlet_encode(encoder, &input, NULL, BERTLET_POOLING_NONE, false, rows, &count));
    IS(OK, bertlet_embed(encoder, text, length, NULL, 0, NULL, BERTLET_POOLING_NONE, false, -1, more, NULL, &count,
                         &truncated));
    CHECK(count == tokens * 128 && !truncated && !memcmp(rows, more, count * sizeof *rows));
    more[0] = 7;
    count -= 1;
    IS(BUFFER_TOO_SMALL, bertlet_embed(encoder, text, length, NULL, 0, NULL, BERTLET_POOLING_NONE, false, -1, more, NULL,
                                       &count, NULL));
    CHECK(count == tokens * 128 && more[0] == 7);
    count = 0;
    IS(OK, bertlet_embed(encoder, text, length, text, length, NULL, BERTLET_POOLING_NONE, false, -1, NULL, NULL, &count,
                         NULL));
    CHECK(count == (2 * tokens - 1 < 16 ? 2 * tokens - 1 : 16) * 128);
    IS(OK, bertlet_embed(encoder, text, length, text, length, NULL, BERTLET_POOLING_NONE, false, -1, more, NULL, &count,
                         NULL));
    /* Room for more is not an error. */
    count = 512;
    IS(OK, bertlet_encode(encoder, &input, "last", BERTLET_POOLING_CLS, false, of_text, &count));
    CHECK(count == 128 && !memcmp(rows, of_text, 128 * sizeof *rows));

    /* A pair is not two texts one after the other. */
    IS(OK, bertlet_embed(encoder, "a", 1, "b", 1, NULL, BERTLET_POOLING_CLS, false, -1, of_text, NULL, &count, NULL));
    IS(OK, bertlet_embed(encoder, "a b", 3, NULL, 0, NULL, BERTLET_POOLING_CLS, false, -1, of_ids, NULL, &count, NULL));
    CHECK(memcmp(of_ids, of_text, 128 * sizeof *of_ids));

    /* Windows need room for one more vector, and pooling. */
    char words[200];
    for (size_t i = 0; i < sizeof words; i += 4)
        memcpy(words + i, i < 100 ? "bad " : "fun ", 4);
    float window[128];
    IS(OK, bertlet_embed(encoder, words, sizeof words, NULL, 0, NULL, BERTLET_POOLING_MEAN, true, -1, of_ids, NULL,
                         &count, &truncated));
    CHECK(truncated);
    IS(OK, bertlet_embed(encoder, words, sizeof words, NULL, 0, NULL, BERTLET_POOLING_MEAN, true, 4, of_text, window,
                         &count, &truncated));
    CHECK(!truncated && memcmp(of_ids, of_text, 128 * sizeof *of_ids));
    IS(NULL_POINTER, bertlet_embed(encoder, words, sizeof words, NULL, 0, NULL, BERTLET_POOLING_MEAN, true, 4, of_text,
                                   NULL, &count, NULL));
    IS(NO_SUCH_CHOICE, bertlet_embed(encoder, words, sizeof words, NULL, 0, NULL, BERTLET_POOLING_NONE, true, 4,
                                     of_text, window, &count, NULL));

    of_ids[0] = 7;
    count = 127;
    IS(BUFFER_TOO_SMALL, bertlet_encode(encoder, &input, NULL, BERTLET_POOLING_CLS, false, of_ids, &count));
    CHECK(count == 128);
    IS(NO_SUCH_LAYER, bertlet_encode(encoder, &input, "4", BERTLET_POOLING_CLS, false, of_ids, &count));
    IS(NO_SUCH_CHOICE, bertlet_encode(encoder, &input, "median:1", BERTLET_POOLING_CLS, false, of_ids, &count));
    IS(NO_SUCH_CHOICE, bertlet_encode(encoder, &input, NULL, 8, false, of_ids, &count));
    IS(INVALID_UTF8, bertlet_encode(encoder, &input, "\xff", BERTLET_POOLING_CLS, false, of_ids, &count));
    IS(NULL_POINTER, bertlet_encode(encoder, &input, NULL, BERTLET_POOLING_CLS, false, NULL, &count));
    IS(NULL_POINTER, bertlet_encode(encoder, &input, NULL, BERTLET_POOLING_CLS, false, of_ids, NULL));
    IS(NULL_POINTER, bertlet_encode(encoder, NULL, NULL, BERTLET_POOLING_CLS, false, of_ids, &count));
    IS(NULL_POINTER, bertlet_encode(NULL, &input, NULL, BERTLET_POOLING_CLS, false, of_ids, &count));
    CHECK(count == 128);
    count = SIZE_MAX / 2;
    IS(WRONG_COUNT, bertlet_encode(encoder, &input, NULL, BERTLET_POOLING_CLS, false, of_ids, &count));
    count = 128;
    input.tokens = 0;
    IS(NO_TOKENS, bertlet_encode(encoder, &input, NULL, BERTLET_POOLING_CLS, false, of_ids, &count));
    uint32_t many[17] = {0};
    bertlet_input long_input = {many, NULL, NULL, 17};
    IS(TOO_MANY_TOKENS, bertlet_encode(encoder, &long_input, NULL, BERTLET_POOLING_CLS, false, of_ids, &count));
    long_input.tokens = SIZE_MAX;
    IS(TOO_MANY_TOKENS, bertlet_encode(encoder, &long_input, NULL, BERTLET_POOLING_CLS, false, of_ids, &count));
    uint8_t ones[2] = {1, 1}, nines[2] = {9, 9}, zeros[2] = {0, 0};
    bertlet_input typed = {ids, nines, ones, 2}, masked = {ids, ones, zeros, 2};
    IS(UNKNOWN_TOKEN, bertlet_encode(encoder, &typed, NULL, BERTLET_POOLING_CLS, false, of_ids, &count));
    IS(NO_TOKENS, bertlet_encode(encoder, &masked, NULL, BERTLET_POOLING_CLS, false, of_ids, &count));
    ids[1] = 1u << 31;
    input.tokens = 2;
    IS(UNKNOWN_TOKEN, bertlet_encode(encoder, &input, NULL, BERTLET_POOLING_CLS, false, of_ids, &count));
    CHECK(of_ids[0] == 7 && count == 128);
    free(rows);
    free(more);
    free(memory);
}

static void test_encoders(const bertlet_model *model) {
    size_t size = 99;
    bertlet_encoder *encoder = NULL;
    IS(TOO_MANY_TOKENS, bertlet_encoder_size(model, 257, &size));
    IS(TOO_MANY_TOKENS, bertlet_encoder_size(model, SIZE_MAX, &size));
    CHECK(size == 99);
    IS(OK, bertlet_encoder_size(model, 128, &size));
    void *memory = malloc(size);
    IS(BUFFER_TOO_SMALL, bertlet_encoder_new(model, 128, NULL, memory, size - 128, &encoder));
    IS(BUFFER_TOO_SMALL, bertlet_encoder_new(model, 128, NULL, memory, 1, &encoder));
    IS(TOO_MANY_TOKENS, bertlet_encoder_new(model, SIZE_MAX, NULL, memory, size, &encoder));
    IS(NULL_POINTER, bertlet_encoder_new(model, 128, NULL, NULL, size, &encoder));
    IS(NULL_POINTER, bertlet_encoder_new(model, 128, NULL, memory, size, NULL));
    IS(UNKNOWN_ISA, bertlet_encoder_new(model, 128, "abacus", memory, size, &encoder));
    CHECK(encoder == NULL);
    IS(OK, bertlet_encoder_new(model, 128, "portable", memory, size, &encoder));
    bertlet_text name = {NULL, 0};
    IS(OK, bertlet_encoder_isa(encoder, &name));
    CHECK(same(name, "portable"));
    free(memory);
}

static void test_classify(const bertlet_model *model) {
    void *memory, *memory_portable;
    bertlet_encoder *encoder = new_encoder(model, 32, NULL, &memory);
    bertlet_encoder *portable = new_encoder(model, 32, "portable", &memory_portable);
    const char *text = "A warm, funny film.";
    float scores[3] = {7, 7, 7}, other[2];
    size_t labels = 1;
    char words[400];
    for (size_t i = 0; i < sizeof words; i += 4)
        memcpy(words + i, i < 200 ? "bad " : "fun ", 4);
    IS(OVERLAP_TOO_LARGE, bertlet_classify(encoder, words, sizeof words, NULL, 0, 30, scores, &labels, NULL));
    IS(INVALID_UTF8, bertlet_classify(encoder, "\xc3", 1, NULL, 0, -1, scores, &labels, NULL));
    IS(BUFFER_TOO_SMALL, bertlet_classify(encoder, text, strlen(text), NULL, 0, -1, scores, &labels, NULL));
    CHECK(labels == 2);
    labels = 0;
    IS(OK, bertlet_classify(encoder, text, strlen(text), NULL, 0, -1, NULL, &labels, NULL));
    CHECK(labels == 2);
    /* Whether an overlap is allowed does not depend on the text: a window holds 30 tokens, of a pair 29. */
    IS(OVERLAP_TOO_LARGE, bertlet_classify(encoder, "a", 1, NULL, 0, 30, scores, &labels, NULL));
    IS(OVERLAP_TOO_LARGE, bertlet_classify(encoder, "a", 1, NULL, 0, PTRDIFF_MAX, scores, &labels, NULL));
    IS(OVERLAP_TOO_LARGE, bertlet_classify(encoder, "a", 1, "b", 1, 29, scores, &labels, NULL));
    IS(OVERLAP_TOO_LARGE, bertlet_entities_size(encoder, "a", 1, 30, &labels));
    IS(OK, bertlet_classify(encoder, "a", 1, NULL, 0, 29, other, &labels, NULL));
    IS(OK, bertlet_classify(encoder, "a", 1, "b", 1, 28, other, &labels, NULL));
    IS(OK, bertlet_classify(encoder, "a", 1, NULL, 0, PTRDIFF_MIN, other, &labels, NULL));
    IS(TEXT_TOO_LONG, bertlet_classify(encoder, text, SIZE_MAX, NULL, 0, -1, scores, &labels, NULL));
    IS(NULL_POINTER, bertlet_classify(encoder, text, strlen(text), NULL, 0, -1, NULL, &labels, NULL));
    IS(NULL_POINTER, bertlet_classify(NULL, text, strlen(text), NULL, 0, -1, scores, &labels, NULL));
    CHECK(scores[0] == 7 && scores[1] == 7);
    bool truncated = true;
    IS(OK, bertlet_classify(encoder, text, strlen(text), NULL, 0, -1, scores, &labels, &truncated));
    CHECK(scores[1] > 0.9f && scores[0] + scores[1] > 0.999f && scores[0] + scores[1] < 1.001f);
    CHECK(scores[2] == 7 && !truncated);
    IS(OK, bertlet_classify(portable, text, strlen(text), NULL, 0, -1, other, &labels, NULL));
    CHECK(!memcmp(scores, other, sizeof other));

    IS(OK, bertlet_classify(encoder, words, sizeof words, NULL, 0, -1, scores, &labels, &truncated));
    CHECK(truncated);
    IS(OK, bertlet_classify(encoder, words, sizeof words, NULL, 0, 8, other, &labels, &truncated));
    CHECK(!truncated && other[1] > scores[1]);

    size_t size = 0, count = 1;
    char room[4096];
    bertlet_entity entity;
    bertlet_fill fill;
    IS(OK, bertlet_entities_size(encoder, text, strlen(text), -1, &size));
    CHECK(size <= sizeof room);
    IS(MISSING_HEAD, bertlet_entities(encoder, text, strlen(text), BERTLET_AGGREGATION_SIMPLE, -1, room, sizeof room,
                                      &entity, &count, NULL));
    IS(MISSING_HEAD, bertlet_fill_mask(encoder, text, strlen(text), 0, NULL, 0, &fill, &count, NULL));
    CHECK(count == 1);
    float is_next = 7;
    bertlet_answer found = {7, {0, 0}, {0, 0}, {0, 0}, {0}};
    IS(MISSING_HEAD, bertlet_next_sentence(encoder, text, strlen(text), text, strlen(text), -1, &is_next, NULL));
    IS(MISSING_HEAD, bertlet_answer_question(encoder, text, strlen(text), text, strlen(text), 15, -1, &found, NULL));
    IS(NULL_POINTER, bertlet_next_sentence(encoder, text, strlen(text), NULL, 1, -1, &is_next, NULL));
    IS(NULL_POINTER, bertlet_answer_question(encoder, text, strlen(text), text, strlen(text), 15, -1, NULL, NULL));
    CHECK(is_next == 7 && found.score == 7);
    free(memory);
    free(memory_portable);
}

static void test_entities(const bertlet_model *model) {
    void *memory;
    bertlet_encoder *encoder = new_encoder(model, 64, NULL, &memory);
    const char *text = "In Z\xC3\xBCrich, Angela Merkel met John Smith.";
    size_t size = 0, count = 8, length = strlen(text);
    bool truncated = true;
    bertlet_entity entities[8];
    float scores[9];
    IS(MISSING_HEAD, bertlet_classify(encoder, text, length, NULL, 0, -1, scores, &count, NULL));
    IS(OK, bertlet_entities_size(encoder, text, length, -1, &size));
    char *room = malloc(size);
    IS(BUFFER_TOO_SMALL, bertlet_entities(encoder, text, length, BERTLET_AGGREGATION_FIRST, -1, room, size - 128, entities,
                                          &count, &truncated));
    IS(NO_SUCH_CHOICE, bertlet_entities(encoder, text, length, 5, -1, room, size, entities, &count, &truncated));
    IS(NULL_POINTER, bertlet_entities(encoder, text, length, 0, -1, NULL, size, entities, &count, &truncated));
    IS(NULL_POINTER, bertlet_entities(encoder, text, length, 0, -1, room, size, NULL, &count, &truncated));
    IS(NULL_POINTER, bertlet_entities(encoder, text, length, 0, -1, room, size, entities, NULL, &truncated));
    CHECK(count == 8 && truncated);
    IS(OK, bertlet_entities(encoder, text, length, BERTLET_AGGREGATION_FIRST, -1, room, size, entities, &count,
                            &truncated));
    CHECK(count == 2 && !truncated);
    CHECK(same(entities[0].label, "PER") && entities[0].bytes.start == 12 && entities[0].bytes.end == 25);
    CHECK(entities[0].chars.start == 11 && entities[0].utf16.end == 24 && entities[0].score > 0.9f);
    CHECK(same(entities[1].label, "PER") && entities[1].bytes.start == 30 && entities[1].bytes.end == 40);
    /* Only what there is room for is written. */
    entities[0].score = entities[1].score = -1;
    count = 1;
    IS(BUFFER_TOO_SMALL, bertlet_entities(encoder, text, length, BERTLET_AGGREGATION_FIRST, -1, room, size, entities,
                                          &count, NULL));
    CHECK(count == 2 && entities[0].score > 0.9f && entities[1].score == -1 && entities[0].reserved[3] == 0);

    char redacted[32];
    const char *expected = "In Z\xC3\xBCrich, [PER] met [PER].";
    size_t need = strlen(expected);
    count = 0;
    IS(OK, bertlet_redact(encoder, text, length, BERTLET_AGGREGATION_FIRST, -1, room, size, NULL, &count));
    CHECK(count == need);
    memset(redacted, 'x', sizeof redacted);
    count = need - 1;
    IS(BUFFER_TOO_SMALL, bertlet_redact(encoder, text, length, BERTLET_AGGREGATION_FIRST, -1, room, size, redacted, &count));
    CHECK(count == need && redacted[0] == 'x');
    IS(NULL_POINTER, bertlet_redact(encoder, text, length, BERTLET_AGGREGATION_FIRST, -1, room, size, redacted, NULL));
    IS(NULL_POINTER, bertlet_redact(encoder, text, length, BERTLET_AGGREGATION_FIRST, -1, NULL, size, redacted, &count));
    IS(NO_SUCH_CHOICE, bertlet_redact(encoder, text, length, 5, -1, room, size, redacted, &count));
    CHECK(redacted[0] == 'x');
    count = sizeof redacted;
    IS(OK, bertlet_redact(encoder, text, length, BERTLET_AGGREGATION_FIRST, -1, room, size, redacted, &count));
    CHECK(count == need && !memcmp(redacted, expected, need) && redacted[need] == 'x');
    free(room);

    char words[16 * 40], safe[16 * 40];
    for (size_t i = 0; i < sizeof words; i += 16)
        memcpy(words + i, "He left London. ", 16);
    for (ptrdiff_t overlap = -1; overlap < 20; overlap += 10) {
        IS(OK, bertlet_entities_size(encoder, words, sizeof words, overlap, &size));
        room = malloc(size);
        count = 0;
        IS(OK, bertlet_entities(encoder, words, sizeof words, BERTLET_AGGREGATION_SIMPLE, overlap, room, size, NULL,
                                &count, &truncated));
        CHECK(truncated == (overlap < 0) && (overlap < 0 ? count < 20 : count > 35));
        /* A text is redacted to its end, or not at all. */
        count = sizeof safe;
        bertlet_status status = bertlet_redact(encoder, words, sizeof words, BERTLET_AGGREGATION_SIMPLE, overlap, room,
                                               size, safe, &count);
        CHECK(overlap < 0 ? status == BERTLET_STATUS_TOO_MANY_TOKENS : !status && count < sizeof safe);
        free(room);
    }
    free(memory);
}

/* Any thread may use any model. */
static void *classify_often(void *model) {
    void *memory;
    bertlet_encoder *encoder = new_encoder(model, 32, NULL, &memory);
    float *scores = malloc(2 * sizeof *scores);
    size_t labels = 2;
    for (int i = 0; i < 20; i++)
        IS(OK, bertlet_classify(encoder, "dull", 4, NULL, 0, -1, scores, &labels, NULL));
    free(memory);
    return scores;
}

static void test_threads(bertlet_model *model) {
    pthread_t threads[3];
    float *scores[3] = {NULL};
    for (int i = 0; i < 3; i++)
        CHECK(!pthread_create(&threads[i], NULL, classify_often, model));
    for (int i = 0; i < 3; i++) {
        CHECK(!pthread_join(threads[i], (void **)&scores[i]));
        CHECK(!memcmp(scores[0], scores[i], 2 * sizeof(float)));
    }
    for (int i = 0; i < 3; i++)
        free(scores[i]);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    CHECK(!strcmp(bertlet_version(), BERTLET_VERSION));
    CHECK(!strcmp(bertlet_status_message(BERTLET_STATUS_OK), "success"));
    CHECK(!strcmp(bertlet_status_message(9999), "no such status"));
    test_models(argv[1]);
    bertlet_model *sst2 = NULL, *ner = NULL;
    IS(OK, bertlet_model_open(argv[1], &sst2, NULL, 0));
    IS(OK, bertlet_model_open(argv[2], &ner, NULL, 0));
    test_tokens(sst2);
    test_encoders(sst2);
    test_features(sst2);
    test_classify(sst2);
    test_threads(sst2);
    test_entities(ner);
    bertlet_model_free(sst2);
    bertlet_model_free(ner);
    printf("%d failures\n", failures);
    return failures != 0;
}
