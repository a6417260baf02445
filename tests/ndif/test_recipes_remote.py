"""The other recipes against NDIF's own sandbox and through nnsight's simulation of a server, beside
the same runs here."""

from __future__ import annotations

import json

import pytest

from nnsteer.__main__ import main
from serving import KEY, NAME

pytest_plugins = ["loopback_fixtures"]
RECIPES = {
    "affine": [
        "--methods", "ace", "add", "ablate", "random", "--alphas", "0", "1", "--layer", "2", "--fit-prompts", "60",
        "--tune-prompts", "4", "--test-prompts", "6", "--max-new-tokens", "6",
    ],
    "skills": [
        "--fit-documents", "24", "--tune-documents", "12", "--test-documents", "12", "--max-tokens", "32",
        "--layers", "1", "1+2", "--coefficients", "0", "2", "8", "30",
    ],
    "behaviours": [
        "--behaviours", "nnsteer:behaviours/myopia.jsonl", "nnsteer:behaviours/sycophancy.jsonl",
        "--layers", "1", "--coefficients", "2", "--scalars", "1", "--texts", "4",
    ],
}  # fmt: skip
ROUNDING = 1e-3


def run(recipe, out, *options):
    main(["recipe", recipe, *RECIPES[recipe], "--out", str(out), *options])
    summary = json.loads((out / "summary.json").read_text())
    return {name: figures for name, figures in summary.items() if name != "seconds"}


def alike(got, want, where):
    """The same figures, but for the rounding of another batch."""
    if isinstance(want, dict):
        assert got.keys() == want.keys(), where
        for key in want:
            alike(got[key], want[key], f"{where}.{key}")
    elif isinstance(want, list):
        assert len(got) == len(want), where
        for i, pair in enumerate(zip(got, want, strict=True)):
            alike(*pair, f"{where}[{i}]")
    elif isinstance(want, float):
        assert got == pytest.approx(want, abs=ROUNDING, nan_ok=True), where
    else:
        assert got == want, where


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_figures_here_simulated_and_on_a_server(
    recipe, sandbox, served, tmp_path, monkeypatch
):
    monkeypatch.setenv("NDIF_API_KEY", KEY)
    here = run(recipe, tmp_path / "here", "--model", str(served))
    assert here
    ways = {
        "local": ["--remote", "local"],
        "there": ["--remote", sandbox.url, "--remote-model", NAME],
    }
    for name, options in ways.items():
        alike(run(recipe, tmp_path / name, "--model", str(served), *options), here, name)
    assert sandbox.jobs()
