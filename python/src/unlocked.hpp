// unlocked.hpp: lets other Python threads run while C++ works.
#pragma once
#include <Python.h>

#include <chrono>
#include <thread>

namespace optimisers::python {

// Like nanobind's gil_scoped_release, but safe where the interpreter ends. A daemon thread that outlives it: asking a
// finalising interpreter for its lock ends the thread by unwinding, which C++ destructors turn into a crash. Python
// 3.14 lets such threads wait for the end of the process, and so does this. The thread that ends the interpreter, in a
// `__del__` or a callback: it is the only one that runs, and keeps the lock.
class Unlocked {
 public:
  Unlocked() : state_(finalising() ? nullptr : PyEval_SaveThread()) {}
  ~Unlocked() {
    if (state_ == nullptr) return;
    while (finalising()) std::this_thread::sleep_for(std::chrono::hours(1));
    PyEval_RestoreThread(state_);
  }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

  static bool finalising() {
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing() != 0;
#else
    return _Py_IsFinalizing() != 0;
#endif
  }

 private:
  PyThreadState* state_;
};

}  // namespace optimisers::python
