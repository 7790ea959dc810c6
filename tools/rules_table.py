"""Keep docs/rules.md, and README.md's table of rules, equal to what the rules say about themselves.

python tools/rules_table.py            print the page and the table
python tools/rules_table.py --check    exit with 1 if one of them is another one
python tools/rules_table.py --write    write both
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import optimisers as opt

ROOT = Path(__file__).resolve().parents[1]
README, PAGE = ROOT / "README.md", ROOT / "docs" / "rules.md"
BEGIN, END = "<!-- rules:begin -->", "<!-- rules:end -->"
# What rules are for, from the first of each group on in the order of the registry.
GROUPS = {
    "Descent": ("Momentum and signs", "One rate for all elements, or steps of one size."),
    "Adam": ("Adam and its kin", "A rate for each element from the moments of its gradients."),
    "AdaGrad": ("Rates from past squares", "Without momentum, or with one second moment for a leaf."),
    "Prodigy": ("No rate to search for", "The learning rate is found on the way."),
    "Muon": ("Whole matrices", "Hidden layers as matrices; everything else beside them gets another rule."),
    "WeightDecay": ("Decay", "Stages that pull parameters towards 0."),
    "ClipGrad": ("What becomes of a gradient", "Stages before a rule: clipping, collecting, repairing."),
    "TrustRatio": ("What becomes of a step", "Stages behind a rule."),
    "Ema": ("Averages", "Last stages: what is evaluated is not what is trained."),
    "Box": ("Constraints", "Last stages that keep parameters where they may be."),
}


def grouped() -> list[tuple[str, str, list[type[opt.Rule]]]]:
    """Title, sentence and rules of each group."""
    groups: list[tuple[str, str, list[type[opt.Rule]]]] = []
    for rule in opt.RULES:
        if rule.__name__ in GROUPS:
            groups.append((*GROUPS[rule.__name__], []))
        groups[-1][2].append(rule)
    return groups


def code(text: str) -> str:
    """Mark text as code inside a table cell, where a bar would end the cell."""
    return "`" + text.replace("|", "\\|") + "`"


def table() -> str:
    """Return README.md's table: a line for each group, each rule a link."""
    lines = ["| for | rules |", "|---|---|"]
    for title, _, rules in grouped():
        links = ", ".join(f"[{rule.__name__}](docs/rules.md#{rule.__name__.lower()})" for rule in rules)
        lines.append(f"| {title} | {links} |")
    return "\n".join(lines)


def entry(rule: type[opt.Rule]) -> str:
    """Return all a rule says about itself."""
    defaults = [f.name if f.default is None else f"{f.name}={f.default!r}" for f in rule.fields]
    call = f"{rule.__name__}({', '.join(defaults)})".replace("'", '"')
    fields = [f"- `{f.name}`: {f.doc}{f', {f.bounds}' if f.bounds else ''}" for f in rule.fields]
    fields = [line + (f", {', '.join(map(repr, f.words))}".replace("'", '"') if f.words else "") for line, f in
              zip(fields, rule.fields, strict=True)]  # fmt: skip
    parts = [f"### {rule.__name__}", rule.summary, f"```\n{call}\n\n{rule.update}\n```", "\n".join(fields)]
    parts += [f"{rule.notes}\n\n{rule.reference}."]
    return "\n\n".join(part for part in parts if part)


def page() -> str:
    """Return docs/rules.md."""
    head = (
        "<!-- Written by tools/rules_table.py from the rules' headers (`make docs`). -->\n# Rules\n\n"
        "Each takes the gradient `dx` as it comes and leaves in it what is to be subtracted from the parameter `x`; "
        "`OptimiserChain` puts any of them behind one another. λ is written `lambda_` in Python. C++ has the same "
        "names (`opt::Adam{.eta = 0.1}`), C takes them as text, "
        "and `optimisers.torch` has those with a learning rate as "
        "`torch.optim.Optimizer`s.\n\n" + table().replace("docs/rules.md", "")
    )
    sections = ["\n\n".join([f"## {title}", sentence, *map(entry, rules)]) for title, sentence, rules in grouped()]
    return "\n\n".join([head, *sections]) + "\n"


def replaced(text: str) -> str:
    """Return README.md with the text between the markers exchanged for the table."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description="docs/rules.md and README.md's table of rules")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="fail if one is out of date")
    action.add_argument("--write", action="store_true", help="bring both up to date")
    args = parser.parse_args()

    readme = README.read_text(encoding="utf-8")
    if args.write:
        README.write_text(replaced(readme), encoding="utf-8")
        PAGE.write_text(page(), encoding="utf-8")
    elif not args.check:
        print(page())
    elif replaced(readme) != readme or not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        print("README.md or docs/rules.md is out of date; run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
