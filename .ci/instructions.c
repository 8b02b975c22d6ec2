/* A plugin for QEMU: prints how many instructions of the guest were executed. With `blocks=FILE` it also writes
   how often each translated block was executed: `start ADDRESS` of its code (0 without an operating system), then
   lines `ADDRESS INSTRUCTIONS EXECUTIONS`. QEMU 7 to 9 have these declarations in qemu-plugin.h, which Debian does
   not package. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_info;
typedef void (*tb_trans_t)(plugin_id, struct qemu_plugin_tb *);
typedef void (*at_exit_t)(plugin_id, void *);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, tb_trans_t);
void qemu_plugin_register_atexit_cb(plugin_id, at_exit_t, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_start_code(void);
/* The operation 0 adds to the number at the address. */
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);

int qemu_plugin_version = 1;

/* A block may be translated again; the program may jump into its middle. Each has a number of its own then. */
struct block {
    uint64_t address, instructions, executions;
    struct block *next;
};
static struct block *blocks;
static const char *file;

static void translated(plugin_id id, struct qemu_plugin_tb *tb) {
    (void)id;
    struct block *block = calloc(1, sizeof *block);
    if (!block) abort();
    block->address = qemu_plugin_tb_vaddr(tb);
    block->instructions = qemu_plugin_tb_n_insns(tb);
    block->next = blocks;
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, 0, &block->executions, 1);
}

static void at_exit(plugin_id id, void *unused) {
    (void)id, (void)unused;
    uint64_t executed = 0;
    FILE *out = file ? fopen(file, "w") : NULL;
    if (file && !out) perror(file), abort();
    if (out) fprintf(out, "start %" PRIu64 "\n", qemu_plugin_start_code());
    for (struct block *b = blocks; b; b = b->next) {
        executed += b->instructions * b->executions;
        if (out) fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", b->address, b->instructions, b->executions);
    }
    if (out) fclose(out);
    fprintf(stderr, "instructions %" PRIu64 "\n", executed);
}

int qemu_plugin_install(plugin_id id, const struct qemu_plugin_info *info, int argc, char **argv) {
    (void)info;
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "blocks=", 7)) file = strdup(argv[i] + 7);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
