// Marks for functions that live in kernel files.
//
// A kernel file is compiled once per instruction set. Whatever it defines must therefore be a template over its
// vector class or have internal linkage, or the linker could hand AVX code to the scalar table.
#pragma once

#if defined(__GNUC__) || defined(__clang__)
#define FT_INLINE inline __attribute__((always_inline))
#define FT_PREFETCH(address) __builtin_prefetch(address)
#define FT_UNROLL_4 _Pragma("GCC unroll 4")
#else
#define FT_INLINE inline
#define FT_PREFETCH(address) ((void)0)
#define FT_UNROLL_4
#endif
