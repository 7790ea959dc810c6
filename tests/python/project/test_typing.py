"""The package is typed: mypy accepts it and a sample of its use, and the stubs say what is there."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import optimisers as opt
from optimisers import _core

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = Path(opt.__file__).parent

SAMPLE = """
from typing import Any
import numpy as np
import numpy.typing as npt
import optimisers as opt

Array = npt.NDArray[np.float32]
model: dict[str, Array] = {"w": np.zeros(3, np.float32)}
rule: opt.Rule = opt.OptimiserChain(opt.ClipNorm(1.0, scope="global"), opt.AdamW(eta=1e-3, lambda_=0.1))
state: opt.State = opt.setup(rule, model)
state, model = opt.update_(state, model, {"w": np.ones(3)})
state, model = opt.update(state, model, None)
opt.freeze_(state["w"]); opt.thaw_(state); opt.adjust_(state, 0.1); opt.adjust_(state, beta=(0.9, 0.99))
smaller: opt.Adam = opt.adjust(opt.Adam(), 0.1)
eta: float = smaller.eta
beta: tuple[float, float] = opt.Adam(beta=[0.9, 0.999]).beta
flat, re = opt.destructure(model)
again: dict[str, Array] = re(flat)
flat_state: opt.State = opt.setup(rule, flat, layout=re)
paths: list[tuple[opt.KeyPath, Any]] = opt.trainables(model, path=True)
threads: int = opt.get_num_threads()
isa: str = opt.doctor().isa
leaf, dx = opt.apply_(rule, opt.init(rule, model["w"]), model["w"], model["w"])
opt.ClipNorm(scope="everywhere")  # E: arg-type
opt.Adam(betta=0.5)  # E: call-arg
opt.setup()  # E: call-arg
opt.nothing  # E: attr-defined
"""


def mypy(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *arguments]
    # mypy finds an installed package by itself, and refuses to be told where.
    env = os.environ | ({} if "site-packages" in PACKAGE.parts else {"MYPYPATH": str(PACKAGE.parent)})
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def test_mypy_accepts_the_package(tmp_path):
    result = mypy("-p", "optimisers", "--cache-dir", str(tmp_path), cwd=tmp_path)
    assert result.returncode == 0, result.stdout


def test_mypy_finds_what_is_wrong_in_a_sample_and_nothing_else(tmp_path):
    (tmp_path / "sample.py").write_text(SAMPLE)
    result = mypy("sample.py", "--cache-dir", str(tmp_path), cwd=tmp_path)
    found = [
        (int(line.split(":")[1]), line.rsplit("[", 1)[1][:-1])
        for line in result.stdout.splitlines()
        if "error:" in line
    ]
    lines = enumerate(SAMPLE.splitlines(), 1)
    assert found == [(n, line.split("# E: ")[1]) for n, line in lines if "# E: " in line], result.stdout


def test_stub_of_the_rules_is_current():
    tool = ROOT / "tools" / "make_stubs.py"
    result = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_stub_of_the_native_module_names_what_is_there():
    stub = (PACKAGE / "_core.pyi").read_text()
    for name, thing in vars(_core).items():
        if name.startswith("__"):
            continue
        assert any(f"{word} {name}" in stub for word in ("def", "class")) or f"{name}:" in stub, name
        for member in vars(thing) if inspect.isclass(thing) and not issubclass(thing, Exception) else ():
            assert member.startswith("__") or f"def {member}(" in stub, f"{name}.{member}"


def test_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists()
