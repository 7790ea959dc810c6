// config.hpp: the version, and the only macros of the project: what compilers leave no other way to say.
#pragma once

// The namespace inside `optimisers` that all names are in: programs that carry two versions of the library, in two
// plugins say, have two of everything.
#define OPT_ABI v0_1

namespace optimisers::inline OPT_ABI {
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

// OPT_EXACT: a function whose arithmetic, inlined calls included, is rounded operation by operation, whatever the flags
// say of contraction: of the loops and scalars of rules that another program compiles. g++ decides when it has inlined;
// clang when it reads an expression, so there it is said of all that follows in the file.
#if defined(__clang__)
#pragma clang fp contract(off)
#define OPT_EXACT
#elif defined(__GNUC__) && !defined(__CUDACC__)
#define OPT_EXACT [[gnu::optimize("fp-contract=off"), gnu::flatten]]
#else
#define OPT_EXACT
#endif

// OPT_FREE_MATH: flags under which compilers take NaN, infinities and the order of operations for what they are not.
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || \
    defined(__NO_SIGNED_ZEROS__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#define OPT_FREE_MATH true
#else
#define OPT_FREE_MATH false
#endif

// OPT_HIDDEN: a template that knows the copy of the library it was linked with. Two plugins of one process may each
// have theirs, and the dynamic linker would give both the first one's.
#if defined(__GNUC__) && !defined(_WIN32)
#define OPT_HIDDEN [[gnu::visibility("hidden")]]
#else
#define OPT_HIDDEN
#endif

// OPT_BORROWS: what is made of this argument must not outlive it. Clang warns where it does.
#if defined(__clang__)
#define OPT_BORROWS [[clang::lifetimebound]]
#else
#define OPT_BORROWS
#endif

// OPT_THREAD_LOCAL: a variable of which each thread has its own; without an operating system there is one thread, and
// nothing that would make room for more.
#if defined(OPTIMISERS_ONE_THREAD)
#define OPT_THREAD_LOCAL
#else
#define OPT_THREAD_LOCAL thread_local
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
