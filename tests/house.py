"""The house rules of the course, each a function that reads the tree and returns its faults as plain sentences.

    python tests/house.py          print every fault; exit status 1 if there is one
    python tests/house.py --fix    first rewrite what is generated: Colab links, maps of the course, set-up cells and
                                   metadata of the notebooks, and the module map of the main README

The rules stand in `tests/rules/`. Only the standard library is used and nothing of the course is imported, so they
run in any Python and in a second. `tests/test_house.py` runs each on the real tree and on planted violations.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from rules.generated import fix, rule_generated, rule_readme_map
from rules.mathematics import rule_mathematics
from rules.notebook import rule_cells, rule_exercises, rule_opening, rule_outputs, rule_sections, rule_times
from rules.pages import rule_links, rule_machine_paths, rule_module_readme, rule_parts, rule_words
from rules.source import (
    rule_helpers,
    rule_imports,
    rule_namespace,
    rule_no_redefinition,
    rule_one_source,
    rule_packaging,
)
from rules.tree import plural

Rule = Callable[[Path], list[str]]
RULES: tuple[Rule, ...] = (
    rule_one_source,
    rule_no_redefinition,
    rule_namespace,
    rule_imports,
    rule_packaging,
    rule_parts,
    rule_module_readme,
    rule_generated,
    rule_readme_map,
    rule_opening,
    rule_sections,
    rule_cells,
    rule_outputs,
    rule_exercises,
    rule_times,
    rule_links,
    rule_mathematics,
    rule_words,
    rule_machine_paths,
    rule_helpers,
)


def main(arguments: list[str]) -> int:
    """Print every fault of the course that this file belongs to."""
    root = Path(__file__).resolve().parents[1]
    if set(arguments) - {"--fix"}:
        print(__doc__)
        return 2
    if "--fix" in arguments:
        for name in fix(root):
            print(f"rewritten: {name}")
    count = 0
    for rule in RULES:
        faults = rule(root)
        count += len(faults)
        if faults:
            print(f"\n{rule.__name__.removeprefix('rule_').replace('_', ' ')}: {rule.__doc__}")
            print("\n".join(f"  - {fault}" for fault in faults))
    print(f"\n{len(RULES)} rules, {plural(count, 'fault')}.")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
