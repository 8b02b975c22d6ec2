/* Classifies a text: classify MODEL TEXT. Allocates one buffer, whose size the library tells. */
#include <bertlet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MAX_TOKENS 128

static void *must(void *memory, const char *what) {
    if (!memory || memory == MAP_FAILED) {
        perror(what);
        exit(1);
    }
    return memory;
}

static void check(const char *what, bertlet_status status) {
    if (status != BERTLET_STATUS_OK) {
        fprintf(stderr, "%s: %s\n", what, bertlet_status_message(status));
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL TEXT\n", argv[0]);
        return 2;
    }
    const char *path = argv[1], *text = argv[2];
    struct stat about;
    int file = open(path, O_RDONLY);
    if (file < 0 || fstat(file, &about)) {
        perror(path);
        return 1;
    }
    size_t length = (size_t)about.st_size;
    const void *bytes = must(mmap(NULL, length, PROT_READ, MAP_PRIVATE, file, 0), path);

    char handle[BERTLET_MODEL_SIZE];
    bertlet_model *model;
    bertlet_encoder *encoder;
    bertlet_config config;
    size_t size;
    check(path, bertlet_model_from_memory(bytes, length, handle, sizeof handle, &model));
    check(path, bertlet_model_config(model, &config));
    size_t tokens = config.max_tokens < MAX_TOKENS ? config.max_tokens : MAX_TOKENS;
    check(path, bertlet_encoder_size(model, tokens, &size));
    void *memory = must(malloc(size), "memory");
    check(path, bertlet_encoder_new(model, tokens, NULL, memory, size, &encoder));

    float *scores = must(calloc(config.labels + 1, sizeof *scores), "memory");
    bool truncated;
    size_t labels = config.labels;
    check(path, bertlet_classify(encoder, text, strlen(text), NULL, 0, -1, scores, &labels, &truncated));
    for (size_t i = 0; i < labels; i++) {
        bertlet_text label = {"?", 1};
        (void)bertlet_model_label(model, i, &label); /* a file may lack names */
        printf("%.*s %.6f\n", (int)label.length, label.bytes, scores[i]);
    }
    if (truncated)
        fprintf(stderr, "the text was cut to %zu tokens\n", tokens);
    return 0;
}
