"""Keep README.md's table of rules equal to what the rules say about themselves.

python tools/rules_table.py            print the table
python tools/rules_table.py --check    exit with 1 if README.md holds another one
python tools/rules_table.py --write    put it into README.md
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import optimisers as opt

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- rules:begin -->", "<!-- rules:end -->"


def code(text: str) -> str:
    """Mark text as code inside a table cell, where a bar would end the cell."""
    return "`" + text.replace("|", "\\|") + "`"


def row(rule: type[opt.Rule]) -> str:
    """Return the table row of one rule: name with defaults, update, reference."""
    defaults = [f.name if f.default is None else f"{f.name}={f.default!r}" for f in rule.fields]
    update = "<br>".join(code(line.strip()) for line in rule.update.splitlines())
    named = f"**{rule.__name__}**" + (f"<br>{code(', '.join(defaults))}" if defaults else "")
    return f"| {named} | {update} | {rule.reference} |"


def table() -> str:
    head = ["| rule and defaults | update | reference |", "|---|---|---|"]
    return "\n".join(head + [row(rule) for rule in opt.RULES])


def replaced(page: str) -> str:
    """Return the page with the text between the markers exchanged for the table."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description="README.md's table of rules")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="fail if README.md is out of date")
    action.add_argument("--write", action="store_true", help="bring README.md up to date")
    args = parser.parse_args()

    page = README.read_text(encoding="utf-8")
    if args.write:
        README.write_text(replaced(page), encoding="utf-8")
    elif not args.check:
        print(table())
    elif replaced(page) != page:
        print("README.md: the table of rules is out of date; run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
