"""The same data and rules give the same bits from C++, C and Python.

The C++ test program print_bits trains in C++ and through the C interface, compares the two and prints checksums.
"""

import os
import subprocess
import zlib
from pathlib import Path

import ml_dtypes  # noqa: F401  NumPy knows bfloat16 by its name then
import numpy as np
import pytest
from support import handles, slots

import optimisers as opt

BUILD = os.environ.get("OPTIMISERS_CPP_BUILD")  # `make test` sets it: then the program must be there
PROGRAM = Path(BUILD or Path(__file__).parents[3] / "build") / "tests" / "cpp" / "optimisers_bits"


def numbers(n, seed, dtype):
    return (((7 * np.arange(n) + 5 * seed) % 23 - 11) / 8).astype(dtype)


def checksums(rule, dtype):
    """What print_bits does, in Python."""
    sizes = (1, 513, 150_001)
    model = [numbers(n, i, dtype) for i, n in enumerate(sizes)]
    state = opt.setup(rule, model)
    for step in range(6):
        grads = [numbers(n, 3 * step + i + 100, dtype) for i, n in enumerate(sizes)]
        if step == 3:
            grads[1] = None
        if step == 4:
            opt.adjust_(state, 0.25)
        opt.update_(state, model, grads)
    return [
        f"{zlib.crc32(a.tobytes()):08x}"
        for x, leaf in zip(model, handles(model, state), strict=True)
        for a in (x, *slots(leaf))
    ]


@pytest.mark.skipif(not BUILD and not PROGRAM.exists(), reason=f"no {PROGRAM}; `make cpp-test` builds it")
def test_same_bits_from_cpp_c_and_python():
    done = subprocess.run([PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == 17
    for text, dtype, sums in lines:
        assert checksums(eval(text, vars(opt).copy()), dtype) == sums.split(), (text, dtype)
