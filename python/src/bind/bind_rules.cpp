// bind_rules.cpp: rules as the registry describes them; the Python classes are made from this.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>

#include "bind/bind.hpp"
#include "errors.hpp"
#include "optimisers/program.hpp"
#include "text.hpp"

namespace optimisers::python {
namespace {

std::string wanted(const FieldInfo& field) {
  switch (field.kind) {
    case FieldKind::number:
      return "a number";
    case FieldKind::pair:
      return "a pair of numbers";
    case FieldKind::count:
      return "an integer";
    case FieldKind::boolean:
      return "True or False";
    case FieldKind::word:
      return choices_of(field);
  }
  return "";
}

// False: not a real number.
bool read_number(PyObject* object, double& out) {
  if (PyBool_Check(object) || is_numpy_bool(object) || !PyNumber_Check(object)) return false;
  out = PyFloat_AsDouble(object);
  if (out != -1 || !PyErr_Occurred()) return true;
  PyErr_Clear();
  return false;
}

nb::object python_value(const FieldInfo& field, const Value& value) {
  if (const auto* d = std::get_if<double>(&value)) {
    if (field.kind == FieldKind::count) return nb::int_(static_cast<std::int64_t>(*d));
    return nb::float_(*d);
  }
  if (const auto* p = std::get_if<Pair>(&value)) return nb::make_tuple(p->first, p->second);
  if (const auto* b = std::get_if<bool>(&value)) return nb::bool_(*b);
  return nb::str(std::get<std::string>(value).c_str());
}

bool has_valid_default(const RuleInfo& info, const FieldInfo& field) {
  RuleValue rule(info);
  try {
    rule.set(field, rule.get(field));
  } catch (const Error&) {
    return false;
  }
  return true;
}

nb::dict describe(const RuleInfo& info) {
  nb::list fields, slots, clock, sums;
  for (const FieldInfo& f : info.fields) {
    nb::object value = has_valid_default(info, f) ? python_value(f, RuleValue(info).get(f)) : nb::none();
    const std::string kind(name_of(f.kind)), range(name_of(f.range)), bounds(text_of(f.range));
    nb::list words;
    for (const char* word : f.words) words.append(nb::str(word));
    fields.append(nb::make_tuple(f.name, kind.c_str(), value, range.c_str(), bounds.c_str(), f.doc, f.structural,
                                 nb::tuple(words)));
  }
  for (const SlotInfo& s : info.slots) slots.append(nb::make_tuple(s.name, s.real));
  for (const char* name : info.clock) clock.append(nb::str(name));
  for (const char* name : info.sums) sums.append(nb::str(name));
  nb::dict d;
  d["name"] = info.text.name;
  d["summary"] = info.text.summary;
  d["update"] = info.text.update;
  d["notes"] = info.text.notes;
  d["reference"] = info.text.reference;
  d["refuses_complex"] = info.refuses_complex ? nb::object(nb::str(info.refuses_complex)) : nb::none();
  d["fields"] = nb::tuple(fields);
  d["slots"] = nb::tuple(slots);
  d["clock"] = nb::tuple(clock);
  d["sums"] = nb::tuple(sums);
  d["matrix"] = info.matrix();
  return d;
}

const FieldInfo& field_of(const RuleInfo& info, const std::string& name) {
  const FieldInfo* field = info.field(name);
  if (field == nullptr) value_error(std::string(info.text.name) + " has no field \"" + name + "\"");
  return *field;
}

RuleValue* new_rule(const std::string& name, const nb::dict& values) {
  const RuleInfo* info = find_rule(name);
  if (info == nullptr) value_error("there is no rule \"" + name + "\"");
  auto rule = std::make_unique<RuleValue>(*info);
  for (auto [key, value] : values) {
    const FieldInfo& field = field_of(*info, str_text(key));
    rule->set(field, value_from(value, info->text.name, field));
  }
  rule->check();
  return rule.release();
}

nb::tuple values_of(const RuleValue& rule) {
  nb::list values;
  for (const FieldInfo& f : rule.info().fields) values.append(python_value(f, rule.get(f)));
  return nb::tuple(values);
}

}  // namespace

bool is_numpy_bool(PyObject* object) {
  const std::string_view name = Py_TYPE(object)->tp_name;
  return name == "numpy.bool" || name == "numpy.bool_";
}

Value value_from(nb::handle object, const char* rule, const FieldInfo& field) {
  const FieldKind kind = field.kind;
  PyObject* o = object.ptr();
  const auto refuse = [&](ErrorKind error) {
    throw Error(error,
                std::string(rule) + ": " + field.name + " must be " + wanted(field) + ", got " + repr_text(object));
  };
  if (kind == FieldKind::boolean) {
    if (!PyBool_Check(o) && !is_numpy_bool(o)) refuse(ErrorKind::type);
    return PyObject_IsTrue(o) == 1;
  }
  if (kind == FieldKind::word) {
    if (!PyUnicode_Check(o)) refuse(ErrorKind::type);
    return str_text(object);
  }
  double first = 0, second = 0;
  if (kind != FieldKind::pair) {
    if (!read_number(o, first)) refuse(ErrorKind::type);
    return first;
  }
  if (!PySequence_Check(o) || PyUnicode_Check(o)) refuse(ErrorKind::type);
  if (PySequence_Size(o) != 2) {
    PyErr_Clear();
    refuse(ErrorKind::value);
  }
  const nb::object a = object[0], b = object[1];
  if (!read_number(a.ptr(), first) || !read_number(b.ptr(), second)) refuse(ErrorKind::type);
  return Pair{first, second};
}

// The scalars of a rule's clock after so many steps under these hyperparameters.
std::vector<double> clock_after(const RuleValue& rule, std::int64_t steps) {
  constexpr std::int64_t most = std::int64_t{1} << 32;
  if (steps < 0 || steps > most) value_error("clock_after: steps must be in [0, 2^32], got " + std::to_string(steps));
  const RuleInfo& info = rule.info();
  auto clock = info.clock_start;
  alignas(16) std::array<std::byte, 96> scalars;  // a step's
  int count = -1;                                 // where the clock counts steps
  for (std::int64_t i = 0; i < steps && info.clock_size > 0; ++i) {
    const auto before = clock;
    info.tick[1](rule.data(), clock.data(), scalars.data());
    for (int c = 0; c < info.clock_size; ++c)
      if (std::string_view(info.clock[static_cast<std::size_t>(c)]) == "t") count = c;
    auto rest = clock;
    if (count >= 0) rest[static_cast<std::size_t>(count)] = before[static_cast<std::size_t>(count)];
    if (rest != before) continue;  // nor do products of beta move once they have vanished
    if (count >= 0) clock[static_cast<std::size_t>(count)] = static_cast<double>(steps);
    break;
  }
  return {clock.begin(), clock.begin() + info.clock_size};
}

void bind_rules(nb::module_& m) {
  m.def("rule_descriptions", [] {
    nb::list rules;
    for (const RuleInfo& info : rule_registry()) rules.append(describe(info));
    return rules;
  });
  nb::class_<RuleValue>(m, "RuleValue")
      .def(
          "__init__",
          [](RuleValue* self, const std::string& name, const nb::dict& values) {
            const std::unique_ptr<RuleValue> rule(new_rule(name, values));
            new (self) RuleValue(*rule);
          },
          nb::arg("name"), nb::arg("values"))
      .def("values", &values_of)
      .def("clock_after", &clock_after)
      .def_prop_ro("name", [](const RuleValue& rule) { return rule.info().text.name; })
      .def_prop_ro("slot_count", &RuleValue::slot_count);
  nb::class_<Program>(m, "Program")
      .def(
          "__init__",
          [](Program* self, const nb::list& stages, std::optional<std::string> master) {
            Program program;
            for (nb::handle stage : stages) program.stages.push_back(nb::cast<const RuleValue&>(stage));
            if (master) program.master = dtype_from_name(*master);
            if (master && program.master != DType::float32 && program.master != DType::float64)
              value_error("Program: master must be \"float32\" or \"float64\", got \"" + *master + "\"");
            new (self) Program(std::move(program));
          },
          nb::arg("stages"), nb::arg("master").none());
}

}  // namespace optimisers::python
