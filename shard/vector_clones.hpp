// One function, compiled for several instruction sets and chosen when the program starts. Where the
// result must not depend on the processor, CMakeLists.txt forbids fused multiply-add (shard/edit).
#pragma once

// GCC 12 is the first to know these levels. The fourth has 16-bit integers in AVX-512, which bf16
// needs.
#if defined(__x86_64__) && __GNUC__ >= 12
#define MRP_VECTOR_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MRP_VECTOR_CLONES
#endif
