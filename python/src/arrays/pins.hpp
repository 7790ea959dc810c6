// pins.hpp: what keeps the views of a call true while other code may run: an array that is kept alive may still be
// given another shape, and a torch tensor other memory.
#pragma once
#include <memory>

#include "arrays/array.hpp"

namespace optimisers::python {

// Whether Python code may run where the interpreter's lock is let go: there are threads that may take it.
bool others_may_run();

class Pins {
 public:
  Pins() = default;
  Pins(const Pins&) = delete;
  Pins& operator=(const Pins&) = delete;
  // Keeps the memory of a torch tensor, and puts shape and strides where nobody changes them. NumPy frees an array's
  // memory only where nobody else refers to the array.
  void pin(PyObject* object, ArrayView& view);
  void keep_outline(ArrayView& view);  // shape and strides alone
  void clear();

 private:
  std::int64_t* room(std::size_t count);

  static constexpr std::size_t chunk = 4096;
  std::vector<nb::object> storages_;
  std::vector<std::unique_ptr<std::int64_t[]>> chunks_;
  std::size_t used_chunks_ = 0, left_ = 0;
};

}  // namespace optimisers::python
