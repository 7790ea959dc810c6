"""Trees of 10,000 levels go through every call; trees that contain themselves are refused; nothing crashes."""

import copy
import pickle
import subprocess
import sys
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from support import bits

import optimisers as opt


def ones(*shape):
    return np.ones(shape, np.float32)


class Pair(NamedTuple):
    inner: Any
    x: Any = None


@dataclass
class Box:
    inner: Any
    parent: Any = field(default=None, metadata={"trainable": False})


@dataclass(frozen=True)
class FrozenBox:
    inner: Any


DEEP = {
    "dict": lambda m: {"inner": m},
    "OrderedDict": lambda m: OrderedDict(inner=m),
    "list": lambda m: [m],
    "tuple": lambda m: (m,),
    "named tuple": Pair,
    "dataclass": Box,
    "frozen dataclass": FrozenBox,
}


@pytest.mark.parametrize("kind", DEEP)
def test_ten_thousand_levels_in_every_call(kind):
    def deep(x):
        for _ in range(10_000):
            x = DEEP[kind](x)
        return x

    x = ones(3)
    model, grads = deep(x), deep(ones(3))
    state = opt.setup(opt.Momentum(1.0), model)
    opt.update_(state, model, grads)
    new_state, new = opt.update(state, model, grads)
    flat, re = opt.destructure(model)
    assert not x.any() and opt.trainables(new)[0].any() and re.flatten(grads).sum() == 3
    for twin in (copy.deepcopy(state), pickle.loads(pickle.dumps(state)), new_state, opt.freeze(state)):
        assert len(repr(twin)) < 10_000
    rebuilt, (path, _) = re(flat), opt.trainables(model, path=True)[0]
    assert opt.getkeypath(rebuilt, path) is not x and opt.haskeypath(model, path) and len(str(path)) > 10_000
    assert opt.norm(grads) > 1.7 and opt.lerp_(model, grads, 0.5) is not new and x.sum() == 1.5
    assert opt.trainables(opt.map_trainables(np.add, model, grads))[0].sum() == 4.5
    assert opt.reduce_trainables(np.sum, lambda a, b: a + b, 0.0, model) == 1.5
    moved = opt.to_device(model, "cpu")
    assert opt.trainables(moved)[0].sum() == 1.5 and opt.trainables(moved)[0] is not x
    segments = opt.setup(lambda path, x: opt.Adam(), flat, layout=re)
    opt.update_(segments, flat, opt.select_trainables(model, grads))
    assert flat.all()
    with pytest.raises(ValueError, match=r"gradient at .*more\)"):
        opt.update_(state, model, deep(ones(4)))


def test_ten_thousand_modules_in_every_call():
    model = torch.nn.Linear(2, 2)
    for _ in range(10_000):
        outer = torch.nn.Module()
        outer.inner, model = model, outer
    state, arrays = opt.setup(opt.Descent(1.0), model), opt.trainables(model)
    before = [x.detach().clone() for x in arrays]
    for x in arrays:
        x.grad = torch.ones_like(x)
    flat, re = opt.destructure(model)
    _, new = opt.update(state, model)
    assert bits(*[x.detach() for x in arrays]) == bits(*before)
    opt.update_(state, model)
    for moved in (model, new, opt.to_device(model, "cpu"), opt.map_trainables(torch.clone, model)):
        assert bits(*[x.detach() for x in opt.trainables(moved)]) == bits(*[x - 1 for x in before])
    assert bits(*[x.detach() for x in opt.trainables(re(flat))]) == bits(*before)


def cyclic():
    layer = {"w": ones(2)}
    layer["inner"] = [layer]
    return {"layer": layer}


CALLS = {
    "setup": lambda m: opt.setup(opt.Adam(), m),
    "setup Duplicated": lambda m: opt.setup(opt.Adam(), opt.Duplicated(m, None)),
    "destructure": opt.destructure,
    "trainables": opt.trainables,
    "norm": opt.norm,
    "lerp_": lambda m: opt.lerp_(m, m, 0.5),
    "map_trainables": lambda m: opt.map_trainables(np.abs, m),
    "reduce_trainables": lambda m: opt.reduce_trainables(np.sum, max, 0, m),
    "select_trainables": lambda m: opt.select_trainables(m, m),
}


@pytest.mark.parametrize("call", CALLS)
def test_model_that_contains_itself_is_refused_with_the_path(call):
    model = cyclic()
    with pytest.raises(ValueError, match=r"itself.*layer\.inner\.0"):
        CALLS[call](model)
    assert np.array_equal(model["layer"]["w"], [1, 1])


def test_gradients_that_contain_themselves_are_refused():
    model, grads = {"a": {"a": ones(2)}}, {}
    grads["a"] = grads
    with pytest.raises(ValueError, match=r"a\.a"):
        opt.update_(opt.setup(opt.Adam(), model), model, grads)


def test_cycle_through_what_is_not_trained_is_none():
    box = Box(ones(2))
    box.parent = box
    state = opt.setup(opt.Descent(1.0), box)
    opt.update_(state, box, {"inner": ones(2)})
    _, new = opt.update(state, box, Box(ones(2)))
    assert not box.inner.any() and new.inner.sum() == -2 and new.parent is new


@pytest.mark.parametrize("key", ["'a'", "'**'", "..."])
def test_rules_that_contain_themselves_are_refused(key):
    """In a process of its own: it must not run for ever."""
    code = "import signal, numpy as np, optimisers as opt\nsignal.alarm(10)\n"
    code += f"rules = {{}}\nrules[{key}] = rules\ntry:\n    opt.setup(rules, {{'a': {{'a': np.ones(2)}}}})\n"
    code += "except (ValueError, RecursionError):\n    print('refused')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "refused", done.returncode
