// streams.cpp: loading the GPU library, and asking array libraries for their streams.
#include "arrays/streams.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "arrays/exchange.hpp"
#include "errors.hpp"
#include "forks.hpp"
#include "optimisers/cuda.hpp"
#include "text.hpp"
#include "unlocked.hpp"

namespace optimisers::python {
namespace {

// The library with the kernels: beside this module, or where the environment says.
std::string library_path() {
  if (const char* given = std::getenv("OPTIMISERS_CUDA_LIBRARY")) return given;
  const std::string own = nb::cast<nb::str>(nb::module_::import_("optimisers._core").attr("__file__")).c_str();
  return std::filesystem::path(own).replace_filename("_cuda.so").string();
}

// What other libraries say of a device's memory, asked wherever it did not suffice; a question that fails is none.
std::string ask_libraries(const char* what, int device) {
  if (Py_IsInitialized() == 0 || Unlocked::finalising()) return "";
  const nb::gil_scoped_acquire gil;
  try {
    const nb::object said = nb::module_::import_("optimisers._arrays").attr(what)(device);
    return said.is_none() ? "" : nb::cast<nb::str>(said).c_str();
  } catch (const nb::python_error&) {
    return "";
  }
}
void give_back(int device) { ask_libraries("give_back_memory", device); }
std::string memory_held(int device) { return ask_libraries("memory_held", device); }

unsigned forks_when_loaded = 0;

CudaStatus load() {
  CudaStatus status;
  forks_when_loaded = fork_count();
  const std::string path = library_path();
  if (!std::filesystem::exists(path)) status.reason = "this installation has no CUDA library (" + path + ")";
  else status.on = cuda::load(path, status.reason);
  if (status.on) cuda::set_neighbours({give_back, memory_held});
  return status;
}

void* torch_stream(int device) {
  const DLPackExchange* torch = torch_exchange();
  void* stream = nullptr;
  if (torch != nullptr && torch->current_stream(dl::cuda, device, &stream) != 0) throw nb::python_error();
  return stream;
}

}  // namespace

const CudaStatus& cuda_status() {
  static const CudaStatus& status = *new CudaStatus(load());
  return status;
}

void require_cuda(const std::string& place) {
  const CudaStatus& status = cuda_status();
  if (!status.on) value_error(place + " is on a CUDA device, and CUDA is off: " + status.reason);
  if (fork_count() != forks_when_loaded)
    throw Error(ErrorKind::device, place +
                                       " is on a CUDA device, and this process was forked off one that had used CUDA, "
                                       "which does not survive that; start it with the \"spawn\" method instead");
}

void* cupy_stream(int device) {
  nb::object stream = nb::module_::import_("cupy").attr("cuda").attr("get_current_stream")(device);
  return reinterpret_cast<void*>(nb::cast<std::uintptr_t>(stream.attr("ptr")));
}

bool captures(int device, void* stream) {
  const cuda::Stream there(stream, device);
  return cuda::capturing(device);
}

void check_device(int device) {
  const auto count = static_cast<int>(cuda::devices().size());
  if (device < 0 || device >= count)
    value_error("there is no device cuda:" + std::to_string(device) + "; there are " + std::to_string(count));
}

std::uintptr_t public_handle(void* stream) { return stream == nullptr ? 1 : reinterpret_cast<std::uintptr_t>(stream); }
void* stream_of_handle(std::uintptr_t handle) { return handle == 1 ? nullptr : reinterpret_cast<void*>(handle); }

std::optional<void*> stream_from(nb::handle object) {
  if (object.is_none()) return std::nullopt;
  nb::object handle = nb::borrow(object);
  if (nb::hasattr(object, "__cuda_stream__")) {  // (version, handle), as a method or an attribute
    handle = object.attr("__cuda_stream__");
    if (PyCallable_Check(handle.ptr())) handle = handle();
    if (!PyTuple_Check(handle.ptr()) || PyTuple_GET_SIZE(handle.ptr()) != 2)
      type_error("stream: __cuda_stream__ must give (version, handle), got " + repr_text(handle));
    handle = handle[1];
  } else if (nb::hasattr(object, "cuda_stream")) {
    handle = object.attr("cuda_stream");
  } else if (nb::hasattr(object, "ptr")) {
    handle = object.attr("ptr");
  }
  if (!PyLong_Check(handle.ptr()) || PyBool_Check(handle.ptr()))
    type_error("stream: expected a CUDA stream of torch or CuPy, or a stream's handle as an integer, got a " +
               type_name(object.ptr()));
  std::uintptr_t number = 0;
  if (!nb::try_cast<std::uintptr_t>(handle, number))
    value_error("stream: expected a stream's handle, an integer from 0 on, got " + repr_text(handle));
  return stream_of_handle(number);
}

void Streams::add(int device, Library library) {
  if (device == on_host) return;
  for (const Device& d : devices_)
    if (d.device == device) return;
  devices_.push_back({device, library});
}

void Streams::use(std::optional<void*> given) {
  if (devices_.empty()) return;
  require_cuda("this call: an array");
  for (Device& d : devices_) {
    if (given) d.stream = *given;
    else if (d.library == Library::torch) d.stream = torch_stream(d.device);
    else if (d.library == Library::cupy) d.stream = cupy_stream(d.device);
    else d.stream = nullptr;
    d.given = given.has_value();
    d.adopted = false;
    cuda::set_stream(d.device, d.stream);
  }
}

void Streams::adopt(int device, void* stream) {
  for (Device& d : devices_) {
    if (d.device != device || d.given || d.adopted || d.library != Library::other) continue;
    d.adopted = true;
    d.stream = stream;
    cuda::set_stream(device, stream);
  }
}

void Streams::let_cupy_follow(int device) {
  void* ours = cuda::stream(device);
  void* theirs = cupy_stream(device);
  // While a graph is being captured its arrays are to be kept anyway, and CuPy's stream would be drawn into it.
  if (theirs != ours && !cuda::capturing(device)) cuda::follow(device, theirs, ours);
}

void Streams::reset() const noexcept {
  for (const Device& d : devices_) cuda::set_stream(d.device, nullptr);
}

bool Streams::beside_torch() const {
  return std::ranges::any_of(devices_, [](const Device& d) { return !d.given && d.library != Library::torch; });
}

template <class F>
void Streams::order_with_torch(F&& order) const {
  for (const Device& d : devices_) {
    if (d.given || d.library == Library::torch) continue;
    void* theirs = torch_stream(d.device);
    // A capture is ordered with nothing outside of it, whichever of the two is captured.
    if (theirs != d.stream && !captures(d.device, theirs) && !captures(d.device, d.stream)) order(d, theirs);
  }
}

void Streams::follow_torch() const {
  order_with_torch([](const Device& d, void* theirs) { cuda::follow(d.device, d.stream, theirs); });
}
void Streams::let_torch_follow() const {
  order_with_torch([](const Device& d, void* theirs) { cuda::follow(d.device, theirs, d.stream); });
}

std::vector<cuda::Mark> Streams::marks() const {
  std::vector<cuda::Mark> marks;
  for (const Device& d : devices_)
    marks.emplace_back(d.device);  // NOLINT(performance-inefficient-vector-operation): few
  return marks;
}

void wait_for(std::span<const cuda::Mark> marks) {
  Unlocked unlocked;  // what is waited for may be waiting for a callback written in Python
  for (const cuda::Mark& mark : marks) {
    if (mark.device() < 0) continue;
    mark.precede(cuda::stream(mark.device()));
    cuda::wait(mark.device());
  }
}

}  // namespace optimisers::python
