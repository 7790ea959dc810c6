// unlocked.hpp: lets other Python threads run while C++ works.
#pragma once
#include <Python.h>

#include <chrono>
#include <thread>

namespace optimisers::python {

// Like nanobind's gil_scoped_release, but safe in a daemon thread that outlives the interpreter: asking a finalising
// interpreter for its lock ends the thread by unwinding, which C++ destructors turn into a crash. Python 3.14 lets
// such threads wait for the end of the process, and so does this.
class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  ~Unlocked() {
    while (finalising()) std::this_thread::sleep_for(std::chrono::hours(1));
    PyEval_RestoreThread(state_);
  }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  static bool finalising() {
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing() != 0;
#else
    return _Py_IsFinalizing() != 0;
#endif
  }
  PyThreadState* state_;
};

}  // namespace optimisers::python
