// plans.hpp: steps that are set up once and used again: by rule, and by the types and sizes of the leaves.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "step/lent.hpp"

namespace optimisers::python::xla {

struct Shape {  // of a leaf
  DType dtype;
  std::int64_t size;
  bool operator==(const Shape&) const = default;
};

struct Layout {  // of the leaves of one call, and the steps for it that nobody is using
  std::vector<Shape> leaves;
  std::vector<std::unique_ptr<LentStep>> idle;
};

struct RulePlans {
  Program program;
  std::vector<std::shared_ptr<Layout>> layouts;
};

// Of a rule's text; throws where that is none.
std::shared_ptr<RulePlans> plans_of(std::string_view rule);

// A step for these leaves, this thread's alone until it lets go of it. `names` are for messages, one a line.
class Lease {
 public:
  Lease(RulePlans& plans, const std::vector<Shape>& leaves, std::string_view names);
  ~Lease();
  Lease(const Lease&) = delete;
  LentStep& operator*() const { return *step_; }

 private:
  std::shared_ptr<Layout> layout_;
  std::unique_ptr<LentStep> step_;
};

}  // namespace optimisers::python::xla
