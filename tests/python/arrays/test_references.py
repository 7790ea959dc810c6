"""Who keeps what alive: during an update, after it, and when it fails."""

import gc
import sys
import weakref

import numpy as np
import pytest
import torch

import optimisers as opt


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def test_nothing_is_kept_alive_after_an_update():
    class Grads(dict):
        pass

    model, grads = {"w": ones(2)}, Grads(w=ones(2))
    state = opt.setup(opt.Adam(), model)
    watch, before = weakref.ref(grads), sys.getrefcount(model["w"])
    opt.update_(state, model, grads)
    with pytest.raises(ValueError):
        opt.update_(state, model, {"w": ones(3)})
    after = sys.getrefcount(model["w"])  # an assert would hold one more
    assert after == before
    del grads
    assert watch() is None


class Clearing:
    """A container whose children are read by code that lets go of other arrays of the model and of the gradients."""

    def __init__(self, w):
        self.w, self.others, self.reused = w, [], []

    def children(self):
        for other in self.others:
            other["w"] = None
        self.reused = [np.zeros(2, np.float32) for _ in range(4 * len(self.others))]  # where the arrays were
        return {"w": self.w}


opt.register_container(Clearing, Clearing.children, lambda old, new: Clearing(new["w"]))


@pytest.mark.parametrize("where", ["model", "gradients"])
def test_arrays_that_are_let_go_of_during_the_walk_stay_alive_until_its_end(where):
    memory, clearing = ones(2), Clearing(ones(2))
    model = {"w": memory[:], "c": clearing if where == "model" else {"w": ones(2)}}
    grads = {"w": ones(2)[:], "c": clearing if where == "gradients" else {"w": ones(2)}}
    state = opt.setup(opt.Descent(1.0), model)
    clearing.others = [model] if where == "model" else [model, grads]
    opt.update_(state, model, grads)
    assert model["w"] is None and np.array_equal(memory, [0, 0])
    assert clearing.reused and not any(a.any() for a in clearing.reused)


@pytest.mark.parametrize("fault", [None, "shape", "type", "structure", "late structure"])
@pytest.mark.parametrize("kind", ["numpy", "mixed"])
def test_references_are_given_back_whatever_happens(fault, kind):
    mixed = kind == "mixed"  # a tensor, and a gradient that has to be made an array of
    model = {"a": ones(2), "b": [torch.ones(3) if mixed else ones(3), {"c": ones(4)}], "d": ones()}
    state = opt.setup(opt.Adam(), model)
    shared = ones(4)
    grads = {"a": ones(2), "b": [ones(3), {"c": shared}], "d": np.float32(1) if mixed else ones()}
    if fault == "shape":
        grads["b"][1]["c"] = shared[:3]
    elif fault == "type":
        grads["b"][1]["c"] = "no array"
    elif fault == "structure":
        grads["b"] = {"c": shared}
    elif fault == "late structure":
        grads["b"][1]["more"] = shared
    arrays = [model["a"], model["b"][0], model["b"][1]["c"], model["d"], grads["a"], shared, grads["d"]]
    before = [sys.getrefcount(a) for a in arrays]
    for _ in range(3):
        if fault is None:
            opt.update_(state, model, grads)
        else:
            with pytest.raises((ValueError, TypeError)):
                opt.update_(state, model, grads)
    after = [sys.getrefcount(a) for a in arrays]
    assert after == before


def test_slot_views_keep_their_memory():
    views = opt.setup(opt.Adam(), ones(1000)).state
    gc.collect()
    assert views.m.sum() == 0 and views.m.flags.writeable
