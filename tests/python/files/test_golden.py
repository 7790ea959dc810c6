"""Files of every format version there was are read: `python test_golden.py` writes that of this version."""

from pathlib import Path

import numpy as np
import pytest

import optimisers as opt

FOLDER = Path(__file__).parent / "golden"
RULES = {
    "w": opt.MixedPrecision(
        opt.OptimiserChain(opt.ClipNorm(0.5, scope="global"), opt.AdamW(0.25, lambda_=0.5)), "float64"
    ),
    "b": opt.Rprop(ell=(0.5, 1.5)),
    "c": opt.OptimiserChain(opt.AccumGrad(4), opt.RMSProp(centred=True)),
}


def model():
    return {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.arange(3, dtype=np.float16),
        "c": np.arange(4).astype(np.complex128) * (1 + 2j),
    }


def slots(state):
    return [
        *(state["w"].state[0], *state["w"].state[1][1]), *state["b"].state, state["c"].state[0].a, *state["c"].state[1],
    ]  # fmt: skip


def filled():
    """A state whose every number is known."""
    x = model()
    state = opt.setup(RULES, x)
    for i, slot in enumerate(slots(state)):
        slot[...] = np.arange(slot.size).reshape(slot.shape) + i + 0.25
    opt.update_(state, x, {"c": np.zeros(4, np.complex128)})
    state["c"].state[0].a[...] = 7 - 1j
    opt.adjust_(state["b"], gamma=(0.125, 3.0))
    opt.freeze_(state["b"])
    return state


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.safetensors")), ids=lambda path: path.stem)
def test_every_format_is_read(path):
    x = {name: np.zeros_like(array) for name, array in model().items()}
    loaded = opt.load(path, None, x)
    expected = filled()
    assert all(np.array_equal(x[name], array) for name, array in model().items())
    assert all(np.array_equal(a, b) for a, b in zip(slots(loaded.state), slots(expected), strict=True))
    for name in RULES:
        leaf, other = loaded.state[name], expected[name]
        assert (leaf.rule, repr(leaf.clock), leaf.frozen) == (other.rule, repr(other.clock), other.frozen)
    assert loaded.extra["epoch"] == 3 and loaded.extra["seen"] == {"order": [1, 2], "rate": 0.1}


def test_there_is_one_of_this_version():
    assert FOLDER.joinpath("format-1.safetensors").exists()


if __name__ == "__main__":
    opt.save(FOLDER / "format-1.safetensors", filled(), model(), epoch=3, seen={"order": [1, 2], "rate": 0.1})
