"""Shared by the tests: rules and variants from the registry, data, fingerprints, comparison with the reference."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import torch

import optimisers as opt
import reference

GLOBAL = {"Prodigy"}  # numbers of the whole state: leaves are not on their own (test_shared_numbers.py)
RULES = {cls.__name__: cls for cls in opt.RULES if not cls._matrix and cls.__name__ not in GLOBAL}
NUMPY_DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
TORCH_DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64")
REFUSES_COMPLEX = {"Rprop", "Box", "NonNegative"}
SEES_GRADIENT = {"Grams", "Cautious"}  # beside what the stages before it made of that
SUMS = {name for name, cls in RULES.items() if cls._sums}  # over the leaf, or over all; not on a device
MEASURES = SUMS | {"ClipNorm"}  # an element's step depends on others

# Values other than the default, by field name. Lion's direction stays clear of zero with this beta and gradients of
# size 0.5 to 1: over six steps 0.6 |m| < 0.14 < 0.4 * 0.5. omega is small enough that every p used here clips.
CHANGED: dict[str, Any] = {
    "eta": 0.03, "rho": 0.7, "beta": (0.6, 0.95), "epsilon": 1e-3, "lambda_": 0.05, "delta": 0.7, "omega": 0.01,
    "p": 3.5, "n": 2, "ell": (0.7, 1.5), "gamma": (0.02, 0.04), "bounds": (-0.75, 0.6), "warmup": 4.0, "power": 0.5,
    "d0": 1e-3,
    "largest": 1.4, "least": 0.6, "coefficient": 0.8,
}  # fmt: skip
ORDERS = (1.0, 2.0, 3.5, -2.0, float("inf"), float("-inf"))

Spec = Any  # see reference.py


def numpy_dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def is_complex(name: str) -> bool:
    return name.startswith("complex")


def build(spec: Spec) -> opt.Rule:
    """The package's rule for a spec of the reference."""
    if isinstance(spec, list):
        return opt.OptimiserChain(*map(build, spec))
    name, fields = spec
    if name == "MixedPrecision":
        return opt.MixedPrecision(build(fields["rule"]), fields.get("dtype", "float32"))
    return getattr(opt, name)(**fields)


# Where a default would leave a sign to rounding: 0.9 m + 0.1 dx of float16 gradients is 0 now and then, and behind an
# Adam's first step, which is its eta, Yogi's second moment would start at just that step's square.
STEADY: dict[str, dict[str, Any]] = {"Signum": {"rho": 0.3}, "Yogi": {"initial": 3e-6}}


def required(name: str) -> dict[str, Any]:
    """Values for the fields that have no default."""
    return {f: 3 for f, value in reference.REFERENCE[name].defaults.items() if value is reference.REQUIRED}


def needed(name: str) -> dict[str, Any]:
    """Those, and values for fields whose default is no test."""
    return required(name) | STEADY.get(name, {})


def changed(field: Any) -> Any:
    if field.name in CHANGED:
        return CHANGED[field.name]
    return field.default * 0.75 if field.default else 0.05


def variants(name: str) -> list[Spec]:
    """The rule at its defaults and with every number changed, with every combination of its switches."""
    fields = getattr(opt, name).fields
    switches = {f.name: (True, False) for f in fields if f.kind == "bool"}
    switches |= {f.name: f.words for f in fields if f.words}
    switches |= {f.name: ORDERS for f in fields if f.name == "p"}
    numbers = {f.name: changed(f) for f in fields if f.name not in switches}
    specs = []
    for values in itertools.product(*switches.values()):
        chosen = dict(zip(switches, values, strict=True))
        specs += [(name, needed(name) | chosen), (name, numbers | chosen | STEADY.get(name, {}))]
    return specs


def all_variants() -> list[Spec]:
    return [spec for name in RULES for spec in variants(name)]


def plain_rules() -> list[Spec]:
    """Every rule once, with its defaults."""
    return [(name, needed(name)) for name in RULES]


def stages(spec: Spec) -> list[str]:
    return [name for name, _ in reference.flatten(spec)]


def spec_id(spec: Spec) -> str:
    if isinstance(spec, list):
        return "[" + " ".join(map(spec_id, spec)) + "]"
    return spec[0] + "".join(f",{k}={v}" for k, v in spec[1].items())


def sized(shape: tuple[int, ...], dtype: str, seed: int, low: float = 0.5, high: float = 1.0) -> np.ndarray:
    """Numbers of size low to high and random sign (complex: phase), so that no sign is a matter of luck."""
    rng = np.random.default_rng([seed, *shape])
    size = rng.uniform(low, high, shape)
    turn = np.exp(2j * np.pi * rng.random(shape)) if is_complex(dtype) else np.sign(rng.random(shape) - 0.5)
    return np.asarray(size * turn).astype(numpy_dtype(dtype))


def to_torch(a: np.ndarray) -> torch.Tensor:
    """A tensor with a copy of the array's values."""
    if a.dtype == numpy_dtype("bfloat16"):
        return torch.from_numpy(a.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(a))


def to_numpy(a: Any) -> np.ndarray:
    """The values of an array of either library."""
    if not isinstance(a, torch.Tensor):
        return np.asarray(a)
    if a.dtype == torch.bfloat16:
        return a.contiguous().view(torch.int16).numpy().view(numpy_dtype("bfloat16"))
    return a.numpy()


def wide(a: Any) -> np.ndarray:
    a = to_numpy(a)
    return a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)


# ------------------------------------------------------------------------------------- bits and trees


def is_array(node: Any) -> bool:
    return isinstance(node, (np.ndarray, torch.Tensor))


def arrays(node: Any) -> Iterator[Any]:
    """Every array of a tree of dicts, lists and tuples, in walk order."""
    if is_array(node):
        yield node
    elif isinstance(node, dict):
        for child in node.values():
            yield from arrays(child)
    elif isinstance(node, (list, tuple)):
        for child in node:
            yield from arrays(child)


def handles(model: Any, state: Any) -> Iterator[Any]:
    """The Leaf of every array of the model, in walk order."""
    if is_array(model):
        yield state
    elif isinstance(model, dict):
        for key, child in model.items():
            yield from handles(child, state[key])
    elif isinstance(model, (list, tuple)):
        for i, child in enumerate(model):
            yield from handles(child, state[i])


def mapped(f: Callable[[Any], Any], node: Any) -> Any:
    """The tree with f applied to every array."""
    if is_array(node):
        return f(node)
    if isinstance(node, dict):
        return {key: mapped(f, child) for key, child in node.items()}
    return type(node)(mapped(f, child) for child in node) if isinstance(node, (list, tuple)) else node


def copied(model: Any) -> Any:
    return mapped(lambda a: a.clone() if isinstance(a, torch.Tensor) else a.copy(), model)


def bits(*nodes: Any) -> str:
    """A hash of the shapes, dtypes and bytes of all arrays below."""
    digest = hashlib.sha256()
    for a in arrays(nodes):
        a = to_numpy(a)
        digest.update(f"{a.shape}{a.dtype}".encode() + np.ascontiguousarray(a).tobytes())
    return digest.hexdigest()


def slots(leaf: Any) -> list[Any]:
    return list(arrays(tuple(leaf.state)))


def leaf_bits(x: Any, leaf: Any) -> tuple[str, str, str]:
    """Everything an update may change at one leaf: parameter, slots, clock."""
    return bits(x), bits(slots(leaf)), repr(dict(leaf.clock))


def fingerprint(model: Any, state: Any) -> list[tuple[str, str, str]]:
    """Everything an update may change, leaf by leaf."""
    return [leaf_bits(x, leaf) for x, leaf in zip(arrays(model), handles(model, state), strict=True)]


def everything(model: Any, state: Any) -> list[Any]:
    """The fingerprint, and what only adjust and freeze may change."""
    return [*fingerprint(model, state), *[(repr(leaf.rule), leaf.frozen) for leaf in handles(model, state)]]


def layers(count: int = 3, dtype: str = "float32", seed: int = 0) -> dict[str, Any]:
    """A model of 2 * count leaves, the last of them `layers.<count - 1>.bias`; with another seed its gradients."""
    return {
        "layers": [
            {
                "weight": sized((5, 3 + i % 4), dtype, seed + 2 * i),
                "bias": sized((3 + i % 4,), dtype, seed + 2 * i + 1),
            }
            for i in range(count)
        ]
    }


def trained(rule: opt.Rule, model: Any, steps: int = 3, seed: int = 100) -> Any:
    """The state after some updates of the model from `layers`, in place."""
    state = opt.setup(rule, model)
    dtype = next(arrays(model)).dtype.name
    for step in range(steps):
        opt.update_(state, model, layers(len(model["layers"]), dtype, seed + 50 * step))
    return state


# ------------------------------------------------------------------------ comparison with the reference

# Rounding errors of a step, in units of the compute type's epsilon and relative to the largest step (slot) so far of
# the same element. Every rule rounds fewer than 10 times on the way to a slot and 10 times more to dx, half an epsilon
# each; six steps with moments that partly cancel multiply the former by at most 5: 10 * 5 / 2 + 10 / 2 < 32.
STEP_ULPS = 32
# RAdam's rho subtracts two scalars near 2 / (1 - beta2) = 2000, which leaves them 2000 epsilons of double apart.
SLACK = {"RAdam": 1e-12}
# What the rounding errors of a slot are relative to where that is not the slot itself: differences have those of what
# they are differences of, in another slot; ADOPT's moment is a tenth of numbers about 1, which may be what is left of
# others that cancelled.
# Rules whose step is a difference of the parameter and a slot of its size, and has the rounding errors of those.
ABOUT_X = {"Lookahead", "ScheduleFree"}
SIZES: dict[str, str | float] = {"Adan.e": "g", "ADOPT.m": 0.1, "NovoGrad.m": 0.1}


def close(got: np.ndarray, want: np.ndarray, tolerance: np.ndarray | float) -> bool:
    """Within the tolerance, infinities and NaNs at the same places."""
    with np.errstate(invalid="ignore"):
        near = np.isfinite(got) & np.isfinite(want) & (np.abs(got - want) <= tolerance)
        same = (got == want) | (np.isnan(got) & np.isnan(want)) | near
    return bool(np.all(same))


class Follower:
    """One leaf of the package followed step by step by the reference.

    The reference takes each step from the package's own x, so errors of rounding x do not add up and any storage type
    is held to: half a unit in the last place for storing x, one rounding of the subtraction, STEP_ULPS for dx.
    """

    def __init__(self, spec: Spec, x: Any) -> None:
        self.dtype = to_numpy(x).dtype
        self.is_chain = isinstance(spec, list)
        self.leaf = reference.Leaf(spec, wide(x))
        self.info = ml_dtypes.finfo(self.dtype)
        self.compute = np.float32 if self.dtype.itemsize == 2 else np.zeros(0, self.dtype).real.dtype
        self.eps = float(np.finfo(self.compute).eps)
        names = stages(spec)
        self.relative = STEP_ULPS * len(names) ** 2 * self.eps + max((SLACK.get(n, 0.0) for n in names), default=0.0)
        self.step_size = np.abs(self.leaf.x) if ABOUT_X & set(names) else np.zeros(self.leaf.x.shape)
        self.slot_size = [{k: np.abs(v) for k, v in stage.s.items()} for stage in self.leaf.stages]

    def before(self, x: Any) -> None:
        self.leaf.x = wide(x)

    def check(self, x: Any, state: Any) -> None:
        want = self.leaf.x
        self.step_size = np.fmax(self.step_size, np.abs(self.leaf.dx))
        stored = float(self.info.eps) / 2 if self.dtype.itemsize == 2 else 0.0
        tolerance = (stored + self.eps) * np.abs(want) + float(self.info.smallest_subnormal) / 2
        assert close(wide(x), want, tolerance + self.relative * self.step_size), f"x: {x} != {want}"
        states = list(flat_states(state)) if self.is_chain else [state]
        for stage, size, entry in zip(self.leaf.stages, self.slot_size, states, strict=bool(self.leaf.stages)):
            assert entry._fields == tuple(stage.s), stage.rule.name
            for name, slot in stage.s.items():
                self.check_slot(f"{stage.rule.name}.{name}", getattr(entry, name), slot, size, name)

    def check_slot(self, label: str, got: Any, want: np.ndarray, size: dict[str, np.ndarray], name: str) -> None:
        size[name] = np.fmax(size[name], np.abs(want))
        of = SIZES.get(label, 0.0)
        size[name] = np.fmax(size[name], size[of] if isinstance(of, str) else of)
        expected = self.dtype if np.iscomplexobj(want) else self.compute
        assert (to_numpy(got).dtype, tuple(got.shape)) == (expected, want.shape), label
        assert close(wide(got), want, self.relative * size[name]), f"{label}: {got} != {want}"


def flat_states(state: Any) -> Iterator[Any]:
    """The slots of a chain's stages, nested chains flattened: plain tuples nest, slots are named tuples."""
    for entry in state:
        if hasattr(entry, "_fields"):
            yield entry
        else:
            yield from flat_states(entry)


def follow(
    spec: Spec,
    x: Any,
    grads: list[np.ndarray],
    between: Callable[[int, Any, reference.Leaf], None] = lambda step, state, leaf: None,
) -> None:
    """Runs the package on a bare array x (in place) and asserts every step and slot against the reference."""
    wrap = to_torch if isinstance(x, torch.Tensor) else np.asarray
    state = opt.setup(build(spec), x)
    follower = Follower(spec, x)
    for step, g in enumerate(grads):
        between(step, state, follower.leaf)
        follower.before(x)
        with np.errstate(all="ignore"):
            reference.update([follower.leaf], [wide(g)])
        opt.update_(state, x, wrap(g))
        follower.check(x, state.state)
