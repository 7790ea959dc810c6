// emulated_streams.hpp: what streams hold and has not run yet. For emulation.cpp alone.
//
// OPTIMISERS_EMULATED_DEFERRED=NUMBER: what is enqueued runs when something waits for it, and some of it before, stream
// by stream in an order drawn from the number that obeys nothing but events. The default stream is one like the others,
// since those of libraries do not wait for it either. Work that is not ordered with what it needs, and memory that is
// given back too early, show in the results.
#pragma once
#include <cstddef>
#include <functional>
#include <memory>

#include "optimisers/config.hpp"

namespace optimisers::inline OPT_ABI::cuda::streams {

using Work = std::function<void()>;

// An event: how often it was recorded, and which of these records have come to pass.
struct Event {
  unsigned recorded = 0, passed = 0;
};

bool deferred();  // decided at the first call that asks

void enqueue(int device, const void* stream, Work work);
void record(int device, const void* stream, const std::shared_ptr<Event>& event);
void await(int device, const void* stream, const std::shared_ptr<Event>& event);
void drain(int device, const void* stream);  // all it holds, and what that waits for
void drain();                                // all there is
void go_on();                                // some of it, or nothing

// What a graph holds: launches and copies of a capture, which did not run, and run when it is replayed.
void capture(int device, const void* stream, Work work);
void hold(Work at_its_end);
void replay();
void forget();

}  // namespace optimisers::inline OPT_ABI::cuda::streams
