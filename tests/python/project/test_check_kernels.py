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


def kernel(name: str, loads: int = 99, stores: int = 99, ahead: int = 128, **fields: int) -> Kernel:
    there = {"LDG.E.128": loads, "STG.E.128": stores, "LDG.E.64": 9} | fields.pop("instructions", {})
    return Kernel("k", name, instructions=Counter(there), ahead=Counter({64: 8, 128: ahead}), **fields)


@pytest.mark.parametrize(
    "good",
    [
        kernel(ADAM, 5, 4, ahead=48),
        kernel("MeasureSums<float, plain, false>", 4, 0, ahead=64),
        kernel("MeasureSums<float, any, false>", 0, 0, ahead=0),
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
        (kernel(ADAM, ahead=32), "32 bytes are asked for before one is used, 48 are needed"),
        (
            kernel("MeasureSums<float, plain, false>", ahead=32),
            "32 bytes are asked for before one is used, 64 are needed",
        ),
        (kernel("Pairs", instructions={"BPT.TRAP": 2}), "2 traps"),
        (kernel("Pairs", halves=1), "1 comparisons of two halves"),
        (kernel("Sweep<float, plain, Compiled>"), "a sweep of a kind this check does not know"),
        (kernel("Pairs", stack=8), "a stack frame of 8 bytes, 0 are allowed"),
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


CODE = """
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0020*/                   LDG.E.128 R8, desc[UR4][R2.64+0x10] ;
        /*0030*/                   FADD R4, R4, R8 ;
        /*0040*/                   LDG.E.128 R8, desc[UR4][R2.64+0x20] ;
        /*0050*/              @!P0 BRA `(.L_x_1) ;
        /*0060*/                   VIMNMX.U16x2 R0, P0, P0, R18, 0x2, !PT ;
        /*0070*/                   VIMNMX.U16x2 R0, P0, PT, R18, 0x2, !PT ;
.L_x_1:
        /*0080*/                   LDG.E.64 R4, desc[UR4][R2.64] ;
        /*0090*/                   LDG.E.64 R6, desc[UR4][R4.64] ;
        /*00a0*/                   BPT.TRAP 0x1 ;
"""


def test_what_is_loaded_before_it_is_used_is_followed_through_machine_code():
    found = Kernel("k")
    check_kernels.read_instructions(found, CODE)
    assert found.ahead == {128: 32, 64: 8} and found.halves == 1
    assert found.instructions["BPT.TRAP"] == 1 and found.instructions["LDG.E.128"] == 3


def test_contraction_is_found_in_ptx(tmp_path):
    ptx = tmp_path / "x.ptx"
    ptx.write_text(".entry good(\nmul.rn.f32 a\nadd.rn.f32 a\n.entry bad(\nfma.rn.f32 a\n.entry may(\nmul.f32 a\n")
    assert [text.split(":")[0] for text in check_kernels.contracted(ptx)] == ["bad", "may"]
