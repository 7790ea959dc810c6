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
