// One function, compiled for several instruction sets and chosen when the program starts. Where the
// result must not depend on the processor, CMakeLists.txt forbids fused multiply-add (shard/edit).
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#define MRP_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MRP_VECTOR_CLONES
#endif
