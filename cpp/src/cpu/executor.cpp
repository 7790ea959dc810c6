// executor.cpp: deals leaves out to threads, and adds up what they measure.
#include "cpu/executor.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "cpu/edges.hpp"
#include "cpu/kernels.hpp"
#include "cpu/range.hpp"
#include "optimisers/threads.hpp"
#include "plan/portions.hpp"

namespace optimisers::inline OPT_ABI::cpu {
namespace {

constexpr std::int64_t sweep_grain = small_leaf;  // threads share a leaf at multiples of this
constexpr std::int64_t job_overhead = 128;        // what starting on a leaf costs, in elements
constexpr std::int64_t worth_a_thread = 50'000, worth_a_part = 10'000;

std::int64_t threads_for(std::int64_t work) {
  const std::int64_t wanted = work / worth_a_thread;
  return wanted < 2 ? 1 : std::min<std::int64_t>(wanted, get_num_threads());
}

// Splits items of the given sizes into parts of about equal work, inside an item at multiples of `grain`, and
// calls run(item, begin, end) for each piece, on all threads.
template <class SizeOf, class Run>
void share(std::size_t items, std::int64_t grain, Deal deal, SizeOf&& size_of_item, Run&& run) {
  constexpr std::size_t marks = 64;  // where the work before an item is noted, to find a part's first without a search
  const std::size_t stride = items / marks + 1;
  std::int64_t before[marks + 1], total = 0;
  for (std::size_t i = 0, next = 0; i < items; ++i) {
    if (i == next * stride) before[next++] = total;
    total += size_of_item(i) + job_overhead;
  }
  const std::int64_t threads = threads_for(total);
  const bool fixed = deal == Deal::fixed || threads == 1;
  const int parts = int(fixed ? threads : std::clamp(total / worth_a_part, threads, threads * parts_a_thread));
  const std::size_t marked = (items + stride - 1) / stride;
  const auto part = [&](int index) {
    const std::int64_t lo = total / parts * index, hi = index + 1 == parts ? total : total / parts * (index + 1);
    Buffers buffers;
    const std::size_t mark = std::size_t(std::upper_bound(before, before + marked, lo) - before) - 1;
    std::int64_t start = before[mark];
    for (std::size_t i = mark * stride; i < items && start < hi; ++i) {
      const std::int64_t n = size_of_item(i);
      const auto cut = [&](std::int64_t at) { return at >= n ? n : std::max<std::int64_t>(at, 0) / grain * grain; };
      const std::int64_t begin = cut(lo - start), end = cut(hi - start);
      if (begin < end) run(i, begin, end, buffers);
      start += n + job_overhead;
    }
  };
  if (items == 0) return;
  if (parts == 1) part(0);
  else parallel(parts, part, deal);
}

}  // namespace

void sweep_here(std::span<const Job> jobs, std::span<const FurtherGradient> further) {
  // Small arrays lie anywhere in memory, and are over before the processor sees a pattern.
  const auto fetch = [&](const ArrayView& a, std::int64_t size) {
    const std::int64_t bytes = std::min<std::int64_t>(size * size_of(a.dtype), 512);
    for (std::int64_t at = 0; at < bytes; at += 64) OPT_PREFETCH(a.data + at);
  };
  Buffers buffers;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    if (i + 2 < jobs.size()) {
      fetch(jobs[i + 2].arrays->x, jobs[i + 2].size);
      if (jobs[i + 2].arrays->dx.present) fetch(jobs[i + 2].arrays->dx, jobs[i + 2].size);
    }
    Range(jobs[i], further, buffers).sweep(0, jobs[i].size);
  }
}

std::size_t small_portions(std::size_t leaves, double elements) {
  const std::int64_t threads = threads_for(std::int64_t(double(leaves) * (elements + double(job_overhead))));
  return std::size_t(threads == 1 ? 1 : std::min(threads * parts_a_thread, std::int64_t(leaves)));
}

namespace {

std::int64_t up_to_line(std::int64_t bytes) { return (bytes + 63) / 64 * 64; }

bool runs_whole(const Job& job) {
  return job.group->matrix >= int(job.course.first) && job.group->matrix < int(job.course.end);
}

// What it is made of is gathered, made orthogonal, and swept.
void sweep_whole(const Job& job, std::span<const FurtherGradient> further, const Whole& whole, std::byte* memory) {
  const auto all = [&](auto&& run) {
    share(
        1, sweep_grain, Deal::taken, [&](std::size_t) { return job.size; },
        [&](std::size_t, std::int64_t begin, std::int64_t end, Buffers& buffers) { run(begin, end, buffers); });
  };
  all([&](std::int64_t begin, std::int64_t end, Buffers& buffers) {
    Range(job, further, buffers).gather(begin, end, memory);
  });
  orthogonalise(memory, whole.shape, whole.polynomial, job.group->compute,
                memory + up_to_line(job.size * size_of(job.group->compute)));
  Job filled = job;
  filled.matrices = memory;
  all([&](std::int64_t begin, std::int64_t end, Buffers& buffers) {
    Range(filled, further, buffers).sweep(begin, end);
  });
}

}  // namespace

std::size_t whole_bytes(const Job& job, const MatrixShape& shape) {
  if (!runs_whole(job)) return 0;
  return std::size_t(up_to_line(job.size * size_of(job.group->compute))) + matrix_workspace(shape, job.group->compute);
}

void sweep(std::span<const Job> jobs, std::span<const FurtherGradient> further, const Wholes& wholes) {
  const bool whole = !wholes.leaves.empty();
  share(
      jobs.size(), sweep_grain, Deal::taken,
      [&](std::size_t i) { return whole && runs_whole(jobs[i]) ? 0 : jobs[i].size; },
      [&](std::size_t i, std::int64_t begin, std::int64_t end, Buffers& buffers) {
        Range(jobs[i], further, buffers).sweep(begin, end);
      });
  if (!whole) return;
  for (const Job& job : jobs)
    if (runs_whole(job)) sweep_whole(job, further, wholes.leaves[job.arrays->leaf], wholes.memory);
}

namespace {

// The sums of a chunk, lane by lane, so that one fold first folds the lanes of all rows, and then the rows.
void measure_chunk(Range& range, const Measurement& m, std::int64_t begin, std::int64_t end, double* to) {
  double all[most_sums][norms::lanes][norms::rows];
  for (int s = 0; s < m.count(); ++s) std::fill_n(all[s][0], norms::lanes * norms::rows, norms::neutral(m.measure));
  for (std::int64_t r = begin; r < end; r += norms::row) {
    double lanes[most_sums][norms::lanes];
    for (int s = 0; s < m.count(); ++s) std::fill_n(lanes[s], norms::lanes, norms::neutral(m.measure));
    range.measure(r, std::min(r + norms::row, end), m, lanes[0]);
    for (int s = 0; s < m.count(); ++s)
      for (int l = 0; l < norms::lanes; ++l) all[s][l][(r - begin) / norms::row] = lanes[s][l];
  }
  for (int s = 0; s < m.count(); ++s) to[s] = norms::fold(m.measure, all[s][0], norms::lanes * norms::rows);
}

// Of the chunks of a leaf; each has `stride` sums. One chunk, as most leaves have, is its own.
double add_chunks(norms::Measure measure, const double* sums, std::size_t chunks, std::size_t stride) {
  if (chunks == 1) return sums[0];
  double lane[norms::sum_lanes];
  std::fill_n(lane, norms::sum_lanes, norms::neutral(measure));
  for (std::size_t c = 0; c < chunks; ++c) {
    double& l = lane[c % norms::sum_lanes];
    l = norms::combine(measure, l, sums[c * stride]);
  }
  return norms::fold(measure, lane, norms::sum_lanes);
}

}  // namespace

void measure(std::span<Measurement> measurements, std::span<const FurtherGradient> further, ChunkSums& memory) {
  // Sums of each chunk, wherever its thread; added up in order afterwards.
  using norms::chunk;
  std::vector<std::size_t>& first = memory.first;
  std::vector<double>& sums = memory.sums;
  const auto chunks = [&](const Measurement& m) { return std::size_t((m.job->size + chunk - 1) / chunk); };
  first.assign(measurements.size() + 1, 0);
  for (std::size_t i = 0; i < measurements.size(); ++i)
    first[i + 1] = first[i] + chunks(measurements[i]) * std::size_t(measurements[i].count());
  sums.resize(first.back());
  double* const to = sums.data();
  share(
      measurements.size(), chunk, Deal::taken, [&](std::size_t i) { return measurements[i].job->size; },
      [&](std::size_t i, std::int64_t begin, std::int64_t end, Buffers& buffers) {
        const Measurement& m = measurements[i];
        Range range(*m.job, further, buffers);
        for (std::int64_t b = begin; b < end; b += chunk)
          measure_chunk(range, m, b, std::min(b + chunk, end), to + first[i] + b / chunk * m.count());
      });
  for (std::size_t i = 0; i < measurements.size(); ++i) {
    Measurement& m = measurements[i];
    for (int s = 0; s < m.count(); ++s)
      m.results[std::size_t(s)] = add_chunks(m.measure, to + first[i] + s, chunks(m), std::size_t(m.count()));
  }
}

void lerp(std::span<const ArrayView> targets, std::span<const ArrayView> sources, double keep, double take) {
  share(
      targets.size(), sweep_grain, Deal::taken, [&](std::size_t i) { return size_of(targets[i]); },
      [&](std::size_t i, std::int64_t begin, std::int64_t end, Buffers& buffers) {
        const ArrayView &to = targets[i], &from = sources[i];
        const DType compute = compute_dtype(to.dtype);
        const auto direct = [&](const ArrayView& a, bool contiguous) {
          return contiguous && a.dtype == compute && is_aligned(a);
        };
        const bool to_contiguous = is_contiguous(to), from_contiguous = is_contiguous(from);
        const bool to_direct = direct(to, to_contiguous), from_direct = direct(from, from_contiguous);
        const std::int64_t length = to_direct && from_direct ? end - begin : block;
        for (std::int64_t b = begin; b < end; b += length) {
          const std::int64_t n = std::min(length, end - b);
          std::byte* x = to_direct ? to.data + b * size_of(compute) : buffers.x;
          const std::byte* s = from_direct ? from.data + b * size_of(compute) : buffers.dx;
          if (!to_direct) load(to, to_contiguous, b, n, compute, buffers.x);
          if (!from_direct) load(from, from_contiguous, b, n, compute, buffers.dx);
          kernels().lerp[size_of(real_dtype(compute)) == 8](x, s, keep, take, n * reals(compute));
          if (!to_direct) store(to, to_contiguous, b, n, compute, x);
        }
      });
}

void on_sweeping_threads(std::span<const std::int64_t> sizes, const OnRange& f) {
  share(
      sizes.size(), sweep_grain, Deal::fixed, [&](std::size_t i) { return sizes[i]; },
      [&](std::size_t i, std::int64_t begin, std::int64_t end, Buffers&) { f(i, begin, end); });
}

}  // namespace optimisers::inline OPT_ABI::cpu
