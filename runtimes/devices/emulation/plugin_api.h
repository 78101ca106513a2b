/* The part of qemu's TCG plugin interface, version 1 (qemu 4.2 to 8.2), that the counter needs.

   Distributions ship qemu with plugins enabled but without this header. The interface is plain C and stable within a
   version, and qemu refuses a plugin of a version that it does not speak. */
#ifndef EDGEKRON_PLUGIN_API_H
#define EDGEKRON_PLUGIN_API_H

#include <stddef.h>
#include <stdint.h>

typedef uint64_t qemu_plugin_id_t;

/* What follows target_name is not used. */
typedef struct qemu_info_t {
    const char *target_name;
} qemu_info_t;

struct qemu_plugin_tb;
struct qemu_plugin_insn;

enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

typedef void (*execution_cb)(unsigned vcpu, void *data);
typedef void (*translation_cb)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*syscall_cb)(qemu_plugin_id_t, unsigned vcpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t, uint64_t, uint64_t);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translation_cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, execution_cb, enum qemu_plugin_cb_flags, void *data);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, syscall_cb);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

#endif
