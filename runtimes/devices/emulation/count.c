/* A qemu plugin that counts the guest's A64 instructions by class, between marks that the guest sets.

   A mark is the system call getpgid(0x7e000000 | tag): no process has that number, so the call fails and does
   nothing. Every mark prints one JSON line to the file given as out=FILE: what the thread that set it has executed
   since its mark before. Other threads, such as a runtime's own that writes logs, are counted apart and not printed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "classes.h"
#include "plugin_api.h"

#define EXPORT __attribute__((visibility("default")))
#define GETPGID 155
#define MARK 0x7e000000u
#define THREADS 256 /* those beyond share the last place */

EXPORT int qemu_plugin_version = 1;

static uint64_t counters[THREADS][CLASSES];
static FILE *out;

static uint64_t *counters_of(unsigned vcpu) { return counters[vcpu < THREADS ? vcpu : THREADS - 1]; }

static void on_execution(unsigned vcpu, void *data) {
    const unsigned *counts = data;
    uint64_t *sums = counters_of(vcpu);
    for (int class = 0; class < CLASSES; class++) sums[class] += counts[class];
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    unsigned *counts = calloc(CLASSES, sizeof *counts); /* lives as long as the block, which is until the end */
    size_t length = qemu_plugin_tb_n_insns(block);
    (void)id;
    if (!counts) abort();
    for (size_t index = 0; index < length; index++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, index)), sizeof word);
        classify(word, counts);
    }
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_execution, QEMU_PLUGIN_CB_NO_REGS, counts);
}

static void on_mark(unsigned vcpu, unsigned tag) {
    static uint64_t before[CLASSES];
    const uint64_t *sums = counters_of(vcpu);
    fprintf(out, "{\"tag\": %u", tag);
    for (int class = 0; class < CLASSES; class++) {
        fprintf(out, ", \"%s\": %llu", CLASS_NAMES[class], (unsigned long long)(sums[class] - before[class]));
        before[class] = sums[class];
    }
    fputs("}\n", out);
    fflush(out);
}

static void on_syscall(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t first, uint64_t a2, uint64_t a3,
                       uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    (void)id, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number == GETPGID && (first & 0xffff0000u) == MARK) on_mark(vcpu, (unsigned)(first & 0xffffu));
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
    if (strcmp(info->target_name, "aarch64")) {
        fprintf(stderr, "the counter knows aarch64, not %s\n", info->target_name);
        return 1;
    }
    for (int index = 0; index < argc; index++)
        if (!strncmp(argv[index], "out=", 4)) out = fopen(argv[index] + 4, "w");
    if (!out) {
        fputs("the counter needs out=FILE, a file that can be written\n", stderr);
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    return 0;
}
