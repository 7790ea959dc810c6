"""Every rule on every dtype: trained, saved, and trained on in another process: `python resuming.py FOLDER`."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import support

import optimisers as opt

STEPS = 3


def cases():
    """(name, rule, dtype) of every rule and dtype, of a chain, and of master copies."""
    for spec in support.all_variants():
        for dtype in support.NUMPY_DTYPES:
            if support.is_complex(dtype) and spec[0] in support.REFUSES_COMPLEX:
                continue
            yield f"{support.spec_id(spec)}-{dtype}", support.build(spec), dtype
    chain = opt.OptimiserChain(opt.AccumGrad(2), opt.OptimiserChain(opt.ClipNorm(0.5, scope="global")), opt.AdamW())
    for dtype in support.NUMPY_DTYPES:
        yield f"chain-{dtype}", chain, dtype
        yield f"mixed-{dtype}", opt.MixedPrecision(chain, "float64"), dtype


def model_of(dtype):
    return {"w": support.sized((3, 4), dtype, 1), "b": [support.sized((5,), dtype, 2), support.sized((), dtype, 3)]}


def train(state, model, dtype, first):
    for step in range(first, first + STEPS):
        gradients = {
            "w": support.sized((3, 4), dtype, 10 + step),
            "b": [support.sized((5,), dtype, 20 + step), support.sized((), dtype, 30 + step)],
        }
        opt.update_(state, model, gradients)
    return state


def digest(state, model):
    """Of every bit of the parameters, slots and clocks."""
    sum_ = hashlib.sha256()
    for array in [*support.arrays(model), *(a for leaf in support.handles(model, state) for a in slots(leaf.state))]:
        sum_.update(np.ascontiguousarray(array).tobytes())
    for leaf in support.handles(model, state):
        sum_.update(repr(leaf.clock).encode())
    return sum_.hexdigest()


def slots(node):
    if isinstance(node, np.ndarray):
        yield node
    elif isinstance(node, tuple):
        for part in node:
            yield from slots(part)


def path_of(folder, i):
    return Path(folder) / f"{i}.safetensors"


def resumed(folder):
    """The digest of every case after twice the steps, of which the last half is made here."""
    digests = {}
    for i, (name, rule, dtype) in enumerate(cases()):
        model = model_of(dtype)
        if i % 2:
            state = opt.setup(rule, model)
            opt.load(path_of(folder, i), state, model)
        else:
            loaded = opt.load(path_of(folder, i), None, model)
            state, model = loaded.state, loaded.model
        digests[name] = digest(train(state, model, dtype, STEPS), model)
    return digests


if __name__ == "__main__":
    print(json.dumps(resumed(sys.argv[1])))
