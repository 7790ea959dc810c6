// measure_arrays.cpp: the norm of arrays on a device, as gradients that a ClipNorm measures.
#include "measure_arrays.hpp"

#include <cstring>

#include "group_tables.hpp"
#include "optimisers/cuda.hpp"

namespace optimisers::inline OPT_ABI::cuda {

std::vector<norms::Sum> measure_arrays(int device, std::span<const ArrayView> arrays, double p) {
  refuse_to_wait_in_capture(device, "norm");
  std::vector<norms::Sum> sums(arrays.size());
  // Those of one compute type together.
  for (int c = 0; c < compute_count; ++c) {
    const auto compute = DType(int(DType::float32) + c);
    const auto measured_as = [](DType d) { return is_trainable(d) ? compute_dtype(d) : DType::float64; };
    RuleValue rule(*find_rule("ClipNorm"));
    rule.set(*rule.info().field("p"), p);
    const Group group(Program{{rule}, {}, {}}, compute, device);
    std::vector<GroupTables::LeafShape> shapes;
    std::vector<CalledLeaf> called;
    std::vector<std::size_t> which;
    std::vector<std::byte> rows;
    for (std::size_t i = 0; i < arrays.size(); ++i) {
      if (measured_as(arrays[i].dtype) != compute) continue;
      called.push_back({std::uint32_t(shapes.size()), Role::gradient, nullptr, &arrays[i]});
      shapes.push_back({size_of(arrays[i]), 0});
      which.push_back(i);
      rows.resize(rows.size() + std::size_t(group.row_size));
      std::memcpy(rows.data() + rows.size() - std::size_t(group.row_size) + std::size_t(group.stages[0].rule_offset),
                  rule.data(), std::size_t(rule.info().size));
    }
    if (which.empty()) continue;
    GroupTables tables(group, device, shapes);
    tables.load_rows(rows.data());
    tables.take_call(false);
    for (const CalledLeaf& leaf : called) tables.take(leaf, {});
    tables.prepare();
    void* on = stream(device);
    tables.begin(on, false);
    const Buffer at = constant<std::int8_t>(device, std::vector<std::int8_t>(which.size(), 0));
    tables.measure(on, at.as<std::int8_t>(), true, false, norms::measure_of(p) == norms::Measure::sum_power);
    std::vector<Total> totals(which.size());
    copy(reinterpret_cast<std::byte*>(totals.data()), on_host, reinterpret_cast<const std::byte*>(tables.total(0)),
         device, totals.size() * sizeof(Total));
    for (std::size_t k = 0; k < which.size(); ++k)
      sums[which[k]] = shapes[k].size == 0 ? norms::Sum{0, 1, true} : totals[k].sum;
  }
  return sums;
}

}  // namespace optimisers::inline OPT_ABI::cuda
