"""Build the library for each platform in reach, run it there and compare its bits: `python tools/platforms.py`.

Each row of ROWS is configured with CMake, built (the static library and `tests/cpp/print_bits.cpp`, whose chains are
compiled with the row's flags) and run; a hash of what it prints is compared with the first row's. Rows whose tools are
missing say so (`pip install ziglang` brings zig). `--only TEXT` takes the rows whose names contain it, `--write` puts
each row, built anew, into the table of docs/platforms.md as soon as it is tried, and leaves the others as they are.
"""

import argparse
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "platforms.md"
BEGIN, END = "<!-- made by tools/platforms.py -->\n", "<!-- until here -->\n"


@dataclass(frozen=True)
class Row:
    name: str
    compiler: str = "g++"
    flags: str = ""
    options: tuple[str, ...] = ()
    system: str = ""  # CMAKE_SYSTEM_NAME and _PROCESSOR of a cross build
    runner: str = ""  # what runs its programs; "-": nothing here does
    refusal: str = ""  # what its error must say, where it is not to compile


RELEASE = "-DCMAKE_BUILD_TYPE=Release"
DEBUG = "-DCMAKE_BUILD_TYPE=Debug"
STRICT = "-Wall -Wextra -Wconversion -Wshadow -pedantic -Werror"
NATIVE = (
    Row("g++, C++20", options=(RELEASE,)),
    Row("g++, C++23", options=(RELEASE, "-DCMAKE_CXX_STANDARD=23")),
    Row("g++, Debug", options=(DEBUG,)),
    Row("g++, _GLIBCXX_DEBUG", flags="-D_GLIBCXX_DEBUG -O1", options=(DEBUG,)),
    Row("g++, MinSizeRel", options=("-DCMAKE_BUILD_TYPE=MinSizeRel",)),
    Row("g++, unity build", options=(RELEASE, "-DCMAKE_UNITY_BUILD=ON")),
    Row("g++, -Wconversion -Wshadow -pedantic -Werror", flags=STRICT, options=(RELEASE,)),
    Row("g++, LTO", options=(RELEASE, "-DCMAKE_INTERPROCEDURAL_OPTIMIZATION=ON")),
    Row("g++, no RTTI", flags="-fno-rtti", options=(RELEASE,)),
    Row("g++, -march=native -ffast-math for all", flags="-march=native -ffast-math", options=(RELEASE,)),
    Row("g++, no threads", options=(RELEASE, "-DOPTIMISERS_THREADS=OFF")),
    Row("g++, AddressSanitizer and UBSan", flags="-fsanitize=address,undefined -O1", options=(DEBUG,)),
    Row("clang++, C++20", "clang++", options=(RELEASE,)),
    Row("clang++, -march=native", "clang++", flags="-march=native", options=(RELEASE,)),
)
X87 = "-msse2 -mfpmath=sse"
NO_THREADS = "-DOPTIMISERS_THREADS=OFF"
BARE = "-mcpu=cortex-a9 -mfloat-abi=hard -mfpu=neon --specs=rdimon.specs -Wl,--gc-sections"
CROSS = (
    Row("aarch64 Linux, g++", "aarch64-linux-gnu-g++", "-static", (RELEASE,), "Linux aarch64", "qemu-aarch64"),
    Row("riscv64 Linux, g++", "riscv64-linux-gnu-g++", "-static", (RELEASE,), "Linux riscv64", "qemu-riscv64"),
    Row("s390x Linux (big-endian), g++", "s390x-linux-gnu-g++", "-static", (RELEASE,), "Linux s390x", "qemu-s390x"),
    Row("armhf Linux, g++", "arm-linux-gnueabihf-g++", "-static", (RELEASE,), "Linux arm", "qemu-arm"),
    Row("i686 Linux, SSE2, g++", "i686-linux-gnu-g++", f"-static {X87}", (RELEASE,), "Linux i686"),
    Row("i686 Linux, x87, g++", "i686-linux-gnu-g++", "-static", (RELEASE,), "Linux i686", refusal=X87),
    Row(
        "ARM without a system (newlib), g++",
        "arm-none-eabi-g++",
        BARE,
        (RELEASE, NO_THREADS),
        "Generic arm",
        "qemu-arm",
    ),
    Row("x64 Windows, mingw (posix)", "x86_64-w64-mingw32-g++-posix", "-static", (RELEASE,), "Windows AMD64", "wine"),
    Row(
        "x64 Windows, mingw (win32)",
        "x86_64-w64-mingw32-g++-win32",
        "-static",
        (RELEASE, NO_THREADS),
        "Windows AMD64",
        "wine",
    ),
    Row("x86-64 Linux, zig c++", "zig x86_64-linux-gnu", "", (RELEASE,), "Linux x86_64"),
    Row("x86-64 Linux with musl, zig c++", "zig x86_64-linux-musl", "", (RELEASE,), "Linux x86_64"),
    Row("x64 Windows, zig c++", "zig x86_64-windows-gnu", "", (RELEASE,), "Windows AMD64", "wine"),
    Row("arm64 Windows, zig c++", "zig aarch64-windows-gnu", "", (RELEASE,), "Windows ARM64", "-"),
    Row("arm64 macOS, zig c++", "zig aarch64-macos", "", (RELEASE,), "Darwin arm64", "-"),
    Row("x86-64 macOS, zig c++", "zig x86_64-macos", "", (RELEASE,), "Darwin x86_64", "-"),
)
ROWS = NATIVE + CROSS


def tool(name: str) -> str | None:
    """Return the path of a tool; clang++ and qemu may carry a version or a suffix."""
    names = [name, f"{name}-static", *(f"{name}-{v}" for v in range(22, 13, -1))]
    return next((path for n in names if (path := shutil.which(n))), None)


def zig() -> list[str]:
    """Return the command that is zig; empty if there is none."""
    if path := shutil.which("zig"):
        return [path]
    return [sys.executable, "-m", "ziglang"] if importlib.util.find_spec("ziglang") else []


def tools_of_zig(target: str, folder: Path) -> str:
    """Write compiler and archiver for a target as programs of their own, which CMake asks for; return the compiler."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, what in (("c++", f"c++ -target {target}"), ("ar", "ar"), ("ranlib", "ranlib")):
        path = folder / name
        text = f'#!/bin/sh\nexec {" ".join(zig())} {what} "$@"\n'
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # or all would be built again
            path.write_text(text, encoding="utf-8")
            path.chmod(0o755)
    return str(folder / "c++")


def compiler_of(row: Row, folder: Path) -> str | None:
    """Return the path of a row's compiler; None if it is not installed."""
    if row.compiler.startswith("zig "):
        return tools_of_zig(row.compiler.split()[1], folder / "tools") if zig() else None
    return tool(row.compiler)


def build(row: Row, compiler: str, folder: Path, jobs: int, anew: bool) -> tuple[Path, int]:
    """Configure and build a row; return the program, and how often the compiler complained of what it compiled."""
    source = folder / "source"
    source.mkdir(parents=True, exist_ok=True)
    (source / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(bits LANGUAGES CXX)\n"
        f'add_subdirectory("{ROOT}" optimisers)\n'
        f'add_executable(bits "{ROOT}/tests/cpp/print_bits.cpp")\n'
        "target_link_libraries(bits PRIVATE optimisers::optimisers optimisers::kernel_flags)\n"
    )
    options = [f"-DCMAKE_CXX_COMPILER={compiler}", f"-DCMAKE_CXX_FLAGS={row.flags}", *row.options]
    if row.system:
        name, processor = row.system.split()
        options += [f"-DCMAKE_SYSTEM_NAME={name}", f"-DCMAKE_SYSTEM_PROCESSOR={processor}"]
    if row.compiler.startswith("zig "):
        options += [f"-DCMAKE_{what.upper()}={Path(compiler).with_name(what)}" for what in ("ar", "ranlib")]
    cmake = shutil.which("cmake") or "cmake"
    for command in (
        [cmake, "-S", str(source), "-B", str(folder / "build"), *options],
        [
            cmake,
            "--build",
            str(folder / "build"),
            "--parallel",
            str(jobs),
            "--target",
            "bits",
            *(["--clean-first"] if anew else []),
        ],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError((done.stdout + done.stderr)[-6000:])
    warnings = len(re.findall("(?:warning|note): ", done.stderr + done.stdout))
    if warnings:
        print(f"{row.name}:\n{(done.stdout + done.stderr)[-6000:]}", file=sys.stderr)
    program = folder / "build" / "bits"
    return (program if program.exists() else program.with_suffix(".exe")), warnings


def try_row(row: Row, work: Path, jobs: int, anew: bool) -> tuple[str, str, str]:
    """Return what became of a row: built (anew: all of it), run, and a hash of its bits."""
    folder = work / "".join(c if c.isalnum() else "_" for c in row.name)
    compiler = compiler_of(row, folder)
    if compiler is None:
        return f"{row.compiler.split()[0]} is not installed", "–", ""
    try:
        program, warnings = build(row, compiler, folder, jobs, anew)
    except RuntimeError as e:
        if row.refusal and row.refusal in str(e):
            return f"refused: `{row.refusal}`", "–", ""
        print(f"{row.name}:\n{e}", file=sys.stderr)
        return "**fails**", "–", ""
    if row.refusal:
        return "**yes, and was to be refused**", "–", ""
    built = f"yes, {warnings} warnings" if warnings else "yes"
    if row.runner == "-":
        return built, "–", ""
    runner = [tool(row.runner)] if row.runner else []
    if runner == [None]:
        return built, f"{row.runner} is not installed", ""
    done = subprocess.run([*filter(None, runner), str(program)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"{row.name}: {done.stderr[-500:]}", file=sys.stderr)
        return built, "**fails**", ""
    return built, "yes", hashlib.sha256(done.stdout.encode()).hexdigest()[:12]


def version(command: str) -> str:
    """Return the first line a compiler says of itself."""
    path = tool(command)
    if path is None:
        return "absent"
    return subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def write(row: Row, line: str) -> None:
    """Put one row into the page's table; what stands there of others is kept."""
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    table, tail = rest.split(END)
    known = {old.split(" | ")[0]: old for old in table.splitlines()} | {f"| {row.name}": line}
    rows = [known.get(f"| {r.name}", f"| {r.name} | not tried yet | – | – |") for r in ROWS]
    machine = f"On {platform.machine()}, {version('g++')}; {version('clang++')}."
    lines = [machine, "", "| target and build | builds | runs | bits |", "|---|---|---|---|", *rows, ""]
    PAGE.write_text(head + BEGIN + "\n".join(lines) + END + tail, encoding="utf-8")


def main() -> int:
    """Try the rows and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "platforms")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    reference, failed = "", False
    for row in (r for r in ROWS if given.only in r.name or r is ROWS[0]):
        built, run, bits = try_row(row, given.work, given.jobs, given.write and given.only in row.name)
        reference = reference or bits
        same = "–" if not bits else f"`{bits}`" if bits == reference else f"**`{bits}`**"
        failed |= "**" in built + run + same
        line = f"| {row.name} | {built} | {run} | {same} |"
        print(line, flush=True)
        if given.write:
            write(row, line)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
