/* A plugin for QEMU's user emulation: prints how many instructions of the guest were executed. QEMU 7 to 9
   have these declarations in qemu-plugin.h, which Debian does not package. */
#include <inttypes.h>
#include <stdio.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_info;
typedef void (*tb_trans_t)(plugin_id, struct qemu_plugin_tb *);
typedef void (*at_exit_t)(plugin_id, void *);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, tb_trans_t);
void qemu_plugin_register_atexit_cb(plugin_id, at_exit_t, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
/* The operation 0 adds to the number at the address. */
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int, void *, uint64_t);

int qemu_plugin_version = 1;
static uint64_t executed;

static void translated(plugin_id id, struct qemu_plugin_tb *tb) {
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++)
        qemu_plugin_register_vcpu_insn_exec_inline(qemu_plugin_tb_get_insn(tb, i), 0, &executed, 1);
}

static void at_exit(plugin_id id, void *unused) {
    (void)id, (void)unused;
    fprintf(stderr, "instructions %" PRIu64 "\n", executed);
}

int qemu_plugin_install(plugin_id id, const struct qemu_plugin_info *info, int argc, char **argv) {
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
