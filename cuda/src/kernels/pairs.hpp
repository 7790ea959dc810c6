// pairs.hpp: elementwise between pairs of arrays, and the writes that need no arithmetic: zeroing, filling and sending.
#pragma once
#include "access.hpp"
#include "block.hpp"

namespace optimisers::inline OPT_ABI::cuda {

struct Nothing {};

struct Pairs {
  using Table = PairTable;
  using Shared = Nothing;
  static constexpr int threads = sweep_threads, phases = 1;

  // What is done is decided before the loops. Elements of one dtype in aligned arrays go 16 bytes at a time.
  template <int>
  OPT_FN static void run(const Table& t, Shared&, unsigned block, int thread) {
    const Pair2& pair = t.pairs[t.block_pair[block]];
    const std::int64_t begin = std::int64_t(block - pair.first_block) * t.elements;
    const std::int64_t end = begin + t.elements < pair.size ? begin + t.elements : pair.size;
    const Span span{t, pair, begin, end, thread};
    if (t.op == PairOp::zero) with_unit(pair.to.dtype, [&](auto u) { zero<decltype(u)>(span); });
    else if (t.op == PairOp::lerp) cpu::with_trainable(pair.to.dtype, [&](auto s) { lerp<decltype(s)>(span); });
    else if (t.op == PairOp::add) cpu::with_trainable(pair.to.dtype, [&](auto s) { add<decltype(s)>(span); });
    else if (pair.to.dtype == pair.from.dtype) with_unit(pair.to.dtype, [&](auto u) { move<decltype(u)>(span); });
    else cpu::with_trainable(pair.to.dtype, [&](auto s) { convert_each<decltype(s)>(span); });
  }

 private:
  struct Span {
    const Table& t;
    const Pair2& pair;
    std::int64_t begin, end;
    int thread;
  };

  // f(a value of as many bytes as an element has): bytes are moved, whatever they mean.
  template <class F>
  OPT_FN static void with_unit(DType d, F&& f) {
    switch (size_of(d)) {
      case 1:
        return f(std::uint8_t{});
      case 2:
        return f(std::uint16_t{});
      case 4:
        return f(std::uint32_t{});
      case 8:
        return f(std::uint64_t{});
      default:
        return f(Piece<16>{});
    }
  }

  // For each V elements from `begin` on that are whole, and for each of the others.
  template <int V, class Whole, class One>
  OPT_FN static void over(const Span& s, bool wide, Whole&& whole, One&& one) {
    const std::int64_t vectors = wide ? (s.end - s.begin) / V : 0;
    for (std::int64_t k = s.thread; k < vectors; k += threads) whole(s.begin + k * V);
    each_from(s, s.begin + vectors * V, one);
  }
  template <class One>
  OPT_FN static void each_from(const Span& s, std::int64_t begin, One&& one) {
    for (std::int64_t i = begin + s.thread; i < s.end; i += threads) one(i);
  }

  template <class U>
  OPT_FN static void zero(const Span& s) {
    const DeviceArray& to = s.pair.to;
    over<16 / int(sizeof(U))>(
        s, to.wide, [&](std::int64_t i) { put(Piece<16>{}, reinterpret_cast<Piece<16>*>(at<U>(to, i))); },
        [&](std::int64_t i) { store_one<U>(U{}, address(to, s.t.axes, i), to.aligned); });
  }
  template <class U>
  OPT_FN static void move(const Span& s) {
    const DeviceArray &to = s.pair.to, &from = s.pair.from;
    over<16 / int(sizeof(U))>(
        s, to.wide && from.wide,
        [&](std::int64_t i) {
          put(*reinterpret_cast<const Piece<16>*>(in_global(at<U>(from, i))),
              reinterpret_cast<Piece<16>*>(at<U>(to, i)));
        },
        [&](std::int64_t i) {
          store_one<U>(load_one<U>(address(from, s.t.axes, i), from.aligned), address(to, s.t.axes, i), to.aligned);
        });
  }
  template <class U>
  OPT_FN static U* at(const DeviceArray& a, std::int64_t i) {
    return reinterpret_cast<U*>(a.data) + i;
  }

  template <class S>
  OPT_FN static void convert_each(const Span& s) {
    const DeviceArray& to = s.pair.to;
    each_from(s, s.begin, [&](std::int64_t i) {
      store_one<S>(load_any<S>(s.pair.from, s.t.axes, i), address(to, s.t.axes, i), to.aligned);
    });
  }

  // In complex double, which holds every element that is trained exactly; rounded once.
  template <class S>
  OPT_FN static void add(const Span& s) {
    const DeviceArray& to = s.pair.to;
    each_from(s, s.begin, [&](std::int64_t i) {
      std::byte* p = address(to, s.t.axes, i);
      const auto sum = cpu::convert<Complex<double>>(load_one<S>(p, to.aligned)) +
                       load_any<Complex<double>>(s.pair.from, s.t.axes, i);
      if constexpr (is_complex<S>) store_one<S>({real_t<S>(sum.re), real_t<S>(sum.im)}, p, to.aligned);
      else store_one<S>(cpu::convert<S>(sum.re), p, to.aligned);
    });
  }

  // In the target's compute type, as on the host.
  template <class S>
  OPT_FN static void lerp(const Span& s) {
    using C = std::conditional_t<cpu::is_narrow<S>, float, S>;
    using R = real_t<C>;
    const DeviceArray &to = s.pair.to, &from = s.pair.from;
    const R keep = R(s.t.keep), take = R(s.t.take);
    const auto mix = [&](S a, C b) { return cpu::convert<S>(keep * cpu::convert<C>(a) + take * b); };
    constexpr int V = 16 / int(sizeof(S));
    over<V>(
        s, to.wide && from.wide && to.dtype == from.dtype,
        [&](std::int64_t i) {
          S a[V], b[V];
          load<V>(at<S>(to, i), true, V, a);
          load<V>(at<S>(from, i), true, V, b);
          for (int v = 0; v < V; ++v) a[v] = mix(a[v], cpu::convert<C>(b[v]));
          store<V>(a, true, V, at<S>(to, i));
        },
        [&](std::int64_t i) {
          std::byte* p = address(to, s.t.axes, i);
          store_one<S>(mix(load_one<S>(p, to.aligned), load_any<C>(from, s.t.axes, i)), p, to.aligned);
        });
  }
};

struct Fill {
  using Table = FillTable;
  using Shared = Nothing;
  static constexpr int threads = sweep_threads, phases = 1;
  static constexpr std::int64_t elements = 4096;  // of a block

  template <int>
  OPT_FN static void run(const Table& t, Shared&, unsigned block, int thread) {
    const std::int64_t begin = std::int64_t(block) * elements;
    const std::int64_t end = begin + elements < t.count ? begin + elements : t.count;
    cpu::with_compute(t.dtype, [&](auto a) {
      using C = decltype(a);
      for (std::int64_t i = begin + thread; i < end; i += threads)
        reinterpret_cast<C*>(t.to)[i] = from_real<C>(real_t<C>(t.value));
    });
  }
};

template <int N>
struct Send {
  using Table = SendTable<N>;
  using Shared = Nothing;
  static constexpr int threads = sweep_threads, phases = 1;
  static constexpr std::uint32_t words = send_large / 8;  // of a block

  template <int>
  OPT_FN static void run(const Table& t, Shared&, unsigned block, int thread) {
    const std::uint32_t begin = block * words, rest = t.bytes / 8 - begin, end = begin + (rest < words ? rest : words);
    for (std::uint32_t w = begin + std::uint32_t(thread); w < end; w += threads) {
      const std::uint32_t piece = w / (t.piece / 8);
      std::byte* to = t.to + std::size_t(piece) * t.stride + std::size_t(w - piece * (t.piece / 8)) * 8;
      *reinterpret_cast<std::uint64_t*>(to) = reinterpret_cast<const std::uint64_t*>(t.data)[w % (t.given / 8)];
    }
  }
};

}  // namespace optimisers::inline OPT_ABI::cuda
