"""The documentation shows the code as it is."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_rule_in_the_architecture_page_is_the_rule_in_the_tree() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    (block,) = re.findall(r"```cpp\n(.*?)```", page, re.DOTALL)
    assert block == (ROOT / "cpp/include/optimisers/rules/adamax.hpp").read_text()


def test_every_path_the_architecture_page_names_exists() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    paths = set(re.findall(r"`((?:cpp|python|tests|docs)/[\w./]+)`", page))
    assert paths, "the page names no files any more"
    missing = sorted(p for p in paths if not (ROOT / p).exists())
    assert not missing, f"docs/architecture.md names files that are not there: {missing}"


def test_the_map_has_a_line_for_every_room() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    the_map = page[page.index("## The map") : page.index("## A rule, and how to add one")]
    for house in ("cpp/src", "cuda/src", "python/src", "tests/python"):
        rooms = {p.name for p in (ROOT / house).iterdir() if p.is_dir() and p.name != "__pycache__"}
        missing = sorted(room for room in rooms if f"{room}/" not in the_map)
        assert rooms and not missing, f"the map in docs/architecture.md has no line for {missing} of {house}"


def test_every_module_of_the_package_is_in_the_map() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    the_map = page[page.index("## The map") : page.index("## A rule, and how to add one")]
    modules = {p.stem for p in (ROOT / "python/optimisers").glob("*.py*") if not p.stem.startswith("__")}
    missing = sorted(name for name in modules if not re.search(rf"\b{name}\b", the_map))
    assert not missing, f"the map in docs/architecture.md does not name {missing} of python/optimisers"


def test_includes_that_go_up_are_found(tmp_path: Path) -> None:
    for name, text in {
        "cpp/include/optimisers/error.hpp": "",
        "cpp/src/memory/arena.hpp": '#include "plan/group.hpp"',
        "python/src/errors.hpp": "",
        "python/src/tree/tree.hpp": '#include "errors.hpp"',
        "python/src/arrays/array.hpp": '#include "tree/tree.hpp"',
        "python/src/attic/old.hpp": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    tool = ROOT / "tools" / "check_includes.py"
    found = subprocess.run([sys.executable, tool, tmp_path], capture_output=True, text=True)
    assert found.returncode == 1
    assert found.stderr.splitlines() == [
        "check_includes: memory/arena.hpp: includes plan/group.hpp, which is not below it",
        "check_includes: arrays/array.hpp: includes tree/tree.hpp, which is on a floor above it",
        "check_includes: attic/old.hpp: attic/ is no floor of FLOORS in tools/check_includes.py",
    ]


def test_the_guide_gives_the_sizes_that_are_checked() -> None:
    guide = (ROOT / "docs/cpp.md").read_text()
    (library,) = re.findall(r"static library of at most ([\d.]+) MB stripped", guide)
    (limit,) = re.findall(r'"\$size" -le (\d+)', (ROOT / "tools/check_symbols.sh").read_text())
    assert float(library) * 2**20 == int(limit)
    (program,) = re.findall(r"\(a test allows (\d+)\)", guide)
    (limit,) = re.findall(r'"\$added" -le (\d+)', (ROOT / "tests/consumer/consume.sh").read_text())
    assert int(program) * 1024 == int(limit)


def test_the_table_of_platforms_has_the_rows_that_its_tool_builds() -> None:
    page = (ROOT / "docs/platforms.md").read_text()
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import platforms
    finally:
        sys.path.pop(0)
    table = page.split(platforms.BEGIN)[1].split(platforms.END)[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in rows] == [row.name for row in platforms.ROWS]
    bits = {cell for line in rows for cell in re.findall(r"`([0-9a-f]{12})`", line)}
    assert len(bits) == 1, f"rows of docs/platforms.md have different bits: {bits}"
