// Marks for functions that live in kernel files.
//
// A kernel file is compiled once per instruction set. Whatever it defines must therefore be a template over its
// vector class or have internal linkage, or the linker could hand AVX code to the scalar table.
#pragma once

#if defined(__GNUC__) || defined(__clang__)
#define FT_INLINE inline __attribute__((always_inline))
#define FT_PREFETCH(address) __builtin_prefetch(address)
#define FT_PREFETCH_FAR(address) __builtin_prefetch(address, 0, 2)  // into the second cache
#define FT_PREFETCH_WRITE(address) __builtin_prefetch(address, 1)
#define FT_PRAGMA(text) _Pragma(#text)
#define FT_UNROLL(n) FT_PRAGMA(GCC unroll n)

// Keeps a vector in its register here. FT_PIN: compilers otherwise turn long sums into trees and spill their leaves.
// FT_RENEW: it counts as changed by someone else, so that what is made of it is made again, and used by someone.
#define FT_PIN(value) __asm__("" : "+x"(value))
#define FT_RENEW(value) __asm__ volatile("" : "+v"(value))
#else
#define FT_INLINE inline
#define FT_PREFETCH(address) ((void)0)
#define FT_PREFETCH_FAR(address) ((void)0)
#define FT_PREFETCH_WRITE(address) ((void)0)
#define FT_UNROLL(n)
#define FT_PIN(value) ((void)0)
#define FT_RENEW(value) ((void)0)
#endif
