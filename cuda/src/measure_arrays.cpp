// measure_arrays.cpp: the norm of arrays on a device, as gradients that a ClipNorm measures.
#include "measure_arrays.hpp"

#include <cstring>

#include "group_tables.hpp"
#include "kept.hpp"
#include "optimisers/cuda.hpp"

namespace optimisers::inline OPT_ABI::cuda {
namespace {

RuleValue clip(double p) {
  RuleValue rule(*find_rule("ClipNorm"));
  rule.set(*rule.info().field("p"), p);
  return rule;
}

// The tables for arrays of these sizes.
struct Measuring {
  Measuring(int d, DType compute, double power, std::vector<std::int64_t> n)
      : device(d), p(power), sizes(std::move(n)), group(Program{{clip(p)}, {}, {}}, compute, d) {
    std::vector<GroupTables::LeafShape> shapes;
    shapes.reserve(sizes.size());
    for (const std::int64_t size : sizes) shapes.push_back({size, 0});
    tables = std::make_unique<GroupTables>(group, device, std::move(shapes));
    const RuleValue rule = clip(p);
    std::vector<std::byte> rows(sizes.size() * std::size_t(group.row_size));
    for (std::size_t i = 0; i < sizes.size(); ++i)
      std::memcpy(rows.data() + i * std::size_t(group.row_size) + std::size_t(group.stages[0].rule_offset), rule.data(),
                  std::size_t(rule.info().size));
    tables->load_rows(rows.data());
    at = constant<std::int8_t>(device, std::vector<std::int8_t>(sizes.size(), 0));
  }
  Measuring(const Measuring&) = delete;

  int device;
  double p;
  std::vector<std::int64_t> sizes;
  Group group;
  std::unique_ptr<GroupTables> tables;
  Buffer at;
};

// A measurement has ended when its call returns, so that the next may be on any stream.
Kept<Measuring>& kept() {
  static auto& all = *new Kept<Measuring>(8);
  return all;
}

}  // namespace

std::vector<norms::Sum> measure_arrays(int device, std::span<const ArrayView> arrays, double p) {
  refuse_to_wait_in_capture(device, "norm");
  std::vector<norms::Sum> sums(arrays.size());
  // Those of one compute type together.
  for (int c = 0; c < compute_count; ++c) {
    const auto compute = DType(int(DType::float32) + c);
    const auto measured_as = [](DType d) { return is_trainable(d) ? compute_dtype(d) : DType::float64; };
    std::vector<std::int64_t> sizes;
    std::vector<std::size_t> which;
    for (std::size_t i = 0; i < arrays.size(); ++i) {
      if (measured_as(arrays[i].dtype) != compute) continue;
      sizes.push_back(size_of(arrays[i]));
      which.push_back(i);
    }
    if (which.empty()) continue;
    std::unique_ptr<Measuring> m = kept().take([&](const Measuring& known) {
      return known.device == device && known.group.compute == compute && known.p == p && known.sizes == sizes;
    });
    if (m == nullptr) m = std::make_unique<Measuring>(device, compute, p, std::move(sizes));
    GroupTables& tables = *m->tables;
    tables.take_call(false);
    for (std::size_t k = 0; k < which.size(); ++k)
      tables.take({std::uint32_t(k), Role::gradient, nullptr, &arrays[which[k]]}, {});
    tables.prepare();
    void* on = stream(device);
    tables.begin(on, false);
    tables.measure(on, m->at.as<std::int8_t>(), true, false, norms::measure_of(p) == norms::Measure::sum_power);
    std::vector<Total> totals(which.size());
    copy(reinterpret_cast<std::byte*>(totals.data()), on_host, reinterpret_cast<const std::byte*>(tables.total(0)),
         device, totals.size() * sizeof(Total));
    for (std::size_t k = 0; k < which.size(); ++k)
      sums[which[k]] = m->sizes[k] == 0 ? norms::Sum{0, 1, true} : totals[k].sum;
    kept().put(std::move(m));
  }
  return sums;
}

}  // namespace optimisers::inline OPT_ABI::cuda
