"""A user's mistakes: one line, status 2, no traceback, nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from nnsteer import command
from nnsteer.progress import STDERR, bar
from nnsteer.recipes.refusal import Config, main


@pytest.fixture
def rows(tmp_path):
    good = tmp_path / "good.jsonl"
    good.write_text(
        "".join(json.dumps({"prompt": f"Ask me about matter number {i}"}) + "\n" for i in range(12))
    )
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"\n')
    (tmp_path / "empty.jsonl").write_text("")
    return tmp_path


def mistake(capsys, *args):
    """Runs the recipe, expects it to end at once, and returns what it said."""
    with pytest.raises(SystemExit) as stop:
        command.run(Config, main, "", [str(a) for a in args])
    said = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    assert len(said) == 1, said
    return said[0]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--harmful", "nowhere.jsonl"], "data nowhere.jsonl: no such file"),
        (["--harmful", "bad.jsonl"], "bad.jsonl, line 2: not JSON"),
        (["--harmless", "empty.jsonl"], "empty.jsonl: no prompt left for its fit split"),
        (["--layers", "2", "9"], "layer 9: this model has 4 layers; give layers from 0 to 3"),
        (["--condition-layers", "-1"], "layer -1: this model has 4 layers"),
        (["--strength", "strong"], "strength"),
        (["--strength", "nan"], "--strength nan: must be a finite number"),
        (["--pairs", "0"], "--pairs 0: must be at least 1"),
        (["--model", "no/such/folder"], "model no/such/folder: no such folder, and not a hub id"),
        (["--config", "nowhere.toml"], "--config nowhere.toml: no such file"),
        (["--strenght", "1"], "strenght"),
        (["--method", "magic"], "method"),
    ],
)
def test_bad_input_ends_in_one_line(capsys, monkeypatch, rows, args, says):
    monkeypatch.chdir(rows)
    before = sorted(rows.rglob("*"))
    assert says in mistake(capsys, *args, "--out", "run")
    assert sorted(rows.rglob("*")) == before


def test_a_preset_with_an_unknown_option_or_broken_toml_is_refused(capsys, rows):
    (rows / "p.toml").write_text("strenght = 1.0\n")
    assert "no such option: strenght; known: model" in mistake(capsys, "--config", rows / "p.toml")
    (rows / "p.toml").write_text("strength = \n")
    assert "not TOML" in mistake(capsys, "--config", rows / "p.toml")
    (rows / "p.toml").write_text('strength = "strong"\n')
    assert "strength" in mistake(capsys, "--config", rows / "p.toml", "--out", rows / "run")
    assert not (rows / "run").exists()


def test_options_override_the_preset_which_overrides_the_defaults(rows):
    (rows / "p.toml").write_text('strength = 1.5\nlayers = [1, 2]\nmethod = "mean_difference"\n')
    config = command.parse(Config, "", ["--strength", "0.5", "--config", str(rows / "p.toml")])
    assert (config.strength, config.layers, config.method, config.seed) == (
        0.5,
        (1, 2),
        "mean_difference",
        0,
    )


def test_the_bundled_preset_is_the_default_run(pytestconfig):
    preset = pytestconfig.rootpath / "recipes" / "refusal.toml"
    assert command.parse(Config, "", ["--config", str(preset)]) == Config()


def test_a_model_without_tokenizer_or_template_is_refused(capsys, folder, tmp_path):
    for name, lost, says in (
        (
            "bare",
            ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
            "no usable tokenizer",
        ),
        ("untemplated", ("chat_template.jinja",), "its tokenizer has no chat template"),
        ("hollow", ("config.json",), "no config.json in it"),
        ("weightless", ("model.safetensors",), "its weights can't be loaded"),
    ):
        copy = tmp_path / name
        copy.mkdir()
        for file in folder.iterdir():
            if file.name not in lost:
                (copy / file.name).write_bytes(file.read_bytes())
        assert says in mistake(capsys, "--model", copy, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_something_else_is_left_alone(capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    assert "holds files that are not a run" in mistake(capsys, "--out", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    assert "is a file" in mistake(capsys, "--out", tmp_path / "thesis.tex")


def test_a_hub_id_that_cannot_be_reached_is_one_line_without_a_traceback(tmp_path):
    """In a process of its own, as a user meets it; the address answers nobody."""
    done = subprocess.run(
        [sys.executable, "-m", "nnsteer.recipes.refusal", "--model", "org/name", "--out", str(tmp_path / "run")],
        capture_output=True, text=True, check=False, timeout=120,
        env={"HF_ENDPOINT": "http://127.0.0.1:9", "PATH": "/usr/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: model org/name: ")
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()


@pytest.mark.parametrize("args", [["--quiet"], []], ids=["quiet", "not"])
def test_quiet_takes_the_bars_away(capsys, monkeypatch, args):
    monkeypatch.setattr(STDERR, "quiet", False)
    monkeypatch.setattr(STDERR, "_force_terminal", True)

    def main(config):
        with bar("reading", 1) as advance:
            advance(1)

    command.run(Config, main, "", ["--out", "runs/x", *args])
    assert ("reading" in capsys.readouterr().err) != bool(args)


def test_a_bare_remote_is_ndif():
    assert command.parse(Config, "", ["--remote", "--out", "runs/x"]).remote == "ndif"
    assert command.parse(Config, "", ["--remote", "http://here"]).remote == "http://here"
    assert command.parse(Config, "", ["--remote"]).remote == "ndif"


HELD = """
import re, sys
from pathlib import Path
import torch
from nnsteer.memory import keep_freed_memory

def megabytes():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10

if sys.argv[1] == "kept":
    keep_freed_memory()
before = megabytes()
tensors = [torch.ones(4 << 20) for _ in range(16)]  # 16 MB each
tensors.clear()
print(megabytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_is_kept_for_the_next_batch():
    def held(way):
        started = [sys.executable, "-c", HELD, way]
        return int(subprocess.run(started, check=True, capture_output=True, text=True).stdout)

    assert held("given back") < 64 < 192 < held("kept")
