// user_stages.hpp: the stages of rules written in Python, in one update. They run before anything is written: until
// commit(), going out of scope puts the native stages before them back as they were.
#pragma once
#include "state/state.hpp"

namespace optimisers::python {

std::map<std::uint32_t, UserStages> copied_user_stages(const std::map<std::uint32_t, UserStages>& stages);

// Slots and clocks of leaves of the core as they were, and what had been seen, put back unless released.
class Backup {
 public:
  explicit Backup(Optimiser& core) : core_(core), seen_(core.seen()) {}
  Backup(const Backup&) = delete;
  ~Backup();
  void add(std::uint32_t leaf);
  void release() { saved_.clear(), clocks_.clear(), seen_.reset(); }

 private:
  struct Saved {
    Memory memory;
    std::vector<std::byte> on_host;
    nb::object on_device;
  };
  struct Clocks {
    std::uint32_t leaf;
    std::vector<double> values;
  };
  void put_back();
  Optimiser& core_;
  std::optional<Seen> seen_;
  std::vector<Saved> saved_;
  std::vector<Clocks> clocks_;
};

class UserRun {
 public:
  // Takes the state's collected updates through all stages up to the last user-defined one of each leaf.
  UserRun(State& state, std::uint32_t root, PyObject* flat, const GradientSource& source, const char* call);
  // What is left for the core: all leaves that have not stopped, with dx as the user's stages left it.
  std::vector<LeafUpdate> last_updates() const;
  void commit();

 private:
  struct Run {  // one leaf
    std::uint32_t update, leaf;
    UserStages* stages;
    nb::list rules;
    nb::object x;  // read-only, or a copy
    ArrayView x_view;
    nb::object dx;  // after the first stages; none: missing
    nb::list higher;
    std::vector<nb::object> states;
    bool stopped = false;
  };
  void start(std::uint32_t root, PyObject* flat);
  nb::object parameter(std::uint32_t root, PyObject* flat, std::uint32_t leaf) const;
  void read_higher(std::uint32_t root, std::span<PyObject* const> higher);
  void native_stages(std::size_t stage);
  void user_stage(Run& run, std::size_t stage);
  nb::str path_of(const Run& run) const;
  bool counts_missing(std::uint32_t core_leaf) const;
  void read(const nb::object& array, ArrayView& view);
  void take(Run& run, const nb::object& dx);
  void let_go_on(Run& run);

  State& state_;
  const char* call_;
  nb::object python_;  // the module optimisers._user_rules
  std::vector<Run> runs_;
  std::vector<nb::object> read_from_;  // what views are of
  const bool flushes_;
  const Seen before_;
  std::optional<double> first_norm_;  // that leaves shared before their first user-defined stages
  Backup backup_;
};

}  // namespace optimisers::python
