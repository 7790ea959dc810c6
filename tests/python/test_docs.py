"""The documentation shows the code as it is."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


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
