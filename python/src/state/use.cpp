// use.cpp: one call on a state at a time, on the streams it is meant for.
#include <algorithm>
#include <chrono>
#include <map>

#include "errors.hpp"
#include "forks.hpp"
#include "state/state.hpp"
#include "unlocked.hpp"

namespace optimisers::python {

namespace {

// Who uses a state, and since which fork, is read and written with the interpreter's lock: nothing has to be ordered.
constexpr auto as_it_is = std::memory_order_relaxed;

// Which thread waits for which state; likewise.
std::map<std::thread::id, const State*>& waits() {
  static auto& all = *new std::map<std::thread::id, const State*>;
  return all;
}

}  // namespace

// Whether the thread that uses the state waits, by way of others or not, for one that this thread uses.
bool Use::would_wait_for_itself() const {
  const State* state = &state_;
  for (std::size_t steps = 0; steps <= waits().size(); ++steps) {
    const std::thread::id user = state->user_.load(as_it_is);
    if (user == std::this_thread::get_id()) return true;
    const auto found = waits().find(user);
    if (found == waits().end()) return false;
    state = found->second;
  }
  return false;
}

// Looks up from time to time: the main thread takes Ctrl-C, and a fork may have left the state locked for ever.
void Use::wait() {
  constexpr std::chrono::milliseconds patience(50);
  const auto me = std::this_thread::get_id();
  for (bool locked = false; !locked;) {
    if (Unlocked::finalising())
      throw Error(ErrorKind::busy, "this state is busy: it was in use when the interpreter began to end");
    if (would_wait_for_itself())
      throw Error(ErrorKind::busy,
                  "this state is busy: it is used by a thread that waits for a state which this thread is using");
    waits()[me] = &state_;
    {
      Unlocked unlocked;
      locked = state_.mutex_.try_lock_for(patience);
    }
    waits().erase(me);
    if (!locked && PyErr_CheckSignals() != 0) throw nb::python_error();
  }
}

Use::Use(State& state, std::optional<void*> stream) : state_(state) {
  if (!state_.mutex_.try_lock()) {
    if (state_.forks_.load(as_it_is) != fork_count())
      throw Error(ErrorKind::busy,
                  "this state was in use by another thread when the process was forked, and may be half updated; "
                  "set up a new one here");
    if (state_.user_.load(as_it_is) == std::this_thread::get_id())
      throw Error(ErrorKind::busy, "this state is busy: it was used again from inside its own update");
    wait();
  }
  state_.forks_.store(fork_count(), as_it_is);
  state_.user_.store(std::this_thread::get_id(), as_it_is);
  if (state_.plain_) [[likely]]
    return;
  try {
    if (state_.dropped_) throw Error(ErrorKind::busy, "this state has been let go by the garbage collector");
    if (state_.replaced_)
      value_error(
          "this part of a state is no more: extend_ found nothing at its path in the new model; take it from the state "
          "again");
    state_.streams_.use(stream);
    if (!state_.held_.empty()) state_.wait_for_held();
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
  state_.pins_.clear();
  state_.tensors_ = nb::object();
  state_.resets_.reset();
  state_.streams_.reset();
  if (state_.used_ != 0 && !state_.update_of_leaf_.empty())
    std::fill(state_.update_of_leaf_.begin(), state_.update_of_leaf_.end(), -1);
  state_.used_ = 0;
  state_.user_.store({}, as_it_is);
  state_.mutex_.unlock();
}

}  // namespace optimisers::python
