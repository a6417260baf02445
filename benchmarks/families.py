"""Writes docs/families.md: what works in which model family, as the tests of tests/test_families.py
find it.

python -m benchmarks.families
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COLUMNS = ("discovery", "read", "steer", "generate", "attach", "bake")
REFUSED = "what_is_not_safe_is_refused"
ABOUT = """\
# Model families

Made by `python -m benchmarks.families` with {versions}.

Every cell is the outcome of a test of `tests/test_families.py` on a random model of three layers, in fp32 on a CPU; the configs
are in `tests/families.py`. The references are plain PyTorch hooks on modules that are named there by hand, prompt by prompt;
nnsteer runs the prompts in one batch, padded on the left.

- **discovery**: `find_layout` finds the modules that are named by hand; sites without one are refused.
- **read**: a block's recorded output is what the next block receives, and block_in + attn_out + mlp_out is block_out.
- **steer**: an addition at each site, or at one head, gives the hook's logits.
- **generate**: it gives the hook's tokens, added to all tokens, to the prompt's or to the generated ones; samples are drawn from
  the model's own logits, after any cap or scale.
- **attach**: the model itself gives the Runner's logits and tokens, with conditions too.
- **bake**: additions at every site and ablations at attn_out and mlp_out give the Runner's logits after `save_pretrained` and
  `from_pretrained`, or are refused for the reason that is given.

A family that is not in the table is treated by the same rules, but has not been tried.

"""


@dataclass(frozen=True)
class Outcomes:
    """A pytest plugin that takes down, by family and test, what a test says of a family, or how it
    ended."""

    said: dict[str, dict[str, str]] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test, _, family = report.nodeid.rpartition("::test_")[2].removesuffix("]").partition("[")
        if report.failed:
            self.said.setdefault(family, {})[test] = "fails"
        elif report.when == "call":
            self.said.setdefault(family, {})[test] = dict(report.user_properties).get("cell", "yes")


def row(family: str, said: dict[str, str]) -> list[str]:
    if REFUSED in said:
        return [family, said[REFUSED], *[""] * (len(COLUMNS) - 1)]
    cells = [{text for test, text in said.items() if test.startswith(column)} for column in COLUMNS]
    return [family, *("fails" if "fails" in texts else "; ".join(texts) for texts in cells)]


def main() -> int:
    outcomes = Outcomes()
    ended = pytest.main(["-q", str(ROOT / "tests" / "test_families.py")], plugins=[outcomes])
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("nnsteer", "nnsight", "transformers", "torch")
    )
    rows = [
        ["family", *COLUMNS],
        ["---"] * (1 + len(COLUMNS)),
        *(row(*of_family) for of_family in outcomes.said.items()),
    ]
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
    (ROOT / "docs" / "families.md").write_text(ABOUT.format(versions=versions) + table)
    return ended


if __name__ == "__main__":
    sys.exit(main())
