/* Overwrites an opened model file in place: overwrite MODEL COPY. Each of 60 patterns runs in a process of its own, which
 * may give any answer or status, but must not be ended by a signal. */
#define _POSIX_C_SOURCE 200809L
#include <bertlet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATTERNS = 60, TOKENS = 64, ENTITIES = 64 };

static void *must(void *memory) {
    if (!memory)
        _exit(90);
    return memory;
}

static void copy_file(const char *from, const char *to, size_t *length) {
    FILE *file = fopen(from, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        exit(2);
    *length = (size_t)ftell(file);
    rewind(file);
    void *bytes = must(malloc(*length));
    if (fread(bytes, 1, *length, file) != *length)
        exit(2);
    fclose(file);
    file = fopen(to, "wb");
    if (!file || fwrite(bytes, 1, *length, file) != *length || fclose(file))
        exit(2);
    free(bytes);
}

/* The first four patterns write over the whole file, the others over some part of it. */
static void overwrite(const char *path, size_t length, int pattern) {
    srand((unsigned)pattern);
    size_t from = pattern < 4 ? 0 : (size_t)rand() % length;
    size_t count = pattern < 4 ? length : 1 + (size_t)rand() % (length - from);
    unsigned char *bytes = must(malloc(count));
    const int constants[] = {0xff, 0, 0x7f};
    for (size_t i = 0; i < count; i++)
        bytes[i] = (unsigned char)(pattern % 4 < 3 ? constants[pattern % 4] : rand());
    int file = open(path, O_WRONLY);
    if (pwrite(file, bytes, count, (off_t)from) != (ssize_t)count)
        _exit(91);
    close(file);
    free(bytes);
}

/* Uses everything that reads the file. */
static unsigned use(const bertlet_model *model, bertlet_encoder *encoder) {
    const char *text = "Ada Lovelace met Z\xC3\xBCrich \xE6\x9D\xB1\xE4\xBA\xAC, a warm, funny film.";
    float scores[ENTITIES];
    size_t count = ENTITIES, size = 0;
    unsigned sum = (unsigned)bertlet_classify(encoder, text, strlen(text), NULL, 0, -1, scores, &count, NULL);
    if (bertlet_entities_size(encoder, text, strlen(text), -1, &size) == BERTLET_STATUS_OK) {
        bertlet_entity entities[ENTITIES];
        void *memory = must(malloc(size));
        count = ENTITIES;
        bertlet_status status = bertlet_entities(encoder, text, strlen(text), BERTLET_AGGREGATION_FIRST, -1, memory, size,
                                                 entities, &count, NULL);
        for (size_t i = 0; status == BERTLET_STATUS_OK && i < count; i++)
            for (size_t j = 0; j < entities[i].label.length; j++)
                sum += (unsigned char)entities[i].label.bytes[j];
        free(memory);
    }
    bertlet_text name;
    for (uint32_t id = 0; id < 200; id++) {
        for (int token = 0; token < 2; token++) {
            bertlet_status status =
                token ? bertlet_model_token(model, id, &name) : bertlet_model_label(model, id, &name);
            for (size_t j = 0; status == BERTLET_STATUS_OK && j < name.length; j++)
                sum += (unsigned char)name.bytes[j];
        }
    }
    return sum + (unsigned)bertlet_model_verify(model);
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    int failures = 0;
    for (int pattern = 0; pattern < PATTERNS; pattern++) {
        size_t length = 0;
        copy_file(argv[1], argv[2], &length);
        pid_t child = fork();
        if (!child) {
            bertlet_model *model = NULL;
            bertlet_encoder *encoder = NULL;
            size_t size = 0;
            if (bertlet_model_open(argv[2], &model, NULL, 0) || bertlet_encoder_size(model, TOKENS, &size) ||
                bertlet_encoder_new(model, TOKENS, NULL, must(malloc(size)), size, &encoder))
                _exit(92);
            overwrite(argv[2], length, pattern);
            volatile unsigned sum = use(model, encoder);
            (void)sum;
            _exit(0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        if (status) {
            printf("pattern %d: status %#x\n", pattern, (unsigned)status);
            failures++;
        }
    }
    printf("%d patterns, %d failures\n", PATTERNS, failures);
    return failures != 0;
}
