// kept.hpp: what calls make on a device and leave for the next that needs the same. Who takes one has it alone.
#pragma once
#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "optimisers/config.hpp"

namespace optimisers::inline OPT_ABI::cuda {

template <class T>
class Kept {
 public:
  explicit Kept(std::size_t most) : most_(most) {}

  // The last of those that fit; null: none.
  template <class Fits>
  std::unique_ptr<T> take(Fits&& fits) {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(all_.begin(), all_.end(), [&](const auto& one) { return fits(*one); });
    if (found == all_.end()) return nullptr;
    std::unique_ptr<T> taken = std::move(*found);
    all_.erase(found);
    return taken;
  }
  void put(std::unique_ptr<T> one) {
    std::unique_ptr<T> oldest;  // let go without the lock: giving back device memory waits
    const std::lock_guard lock(mutex_);
    all_.insert(all_.begin(), std::move(one));
    if (all_.size() <= most_) return;
    oldest = std::move(all_.back());
    all_.pop_back();
  }

 private:
  std::size_t most_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<T>> all_;  // the last first
};

}  // namespace optimisers::inline OPT_ABI::cuda
