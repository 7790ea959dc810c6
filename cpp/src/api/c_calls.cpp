// c_calls.cpp: what is done with a whole state in C: steps, files, hyperparameters, freezing.
#include <cstddef>

#include "api/c_api.hpp"

namespace opt = optimisers;
using opt::give;
using opt::guarded;
using opt::leaf_of;
using opt::refuse;
using opt::required;
using opt::spans_of;
using opt::state_of;

optimisers_status optimisers_update(optimisers_state* state, const optimisers_array* x, size_t x_count,
                                    const optimisers_array* dx, size_t dx_count) {
  return guarded(__func__, [&] { state_of(state).update(spans_of(x, x_count, false), spans_of(dx, dx_count, true)); });
}

optimisers_status optimisers_update_with(optimisers_state* state, const optimisers_array* x, size_t x_count,
                                         const optimisers_array* dx, size_t dx_count,
                                         const optimisers_update_options* options) {
  if (options == nullptr) return optimisers_update(state, x, x_count, dx, dx_count);
  return guarded(__func__, [&] {
    constexpr std::size_t first_version = offsetof(optimisers_update_options, non_finite);
    optimisers_update_options given{};
    opt::check_struct_size(*options, "options", first_version);
    std::memcpy(&given, options, std::min(options->struct_size, sizeof given));
    if (given.non_finite < OPTIMISERS_PROPAGATE || given.non_finite > OPTIMISERS_SKIP)
      refuse("options: " + std::to_string(given.non_finite) + " is no optimisers_non_finite");
    opt::UpdateOptions o{.non_finite = static_cast<opt::NonFinite>(given.non_finite), .scale = given.scale};
    if (given.reduce_norm != nullptr)
      o.reduce_norm = [&](double norm, double p, const std::string& leaf) {
        return given.reduce_norm(given.self, norm, p, leaf.c_str());
      };
    state_of(state).update(spans_of(x, x_count, false), spans_of(dx, dx_count, true), o);
  });
}

optimisers_status optimisers_flush(optimisers_state* state, const optimisers_array* x, size_t x_count) {
  return guarded(__func__, [&] { state_of(state).flush(spans_of(x, x_count, false)); });
}

optimisers_status optimisers_get_seen(const optimisers_state* state, optimisers_seen* out) {
  return guarded(__func__, [&] {
    optimisers_seen& to = required(out, "out");
    const opt::State& s = state_of(state);
    const std::optional<double> norm = s.norm();
    give(to, "out", sizeof(optimisers_seen),
         {sizeof(optimisers_seen), s.skipped(), norm.has_value(), norm.value_or(0.0)});
  });
}

optimisers_status optimisers_save(optimisers_state* state, const char* path, const optimisers_array* x,
                                  size_t x_count) {
  return guarded(__func__, [&] {
    const std::string to = &required(path, "path");
    if (x == nullptr) return state_of(state).save(to);
    state_of(state).save(to, spans_of(x, x_count, false));
  });
}

optimisers_status optimisers_load(optimisers_state* state, const char* path, const optimisers_array* x, size_t x_count,
                                  const optimisers_load_options* options) {
  return guarded(__func__, [&] {
    const std::string from = &required(path, "path");
    opt::LoadOptions o;
    if (options != nullptr) {
      opt::check_struct_size(*options, "options", sizeof *options);
      if (options->renames > 0) (void)required(options->rename, "rename");
      for (std::size_t i = 0; i < options->renames; ++i)
        o.rename.emplace_back(&required(options->rename[2 * i], "rename"),
                              &required(options->rename[2 * i + 1], "rename"));
      o.partial = options->partial != 0;
      o.cast = options->cast != 0;
    }
    if (x == nullptr) state_of(state).load(from, o);
    else state_of(state).load(from, spans_of(x, x_count, false), o);
  });
}

optimisers_status optimisers_adjust_stage(optimisers_state* state, int64_t leaf, int32_t stage, const char* fields) {
  return guarded(__func__, [&] {
    const opt::Fields parsed = opt::parse_fields(&required(fields, "fields"));
    if (stage < 0) refuse("stage: expected an index, got " + std::to_string(stage));
    leaf_of(state, leaf).adjust(parsed, stage);
  });
}

optimisers_status optimisers_adjust(optimisers_state* state, int64_t leaf, const char* field, double value) {
  return guarded(__func__, [&] {
    const opt::Fields fields{{&required(field, "field"), value}};
    if (leaf == OPTIMISERS_ALL) state_of(state).adjust(fields);
    else leaf_of(state, leaf).adjust(fields);
  });
}

optimisers_status optimisers_adjust_text(optimisers_state* state, int64_t leaf, const char* fields) {
  return guarded(__func__, [&] {
    const opt::Fields parsed = opt::parse_fields(&required(fields, "fields"));
    if (leaf == OPTIMISERS_ALL) state_of(state).adjust(parsed);
    else leaf_of(state, leaf).adjust(parsed);
  });
}

optimisers_status optimisers_freeze(optimisers_state* state, int64_t leaf, int32_t frozen) {
  return guarded(__func__, [&] {
    if (leaf == OPTIMISERS_ALL) return frozen != 0 ? state_of(state).freeze() : state_of(state).thaw();
    frozen != 0 ? leaf_of(state, leaf).freeze() : leaf_of(state, leaf).thaw();
  });
}
