"""Check compiled CUDA kernels: `python tools/check_kernels.py build/cuda/_cuda.so`.

With `--arch all` every architecture in the file is looked at, as far as that goes without its PTX.

Reads what is in the file itself, a library or an object with the code and the PTX of one architecture (CMake's
OPTIMISERS_CUDA_ARCHITECTURES=90 gives both), and fails unless

- no kernel spills registers, and none but those in STACK has a stack frame;
- sweeps read and write x, dx, slots and master copies in pieces of 128 bits: as many such instructions as the rules'
  headers have slots for (elements at a ragged end, and arrays that are not aligned, go one by one beside that);
- no kernel has a trap, which is what nvcc makes, without a word, of code that reads a table of the host's
  (`constexpr` arrays by an index known at run time) or never ends as it was promised to;
- no instruction is one that the compiler is known to get wrong (HALVES);
- sweeps of fused chains ask for all that an element group needs before they use any of it, and measurements of a
  gradient for 64 bytes, in pieces of 64 bits or more: what is used at once makes a second trip to memory of the next;
- no multiplication and addition were contracted to one instruction, which would give other bits than the CPU's: the
  compilers were told so, and the PTX has no fused operation but those of pow and log (division and roots become fused
  operations below PTX, as IEEE arithmetic allows).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

RULES = Path(__file__).resolve().parents[1] / "cpp" / "include" / "optimisers" / "rules"
ELEMENT = {"float": 4, "double": 8, "Complex<float>": 8, "Complex<double>": 16}
ACCESS = {"0": "plain", "1": "half", "2": "bhalf", "3": "any"}
STACK = {"any": 16, "Combine": 16}  # bytes: what functions that fit every dtype give back, or that many places call
PIECE = 16  # bytes
MEASURED = 64  # bytes that a thread of a measurement asks for before it uses any
# Two halves whose answers go to one predicate: ptxas 13.0 makes that of the larger of a byte and a constant, and what
# branches on it goes wrong (seen on an H200: arrays of 16 bits were interpolated as complex ones).
HALVES = re.compile(r"VIMNMX\S*16x2\S*\s+\w+, (U?P\d), \1,")
FUSED = re.compile(r"\bfma\.|\b(?:mul|add|sub|mad)\.f(?:32|64)")  # without .rn, ptxas may contract
MAY_FUSE = re.compile(r"__internal_accurate_pow|9logarithm")
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)")
REGISTER = re.compile(r"\bR(\d+)\b")
LOAD = re.compile(r"LDG\..*?(64|128)")
BRANCH = re.compile(r"BR[AX]|CALL|RET|EXIT|BSYNC|BAR|WARPSYNC")
PTX_FUNCTION = re.compile(r"\.(?:entry|func)\s+(?:\(.*?\)\s*)?(\w+)")


class ToolError(Exception):
    """A tool is missing or has failed."""


@dataclass
class Kernel:
    """What is known of one kernel."""

    symbol: str
    name: str = ""
    registers: int = 0
    stack: int = 0
    spills: int = 0
    instructions: Counter[str] = field(default_factory=Counter)
    halves: int = 0  # instructions that HALVES finds
    ahead: Counter[int] = field(default_factory=Counter)  # bytes loaded in pieces of so many bits before one is used

    @property
    def shape(self) -> tuple[str, str, str] | None:
        """Compute type, access and rules of a sweep: "float", "plain", "ClipNorm, Adam"."""
        found = re.fullmatch(r"Sweep<([\w<>]+), (\w+), (?:Fused<(.*)>|(Interpreted))>", self.name)
        return (found[1], found[2], found[3] or "") if found else None

    @property
    def measured(self) -> tuple[str, str] | None:
        """Compute type and access of a measurement of the gradient as it comes."""
        found = re.fullmatch(r"MeasureSums<([\w<>]+), (\w+), false>", self.name)
        return (found[1], found[2]) if found else None

    def wide(self, kind: str) -> int:
        """How many loads or stores of 128 bits, of global memory."""
        return sum(n for op, n in self.instructions.items() if op.startswith(kind) and ".128" in op)


def tool(name: str) -> str:
    """The path of a program of NVIDIA's: from the packages of the group cuda-check, or of an installed toolkit."""
    packages = Path(sysconfig.get_path("purelib")) / "nvidia"
    for folder in [*sorted(packages.glob("*/bin")), *sorted(packages.glob("*/*/bin"))]:
        if found := shutil.which(name, path=str(folder)):
            return found
    if found := shutil.which(name):
        return found
    raise ToolError(f"{name} was not found; `pip install --group cuda-check` brings it, ptxas comes with nvcc")


def output_of(*command: str | Path, text: str = "", folder: Path | None = None) -> str:
    """What a program prints, both ways; ToolError if it fails."""
    done = subprocess.run([*map(str, command)], input=text, capture_output=True, text=True, cwd=folder)
    if done.returncode != 0:
        raise ToolError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.returncode}")
    return done.stdout + done.stderr


def demangled(symbols: list[str]) -> dict[str, str]:
    """Kernels as kernels/list.hpp writes them."""
    if not symbols:
        return {}
    lines = output_of(tool("c++filt"), text="\n".join(symbols)).splitlines()
    names = {}
    for symbol, line in zip(symbols, lines, strict=True):
        found = re.search(r"kernel<(.*?) ?>\(", line)
        name = re.sub(r"optimisers::(v\d+_\d+::)?|cuda::", "", found[1] if found else line).replace(" >", ">")
        names[symbol] = re.sub(r"\(Access\)(\d)", lambda m: ACCESS[m[1]], name)
    return names


@dataclass
class Rule:
    """What its header says of a rule's slots: "real", "" or "when" of each."""

    slots: list[str]
    refuses_complex: bool


def rules() -> dict[str, Rule]:
    """Every rule, from its header."""
    found = {}
    for path in sorted(RULES.glob("[!a]*.hpp")) + sorted(RULES.glob("a[!l]*.hpp")):  # all but all.hpp
        text = path.read_text(encoding="utf-8")
        name = re.search(r"^struct (\w+) \{$", text, re.MULTILINE)
        if name is None or f"Slot<{name[1]}>" not in text:
            raise ToolError(f"{path}: finds no rule with slots in this header")
        slots = re.findall(r"Slot<\w+>\{([^}]*)\}", text)
        kinds = [("when " if ".when" in s else "") + ("real" if ".real = true" in s else "") for s in slots]
        found[name[1]] = Rule(kinds, "refuses_complex" in text)
    return found


def pieces(kernel: Kernel, known: dict[str, Rule]) -> tuple[int, int]:
    """How many loads and stores of 128 bits a sweep has at least."""
    assert kernel.shape is not None
    compute, access, chain = kernel.shape
    element, is_complex = ELEMENT[compute], compute.startswith("Complex")
    stored = element if access == "plain" else 2
    at_once = PIECE // (stored // (2 if is_complex else 1))
    own, held = at_once * stored // PIECE, at_once * element // PIECE
    slots = 0
    for name in chain.split(", ") if chain else known:
        rule = known[name]
        if is_complex and rule.refuses_complex:
            continue
        always = [held // (2 if is_complex and "real" in kind else 1) for kind in rule.slots if "when" not in kind]
        more = [held // (2 if is_complex and "real" in kind else 1) for kind in rule.slots if "when" in kind]
        slots += sum(always)
        if more and not chain:  # interpreted: once without, once with them
            slots += sum(always) + sum(more)
    return 2 * own + held + slots, own + held + slots


def read_code(file: Path, arch: str, folder: Path) -> tuple[list[Kernel], list[str]]:
    """The kernels of an architecture, and what is wrong with how they were compiled."""
    output_of(tool("cuobjdump"), "-xelf", arch, file.resolve(), folder=folder)
    output_of(tool("cuobjdump"), "-xptx", arch, file.resolve(), folder=folder)
    kernels: dict[str, Kernel] = {}
    faults = []
    for cubin in sorted(folder.glob("*.cubin")):
        options = re.search(rb"-arch sm_\w+ [^\0]*", cubin.read_bytes())
        if options is None or b"-fmad false" not in options[0]:
            faults.append(f"{cubin.name}: ptxas was not told -fmad=false")
        usage = output_of(tool("cuobjdump"), "-res-usage", cubin)
        for symbol, registers, stack in re.findall(r"Function (\w+):\s+REG:(\d+) STACK:(\d+)", usage):
            kernels[symbol] = Kernel(symbol, registers=int(registers), stack=int(stack))
        for function in re.split(r"^\.text\.", output_of(tool("nvdisasm"), "-c", cubin), flags=re.MULTILINE)[1:]:
            symbol, _, code = function.partition(":")
            read_instructions(kernels[symbol], code)
    for symbol, name in demangled(list(kernels)).items():
        kernels[symbol].name = name
    return list(kernels.values()), faults


def read_instructions(kernel: Kernel, code: str) -> None:
    """Count what there is, and follow what each stretch without branches loads before it uses any."""
    loaded: set[int] = set()
    ahead: Counter[int] = Counter()
    for line in code.splitlines():
        found = INSTRUCTION.match(line)
        if line.startswith(".") or (found and BRANCH.match(found[1])):  # a label ends a stretch too
            loaded, ahead = set(), Counter()
        if found is None:
            continue
        kernel.instructions[found[1]] += 1
        kernel.halves += HALVES.search(line) is not None
        registers = [int(r) for r in REGISTER.findall(line)]
        load = LOAD.match(found[1])
        if not loaded.isdisjoint(registers[1:] if load else registers):
            loaded, ahead = set(), Counter()
        if load:
            bits = int(load[1])
            ahead[bits] += bits // 8
            loaded |= set(range(registers[0], registers[0] + bits // 32))
            kernel.ahead |= ahead


def contracted(ptx: Path) -> Iterator[str]:
    """Functions with fused operations, or with operations that ptxas may fuse."""
    function = ""
    seen = set()
    for line in ptx.read_text(encoding="utf-8").splitlines():
        if found := PTX_FUNCTION.search(line):
            function = found[1]
        elif FUSED.search(line) and not MAY_FUSE.search(function) and function not in seen:
            seen.add(function)
            yield f"{function}: {line.strip()}"


def count_spills(ptx: Path, arch: str, kernels: dict[str, Kernel]) -> None:
    """ptxas says which stack frames are spills; without any frame there are none."""
    text = output_of(tool("ptxas"), "-arch", arch, "-m", "64", "-fmad", "false", "-v", ptx, "-o", "/dev/null")
    symbol = ""
    for line in text.splitlines():
        if found := re.search(r"Compiling entry function '(\w+)'", line):
            symbol = found[1]
        elif (found := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line)) and symbol in kernels:
            kernels[symbol].spills += int(found[1]) + int(found[2])


def faults_of(kernel: Kernel, known: dict[str, Rule]) -> Iterator[str]:
    """Say what is wrong with one kernel."""
    shape = kernel.shape
    if shape is None and kernel.name.startswith("Sweep"):
        yield f"{kernel.name}: a sweep of a kind this check does not know"
    allowed = STACK.get(shape[1] if shape else kernel.name, 0)
    if traps := kernel.instructions["BPT.TRAP"]:
        yield f"{kernel.name}: {traps} traps, where it reads what only the host has, or what cannot be"
    if kernel.halves:
        yield f"{kernel.name}: {kernel.halves} comparisons of two halves that set one predicate, miscompiled"
    if kernel.spills:
        yield f"{kernel.name}: {kernel.spills} bytes are spilled"
    if kernel.stack > allowed:
        yield f"{kernel.name}: a stack frame of {kernel.stack} bytes, {allowed} are allowed"
    most = max(kernel.ahead[64], kernel.ahead[128])
    if kernel.measured and kernel.measured[1] != "any" and most < MEASURED:
        yield f"{kernel.name}: {most} bytes are asked for before one is used, {MEASURED} are needed"
    if shape is None or shape[1] == "any":
        return
    for kind, least in zip(("LDG", "STG"), pieces(kernel, known), strict=True):
        if kernel.wide(kind) < least:
            yield f"{kernel.name}: {kernel.wide(kind)} instructions {kind}.E.128, its arrays need {least}"
    masters = 1 if shape[1] == "plain" else 2  # pieces, which other chains do without
    late = 1  # ptxas may leave a piece for later (WeightDecay, Adam), which cost nothing that was seen
    least = (pieces(kernel, known)[0] - masters - late) * PIECE
    if shape[2] and kernel.ahead[128] < least:
        yield f"{kernel.name}: {kernel.ahead[128]} bytes are asked for before one is used, {least} are needed"


def table(kernels: list[Kernel]) -> str:
    """A row a kernel."""
    width = max(len(k.name) for k in kernels)
    head = f"{'kernel':{width}}  registers  spills  stack  128-bit loads  stores"
    rows = (
        f"{k.name:{width}}  {k.registers:9}  {k.spills:6}  {k.stack:5}  {k.wide('LDG'):13}  {k.wide('STG'):6}"
        for k in sorted(kernels, key=lambda k: k.name)
    )
    return "\n".join([head, *rows])


def architectures(file: Path) -> list[str]:
    """Those there is code for."""
    return sorted(set(re.findall(r"\.(sm_\w+)\.cubin", output_of(tool("cuobjdump"), "-lelf", file))))


def check(file: Path, arch: str, needs_ptx: bool = True) -> tuple[list[Kernel], list[str]]:
    """The kernels, and everything that is wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kernels, faults = read_code(file, arch, folder)
        by_symbol = {k.symbol: k for k in kernels}
        sources = sorted(folder.glob("*.ptx"))
        for ptx in sources:
            faults += [f"contracted: {text}" for text in contracted(ptx)]
            text = ptx.read_text(encoding="utf-8")
            if any(k.stack and k.symbol in text for k in kernels):
                count_spills(ptx, arch, by_symbol)
    if not kernels:
        faults.append(f"{file} has no code for {arch}")
    elif needs_ptx and not sources:
        faults.append(f"{file} has no PTX for {arch}; compile with OPTIMISERS_CUDA_ARCHITECTURES={arch[3:]}")
    for kind in ("shape", "measured"):
        if not any(getattr(kernel, kind) for kernel in kernels):
            faults.append(f"{file} has no {'sweeps' if kind == 'shape' else 'measurements'} for {arch}")
    known = rules()
    for kernel in kernels:
        faults += faults_of(kernel, known)
    return kernels, faults


def main() -> int:
    """Check a file and print every fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a library or an object with kernels")
    parser.add_argument("--arch", default="sm_90", help='"all": every architecture in the file')
    args = parser.parse_args()
    try:
        archs = architectures(args.file) if args.arch == "all" else [args.arch]
        found = {arch: check(args.file, arch, needs_ptx=args.arch != "all") for arch in archs}
    except ToolError as error:
        print(f"check_kernels: {error}", file=sys.stderr)
        return 1
    wrong = not found
    for arch, (kernels, faults) in found.items():
        if kernels:
            print(f"{arch}\n{table(kernels)}")
        for fault in faults:
            print(f"check_kernels: {arch}: {fault}", file=sys.stderr)
        if not faults:
            print(
                f"check_kernels: {len(kernels)} kernels for {arch}: none spills or traps, sweeps move 128 bits at once"
            )
        wrong |= bool(faults)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
