/* The class of an A64 instruction, from its 32 bits (ARM DDI 0487, chapter C4, "A64 instruction set encoding").

   Every instruction is counted as an instruction; loads, stores, branches and vector or floating-point arithmetic are
   counted once more; multiply-accumulates of the last kind once more again, by their type:
     float_macs    FMLA, FMLS, FMADD, FMSUB, FNMADD, FNMSUB and FMLAL, FMLSL, of any number of lanes
     integer_macs  MLA, MLS, SMLAL, UMLAL, SMLSL, UMLSL and the doubling and rounding forms
     dot_products  SDOT, UDOT, USDOT, SUDOT
   An exclusive access or a compare-and-swap is a load or a store by its bit 22; another atomic access and a prefetch
   are loads. The class means nothing for extensions that no board here has: memory tags and copies, pointer
   authentication, RCPC 2, bfloat16, SVE and SME. */
#ifndef EDGEKRON_CLASSES_H
#define EDGEKRON_CLASSES_H

#include <stdint.h>

enum { INSTRUCTIONS, LOADS, STORES, BRANCHES, VECTOR_FLOAT, FLOAT_MACS, INTEGER_MACS, DOT_PRODUCTS, CLASSES };

static const char *const CLASS_NAMES[CLASSES] = {
    "instructions", "loads", "stores", "branches", "vector_float", "float_macs", "integer_macs", "dot_products",
};

static unsigned field(uint32_t word, unsigned low, unsigned width) { return (word >> low) & ((1u << width) - 1); }

static int is_load(uint32_t word) {
    unsigned opc = field(word, 22, 2), vector = field(word, 26, 1), top = field(word, 28, 2);
    if (top == 1 && field(word, 24, 2) == 0 && field(word, 27, 1)) return 1; /* literal */
    if (top < 3) return field(word, 22, 1);                                  /* exclusive, pair, vector structures */
    if ((word & 0x3b200c00) == 0x38200000) return 1;                         /* atomic */
    return vector ? field(word, 22, 1) : opc != 0; /* one register: opc 00 stores; of a vector, bit 22 loads */
}

static int by_element(unsigned unsigned_bit, unsigned opcode) {
    switch (opcode) {
    case 0: case 4: return unsigned_bit ? INTEGER_MACS : FLOAT_MACS;  /* MLA, MLS; FMLAL, FMLSL */
    case 1: case 5: return unsigned_bit ? CLASSES : FLOAT_MACS;       /* FCMLA apart; FMLA, FMLS */
    case 2: case 6: return INTEGER_MACS;                              /* SMLAL and the like */
    case 3: case 7: return unsigned_bit ? CLASSES : INTEGER_MACS;     /* SQDMLAL, SQDMLSL */
    case 8: case 12: return unsigned_bit ? FLOAT_MACS : CLASSES;      /* FMLAL2, FMLSL2; MUL, SQDMULH */
    case 13: return unsigned_bit ? INTEGER_MACS : CLASSES;            /* SQRDMLAH; SQRDMULH */
    case 14: return DOT_PRODUCTS;                                     /* SDOT, UDOT */
    case 15: return unsigned_bit ? INTEGER_MACS : DOT_PRODUCTS;       /* SQRDMLSH; SUDOT, USDOT */
    default: return CLASSES;
    }
}

static int same_type(unsigned unsigned_bit, unsigned opcode, unsigned size) {
    if (opcode == 0x12) return INTEGER_MACS;                              /* MLA, MLS */
    if (opcode == 0x19) return unsigned_bit && (size & 1) ? CLASSES : FLOAT_MACS; /* FMLA, FMLS; FMLAL2, FMLSL2 */
    return opcode == 0x1d && !unsigned_bit ? FLOAT_MACS : CLASSES;        /* FMLAL, FMLSL */
}

/* The class of a vector or floating-point instruction beyond being one; CLASSES where it is no multiply-accumulate.
   Of the masks, bit 28 tells one lane from several and bit 30 the width. */
static int mac_class(uint32_t word) {
    unsigned unsigned_bit = field(word, 29, 1), opcode = field(word, 11, 4);
    if ((word & 0xff000000) == 0x1f000000) return FLOAT_MACS; /* FMADD, FMSUB, FNMADD, FNMSUB */
    if ((word & 0x9f200400) == 0x0e200400) return same_type(unsigned_bit, field(word, 11, 5), field(word, 22, 2));
    if ((word & 0x9f60c400) == 0x0e400400) /* three of half precision: FMLA, FMLS */
        return field(word, 11, 3) == 1 && !unsigned_bit ? FLOAT_MACS : CLASSES;
    if ((word & 0x8f200c00) == 0x0e200000) { /* three, the result wider: SMLAL and the like, SQDMLAL, SQDMLSL */
        opcode = field(word, 12, 4);
        return (opcode & 12) == 8 && (!(opcode & 1) || !unsigned_bit) ? INTEGER_MACS : CLASSES;
    }
    if ((word & 0x8f208400) == 0x0e008400) { /* three, later extensions */
        if (opcode < 2 && unsigned_bit) return INTEGER_MACS;          /* SQRDMLAH, SQRDMLSH */
        return opcode == 2 || opcode == 3 ? DOT_PRODUCTS : CLASSES;
    }
    return (word & 0x8f000400) == 0x0f000000 ? by_element(unsigned_bit, field(word, 12, 4)) : CLASSES;
}

/* Adds one to every class of this instruction. */
static void classify(uint32_t word, unsigned *counts) {
    unsigned group = field(word, 25, 4);
    counts[INSTRUCTIONS]++;
    if ((group & 5) == 4) {
        counts[is_load(word) ? LOADS : STORES]++;
    } else if ((group & 14) == 10) {
        counts[BRANCHES]++;
    } else if ((group & 7) == 7) {
        int mac = mac_class(word);
        counts[VECTOR_FLOAT]++;
        if (mac != CLASSES) counts[mac]++;
    }
}

#endif
