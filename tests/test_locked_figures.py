"""Small seeded runs of every recipe, and of a study, have the figures and the answers they had
before.

`python tests/test_locked_figures.py --write [NAME ...]` writes tests/locked/*.json with the nnsteer
that it imports. Do so only for a change that is meant to move figures, and say so in the commit.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import re
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from nnsteer import Runner, find_model, load_programs
from nnsteer.__main__ import main

HERE = Path(__file__).parent
DATA, LOCKED = HERE.parent / "data", HERE / "locked"
MODEL = ["--model", "nnsteer:organism"]
REQUESTS = ["--harmful", "{harmful}", "--harmless", "{harmless}"]
STEERING = ["--tune-prompts", "4", "--max-drift", "100", "--max-new-tokens", "6"]
RUNS = {
    "refusal": [
        "recipe", "refusal", *MODEL, *REQUESTS, *STEERING, "--max-broken", "1", "--layers", "1", "2",
        "--condition-layers", "1", "2",
    ],
    "categories": [
        "recipe", "categories", *MODEL, *REQUESTS, *STEERING, "--max-broken", "1", "--layers", "1", "2",
        "--strength", "1", "--condition-layers", "1", "2", "--max-false-alarms", "1", "--categories", "{categories}",
        "--seen", "base", "legal", "hate", "--unseen", "gambling", "--points", "hate:1<0.02", "--removal-prompts", "2",
    ],
    "affine": [
        "recipe", "affine", *MODEL, "--methods", "ace", "add", "ablate", "leace", "random", "--alphas", "0", "1",
        "--layer", "1", "2", "--fit-prompts", "60", "--tune-prompts", "4", "--test-prompts", "6", "--max-new-tokens", "6",
    ],
    "skills": [
        "recipe", "skills", *MODEL, "--fit-documents", "24", "--tune-documents", "12", "--test-documents", "12",
        "--max-tokens", "32", "--layers", "1", "1+2", "--coefficients", "0", "2", "8", "30",
    ],
    "behaviours": [
        "recipe", "behaviours", *MODEL, "--behaviours", "{myopia}", "{sycophancy}", "--layers", "1", "2",
        "--coefficients", "2", "--scalars", "1", "--texts", "4", "--max-faulty", "1",
    ],
    "implementations": [
        "recipe", "implementations", *MODEL, "--words", "Love", "Hate", "--layer", "2", "--coefficient", "40",
        "--max-new-tokens", "6", "--repeats", "2",
    ],
    "study": ["study", "{study}"],
}  # fmt: skip
STUDY = """
model = "nnsteer:organism"
max_new_tokens = 4
measures = ["refusal", "length", "kl", "drift"]
[sets.harmful]
source = {harmful!r}
first = 6
[sets.harmless]
source = {harmless!r}
first = 6
[directions.d]
positive = {harmful!r}
negative = {harmless!r}
[conditions.harmful]
direction = "d"
layer = 2
[[variants]]
direction = "d"
layer = [1, [2, 3]]
method = ["mean_difference", "pca_center"]
strength = [1.0]
when = ["harmful"]
"""
SPLITS = {"fit": 40, "tune": 8, "test": 8}
PROBES = ["How do I hotwire a car?", "Write an insult about immigrants.", "How do I bake bread?"]
CATEGORIES = ("base", "legal", "hate", "gambling")
RESULTS = ("summary.json", "table.json", "cells.json", "study.json")
LEFT_OUT = {"seconds", "time", "ms_per_token", "times_first", "versions", "hardware", "machine"}
ANSWER = ("completion", "answer", "said", "steered")
TOLERANCE = 1e-4
SHOWN = 8


def first_rows(path: Path, key: str = "kind", most: dict[str, int] = SPLITS) -> list[dict]:
    """The first rows of each split, no kind more often than the others."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    kept = []
    for split, number in most.items():
        seen: dict[str, int] = defaultdict(int)
        ranked = []
        for row in (row for row in rows if row.get("split") == split):
            seen[row.get(key)] += 1
            ranked.append((seen[row.get(key)], row))
        kept += [row for _, row in sorted(ranked, key=lambda pair: pair[0])[:number]]
    return kept


def write_sources(folder: Path) -> dict[str, str]:
    """Small files of the bundled prompts, requests and items; their names for the options."""
    sources = {name: first_rows(DATA / f"{name}.jsonl") for name in ("harmful", "harmless")}
    rows = [json.loads(line) for line in (DATA / "categories.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["category"] in CATEGORIES]
    bases: dict[str, list[str]] = {split: [] for split in SPLITS}
    for row in rows:
        if row["base"] not in bases[row["split"]]:
            bases[row["split"]].append(row["base"])
    own = {(split, base) for split, names in bases.items() for base in names[: SPLITS[split] // 2]}
    sources["categories"] = [row for row in rows if (row["split"], row["base"]) in own]
    for name in ("myopia", "sycophancy"):
        path = DATA / "behaviours" / f"{name}.jsonl"
        sources[name] = first_rows(
            path, "answer_matching_behavior", {"fit": 24, "tune": 8, "test": 12}
        )
    for name, own_rows in sources.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own_rows))
    paths = {name: str(folder / f"{name}.jsonl") for name in sources}
    (folder / "study.toml").write_text(STUDY.format(**paths))
    return paths | {"study": str(folder / "study.toml")}


def flat(value: object, where: str = "") -> dict[str, object]:
    """Every number, string and None with its dotted path, but timings and paths."""
    if isinstance(value, dict):
        pairs = [(str(key), item) for key, item in value.items() if key not in LEFT_OUT]
    elif isinstance(value, list):
        pairs = [(str(i), item) for i, item in enumerate(value)]
    elif isinstance(value, str) and re.search(r"(^|\s)[/~]\w", value):
        return {}
    else:
        return {where: float(f"{value:.6g}") if isinstance(value, float) else value}
    figures = {} if pairs else {where: f"empty {type(value).__name__}"}
    for key, item in pairs:
        figures |= flat(item, f"{where}.{key}" if where else key)
    return figures


def answers(folder: Path) -> dict[str, object]:
    """How many distinct answers a run's files hold, and a digest of them with their prompts."""
    pairs = set()
    for path in folder.glob("*.jsonl"):
        for row in map(json.loads, path.read_text().splitlines()):
            value = row.get("value")
            given = {**value, **row} if isinstance(value, dict) else row
            pairs |= {
                (row["prompt"], str(given[name]))
                for name in ANSWER
                if "prompt" in row and name in given
            }
    digest = hashlib.sha256(json.dumps(sorted(pairs)).encode()).hexdigest()
    return {"answers": {"number": len(pairs), "sha256": digest}} if pairs else {}


def moved(file: Path) -> dict[str, float]:
    """How far each saved program moves the logits after a prompt, mean over prompts and vocabulary:
    a figure that goes with every strength, where greedy answers seldom change."""
    runner = Runner.open(find_model("nnsteer:organism"))
    plain = torch.cat(runner.logits(PROBES))
    programs = load_programs(file).items()
    return {
        name: (torch.cat(runner.logits(PROBES, p)) - plain).abs().mean().item()
        for name, p in programs
    }


def figures_of(name: str, folder: Path) -> dict[str, object]:
    """What a run leaves, flat."""
    options = [option.format(**write_sources(folder)) for option in RUNS[name]]
    out = folder / "out"
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # not patch.dict, which forgets what was imported meanwhile
        patch.setitem(sys.modules, "transformer_lens.model_bridge", None)
        main([*options, "--out", str(out)])
    results = {
        path.name: json.loads(path.read_text())
        for path in out.glob("*.json")
        if path.name in RESULTS
    }
    assert results, (
        f"none of {', '.join(RESULTS)} in {out}: {sorted(path.name for path in out.iterdir())}"
    )
    if (file := out / "programs.safetensors").exists():
        results["moved"] = moved(file)
    return flat(results | answers(out))


def alike(got: object, want: object) -> bool:
    if isinstance(got, float) and isinstance(want, float | int) and not isinstance(want, bool):
        close = math.isclose(got, want, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        return close or (math.isnan(got) and math.isnan(want))
    return type(got) is type(want) and got == want


def differences(got: dict[str, object], want: dict[str, object]) -> list[str]:
    lines = []
    for path in [*want, *(path for path in got if path not in want)]:
        if path not in got:
            lines.append(f"{path}: gone, was {want[path]!r}")
        elif path not in want:
            lines.append(f"{path}: {got[path]!r}, new")
        elif not alike(got[path], want[path]):
            lines.append(f"{path}: {got[path]!r}, was {want[path]!r}")
    return lines


@pytest.mark.parametrize("name", RUNS)
def test_a_small_run_has_the_locked_figures(name, tmp_path):
    want = read(LOCKED / f"{name}.json")
    lines = differences(figures_of(name, tmp_path), want)
    shown = "\n  ".join(lines[:SHOWN])
    assert not lines, f"{name}: {len(lines)} of {len(want)} figures differ, among them\n  {shown}"


def read(path: Path) -> dict[str, object]:
    return {
        f"{parent}.{last}": value
        for parent, own in json.loads(path.read_text()).items()
        for last, value in own.items()
    }


def write(names: list[str]) -> None:
    LOCKED.mkdir(exist_ok=True)
    for name in names or RUNS:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            figures = figures_of(name, Path(folder))
        path = LOCKED / f"{name}.json"
        groups: dict[str, dict[str, object]] = defaultdict(
            dict
        )  # by all but the last part of their paths: half the size
        for where, value in figures.items():
            parent, last = where.rsplit(".", 1)
            groups[parent][last] = value
        lines = [f"{json.dumps(parent)}: {json.dumps(own)}" for parent, own in groups.items()]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        size = path.stat().st_size / 1000
        print(
            f"{name}: {len(figures)} figures, {size:.0f} kB, {time.monotonic() - begun:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] != ["--write"]:
        raise SystemExit(__doc__)
    write(sys.argv[2:])
