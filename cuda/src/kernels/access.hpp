// access.hpp: elements between memory and registers, V neighbouring ones at a time: 16 bytes and more in one piece
// where alignment allows, otherwise one by one.
#pragma once
#include <cstring>

#include "block.hpp"
#include "cpu/convert.hpp"
#include "cpu/dispatch.hpp"
#include "tables.hpp"

namespace optimisers::inline OPT_ABI::cuda {

using cpu::bits_of;
using cpu::convert;

// What one instruction moves.
template <int Bytes>
struct alignas(Bytes) Piece {
  static_assert(Bytes == 16 || Bytes == 8);
  std::uint32_t word[Bytes / 4];
};

// What nvcc does not see: that arrays are in global memory.
template <class S>
OPT_FN const S* in_global(const S* p) {
#ifdef __CUDA_ARCH__
  __builtin_assume(__isGlobal(p));
#endif
  return p;
}

// As an instruction of its own on a device: of a struct's assignment nvcc makes one store for each word.
OPT_FN void put(const Piece<16>& p, Piece<16>* to) {
#ifdef __CUDA_ARCH__
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(p.word[0]),
               "r"(p.word[1]), "r"(p.word[2]), "r"(p.word[3])
               : "memory");
#else
  *to = p;
#endif
}

template <class S, int V>
struct Lanes {
  S v[V];
};

// V elements that start at a multiple of V from an aligned start; `count` of them exist.
template <int V, class S>
OPT_FN void load(const S* from, bool wide, int count, S* to) {
  constexpr std::ptrdiff_t bytes = V * sizeof(S), piece = bytes < 16 ? bytes : 16;
  if (wide && count == V) {
    for (int i = 0; i < bytes / piece; ++i) {
      const auto p = reinterpret_cast<const Piece<piece>*>(in_global(from))[i];
      memcpy(reinterpret_cast<std::byte*>(to) + i * piece, &p, piece);
    }
  } else {
    for (int v = 0; v < V; ++v) to[v] = v < count ? from[v] : S{};
  }
}
template <int V, class S>
OPT_FN void store(const S* from, bool wide, int count, S* to) {
  constexpr std::ptrdiff_t bytes = V * sizeof(S), piece = bytes < 16 ? bytes : 16;
  if (wide && count == V) {
    for (int i = 0; i < bytes / piece; ++i) {
      Piece<piece> p;
      memcpy(&p, reinterpret_cast<const std::byte*>(from) + i * piece, piece);
      put(p, reinterpret_cast<Piece<piece>*>(to) + i);
    }
  } else {
    for (int v = 0; v < V; ++v)
      if (v < count) to[v] = from[v];
  }
}

OPT_FN std::byte* address(const DeviceArray& a, const Axis* axes, std::int64_t i) {
  if (a.axis_count == 0) return a.data + i * size_of(a.dtype);
  std::byte* p = a.data;
  for (int k = 0; k < a.axis_count; ++k) {
    const Axis axis = axes[a.axes + std::uint32_t(k)];
    p += (i % axis.size) * axis.stride;
    i /= axis.size;
  }
  return p;
}

template <class S>
OPT_FN S load_one(const std::byte* from, bool aligned) {
  if (aligned) return *reinterpret_cast<const S*>(from);
  S a;
  for (std::size_t b = 0; b < sizeof(S); ++b) reinterpret_cast<std::byte*>(&a)[b] = from[b];
  return a;
}
template <class S>
OPT_FN void store_one(S a, std::byte* to, bool aligned) {
  if (aligned) {
    *reinterpret_cast<S*>(to) = a;
    return;
  }
  for (std::size_t b = 0; b < sizeof(S); ++b) to[b] = reinterpret_cast<const std::byte*>(&a)[b];
}

// One element of any dtype and strides, as T. Complex ones are only asked for as complex.
template <class T>
OPT_CALL T load_any(const DeviceArray& a, const Axis* axes, std::int64_t i) {
  const std::byte* p = address(a, axes, i);
  T value{};
  cpu::with_dtype(a.dtype, [&](auto s) {
    using S = decltype(s);
    if constexpr (is_complex<T> || !is_complex<S>) value = convert<T>(load_one<S>(p, a.aligned));
  });
  return value;
}
template <class T>
OPT_CALL void store_any(T value, const DeviceArray& a, const Axis* axes, std::int64_t i) {
  std::byte* p = address(a, axes, i);
  cpu::with_trainable(a.dtype, [&](auto s) {
    using S = decltype(s);
    if constexpr (is_complex<T> == is_complex<S>) store_one<S>(convert<S>(value), p, a.aligned);
  });
}

template <class R, class S>
OPT_FN void take_real(S stored, R& master) {
  if (bits_of(convert<S>(master)) != bits_of(stored)) master = convert<R>(stored);
}
// Component by component for complex elements, as on the host.
template <class T, class S>
OPT_FN void take_edit(S stored, T& master) {
  if constexpr (is_complex<T> && is_complex<S>) {
    take_real(stored.re, master.re);
    take_real(stored.im, master.im);
  } else if constexpr (!is_complex<T> && !is_complex<S>) {
    take_real(stored, master);
  }
}

// How a leaf's own arrays are read and written as compute type T. `i` is the first of V elements.
template <Access A, class T>
struct Elements;

template <class S, class T>
struct Contiguous {
  static constexpr int per_piece = 16 / int(sizeof(real_t<S>));
  template <int V>
  OPT_FN static void read(const DeviceArray& a, const Axis*, std::int64_t i, int count, T* to) {
    S raw[V];
    load<V>(reinterpret_cast<const S*>(a.data) + i, a.wide, count, raw);
    for (int v = 0; v < V; ++v) to[v] = convert<T>(raw[v]);
  }
  template <int V>
  OPT_FN static void write(const T* from, const DeviceArray& a, const Axis*, std::int64_t i, int count) {
    S raw[V];
    for (int v = 0; v < V; ++v) raw[v] = convert<S>(from[v]);
    store<V>(raw, a.wide, count, reinterpret_cast<S*>(a.data) + i);
  }
  // Of an aligned array, all V.
  template <int V>
  OPT_FN static Lanes<S, V> raw_whole(const DeviceArray& a, std::int64_t i) {
    Lanes<S, V> raw;
    load<V>(reinterpret_cast<const S*>(a.data) + i, true, V, raw.v);
    return raw;
  }
  template <int V>
  OPT_FN static void write_whole(const T* from, const DeviceArray& a, std::int64_t i) {
    S raw[V];
    for (int v = 0; v < V; ++v) raw[v] = convert<S>(from[v]);
    store<V>(raw, true, V, reinterpret_cast<S*>(a.data) + i);
  }
  // Where the array is not the rounded master, the master takes the array.
  template <int V>
  OPT_FN static void take_edits(const DeviceArray& a, const Axis*, std::int64_t i, int count, T* master) {
    S raw[V];
    load<V>(reinterpret_cast<const S*>(a.data) + i, a.wide, count, raw);
    for (int v = 0; v < V; ++v) take_edit(raw[v], master[v]);
  }
};

template <class T>
struct Elements<Access::plain, T> : Contiguous<T, T> {};
template <class T>
struct Elements<Access::half, T> : Contiguous<Half, T> {};
template <class T>
struct Elements<Access::bhalf, T> : Contiguous<BHalf, T> {};
template <class T>
struct Elements<Access::any, T> {
  static constexpr int per_piece = 16 / int(sizeof(real_t<T>));
  template <int V>
  OPT_FN static void read(const DeviceArray& a, const Axis* axes, std::int64_t i, int count, T* to) {
    each<V>([&](int v) { to[v] = v < count ? load_any<T>(a, axes, i + v) : T{}; });
  }
  template <int V>
  OPT_FN static void write(const T* from, const DeviceArray& a, const Axis* axes, std::int64_t i, int count) {
    for (int v = 0; v < V; ++v)
      if (v < count) store_any(from[v], a, axes, i + v);
  }
  template <int V>
  OPT_FN static void take_edits(const DeviceArray& a, const Axis* axes, std::int64_t i, int count, T* master) {
    each<V>([&](int v) {
      if (v >= count) return;
      const std::byte* p = address(a, axes, i + v);
      cpu::with_trainable(a.dtype, [&](auto s) { take_edit(load_one<decltype(s)>(p, a.aligned), master[v]); });
    });
  }
};

}  // namespace optimisers::inline OPT_ABI::cuda
