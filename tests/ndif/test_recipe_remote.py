"""The refusal recipe against NDIF's own sandbox, beside the same run here."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import torch

from nnsteer.program.files import load_directions
from serving import KEY, NAME

pytest_plugins = ["loopback_fixtures"]
SMALL = [
    "--pairs",
    "40",
    "--condition-pairs",
    "80",
    "--tune-prompts",
    "4",
    "--layers",
    "1",
    "--strength",
    "1",
    "--batch-size",
    "600",
]
SMALL += ["--max-new-tokens", "8", "--max-broken", "1"]


def recipe(out, *options):
    command = [sys.executable, "-m", "nnsteer.recipes.refusal", *SMALL, "--out", str(out), *options]
    done = subprocess.run(
        command, env=os.environ | {"NDIF_API_KEY": KEY}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_the_same_directions_answers_and_rates(sandbox, served, tmp_path):
    recipe(tmp_path / "here", "--model", str(served))
    said = recipe(
        tmp_path / "there", "--model", str(served), "--remote", sandbox.url, "--remote-model", NAME
    )
    done = {
        row["id"]
        for row in map(json.loads, (tmp_path / "there" / "requests.jsonl").read_text().splitlines())
        if row["state"] == "done"
    }
    assert (
        done == {job["id"] for job in sandbox.jobs()}
        and not (tmp_path / "here" / "requests.jsonl").exists()
    )
    for name in ("behaviour_last", "behaviour_all", "behaviour_first_3", "condition"):
        got, want = (
            load_directions(tmp_path / where / f"{name}.safetensors") for where in ("there", "here")
        )
        for site, direction in want.items():
            torch.testing.assert_close(got[site].vector, direction.vector, atol=1e-5, rtol=1e-5)
    got, want = (
        json.loads((tmp_path / where / "summary.json").read_text()) for where in ("there", "here")
    )
    assert (
        got["variants"] == want["variants"]
        and got["condition"]["layer"] == want["condition"]["layer"]
    )
    lines = (
        (tmp_path / where / "completions.jsonl").read_text().splitlines()
        for where in ("there", "here")
    )
    rows = [
        sorted((row["variant"], row["prompt"], row["completion"]) for row in map(json.loads, own))
        for own in lines
    ]
    assert rows[0] == rows[1]
    written = "".join(
        path.read_text(errors="ignore")
        for path in (tmp_path / "there").rglob("*")
        if path.is_file()
    )
    assert KEY not in written + said.stdout + said.stderr
