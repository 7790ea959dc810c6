"""Check that includes go one way: `python tools/check_includes.py [ROOT]`.

Each line of LAYERS may include what stands above it, never its own line's neighbours or what is below. A source file
belongs to the line of its header, or to the one SEES gives. A file that no line names is an error, so that a new one
is placed on purpose.
"""

import re
import sys
from fnmatch import fnmatch
from pathlib import Path

# From the bottom of the house to its roof; names relative to cpp/include/optimisers, cpp/src, cuda/src and python/src.
LAYERS = [
    "config.hpp  optimisers.h",
    "math.hpp  error.hpp  isa.hpp  threads.hpp",
    "dtype.hpp  refuse.hpp  result.hpp  arena.hpp  clocks.hpp  norm_terms.hpp",
    "array.hpp  portions.hpp  any_span.hpp  rule.hpp  failure.hpp  cpu/convert.hpp cpu/dispatch.hpp",
    "kernel.hpp  overlap.hpp  placed_arrays.hpp  cpu/edges.hpp  flat_parts.hpp  sweeps.hpp  rules/adam.hpp",
    "pack.hpp  rules/[!a]*.hpp  rules/a[!l]*.hpp  registry.hpp",
    "rules/all.hpp  program.hpp  describe.hpp",
    "chain.hpp  optimiser.hpp  parse.hpp  cpu/common_chains.hpp",
    "setup.hpp  cpu/kernels.hpp",
    "optimisers.hpp  group.hpp  state_data.hpp",
    "cpu/executor.hpp",
    "state.hpp  cpu/norms.hpp",
    "written.hpp",
    "device.hpp",
]
# A source sees what its header sees, and the header; these see more, up to the header named here.
SEES = {
    "array.cpp": "overlap.hpp",
    "registry.cpp": "rules/all.hpp",
    "parse.cpp": "chain.hpp",
    "cpu/isa.cpp": "cpu/kernels.hpp",
    "cpu/edges.cpp": "cpu/kernels.hpp",
    "leaf.cpp": "state_data.hpp",
    "setup.cpp": "state_data.hpp",
    "c_api.cpp": "state_data.hpp",
    "checks.cpp": "written.hpp",
    "schedule.cpp": "state.hpp",
    "optimiser.cpp": "device.hpp",
    "sweeps.cpp": "device.hpp",
}
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


def main() -> int:
    """Check the tree and print every fault."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    bases = [root / "cpp" / "include" / "optimisers", root / "cpp" / "src"]
    files = [(p, base) for base in bases for p in sorted(base.rglob("*.[hc]pp"))]
    faults = [fault for path, base in files for fault in faults_of(path, base)]
    for fault in faults:
        print(f"check_includes: {fault}", file=sys.stderr)
    if not faults:
        print(f"check_includes: {len(files)} files, all includes go down")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
