"""A little of everything on a device, each result against the host's bits: the first thing to run, alone or checked.

    python bench/gpu/smoke.py                 all
    python bench/gpu/smoke.py --without-torch what needs no torch, for the sanitizers
    python bench/gpu/smoke.py --only lerp

Prints a line a check, and ends with 1 where one failed. On the emulation (OPTIMISERS_CUDA_LIBRARY) it runs as well.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

import optimisers as opt
from optimisers import _core

CHECKS: dict[str, Callable[[], None]] = {}
WITH_TORCH: dict[str, Callable[[], None]] = {}
DTYPES = ("bool", "int8", "uint8", "int16", "int32", "int64", "uint32", "uint64", "float16", "float32", "float64",
          "complex64", "complex128")  # fmt: skip


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS[function.__name__.replace("_", " ")] = function
    return function


def with_torch(function: Callable[[], None]) -> Callable[[], None]:
    WITH_TORCH[function.__name__.replace("_", " ")] = function
    return function


def same(here: Any, there: Any, what: str) -> None:
    """Both trees of arrays hold the same bytes, `there` being on a device."""
    a, b = leaves(here), leaves(opt.to_device(there, "cpu"))
    assert len(a) == len(b), f"{what}: {len(b)} arrays for {len(a)}"
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
        assert x.shape == y.shape and x.dtype == y.dtype, (
            f"{what}, array {i}: {y.dtype}{y.shape} for {x.dtype}{x.shape}"
        )
        different = int(np.count_nonzero(x.reshape(-1).view(np.uint8) != y.reshape(-1).view(np.uint8)))
        assert not different, f"{what}, array {i}, {x.dtype}{x.shape}: {different} of {x.nbytes} bytes differ"


def leaves(tree: Any) -> list[np.ndarray]:
    if isinstance(tree, dict):
        return [a for v in tree.values() for a in leaves(v)]
    if isinstance(tree, (list, tuple)):
        return [a for v in tree for a in leaves(v)]
    return [np.asarray(tree)]


def on_device(tree: Any) -> Any:
    """Copies as `DeviceArray`s, which need no other library."""
    if isinstance(tree, dict):
        return {name: on_device(a) for name, a in tree.items()}
    return _core.moved(tree, 0)


def random(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "c":
        return np.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape), dtype)
    return np.asarray(rng.standard_normal(shape), dtype)


def model(dtype: str = "float32", seed: int = 0) -> dict[str, Any]:
    return {
        "a": random((257, 33), dtype, seed), "b": random((4099,), dtype, seed + 1), "c": random((), dtype, seed + 2),
        "d": random((1,), dtype, seed + 3), "e": random((0, 3), dtype, seed + 4),
    }  # fmt: skip


def steps(rule: Any, here: Any, gradient: Callable[[int], Any], count: int = 3, **given: Any) -> None:
    """`count` steps on the host and on a device: the same bits, slots and clocks after each."""
    there = on_device(here)
    ours, theirs = opt.setup(rule, here), opt.setup(rule, there)
    for step in range(count):
        g = gradient(step)
        opt.update_(ours, here, g, **given)
        opt.update_(theirs, there, on_device(g), **given)
    opt.wait(theirs)
    same(here, there, "parameters")


@check
def adam() -> None:
    steps(opt.Adam(0.1), model(), lambda step: model(seed=10 + step))


@check
def adam_in_float64() -> None:
    steps(opt.AdamW(0.1), model("float64"), lambda step: model("float64", 10 + step))


@check
def complex_numbers() -> None:
    steps(opt.Momentum(0.1), model("complex64"), lambda step: model("complex64", 10 + step))


@check
def float16_with_a_master_copy() -> None:
    steps(opt.MixedPrecision(opt.Adam(0.1)), model("float16"), lambda step: model("float16", 10 + step))


@check
def a_chain_that_clips_each_array() -> None:
    rule = opt.OptimiserChain(opt.ClipNorm(0.1), opt.AdamW(0.1))
    steps(rule, model(), lambda step: model(seed=10 + step))


@check
def a_chain_that_clips_all_arrays() -> None:
    rule = opt.OptimiserChain(opt.WeightDecay(0.1), opt.ClipNorm(0.1, scope="global"), opt.Adam(0.1))
    steps(rule, model(), lambda step: model(seed=10 + step))


@check
def accumulation() -> None:
    rule = opt.OptimiserChain(opt.AccumGrad(2), opt.Adam(0.1))
    steps(rule, model(), lambda step: model(seed=10 + step), count=5)


@check
def a_long_array() -> None:
    rule = opt.OptimiserChain(opt.ClipNorm(0.1), opt.Adam(0.1))
    steps(rule, {"x": random((1_000_003,))}, lambda step: {"x": random((1_000_003,), seed=1 + step)})


@check
def strided_arrays() -> None:
    here = {"t": random((65, 33)).T, "s": random((40, 40), seed=1)[::2, ::3]}
    there = {name: on_device(a) for name, a in here.items()}
    same(here, there, "copies")
    here = {name: np.array(a, order="K") for name, a in here.items()}
    steps(opt.Adam(0.1), here, lambda s: {"t": random((65, 33), seed=3 + s).T, "s": random((20, 14), seed=8 + s)})


@check
def copies_of_every_dtype() -> None:
    wrong = []
    for dtype in DTYPES:
        a = np.frombuffer(np.random.default_rng(1).bytes(16 * 7 * 5), np.uint8).copy()
        a = a[: 7 * 5] % 2 == 1 if dtype == "bool" else a.view(dtype)[: 7 * 5]
        a = a.reshape(7, 5)
        for what, array in (("", a), (" transposed", a.T)):
            try:
                there = on_device({"a": array})
                same({"a": array}, there, f"{dtype}{what}")
                same({"a": array}, {"a": there["a"].copy()}, f"a copy of {dtype}{what}")
            except Exception as error:
                wrong.append(f"{type(error).__name__}: {error}")
    assert not wrong, "; ".join(wrong)


@check
def lerp() -> None:
    for dtype in ("float16", "float32", "float64", "complex64"):
        here, other = model(dtype), model(dtype, 5)
        there, others = on_device(here), on_device(other)
        opt.lerp_(here, other, 0.3)
        opt.lerp_(there, others, 0.3)
        same(here, there, dtype)


@check
def norms() -> None:
    here = {"x": random((1_000_003,)), "y": random((77,), seed=1)}
    there = on_device(here)
    for p in (1, 2, float("inf"), -float("inf")):
        ours, theirs = opt.norm(here, p), opt.norm(there, p)
        assert ours == theirs, f"p = {p}: {theirs!r}, on the host {ours!r}"


@check
def a_state_that_moves() -> None:
    here = model()
    state = opt.setup(opt.Adam(0.1), here)
    opt.update_(state, here, model(seed=1))
    there, moved = on_device(here), opt.to_device(state, "cuda")
    opt.update_(state, here, model(seed=2))
    opt.update_(moved, there, on_device(model(seed=2)))
    same(here, there, "parameters")


@check
def a_flat_vector() -> None:
    here = model()
    flat, re = opt.destructure(here)
    there_flat, there_re = opt.destructure(on_device(here))
    same({"x": flat}, {"x": there_flat}, "flat")
    ours, theirs = opt.setup(opt.Adam(0.1), flat, layout=re), opt.setup(opt.Adam(0.1), there_flat, layout=there_re)
    for step in range(2):
        opt.update_(ours, flat, model(seed=step))
        opt.update_(theirs, there_flat, on_device(model(seed=step)))
    same({"x": flat}, {"x": there_flat}, "flat after steps")


@with_torch
def tensors_of_bfloat16() -> None:
    import torch

    torch.manual_seed(0)
    here = [torch.randn(s).bfloat16() for s in ((257, 33), (4099,), ())]
    there = [a.cuda() for a in here]
    rule = opt.OptimiserChain(opt.ClipNorm(1.0, scope="global"), opt.Adam(0.1))
    ours, theirs = opt.setup(rule, here), opt.setup(rule, there)
    for _ in range(3):
        g = [torch.randn(a.shape).bfloat16() for a in here]
        opt.update_(ours, here, g)
        opt.update_(theirs, there, [a.cuda() for a in g])
    for a, b in zip(here, there, strict=True):
        different = int((a.view(torch.int16) != b.cpu().view(torch.int16)).sum())
        assert not different, f"{different} of {a.numel()} elements differ"


@with_torch
def gradients_that_are_zeroed() -> None:
    import torch

    net = torch.nn.Linear(33, 17, device="cuda")
    state = opt.setup(opt.Adam(0.1), net)
    for how in (True, "zeros", True):
        net(torch.randn(5, 33, device="cuda")).square().sum().backward()
        opt.update_(state, net, zero_grad=how)
        assert all(p.grad is None if how is True else not p.grad.any() for p in net.parameters()), how


@with_torch
def a_graph_that_is_replayed() -> None:
    import torch

    torch.manual_seed(0)
    here = [torch.randn(300, 7), torch.randn(5)]
    there = [a.cuda() for a in here]
    gradients = [torch.zeros_like(a) for a in there]
    rule = opt.OptimiserChain(opt.ClipNorm(1.0, scope="global"), opt.Adam(0.1))
    ours, theirs = opt.setup(rule, here), opt.setup(rule, there)
    given = [[torch.randn_like(a) for a in here] for _ in range(5)]

    def put(step: int) -> None:
        for a, g in zip(gradients, given[step], strict=True):
            a.copy_(g)

    put(0)
    opt.update_(theirs, there, gradients)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        opt.update_(theirs, there, gradients)
    for step in range(1, 5):
        put(step)
        graph.replay()
    torch.cuda.synchronize()
    for g in given:
        opt.update_(ours, here, g)
    assert all(torch.equal(a, b.cpu()) for a, b in zip(here, there, strict=True)), "other bits than on the host"
    assert theirs[0].clock == ours[0].clock, f"clock {theirs[0].clock}, on the host {ours[0].clock}"


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--without-torch", action="store_true")
    p.add_argument("--only", metavar="TEXT", default="")
    args = p.parse_args()
    found = opt.doctor()
    if not found.cuda:
        print(f"smoke: no device: {found.cuda_reason}", file=sys.stderr)
        return 2
    chosen = dict(CHECKS)
    if not args.without_torch:
        import torch

        if torch.cuda.is_available():
            chosen |= WITH_TORCH
        else:
            print(
                f"left out: {len(WITH_TORCH)} checks of tensors, torch {torch.__version__} finds no device", flush=True
            )
    failed = 0
    for name, function in chosen.items():
        if args.only not in name:
            continue
        try:
            function()
            print(f"ok      {name}", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)
            traceback.print_exc()
    print(f"smoke: {len(chosen)} checks, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
