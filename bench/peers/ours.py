"""This library, through its public interface, on NumPy arrays or torch tensors."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from cases import Case
from specs import build

import optimisers as opt
from peers import Setting
from peers.face import LERP_WEIGHT, NotOfferedError, Step, nested


def as_numpy(array: Any) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array.astype(np.float64)
    return array.detach().double().numpy()


class Ours:
    def __init__(self, setting: Setting, tensors: bool = False) -> None:
        if tensors:
            importlib.import_module("torch")  # missing: this peer is left out
        opt.set_num_threads(setting.threads)
        self.make = self.tensor if tensors else self.array

    @staticmethod
    def array(a: np.ndarray, dtype: str) -> np.ndarray:
        if dtype == "float32":
            return a
        import ml_dtypes

        return a.astype(getattr(ml_dtypes, dtype))

    @staticmethod
    def tensor(a: np.ndarray, dtype: str) -> Any:
        import torch

        return torch.tensor(a, dtype=getattr(torch, dtype))

    def build(self, case: Case, x: list[np.ndarray], dx: list[np.ndarray]) -> Step:
        arrays = [self.make(a, case.dtype) for a in x]
        model, gradients = nested(arrays), nested([self.make(a, case.dtype) for a in dx])
        if case.op != "update":
            return self.other(case.op, model, gradients, arrays)
        state = opt.setup(build(case.rule), model)
        update = opt.update_
        return Step(lambda: update(state, model, gradients), lambda: [as_numpy(a) for a in arrays])

    def other(self, op: str, model: Any, gradients: Any, arrays: list[Any]) -> Step:
        def offered(name: str) -> Callable[..., Any]:
            if not hasattr(opt, name):
                raise NotOfferedError(f"optimisers has no {name} yet")
            return getattr(opt, name)

        result: list[Any] = [None]
        if op == "lerp":
            lerp_ = offered("lerp_")
            return Step(lambda: lerp_(model, gradients, LERP_WEIGHT), lambda: [as_numpy(a) for a in arrays])
        if op == "norm":
            call = offered("norm")
        else:
            vector, re = opt.destructure(model)

            def call(tree: Any) -> Any:
                return re.flatten(tree, out=vector)

        def run() -> None:
            result[0] = call(gradients)

        return Step(run, lambda: [np.asarray(result[0], np.float64)])
