// device.hpp: what the core asks of an accelerator: memory, and the update of the leaves that lie there. The core
// knows no other side of it; cuda/ implements it.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cpu/norms.hpp"
#include "step/state.hpp"

namespace optimisers::inline OPT_ABI {

// The leaves of one optimiser on one device. Work is enqueued on the thread's stream for that device, in the order of
// the calls.
class DeviceLeaves {
 public:
  virtual ~DeviceLeaves() = default;
  // The checked leaves of a call; those of other devices and frozen ones are passed over. With `out`, one entry a
  // leaf, dx is written there instead of being subtracted. Refuses what it must and enqueues nothing.
  virtual void prepare(std::span<const LeafUpdate> leaves, std::span<const FurtherGradient> further,
                       std::span<std::byte* const> out) = 0;
  virtual void enqueue() = 0;                                          // what was prepared
  virtual void send_rules(std::span<const std::uint32_t> leaves) = 0;  // their rows' rules have changed here
  virtual void send_clock(std::uint32_t leaf) = 0;                     // its row's clocks have
  virtual void fetch_clock(std::uint32_t leaf) = 0;
  virtual void copy_from(DeviceLeaves& other) = 0;  // of another optimiser for the same leaves: slots and clocks
  virtual void follow() = 0;  // what this thread enqueues from now on comes behind what was enqueued for the leaves
  // Whether leaves share a norm in the call that was prepared last; and the last one that any call saw, fetched.
  virtual bool shares_norm() const = 0;
  virtual std::optional<double> shared_norm() = 0;
  // Waits for what was enqueued, and throws what it found out (a norm that must be finite was not).
  virtual void wait() = 0;
};

class Accelerator {
 public:
  virtual ~Accelerator() = default;
  virtual std::byte* allocate(int device, std::size_t bytes) = 0;  // zeroed; throws std::bad_alloc or Error
  virtual void release(int device, std::byte* memory) noexcept = 0;
  // `x` are the leaves' arrays now, of all devices.
  virtual std::unique_ptr<DeviceLeaves> leaves(Optimiser::State& state, int device, std::span<const ArrayView> x) = 0;
  virtual std::vector<norms::Sum> measure(int device, std::span<const ArrayView> arrays, double p) = 0;
  virtual void lerp(int device, std::span<const ArrayView> targets, std::span<const ArrayView> sources, double keep,
                    double take) = 0;
  // Bytes between the host (device -1) and a device, behind what was enqueued; waits.
  virtual void copy(std::byte* to, int to_device, const std::byte* from, int from_device, std::size_t bytes) = 0;
};

// The one of this process; null until one is set. The second throws an Error that says so.
void set_accelerator(Accelerator* accelerator);
Accelerator* accelerator_or_null();
Accelerator& accelerator();

}  // namespace optimisers::inline OPT_ABI
