// pairs.hpp: elementwise between pairs of arrays, and the two writes that need no arithmetic: filling and sending.
#pragma once
#include "access.hpp"
#include "block.hpp"

namespace optimisers::inline OPT_ABI::cuda {

struct Nothing {};

struct Pairs {
  using Table = PairTable;
  using Shared = Nothing;
  static constexpr int threads = sweep_threads, phases = 1;

  template <int>
  OPT_FN static void run(const Table& t, Shared&, unsigned block, int thread) {
    const Pair2& pair = t.pairs[t.block_pair[block]];
    const std::int64_t begin = std::int64_t(block - pair.first_block) * t.elements;
    const std::int64_t end = begin + t.elements < pair.size ? begin + t.elements : pair.size;
    for (std::int64_t i = begin + thread; i < end; i += threads) {
      if (t.op == PairOp::lerp) {
        lerp(t, pair, i);
      } else {  // by way of complex double, which holds every element exactly
        auto value = load_any<Complex<double>>(pair.from, t.axes, i);
        if (t.op == PairOp::add) value = value + load_any<Complex<double>>(pair.to, t.axes, i);
        put(t, pair.to, i, value);
      }
    }
  }

 private:
  OPT_FN static void put(const Table& t, const DeviceArray& to, std::int64_t i, Complex<double> value) {
    cpu::with_trainable(to.dtype, [&](auto a) {
      using S = decltype(a);
      S narrow;
      if constexpr (is_complex<S>) narrow = {real_t<S>(value.re), real_t<S>(value.im)};
      else narrow = convert<S>(value.re);
      store_one<S>(narrow, address(to, t.axes, i), to.aligned);
    });
  }

  // In the target's compute type, as on the host.
  OPT_FN static void lerp(const Table& t, const Pair2& pair, std::int64_t i) {
    cpu::with_compute(compute_dtype(pair.to.dtype), [&](auto a) {
      using C = decltype(a);
      using R = real_t<C>;
      const C to = load_any<C>(pair.to, t.axes, i), from = load_any<C>(pair.from, t.axes, i);
      store_any<C>(R(t.keep) * to + R(t.take) * from, pair.to, t.axes, i);
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
