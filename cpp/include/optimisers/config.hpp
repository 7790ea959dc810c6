// config.hpp: the version, and the only macros of the project: what compilers leave no other way to say.
#pragma once

namespace optimisers {
inline constexpr const char* version = "0.1.0";
}

// OPT_FN: a function that kernels inline always, on host and device. It must never be emitted out of line:
// kernels.cpp is compiled for several instruction sets, and a shared copy would leak one level into the others.
#if defined(__CUDACC__)
#define OPT_FN __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define OPT_FN __forceinline
#else
#define OPT_FN [[gnu::always_inline]] inline
#endif

// OPT_CALL: likewise, but what is large and rare is called on a device, not inlined.
#if defined(__CUDACC__)
#define OPT_CALL inline __host__ __device__ __noinline__
#else
#define OPT_CALL OPT_FN
#endif

// OPT_INDEPENDENT: the next loop's iterations touch different elements (in and out are the same array or disjoint).
#if defined(__clang__)
#define OPT_INDEPENDENT _Pragma("clang loop vectorize(assume_safety) interleave(enable)")
#elif defined(__GNUC__)
#define OPT_INDEPENDENT _Pragma("GCC ivdep")
#elif defined(_MSC_VER)
#define OPT_INDEPENDENT __pragma(loop(ivdep))
#else
#define OPT_INDEPENDENT
#endif

// OPT_ROLLED: the next loop may be vectorised, but stays a loop: its body is not copied.
#if defined(__clang__)
#define OPT_ROLLED _Pragma("clang loop unroll(disable)")
#elif defined(__CUDACC__)
#define OPT_ROLLED _Pragma("unroll 1")
#elif defined(__GNUC__)
#define OPT_ROLLED _Pragma("GCC unroll 1")
#else
#define OPT_ROLLED
#endif

// OPT_ONE_BY_ONE: said in a loop's body, the loop is not vectorised: there are too few elements to make vectors of.
#if defined(__GNUC__) && !defined(__CUDACC__)
#define OPT_ONE_BY_ONE asm volatile("")
#else
#define OPT_ONE_BY_ONE static_cast<void>(0)
#endif

// OPT_PREFETCH(p): the cache line at p will soon be read. A hint, which any address may be given to. Elsewhere p is not
// evaluated: a device cannot read what it is made of.
#if defined(__GNUC__) && !defined(__CUDACC__)
#define OPT_PREFETCH(p) __builtin_prefetch(p)
#else
#define OPT_PREFETCH(p) static_cast<void>(sizeof(p))
#endif
