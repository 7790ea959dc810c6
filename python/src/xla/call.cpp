// call.cpp: from XLA's call frame to a step over its buffers. Runs on XLA's threads, without the interpreter's lock.
#include "xla/call.hpp"

#include <cstring>
#include <exception>

#include "optimisers/error.hpp"
#include "xla/frame.hpp"
#include "xla/plans.hpp"

namespace optimisers::python::xla {
namespace {

std::byte* bytes(const XLA_FFI_Buffer& buffer) { return static_cast<std::byte*>(buffer.data); }

// Where a leaf's arrays are, of the first problem, and how many bytes further those of the next.
struct LeafBuffers {
  std::byte *x, *dx, *out;
  DType dx_dtype;
  std::size_t first_state, state_count;  // among the call's
};
struct StateBuffer {
  std::byte* data;
  std::int64_t bytes;
};

class StepCall {
 public:
  explicit StepCall(const XLA_FFI_CallFrame& call) : frame_(call), plans_(plans_of(frame_.text("rule"))) {}

  void run() {
    read_clock();
    read_leaves();
    const Lease lease(*plans_, shapes_, frame_.text("names"));
    LentStep& step = *lease;
    check_state(step);
    if (clock_.count != std::int64_t(step.clock_count()) || numbers_.count != std::int64_t(step.number_count()))
      refuse_call("clocks or hyperparameters of another rule");
    std::vector<double> numbers(step.number_count()), clock(step.clock_count());
    std::vector<LentArrays> arrays(leaves_.size());
    std::vector<std::byte*> state(states_.size());
    for (std::int64_t problem = 0; problem < problems_; ++problem) {
      read_doubles(numbers_, problem, numbers);
      stand_in(problem, numbers);
      read_doubles(clock_, problem, clock);
      for (std::size_t k = 0; k < states_.size(); ++k) state[k] = states_[k].data + problem * states_[k].bytes;
      for (std::size_t i = 0; i < leaves_.size(); ++i) {
        const LeafBuffers& leaf = leaves_[i];
        const std::int64_t own = shapes_[i].size * optimisers::size_of(shapes_[i].dtype) * problem;
        arrays[i] = {leaf.x + own, leaf.dx + shapes_[i].size * optimisers::size_of(leaf.dx_dtype) * problem,
                     leaf.dx_dtype, leaf.out == nullptr ? nullptr : leaf.out + own, state.data() + leaf.first_state};
      }
      step.run(numbers, clock, arrays);
      std::memcpy(clock_.data + problem * clock_.count * 8, clock.data(), clock.size() * 8);
    }
  }

 private:
  struct Doubles {
    std::byte* data;
    std::int64_t count;  // of one problem
  };

  // The same memory as the operand's, unless nobody promised that.
  std::byte* taken_over(const XLA_FFI_Buffer& operand) {
    const XLA_FFI_Buffer& result = frame_.result(next_result_++);
    const std::int64_t n = size_of(operand);
    if (result.dtype != operand.dtype || size_of(result) != n) refuse_call("a result unlike its operand");
    if (result.data != operand.data && n != 0) {
      const auto dtype = dtype_of(operand);  // none: the clock's uint32
      const std::int64_t item = dtype ? optimisers::size_of(*dtype) : std::int64_t{sizeof(std::uint32_t)};
      std::memcpy(result.data, operand.data, std::size_t(n * item));
    }
    return bytes(result);
  }

  Doubles doubles(const XLA_FFI_Buffer& buffer) const {
    const std::int64_t n = size_of(buffer);
    if (buffer.dtype != XLA_FFI_DataType_U32 || buffer.rank < 2 || buffer.dims[buffer.rank - 1] != 2)
      refuse_call("numbers that are no pairs of uint32");
    const std::int64_t count = buffer.dims[buffer.rank - 2];
    if (n != problems_ * count * 2) refuse_call("operands of different batches");
    return {bytes(buffer), count};
  }

  void read_clock() {
    const XLA_FFI_Buffer& clock = frame_.operand(0);
    for (std::int64_t i = 0; i + 2 < clock.rank; ++i) problems_ *= clock.dims[i];
    clock_ = doubles(clock);
    if (problems_ != 0) clock_.data = taken_over(clock);
    numbers_ = doubles(frame_.operand(1));
    places_ = frame_.integers("stand_in");
    for (const std::int64_t place : places_)
      if (place < 0 || place >= numbers_.count) refuse_call("a hyperparameter that the rule lacks");
  }

  void read_leaves() {
    const std::span<const std::int64_t> subtracts = frame_.integers("subtracts");
    if (subtracts.size() != 1) refuse_call("no word on what is written");
    std::size_t at = 2 + places_.size();
    while (at < frame_.operands() && problems_ != 0) {
      const XLA_FFI_Buffer &x = frame_.operand(at), &dx = frame_.operand(at + 1);
      const auto dtype = dtype_of(x), dx_dtype = dtype_of(dx);
      if (!dtype || !dx_dtype || size_of(x) != size_of(dx) || size_of(x) % problems_ != 0)
        refuse_call("arrays that are no parameter and its gradient");
      if (is_complex_dtype(*dx_dtype) && !is_complex_dtype(*dtype)) refuse_call("a complex gradient of a real array");
      LeafBuffers leaf{bytes(x), bytes(dx), nullptr, *dx_dtype, states_.size(), state_count(plans_->program, *dtype)};
      if (subtracts[0] != 0) {
        leaf.x = taken_over(x);
      } else {
        const XLA_FFI_Buffer& out = frame_.result(next_result_++);
        if (out.dtype != x.dtype || size_of(out) != size_of(x)) refuse_call("a result unlike its parameter");
        leaf.out = bytes(out);
      }
      for (std::size_t k = 0; k < leaf.state_count; ++k) {
        const XLA_FFI_Buffer& slot = frame_.operand(at + 2 + k);
        const auto slot_dtype = dtype_of(slot);
        if (!slot_dtype || size_of(slot) != size_of(x)) refuse_call("a slot unlike its parameter");
        states_.push_back({taken_over(slot), size_of(x) / problems_ * optimisers::size_of(*slot_dtype)});
        state_dtypes_.push_back(*slot_dtype);
      }
      shapes_.push_back({*dtype, size_of(x) / problems_});
      leaves_.push_back(leaf);
      at += 2 + leaf.state_count;
    }
  }

  void check_state(const LentStep& step) const {
    for (std::size_t i = 0; i < leaves_.size(); ++i)
      for (std::size_t k = 0; k < leaves_[i].state_count; ++k)
        if (step.state_dtype(i, k) != state_dtypes_[leaves_[i].first_state + k]) refuse_call("a slot of another type");
  }

  static void read_doubles(const Doubles& from, std::int64_t problem, std::vector<double>& to) {
    std::memcpy(to.data(), from.data + problem * from.count * 8, to.size() * 8);
  }

  void stand_in(std::int64_t problem, std::vector<double>& numbers) const {
    for (std::size_t i = 0; i < places_.size(); ++i) {
      const XLA_FFI_Buffer& given = frame_.operand(2 + i);
      const std::int64_t count = size_of(given) / problems_;
      const auto dtype = dtype_of(given);
      const auto place = std::size_t(places_[i]);
      if (count < 1 || count > 2 || place + std::size_t(count) > numbers.size())
        refuse_call("a hyperparameter's shape");
      for (std::int64_t k = 0; k < count; ++k) {
        double& number = numbers[place + std::size_t(k)];
        if (dtype == DType::float32) number = static_cast<const float*>(given.data)[problem * count + k];
        else if (dtype == DType::float64) number = static_cast<const double*>(given.data)[problem * count + k];
        else refuse_call("a hyperparameter's type");
      }
    }
  }

  Frame frame_;
  std::shared_ptr<RulePlans> plans_;
  std::int64_t problems_ = 1;
  std::size_t next_result_ = 0;
  Doubles clock_{}, numbers_{};
  std::span<const std::int64_t> places_;
  std::vector<Shape> shapes_;
  std::vector<LeafBuffers> leaves_;
  std::vector<StateBuffer> states_;
  std::vector<DType> state_dtypes_;
};

XLA_FFI_Error* failure(const XLA_FFI_Api& api, const char* message, XLA_FFI_Error_Code code) {
  XLA_FFI_Error_Create_Args error{XLA_FFI_Error_Create_Args_STRUCT_SIZE, nullptr, message, code};
  return api.XLA_FFI_Error_Create(&error);
}

// XLA asks each handler what it speaks. Of its structs only those are used that all versions of this major one have, so
// that it is the version of whoever asks.
bool asks_for_version(const XLA_FFI_CallFrame& frame) {
  XLA_FFI_Extension_Base* extension = frame.extension_start;
  if (extension == nullptr || extension->type != XLA_FFI_Extension_Metadata) return false;
  XLA_FFI_Metadata& metadata = *reinterpret_cast<XLA_FFI_Metadata_Extension*>(extension)->metadata;
  metadata.api_version.major_version = XLA_FFI_API_MAJOR;
  metadata.api_version.minor_version = frame.api != nullptr ? frame.api->api_version.minor_version : XLA_FFI_API_MINOR;
  return true;
}

}  // namespace

XLA_FFI_Error* step(XLA_FFI_CallFrame* frame) {
  if (asks_for_version(*frame) || frame->stage != XLA_FFI_ExecutionStage_EXECUTE) return nullptr;
  try {
    StepCall(*frame).run();
    return nullptr;
  } catch (const Error& error) {
    return failure(*frame->api, error.what(), XLA_FFI_Error_Code_INVALID_ARGUMENT);
  } catch (const std::bad_alloc&) {
    return failure(*frame->api, "optimisers.jax: out of memory", XLA_FFI_Error_Code_RESOURCE_EXHAUSTED);
  } catch (const std::exception& error) {
    return failure(*frame->api, error.what(), XLA_FFI_Error_Code_INTERNAL);
  }
}

}  // namespace optimisers::python::xla
