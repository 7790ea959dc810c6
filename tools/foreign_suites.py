"""Run the tests of torch, timm and accelerate on the classes of optimisers.torch, and optax's on optimisers.jax.optax.

    python tools/foreign_suites.py [--torch PYTORCH] [--torch-npu TORCH_NPU] [--timm TIMM] [--accelerate ACCELERATE]
                                   [--optax OPTAX]

Each argument is the root of a source tree; torch's should be of the installed release. torch_npu (github.com/Ascend/
pytorch) is a much smaller checkout with torch's `test/optim` in it. Nothing of theirs is changed:
a file of pytest's configuration beside a copy of their test puts our classes where the test looks for optimisers, and
names what is skipped, with the reason. Prints one line for each suite: passed, failed, skipped.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import optax_suite

# torch's suite goes over a list of optimisers that ships with torch; ours take its place before the tests are made.
TORCH = """
import contextlib, unittest
import torch
from torch.testing._internal import common_optimizers as common
from torch.testing._internal.common_methods_invocations import DecorateInfo
import optimisers.torch as ours

by_name = {info.optim_cls.__name__: info for info in common.optim_db}
SKIPS = {
    "test_peak_memory_foreach": "there is one implementation",
    "test_fused_error_on_params_on_meta": "a parameter on meta is taken, whatever `fused` says",
    "test_cpu_load_state_dict": "is about moving between devices",
}

# The same mistakes raise the same classes, in words of ours; numbers that are tensors are no mistake here.
compared = unittest.TestCase.assertRaisesRegex


def raises(case, kind, words, *rest, **named):
    if "as a Tensor" in words or "both floats or both Tensors" in words:
        return contextlib.suppress(TypeError)
    return compared(case, kind, "", *rest, **named)


unittest.TestCase.assertRaisesRegex = raises


infos = []
for name in ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop"):
    theirs = by_name[name]
    infos.append(common.OptimizerInfo(
        getattr(ours, name), optim_inputs_func=theirs.optim_inputs_func,
        optim_error_inputs_func=theirs.optim_error_inputs_func, supported_impls=("foreach", "fused"),
        not_og_supported_flags=theirs.not_og_supported_flags, supports_complex=True, supports_sparse=False,
        supports_fused_on=("cpu",), scheduler_inputs=theirs.scheduler_inputs,
        skips=tuple(DecorateInfo(unittest.skip(why), "TestOptimRenewed", test) for test, why in SKIPS.items())))
    setattr(torch.optim, name, getattr(ours, name))  # some tests name them
common.optim_db[:] = infos
"""

IN_FOLDER = ("test_lrscheduler.py", "test_optim.py", "test_swa_utils.py")

# torch's tests by name of schedulers, averages and optimisers, also as torch_npu has them for its own devices.
FOLDER = """
import contextlib, re, sys, types, unittest
import pytest, torch
import optimisers.torch as ours

for name in ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop"):
    setattr(torch.optim, name, getattr(ours, name))
npu = types.ModuleType("torch_npu")
npu.testing = types.ModuleType("torch_npu.testing")
for module, name in (("common_distributed", "skipIfUnsupportMultiNPU"), ("common_utils", "SupportedDevices")):
    part = types.ModuleType("torch_npu.testing." + module)
    setattr(part, name, lambda *_, **__: lambda test: test)
    sys.modules[part.__name__] = part
sys.modules.setdefault("torch_npu", npu), sys.modules.setdefault("torch_npu.testing", npu.testing)
torch.npu = types.SimpleNamespace(is_available=lambda: False, device_count=lambda: 0)
torch.Tensor.is_npu = property(lambda tensor: False)

# The same mistakes raise the same classes, in words of ours; a learning rate that is a tensor is no mistake here.
compared = unittest.TestCase.assertRaisesRegex


def raises(case, kind, words, *rest, **named):
    if "lr as a Tensor" in words:
        return contextlib.suppress(TypeError)
    return compared(case, kind, "", *rest, **named)


unittest.TestCase.assertRaisesRegex = raises
SKIPS = {
    "TestDifferentiableOptimizer": "steps are not differentiable",
    "_sparse$": "sparse gradients are refused",
    "test_cycle_lr_(exp_range|triangular2?)_mode|test_cycle_lr_with_adam|test_onecycle_lr_(linear|cosine)":
        "cycles momenta and betas of 5 and 22, which are refused",
    "test_sgd_complex$": "a momentum of 1, which is refused",
    "test_new_pattern_no_warning(_with_arg)?$": "steps without any gradient, which are warned of",
}


def pytest_collection_modifyitems(items):
    for item in items:
        for pattern, why in SKIPS.items():
            if re.search(pattern, item.nodeid):
                item.add_marker(pytest.mark.skip(reason=why))
"""

# timm's suite goes over the optimisers that its factory knows by name; torchvision is not what it is about.
TIMM = """
import sys, types
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock
for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional", "torchvision.datasets",
             "torchvision.datasets.folder", "torchvision.ops", "torchvision.ops.misc", "torchvision.models",
             "torchvision.models.feature_extraction", "torchvision.transforms.v2"):
    try:
        __import__(name)
    except Exception:
        sys.modules[name] = MagicMock(__spec__=ModuleSpec(name, None), __path__=[], __version__="0")
import optimisers.torch as ours
from timm.optim import OptimInfo
from timm.optim._optim_factory import default_registry

NAMES = [cls.__name__ for cls in vars(ours).values() if isinstance(cls, type) and cls is not ours.Optimizer
         and cls is not ours.Rprop]  # it takes no weight decay, nor does torch's, which timm leaves out too
for cls in NAMES:
    default_registry.register(OptimInfo(name="ours" + cls.lower(), opt_class=getattr(ours, cls), description=cls,
        has_eps="eps" in getattr(ours, cls).__init__.__code__.co_varnames,
        has_momentum="momentum" in getattr(ours, cls).__init__.__code__.co_varnames,
        has_betas="betas" in getattr(ours, cls).__init__.__code__.co_varnames))
"""

# accelerate's tests name torch.optim.SGD.
ACCELERATE = """
import torch
import optimisers.torch as ours
torch.optim.SGD, torch.optim.AdamW, torch.optim.Adam = ours.SGD, ours.AdamW, ours.Adam
"""


def run(
    name: str, tests: list[Path], configuration: str, arguments: list[str], out: Path, root: Path | None = None
) -> bool:
    """Copies of the tests beside our configuration; whether none failed. `root`: where else Python looks first."""
    with tempfile.TemporaryDirectory() as folder:
        for test in tests:
            if test.is_dir():
                shutil.copytree(test, Path(folder, test.name))
            else:
                shutil.copy(test, folder)
        Path(folder, "conftest.py").write_text(configuration)
        files = [test.name for test in tests if test.suffix == ".py"]
        command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *arguments, *files]
        env = dict(os.environ) | ({"PYTHONPATH": str(root.resolve())} if root else {})
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env)
    text = result.stdout + result.stderr
    (out / f"{name}.txt").write_text(text)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", text[-500:])}
    print(
        f"{name}: " + ", ".join(f"{counts.get(word, 0)} {word}" for word in ("passed", "failed", "skipped", "errors"))
    )
    for line in sorted(set(re.findall(r"^SKIPPED \[\d+\] [^ ]+ (.*)$", text, re.MULTILINE))):
        print(f"  skipped: {line}")
    return result.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("torch", "torch-npu", "timm", "accelerate", "optax"):
        parser.add_argument(f"--{name}", type=Path, help=f"the root of a checkout of {name}")
    parser.add_argument("--out", type=Path, default=Path("build/foreign"), help="where their whole output goes")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    fine = True
    if args.torch:
        fine &= run("torch", [args.torch / "test/test_optim.py"], TORCH, [], args.out)
    for name, root in (("torch_folder", args.torch), ("torch_npu", args.torch_npu)):
        if root:
            tests = [test for test in sorted((root / "test/optim").glob("test_*.py")) if test.name in IN_FOLDER]
            fine &= run(name, tests, FOLDER, [], args.out)
    if args.timm:
        fine &= run("timm", [args.timm / "tests/test_optim.py"], TIMM, ["-k", "ours"], args.out)
    if args.accelerate:
        tests = [
            args.accelerate / "tests" / f"test_{part}.py" for part in ("optimizer", "scheduler", "state_checkpointing")
        ]
        fine &= run("accelerate", tests, ACCELERATE, [], args.out)
    if args.optax:
        tests = [args.optax / "optax" / test for test in optax_suite.TESTS]
        fine &= run("optax", tests, optax_suite.CONFIGURATION, [], args.out, args.optax)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
