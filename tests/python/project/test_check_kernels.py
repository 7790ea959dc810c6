"""The check of compiled CUDA kernels finds what it is for."""

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tools"))
import check_kernels
from check_kernels import Kernel, faults_of

KNOWN = check_kernels.rules()
ADAM = "Sweep<float, plain, Fused<Adam>>"


def kernel(name: str, loads: int = 99, stores: int = 99, **fields: int) -> Kernel:
    return Kernel("k", name, instructions=Counter({"LDG.E.128": loads, "STG.E.128": stores, "LDG.E.64": 9}), **fields)


@pytest.mark.parametrize(
    "good",
    [
        kernel(ADAM, 5, 4),
        kernel("MeasureSums<float, plain, false>", 4, 0),
        kernel("MeasureSums<float, bhalf, false>", 2, 0),
        kernel("MeasureSums<float, any, false>", 0, 0),
        kernel("MeasureSums<Complex<double>, any, true>", 0, 0),
        kernel("Sweep<float, any, Interpreted>", 0, 0, stack=16),
    ],
    ids=lambda k: k.name,
)
def test_kernels_as_they_should_be_have_no_faults(good):
    assert not [*faults_of(good, KNOWN)]


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (kernel(ADAM, 4, 4), "4 instructions LDG.E.128, its arrays need 5"),
        (kernel(ADAM, 5, 3), "3 instructions STG.E.128, its arrays need 4"),
        (kernel("MeasureSums<float, half, false>", 1, 0), "1 instructions LDG.E.128, the gradient needs 2"),
        (kernel("MeasureSums<float, plain, false>", 3, 0), "the gradient needs 4"),
        (kernel("Sweep<float, plain, Compiled>"), "a sweep of a kind this check does not know"),
        (kernel("Combine", stack=8), "a stack frame of 8 bytes, 0 are allowed"),
        (kernel("Sweep<float, any, Interpreted>", stack=24), "a stack frame of 24 bytes, 16 are allowed"),
        (kernel("Combine", spills=4), "4 bytes are spilled"),
    ],
)
def test_each_fault_is_named(bad, fault):
    assert any(fault in text for text in faults_of(bad, KNOWN))


@pytest.mark.parametrize(
    ("kernels", "fault"),
    [
        ([], "has no code for sm_90"),
        ([kernel(ADAM)], "has no PTX for sm_90"),
        ([kernel("MeasureSums<float, plain, false>")], "has no sweeps for sm_90"),
        ([kernel(ADAM)], "has no measurements for sm_90"),
    ],
)
def test_a_file_without_what_is_checked_is_a_fault(monkeypatch, kernels, fault):
    monkeypatch.setattr(check_kernels, "read_code", lambda file, arch, folder: (kernels, []))
    assert any(fault in text for text in check_kernels.check(Path("x.so"), "sm_90")[1])


def test_contraction_is_found_in_ptx(tmp_path):
    ptx = tmp_path / "x.ptx"
    ptx.write_text(".entry good(\nmul.rn.f32 a\nadd.rn.f32 a\n.entry bad(\nfma.rn.f32 a\n.entry may(\nmul.f32 a\n")
    assert [text.split(":")[0] for text in check_kernels.contracted(ptx)] == ["bad", "may"]
