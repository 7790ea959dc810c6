"""What doctor reports, threads, and what importing the package costs and refuses."""

import os
import subprocess
import sys

import pytest

import optimisers as opt


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | env, capture_output=True, text=True, check=False
    )


def test_doctor_reads_well():
    doctor = opt.doctor()
    text = str(doctor)
    assert text == repr(doctor) and len(text.splitlines()) == 6
    for part in (opt.__version__, doctor.isa, str(doctor.threads), doctor.cuda_reason, doctor.numpy):
        assert part in text
    assert doctor.isa in doctor.isa_available and doctor.cuda == (doctor.cuda_reason == "") == (
        doctor.cuda_devices != []
    )


def test_number_of_threads_can_be_set(threads):
    for n in (1, 3):
        opt.set_num_threads(n)
        assert opt.get_num_threads() == opt.doctor().threads == n


@pytest.mark.parametrize(
    ("name", "value"), [("OPTIMISERS_ISA", "v7"), ("OPTIMISERS_PREFETCH", "far"), ("OPTIMISERS_PREFETCH", "65537")]
)
def test_a_wrong_choice_of_kernels_is_an_error_at_import(name, value):
    result = run("import optimisers", **{name: value})
    assert result.returncode != 0 and name in result.stderr and value in result.stderr


def test_a_wrong_number_of_threads_can_be_overruled():
    code = """
import numpy as np, optimisers as opt
x = np.ones(2)
try:
    opt.setup(opt.Descent(0.5), x)
except ValueError as error:
    print("OPTIMISERS_NUM_THREADS" in str(error) and '"many"' in str(error))
print('"many"' in str(opt.doctor()), opt.doctor().threads)
opt.set_num_threads(2)
opt.update_(opt.setup(opt.Descent(0.5), x), x, x.copy())
print(x.tolist(), opt.doctor().threads, "many" in str(opt.doctor()))
"""
    result = run(code, OPTIMISERS_NUM_THREADS="many")
    assert result.stdout.split("\n")[:3] == ["True", "True 0", "[0.5, 0.5] 2 False"], result.stderr


def test_importing_brings_in_nothing_heavy():
    heavy = ("torch", "jax", "ml_dtypes", "scipy", "dataclasses", "tqdm")
    code = "import numpy, sys; old = set(sys.modules); import optimisers; print(*set(sys.modules) - old)"
    loaded = {name.split(".")[0] for name in run(code).stdout.split()}
    assert loaded.isdisjoint(heavy) and loaded <= {"optimisers", "__future__", "atexit", "collections"}, loaded


def test_leaving_the_interpreter_leaks_nothing():
    code = (
        "import numpy as np, optimisers as opt\n"
        "model = {'w': np.ones(3)}\n"
        "state = opt.setup(opt.OptimiserChain(opt.ClipNorm(), opt.Adam()), model)\n"
        "opt.update_(state, model, {'w': np.ones(3)})\n"
        "views, re = state['w'].state, opt.destructure(model)[1]\n"
    )
    result = run(code)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("kind", ["OptimisersError", "InvalidValueError", "NonFiniteError"])
def test_errors_are_one_family(kind):
    assert issubclass(getattr(opt, kind), opt.OptimisersError)
    assert issubclass(opt.InvalidValueError, ValueError) and issubclass(opt.InvalidTypeError, TypeError)
    assert issubclass(opt.NonFiniteError, FloatingPointError) and issubclass(opt.BusyError, RuntimeError)
