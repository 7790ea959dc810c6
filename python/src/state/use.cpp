// use.cpp: one call on a state at a time, on the streams it is meant for.
#include <algorithm>

#include "errors.hpp"
#include "forks.hpp"
#include "state/state.hpp"
#include "unlocked.hpp"

namespace optimisers::python {

Use::Use(State& state, std::optional<void*> stream) : state_(state) {
  if (!state_.mutex_.try_lock()) {
    if (state_.forks_.load() != fork_count())
      throw Error(ErrorKind::busy,
                  "this state was in use by another thread when the process was forked, and may be half updated; "
                  "set up a new one here");
    if (state_.user_.load() == std::this_thread::get_id())
      throw Error(ErrorKind::busy, "this state is busy: it was used again from inside its own update");
    Unlocked unlocked;
    state_.mutex_.lock();
  }
  state_.forks_.store(fork_count());
  state_.user_.store(std::this_thread::get_id());
  if (state_.plain_) [[likely]]
    return;
  try {
    if (state_.dropped_) throw Error(ErrorKind::busy, "this state has been let go by the garbage collector");
    if (!state_.held_.empty()) {
      Unlocked unlocked;  // what is waited for may be waiting for a callback written in Python
      state_.streams_.wait();
    }
    state_.held_.clear();
    state_.streams_.use(stream);
  } catch (...) {
    release();
    throw;
  }
}

Use::~Use() { release(); }

void Use::release() {
  state_.model_.clear();
  state_.gradients_.clear();
  state_.imported_.clear();
  state_.resets_ = {};
  state_.streams_.reset();
  if (state_.used_ != 0 && !state_.update_of_leaf_.empty())
    std::fill(state_.update_of_leaf_.begin(), state_.update_of_leaf_.end(), -1);
  state_.used_ = 0;
  state_.user_.store({});
  state_.mutex_.unlock();
}

}  // namespace optimisers::python
