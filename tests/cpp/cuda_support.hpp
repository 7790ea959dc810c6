// cuda_support.hpp: the same leaves on the host and on an emulated device, for the tests of the CUDA backend.
#pragma once
#include <algorithm>
#include <cstring>
#include <memory>
#include <random>

#include "optimisers/cuda.hpp"
#include "support.hpp"

namespace optimisers::test {

inline constexpr int device = 0;

class Cuda : public testing::Test {
 protected:
  static void SetUpTestSuite() { cuda::use(cuda::driver()); }
};

// An array on the host and its copy on the device, of any strides and alignment.
class Twin {
 public:
  Twin(DType dtype, std::vector<std::int64_t> shape, std::vector<std::int64_t> strides, int seed, int misalign = 0)
      : shape_(std::move(shape)), strides_(std::move(strides)), dtype_(dtype), misalign_(misalign) {
    std::int64_t elements = 1;
    for (std::size_t i = 0; i < shape_.size(); ++i)
      elements = strides_.empty() ? elements * shape_[i] : elements + (shape_[i] - 1) * strides_[i];
    for (auto& s : strides_) s *= size_of(dtype);
    host_.resize(std::size_t(elements * size_of(dtype) + misalign));
    std::mt19937 random(static_cast<unsigned>(seed));
    std::normal_distribution<double> normal(0, 2);
    for (std::int64_t i = 0; i < elements; ++i) put(i, normal(random), normal(random));
    on_device_ = cuda::allocate(device, host_.size());
    cuda::copy(on_device_, device, host_.data(), on_host, host_.size());
  }
  ~Twin() { cuda::release(device, on_device_); }
  Twin(const Twin&) = delete;

  ArrayView view(bool there) {
    return {.data = (there ? on_device_ : host_.data()) + misalign_,
            .shape = shape_.data(),
            .strides = strides_.empty() ? nullptr : strides_.data(),
            .ndim = std::int32_t(shape_.size()),
            .dtype = dtype_,
            .present = true,
            .device = there ? std::int8_t(device) : on_host};
  }
  void expect_equal(const std::string& what) const {
    std::vector<std::byte> there(host_.size());
    cuda::copy(there.data(), on_host, on_device_, device, there.size());
    ASSERT_TRUE(std::equal(there.begin(), there.end(), host_.begin())) << what;
  }
  const std::vector<std::int64_t>& shape() const { return shape_; }
  DType dtype() const { return dtype_; }

 private:
  void put(std::int64_t i, double re, double im) {
    std::byte* to = host_.data() + misalign_ + i * size_of(dtype_);
    const auto write = [&](auto a) { std::memcpy(to, &a, sizeof a); };
    const auto bits = [](double v) {
      const float f = float(v);
      std::uint32_t b;
      std::memcpy(&b, &f, 4);
      return b;
    };
    switch (dtype_) {
      case DType::float32:
        return write(float(re));
      case DType::float64:
        return write(re);
      case DType::complex64:
        return write(Complex<float>{float(re), float(im)});
      case DType::complex128:
        return write(Complex<double>{re, im});
      case DType::bfloat16:
        return write(std::uint16_t(bits(re) >> 16));
      case DType::float16:  // of the same sign, between 1 and 2
        return write(std::uint16_t((bits(re) >> 16 & 0x8000u) | 0x3c00u | (bits(re) >> 13 & 0x3ffu)));
      case DType::int32:
        return write(std::int32_t(re * 3));
      default:
        FAIL();
    }
  }

  std::vector<std::int64_t> shape_, strides_;
  DType dtype_;
  int misalign_;
  std::vector<std::byte> host_;
  std::byte* on_device_;
};

// The same leaves on the host and on the device, through the same calls.
class Pair {
 public:
  void add(const std::string& name, std::unique_ptr<Twin> x, std::unique_ptr<Twin> dx, Program program) {
    names_.push_back(name);
    programs_.push_back(std::move(program));
    x_.push_back(std::move(x));
    dx_.push_back(std::move(dx));
  }
  void set_up() {
    for (const bool there : {false, true}) {
      std::vector<LeafSpec> specs;
      std::vector<ArrayView> x;
      for (std::size_t i = 0; i < x_.size(); ++i) {
        x.push_back(x_[i]->view(there));
        specs.push_back({names_[i], x_[i]->shape(), x_[i]->dtype(), programs_[i], x.back().device});
      }
      (there ? device_ : host_) = std::make_unique<Optimiser>(std::move(specs), x);
    }
  }
  // Leaves in `missing` get no gradient; with `further`, leaf 0 gets its gradient twice.
  void step(std::vector<std::size_t> missing = {}, bool further = false) {
    for (const bool there : {false, true}) {
      std::vector<LeafUpdate> u;
      std::vector<FurtherGradient> more;
      for (std::size_t i = 0; i < x_.size(); ++i) {
        const bool gone = std::find(missing.begin(), missing.end(), i) != missing.end();
        u.push_back(
            {.leaf = std::uint32_t(i), .x = x_[i]->view(there), .dx = gone ? ArrayView{} : dx_[i]->view(there)});
      }
      if (further) {
        u[0].more = 0;
        more.push_back({.dx = dx_[0]->view(there)});
      }
      of(there).update(u, more);
    }
  }
  void expect_equal(const std::string& what) {
    for (std::size_t i = 0; i < x_.size(); ++i) {
      x_[i]->expect_equal(what + ": x of " + names_[i]);
      const auto leaf = std::uint32_t(i);
      for (int s = 0; s < int(programs_[i].stages.size()); ++s) {
        const auto a = host_->slots(leaf, s), b = device_->slots(leaf, s);
        ASSERT_EQ(a.size(), b.size());
        for (std::size_t k = 0; k < a.size(); ++k) expect_memory(i, a[k], b[k], what + ": slot " + a[k].name);
        const auto here = host_->clock(leaf, s), there = device_->clock(leaf, s);
        for (std::size_t c = 0; c < here.size(); ++c)
          ASSERT_EQ(here[c], there[c]) << what << ": clock of " << names_[i];
      }
      if (const auto a = host_->master(leaf)) expect_memory(i, *a, *device_->master(leaf), what + ": master");
    }
  }
  Optimiser& of(bool there) { return there ? *device_ : *host_; }
  Twin& x(std::size_t i) { return *x_[i]; }
  Twin& dx(std::size_t i) { return *dx_[i]; }

 private:
  void expect_memory(std::size_t leaf, const SlotView& a, const SlotView& b, const std::string& what) {
    std::int64_t n = 1;
    for (auto s : x_[leaf]->shape()) n *= s;
    std::vector<std::byte> there(std::size_t(n * size_of(a.dtype)));
    if (there.empty()) return;
    EXPECT_EQ(b.device, device);
    cuda::copy(there.data(), on_host, b.data, device, there.size());
    ASSERT_TRUE(std::equal(there.begin(), there.end(), a.data)) << what << " of " << names_[leaf];
  }
  std::vector<std::string> names_;
  std::vector<Program> programs_;
  std::vector<std::unique_ptr<Twin>> x_, dx_;
  std::unique_ptr<Optimiser> host_, device_;
};

inline std::unique_ptr<Twin> twin(DType dtype, std::vector<std::int64_t> shape, int seed,
                                  std::vector<std::int64_t> strides = {}, int misalign = 0) {
  return std::make_unique<Twin>(dtype, std::move(shape), std::move(strides), seed, misalign);
}

inline RuleValue some(const RuleInfo& info) {
  RuleValue value(info);
  if (std::string(info.text.name) == "AccumGrad") value.set(*info.field("n"), 2.0);
  if (std::string(info.text.name) == "ClipNorm") value.set(*info.field("omega"), 1.0);
  return value;
}

}  // namespace optimisers::test
