"""Follow docs/cpp.md to the letter in an empty folder: `python guide.py SOURCE FOLDER CMAKE CXX`.

The first CMake block and the first program become a project beside a link to the source tree, as the guide says. The
other C++ blocks become the functions of a second program, the C block a third; all are built and run.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PRELUDE = """\
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory_resource>
#include <optimisers/optimisers.hpp>
#include <optional>
#include <string>
#include <vector>

namespace opt = optimisers;

static void check_at(bool holds, int block) {
  if (holds) return;
  std::fprintf(stderr, "docs/cpp.md: what block %d says does not hold\\n", block);
  std::exit(1);
}
#define check(...) check_at((__VA_ARGS__), block)
"""


def snippets_program(blocks: list[str]) -> str:
    """Return a program that runs each block as a function; a block that is one struct stays outside of them."""
    parts, calls = [PRELUDE], []
    for i, block in enumerate(blocks):
        if re.fullmatch(r"struct \w+ \{\n.*\n\};\n", block, re.DOTALL) and "\n};\n" not in block[:-3]:
            parts.append(block)
            continue
        parts.append(f"static void block_{i}() {{\n[[maybe_unused]] constexpr int block = {i};\n{block}}}\n")
        calls.append(f"  block_{i}();\n")
    return "\n".join(parts) + "\nint main() {\n" + "".join(calls) + "}\n"


def main() -> None:
    source, folder, cmake, cxx = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    text = (source / "docs" / "cpp.md").read_text(encoding="utf-8")
    blocks: dict[str, list[str]] = {}
    for language, body in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        blocks.setdefault(language, []).append(body)
    programs = [b for b in blocks["cpp"] if b.startswith("#include")]
    snippets = [b for b in blocks["cpp"] if not b.startswith("#include")]
    assert len(programs) == 1 and len(snippets) >= 8 and len(blocks["c"]) == 1 and len(blocks["cmake"]) == 1

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "optimisers").symlink_to(source, target_is_directory=True)
    (folder / "fit.cpp").write_text(programs[0])
    (folder / "snippets.cpp").write_text(snippets_program(snippets))
    (folder / "interface.c").write_text(blocks["c"][0])
    (folder / "CMakeLists.txt").write_text(
        blocks["cmake"][0]
        + "\nenable_language(C)\nadd_executable(snippets snippets.cpp)\nadd_executable(interface interface.c)\n"
        + "target_link_libraries(snippets PRIVATE optimisers::optimisers optimisers::kernel_flags)\n"
        + "target_link_libraries(interface PRIVATE optimisers::optimisers)\n"
    )
    environment = os.environ | {"CXX": cxx}
    for command in (
        [cmake, "-S", ".", "-B", "build"],
        [cmake, "--build", "build", "--parallel", "2"],
        *([f"build/{name}"] for name in ("fit", "snippets", "interface")),
    ):
        subprocess.run(command, cwd=folder, env=environment, check=True)
    print(f"guide: {len(programs)} program, {len(snippets)} blocks of C++ and one of C are as the page says")


if __name__ == "__main__":
    main()
