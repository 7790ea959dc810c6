// shared_report.hpp: where a device leaves what the host is to know without asking.
#pragma once
#include <new>

#include "memory.hpp"

namespace optimisers::inline OPT_ABI::cuda {

// Memory that host and device see under one address.
class SharedReport {
 public:
  explicit SharedReport(int device) : device_(device) {
    void* memory = nullptr;
    check(driver_in_use().allocate_shared(device, sizeof(Report), &memory), device, "setup");
    report_ = new (memory) Report{};
  }
  ~SharedReport() {
    if (const Driver* d = driver_or_null()) d->release_shared(device_, report_);
  }
  SharedReport(const SharedReport&) = delete;
  SharedReport& operator=(const SharedReport&) = delete;
  Report* get() const { return report_; }

 private:
  int device_;
  Report* report_;
};

}  // namespace optimisers::inline OPT_ABI::cuda
