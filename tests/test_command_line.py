"""What the `nnsteer` command does before a verb begins: help, presets, completion, exit status, and
all of it at once."""

from __future__ import annotations

import re
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import fields
from importlib import import_module

import pytest

from nnsteer import command
from nnsteer.__main__ import VERBS, main
from nnsteer.measure.named import KNOWN
from nnsteer.study.spec import AXES, TOP, ConditionSpec, DirectionSpec, SetSpec

HELP = """
import sys
from nnsteer.__main__ import VERBS, main
for name in VERBS:
    try:
        main([*name.split(), "--help"])
    except SystemExit:
        pass
heavy = ("torch", "transformers", "nnsight", "scipy", "matplotlib", "datasets")
print([m for m, module in sys.modules.items() if m in heavy and getattr(module, "__file__", None)])
"""
LIGHT = [verb.module for verb in VERBS.values() if verb.module.startswith("nnsteer.cli")]


def nnsteer(*args):
    main([str(arg) for arg in args])


def test_the_help_lists_every_verb_with_its_example_and_the_exit_codes(capsys):
    for args in ([], ["--help"], ["-h"]):
        nnsteer(*args)
        said = capsys.readouterr().out
        assert all(
            f"  {name} " in said and f"nnsteer {verb.example}" in said
            for name, verb in VERBS.items()
        )
        assert all(
            word in said
            for word in ("0 done", "2 a mistake", "130 stopped", "--tyro-write-completion")
        )
    nnsteer("recipe", "--help")
    assert "recipe refusal" in (said := capsys.readouterr().out) and "nnsteer fit" not in said
    nnsteer("--version")
    assert capsys.readouterr().out.startswith("nnsteer 0.")


@pytest.mark.parametrize("name", VERBS)
def test_a_verbs_help_tells_its_options_and_its_examples_can_be_parsed(name, capsys):
    module = import_module(VERBS[name].module)
    with pytest.raises(SystemExit) as stop:
        nnsteer(*name.split(), "--help")
    said = capsys.readouterr().out
    assert (
        not stop.value.code and said.startswith(f"usage: nnsteer {name}") and said.count("--") >= 1
    )
    lines = module.__doc__.replace("\\\n", " ").splitlines()
    examples = [
        line.strip().removeprefix("nnsteer ") for line in lines if line.startswith("    nnsteer ")
    ]
    assert examples or not VERBS[name].module.startswith("nnsteer.cli")
    for example in (VERBS[name].example, *examples):
        words = shlex.split(example, comments=True)
        assert words[: len(name.split())] == name.split()
        command.parse(module.Config, "", words[len(name.split()) :])


def letters(help):
    """Without frames, spaces and line ends, which are where the lines happen to break."""
    return re.sub(r"[│╭╮╰╯─\s]+|-{9,}", "", help)


def test_a_verbs_help_is_the_same_without_the_libraries_that_it_runs_on(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    *helped, loaded = subprocess.run(
        [sys.executable, "-c", HELP], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert loaded == "[]"
    for name in VERBS:  # here, where torch is loaded
        with pytest.raises(SystemExit):
            nnsteer(*name.split(), "--help")
    assert letters(capsys.readouterr().out) == letters(" ".join(helped)) != ""


def test_the_studys_help_names_every_entry_of_the_file_and_every_measure():
    said = import_module("nnsteer.cli.study").__doc__
    for name, kind in (
        ("sets", SetSpec),
        ("directions", DirectionSpec),
        ("conditions", ConditionSpec),
    ):
        part = said.partition(f"[{name}.NAME]")[2].partition("\n    [")[0]
        assert all(f"    {field.name} = " in part for field in fields(kind)), name
    assert all(f"    {axis} = " in said.partition("[[variants]]")[2] for axis in AXES)
    assert all(f"{name} = " in said or f"[{name}" in said for name in TOP)
    assert all(re.search(rf"\b{form.partition(':')[0]}\b", said) for form in KNOWN)


def test_an_option_that_may_be_left_out_is_shown_as_what_it_takes(capsys):
    with pytest.raises(SystemExit):
        nnsteer("fit", "--help")
    said = capsys.readouterr().out
    assert "--layers [INT [INT ...]]" in said and "--revision STR" in said and "{None}" not in said
    found = command.parse(
        import_module("nnsteer.cli.fit").Config,
        "",
        ["--positive", "a", "--negative", "b", "--layers", "1", "2"],
    )
    assert found.layers == (1, 2) and found.model.revision is None


def test_a_reader_that_has_heard_enough_sees_no_traceback():
    """As in `nnsteer fit --help | head -1`."""
    started = [
        sys.executable,
        "-c",
        "import time, nnsteer.__main__ as m; time.sleep(1); m.main(['fit', '--help'])",
    ]
    with subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 141


def test_a_preset_may_set_grouped_options_and_flags_and_leaves_arguments_alone(tmp_path):
    (tmp_path / "p.toml").write_text(
        'layers = [1, 2]\nmodel = "org/name"\ntemplate = false\nuntie = true\n'
    )
    generate, bake = (import_module(f"nnsteer.cli.{name}").Config for name in ("generate", "bake"))
    with pytest.raises(command.UserError, match="no such option: untie"):
        command.parse(generate, "", ["--config", str(tmp_path / "p.toml")])
    (tmp_path / "p.toml").write_text('layers = [1, 2]\nmodel = "org/name"\ntemplate = false\n')
    found = command.parse(
        generate, "", ["--config", str(tmp_path / "p.toml"), "Hi", "--strength", "2"]
    )
    assert (found.prompts.prompts, found.program.steer.layers, found.program.steer.strength) == (
        ("Hi",),
        (1, 2),
        2.0,
    )
    assert (found.model.model, found.chat.template) == ("org/name", False)
    assert command.parse(
        generate, "", ["--config", str(tmp_path / "p.toml"), "--template"]
    ).chat.template
    (tmp_path / "p.toml").write_text("untie = true\n")
    assert command.parse(bake, "", ["--config", str(tmp_path / "p.toml")]).untie


def test_stopping_ends_with_130(monkeypatch, capsys):
    def stopped(config):
        raise KeyboardInterrupt

    monkeypatch.setattr("nnsteer.cli.bake.main", stopped)
    with pytest.raises(SystemExit) as stop:
        nnsteer("bake")
    assert stop.value.code == 130 and capsys.readouterr().err.startswith("stopped")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_every_verb_and_its_options(shell, tmp_path):
    with pytest.raises(SystemExit) as stop:
        nnsteer("--tyro-write-completion", shell, tmp_path / "script")
    script = (tmp_path / "script").read_text()
    assert not stop.value.code
    assert all(word in script for name in VERBS for word in name.split())
    assert all(
        word in script
        for word in ("--condition-layers", "--max-new-tokens", "--dry-run", "--expected-lengths")
    )


def test_the_help_is_there_at_once_and_no_verb_waits_for_torch():
    seconds = []
    for _ in range(5):
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "nnsteer", "--help"], capture_output=True, text=True, check=True
        )
        seconds.append(time.monotonic() - start)
    assert done.stdout.startswith("usage: nnsteer VERB")
    assert statistics.median(seconds) < 1.5, seconds
    code = f"import sys, {', '.join(LIGHT)}; print([m for m in ('torch', 'transformers', 'datasets', 'scipy') if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
    unknown = subprocess.run(
        [sys.executable, "-m", "nnsteer", "fti"], capture_output=True, text=True, check=False
    )
    assert unknown.returncode == 2 and unknown.stderr.startswith("error: fti: no such verb")
