"""Check that includes go one way: `python tools/check_includes.py [ROOT]`.

In the core each line of LAYERS may include what stands above it, never its own line's neighbours or what is below. A
source file belongs to the line of its header, or to the one SEES gives. A file that no line names is an error, so that
a new one is placed on purpose. In the extension, whose folders are floors, a file may include its own floor's and those
below (FLOORS).
"""

import re
import sys
from fnmatch import fnmatch
from pathlib import Path

# From the bottom of the house to its roof; names relative to cpp/include/optimisers and cpp/src.
LAYERS = [
    "config.hpp  optimisers.h",
    "math.hpp  error.hpp  isa.hpp  threads.hpp  environment.hpp  made_once.hpp  files.hpp  files/checksum.hpp",
    "pool.hpp  files/system.hpp",
    "dtype.hpp  refuse.hpp  rules/number_text.hpp  result.hpp  memory/arena.hpp  plan/clocks.hpp  plan/norm_terms.hpp"
    "  files/disk.hpp",
    "array.hpp  plan/portions.hpp  any_span.hpp  rule.hpp  api/failure.hpp  cpu/convert.hpp  cpu/dispatch.hpp"
    "  files/json.hpp  files/rename.hpp",
    "kernel.hpp  memory/overlap.hpp  memory/placed_arrays.hpp  cpu/edges.hpp  cpu/matrix.hpp  flat/flat_parts.hpp"
    "  sweeps.hpp  rules/adam.hpp  files/tensors.hpp  files/wire.hpp",
    "pack.hpp  eigen.hpp  rules/[!a]*.hpp  rules/a[!l]*.hpp  registry.hpp",
    "rules/all.hpp  program.hpp  describe.hpp",
    "chain.hpp  optimiser.hpp  parse.hpp  cpu/common_chains.hpp",
    "setup.hpp  cpu/kernels.hpp  files/manifest.hpp",
    "optimisers.hpp  plan/group.hpp  files/restore.hpp",
    "cpu/executor.hpp  api/state_data.hpp",
    "api/c_api.hpp",
    "step/norm_scratch.hpp  cpu/norms.hpp  cpu/range.hpp",
    "step/state.hpp",
    "step/written.hpp  step/lent.hpp",
    "device.hpp",
]
# A source sees what its header sees, and the header; these see more, up to the header named here.
SEES = {
    "cpu/executor.cpp": "cpu/range.hpp",
    "cpu/matrix.cpp": "cpu/kernels.hpp",
    "memory/array.cpp": "memory/overlap.hpp",
    "threads.cpp": "pool.hpp",
    "rules/registry.cpp": "rules/all.hpp",
    "rules/parse.cpp": "chain.hpp",
    "rules/text.cpp": "parse.hpp",
    "serial.cpp": "threads.hpp",
    "cpu/isa.cpp": "cpu/kernels.hpp",
    "cpu/edges.cpp": "cpu/kernels.hpp",
    "api/leaf.cpp": "api/state_data.hpp",
    "api/setup.cpp": "api/state_data.hpp",
    "api/c_calls.cpp": "api/c_api.hpp",
    "api/c_handles.cpp": "api/c_api.hpp",
    "api/c_leaves.cpp": "api/c_api.hpp",
    "api/files.cpp": "device.hpp",
    "files/disk.cpp": "files/disk.hpp",
    "files/manifest.cpp": "api/state_data.hpp",
    "files/rename.cpp": "files/rename.hpp",
    "files/restore.cpp": "device.hpp",
    "files/tensors.cpp": "files/wire.hpp",
    "files/write_tensors.cpp": "device.hpp",
    "flat/pack.cpp": "pack.hpp",
    "flat/sweeps.cpp": "device.hpp",
    "step/adjust.cpp": "device.hpp",
    "step/checks.cpp": "step/written.hpp",
    "step/finite.cpp": "device.hpp",
    "step/reductions.cpp": "step/state.hpp",
    "step/schedule.cpp": "step/state.hpp",
    "step/state.cpp": "device.hpp",
    "step/optimiser.cpp": "device.hpp",
}
# The floors of python/src, each a folder: its files may include each other and what stands below, the root first.
FLOORS = ["", "xla", "arrays", "tree", "state", "bind"]
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def level(name: str) -> int | None:
    """Return the layer of a file, 0 the lowest; None if no line names it."""
    for i, line in enumerate(LAYERS):
        if any(fnmatch(name, pattern) for pattern in line.split()):
            return i
    return None


def faults_of(path: Path, base: Path) -> list[str]:
    """Say what is wrong with the includes of one file."""
    name = path.relative_to(base).as_posix()
    highest = SEES.get(name, name.replace(".cpp", ".hpp"))
    own = level(highest)
    if own is None:
        return [f"{name}: no line of LAYERS in tools/check_includes.py names {highest}"]
    faults = []
    for include in INCLUDE.findall(path.read_text(encoding="utf-8")):
        other = level(include.removeprefix("optimisers/"))
        if "include" in base.parts and not include.startswith("optimisers/"):
            faults.append(f"{name}: a public header includes {include}, which is not installed")
        if other is None:
            faults.append(f"{name}: includes {include}, which no line of LAYERS names")
        elif other > own or (other == own and path.suffix == ".hpp"):
            faults.append(f"{name}: includes {include}, which is not below it")
    return faults


def floor_faults_of(path: Path, base: Path) -> list[str]:
    """Say which includes of a file of the extension lead up, or into a folder that is no floor."""
    name = path.relative_to(base)
    if name.parts[:-1] and name.parts[0] not in FLOORS:
        return [f"{name}: {name.parts[0]}/ is no floor of FLOORS in tools/check_includes.py"]
    own = FLOORS.index(name.parts[0] if len(name.parts) > 1 else "")
    faults = []
    for include in INCLUDE.findall(path.read_text(encoding="utf-8")):
        if (base / include).exists() and FLOORS.index(include.split("/")[0] if "/" in include else "") > own:
            faults.append(f"{name}: includes {include}, which is on a floor above it")
    return faults


def main() -> int:
    """Check the tree and print every fault."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    bases = [root / "cpp" / "include" / "optimisers", root / "cpp" / "src"]
    files = [(p, base) for base in bases for p in sorted(base.rglob("*.[hc]pp"))]
    faults = [fault for path, base in files for fault in faults_of(path, base)]
    extension = root / "python" / "src"
    upstairs = sorted(extension.rglob("*.[hc]pp"))
    faults += [fault for path in upstairs for fault in floor_faults_of(path, extension)]
    for fault in faults:
        print(f"check_includes: {fault}", file=sys.stderr)
    if not faults:
        print(f"check_includes: {len(files) + len(upstairs)} files, all includes go down")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
