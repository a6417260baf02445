"""Ops, methods, measures and recipes of other packages: CONTRIBUTING.md's own, run as they stand
there."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import torch

from nnsteer import fit, registry
from nnsteer.__main__ import main
from nnsteer.errors import UserError
from nnsteer.measure.named import measures
from nnsteer.program.files import load_directions, load_programs, save_programs
from nnsteer.program.op import Custom, KeepNorm
from nnsteer.program.program import OPS, Program, Step, op_named
from nnsteer.program.site import Site
from nnsteer.program.span import ALL
from nnsteer.study.cells import fingerprint
from nnsteer.study.spec import read_spec

from conftest import HARMFUL, HARMLESS, MIXED

BLOCK = re.compile(r"```(?:python|toml)\n# (\S+)\n(.*?)```", re.DOTALL)
EXAMPLES = dict(BLOCK.findall((Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()))
MORE = """
from nnsteer import Custom, Program, Step
from nnsteer.program.op import Add, KeepNorm

def turned(directions, strength, span):
    return Program(tuple(Step(KeepNorm(Add(d, strength)), site, span) for site, d in directions.items()))

def halved(h):
    return h / 2

def halving(directions, strength, span):
    return Program(tuple(Step(Custom(halved, ()), site, span) for site in directions))

def inside(directions, strength, span):
    return lambda h: h

number = 3

def nothing():
    return 3
"""


def nnsteer(*args):
    main([str(arg) for arg in args])


def mistake(capsys, *args):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        nnsteer(*args)
    said = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and len(said) == 1, said
    return said[0]


def write(path, points):
    """The examples as an installed package; entry points that are not theirs besides."""
    for name, text in EXAMPLES.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(text)
    (path / "my_steering" / "more.py").write_text(MORE)
    (path / "my_steering" / "broken.py").write_text("import nowhere_at_all\n")
    info = path / "my_steering-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-steering\nVersion: 1\n")
    groups = tomllib.loads(EXAMPLES["pyproject.toml"])["project"]["entry-points"]
    every = {group: own | points.get(group, {}) for group, own in groups.items()}
    lines = [
        f"[{group}]\n" + "".join(f"{n} = {value}\n" for n, value in own.items())
        for group, own in every.items()
    ]
    (info / "entry_points.txt").write_text("".join(lines))


@pytest.fixture
def package(tmp_path, monkeypatch):
    path = tmp_path / "site"
    path.mkdir()
    write(
        path,
        {
            "nnsteer.ops": {"add": "my_steering.op:cap"},
            "nnsteer.recipes": {"bad": "my_steering.more"},
        },
    )
    monkeypatch.syspath_prepend(str(path))
    yield path
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_steering"]:
        del sys.modules[name]


@pytest.fixture
def sides(tmp_path):
    for name, prompts in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        rows = [{"prompt": f"{p} ({i})"} for i in range(7) for p in prompts]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["--positive", tmp_path / "harmful.jsonl", "--negative", tmp_path / "harmless.jsonl"]


STUDY = """
model = {model!r}
max_new_tokens = 3
measures = [{measure!r}]
[sets.mixed]
source = {harmful!r}
first = 2
[directions.d]
positive = {harmful!r}
negative = {harmless!r}
[[variants]]
direction = "d"
layer = 1
op = {op!r}
method = {method!r}
"""


def study(tmp_path, folder, op="cap", method="medians", measure="capitals"):
    sources = {name: str(tmp_path / f"{name}.jsonl") for name in ("harmful", "harmless")}
    file = tmp_path / "s.toml"
    file.write_text(
        STUDY.format(model=str(folder), op=op, method=method, measure=measure, **sources)
    )
    return file


def test_the_examples_are_all_there():
    assert list(EXAMPLES) == [
        "pyproject.toml",
        *(f"my_steering/{kind}.py" for kind in ("op", "method", "measure", "recipe")),
    ]


NAMES = {
    "entry points": {"op": "cap", "method": "medians", "measure": "capitals"},
    "module:function": {
        "op": "my_steering.op:cap", "method": "my_steering.method:medians", "measure": "my_steering.measure:capitals",
    },
    "own steps of nnsteer's ops": {"op": "my_steering.more:turned"},
}  # fmt: skip


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_a_study_of_ones_own_op_method_and_measure(package, sides, folder, tmp_path, names):
    file, out = study(tmp_path, folder, **names), tmp_path / "run"
    nnsteer("study", file, "--out", out)
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * 2 and {row["measure"] for row in rows} == {
        names.get("measure", "capitals")
    }
    answers = {
        row["key"]: row["completion"]
        for row in map(json.loads, (out / "completions.jsonl").read_text().splitlines())
    }
    assert any(answers.values())
    shares = [sum(c.isupper() for c in text) / max(1, len(text)) for text in answers.values()]
    assert sorted(row["value"] for row in rows) == pytest.approx(sorted(shares))
    (fitted,) = out.glob("direction_*.safetensors")
    assert {d.method for d in load_directions(fitted).values()} == {"medians"}
    assert (out / "report.html").exists()


def test_the_op_does_what_it_says_and_is_saved_by_name(package, runner, activations, tmp_path):
    own = {Site(2): fit.method_named("medians")(activations)[Site(2)]}
    program = op_named("cap")(own, 0.1, ALL)
    found = runner.with_batch_size(1)
    along = own[Site(2)].unit().vector
    states = torch.randn(2, 3, 32) * 9
    op = program.steps[0].op
    new = op.function(states, *op.tensors) @ along
    assert torch.allclose(
        new, (states @ along).clamp(max=0.1 * own[Site(2)].vector.norm()), atol=1e-4
    )
    kept = Program((Step(KeepNorm(op), Site(2)),))
    programs = {
        "cap": program,
        "kept": kept,
        "turned": op_named("my_steering.more:turned")(own, 1.0, ALL),
    }
    save_programs(tmp_path / "p.safetensors", programs)
    again = load_programs(tmp_path / "p.safetensors")
    assert {name: fingerprint(p) for name, p in again.items()} == {
        name: fingerprint(p) for name, p in programs.items()
    }
    assert again["cap"].steps[0].op.function is op.function
    for name, one in programs.items():
        before, after, plain = (
            found.logits(MIXED[:1], p)[0] for p in (one, again[name], Program())
        )
        assert (before - after).abs().max() < 1e-4 and (before - plain).abs().max() > 1e-2


def test_a_programs_key_changes_with_the_functions_code_and_its_tensors(package, activations):
    own = fit.method_named("medians")(activations)
    programs = [op_named("cap")(own, strength, ALL) for strength in (0.1, 0.2, 0.1)]
    first, other, same = map(fingerprint, programs)
    assert first == same != other
    changed(package, "min=0", "min=1")
    assert fingerprint(op_named("cap")(own, 0.1, ALL)) != first
    changed(package, "min=1", "min=0")
    changed(package, "    return h -", "    # a remark\n    return h -")
    assert fingerprint(op_named("cap")(own, 0.1, ALL)) == first


def changed(package, old, new):
    """The op's file with other text, imported again."""
    file = package / "my_steering" / "op.py"
    file.write_text(file.read_text().replace(old, new))
    for path in (package / "my_steering" / "__pycache__").glob("op.*"):
        path.unlink()
    sys.modules.pop("my_steering.op", None)


def test_a_saved_function_that_is_missing_or_another_is_refused(
    package, activations, tmp_path, monkeypatch
):
    own = fit.method_named("medians")(activations)
    save_programs(tmp_path / "p.safetensors", {"cap": op_named("cap")(own, 0.1, ALL)})
    changed(package, "min=0", "min=1")
    with pytest.raises(
        UserError, match=r"op my_steering.op:capped: has changed since it was saved"
    ):
        load_programs(tmp_path / "p.safetensors")
    changed(package, "capped", "clipped")
    with pytest.raises(
        UserError, match=r"op my_steering.op:capped: my_steering.op has no 'capped'"
    ):
        load_programs(tmp_path / "p.safetensors")
    (
        sys.modules.pop("my_steering.op"),
        sys.modules.pop("my_steering"),
        monkeypatch.setattr(sys, "path", sys.path[1:]),
    )
    with pytest.raises(
        UserError, match=r"op my_steering.op:capped: a file has no module imported"
    ) as error:
        load_programs(tmp_path / "p.safetensors")
    assert "\n" not in str(error.value)


def test_a_file_has_no_module_imported_that_no_installed_package_names(
    package, activations, tmp_path
):
    own = fit.method_named("medians")(activations)
    save_programs(
        tmp_path / "p.safetensors", {"halving": op_named("my_steering.more:halving")(own, 1.0, ALL)}
    )
    sys.modules.pop("my_steering.more")
    with pytest.raises(UserError, match=r"`import my_steering.more` before loading it"):
        load_programs(tmp_path / "p.safetensors")
    assert "my_steering.more" not in sys.modules
    import_module("my_steering.more")
    assert load_programs(tmp_path / "p.safetensors")


def test_a_function_that_no_name_finds_is_not_saved(package, tmp_path):
    for function in (torch.tanh, lambda h: h, op_named("my_steering.more:inside")({}, 1.0, ALL)):
        with pytest.raises(UserError, match="can be saved; put it by itself in a module") as error:
            save_programs(
                tmp_path / "p.safetensors", {"p": Program((Step(Custom(function), Site(1)),))}
            )
        assert "\n" not in str(error.value) and not list(tmp_path.glob("p.*"))


def test_ones_own_method_and_op_on_the_command_line(package, sides, folder, tmp_path):
    nnsteer(
        "fit", *sides, "--model", folder, "--method", "medians", "--out", tmp_path / "d.safetensors"
    )
    given = [
        "--directions",
        tmp_path / "d.safetensors",
        "--layers",
        1,
        "--strength",
        0.1,
        "--model",
        folder,
    ]
    answers = {}
    for op in ("cap", "my_steering.op:cap"):
        out = tmp_path / f"{len(op)}.jsonl"
        nnsteer("generate", "Hi", *given, "--op", op, "--max-new-tokens", 4, "--out", out)
        answers[op] = json.loads(out.read_text())["steered"]
    assert answers["cap"] == answers["my_steering.op:cap"]


def test_ones_own_recipe_is_listed_and_runs(package, sides, folder, capsys, tmp_path):
    for args in (["--help"], ["recipe", "--help"]):
        nnsteer(*args)
        assert (
            "  recipe mine " in (said := capsys.readouterr().out) and "my_steering.recipe" in said
        )
    assert not [
        name for name in sys.modules if name.startswith("my_steering")
    ]  # the list imports nothing
    with pytest.raises(SystemExit) as stop:
        nnsteer("recipe", "mine", "--help")
    said = capsys.readouterr().out
    assert (
        not stop.value.code
        and "Answer a prompt at several strengths" in said
        and "--strengths" in said
    )
    nnsteer("recipe", "mine", *sides, "--model", folder, "--strengths", 0, 2)
    assert [
        line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()
    ] == ["0", "2"]
    assert "no such verb; did you mean recipe mine?" in mistake(capsys, "recipe", "mien")
    assert "recipe bad: my_steering.more has no Config and no main" in mistake(
        capsys, "recipe", "bad"
    )


def test_nothing_shadows_what_nnsteer_brings(package):
    assert op_named("add") is OPS["add"] and op_named("cap").__module__ == "my_steering.op"


def test_two_packages_with_one_name_are_told_apart(package):
    other = package / "other-1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (other / "entry_points.txt").write_text("[nnsteer.ops]\ncap = other.op:cap\n")
    with pytest.raises(UserError, match=r"op cap: is .*other.op:cap.*; give the one that is meant"):
        op_named("cap")
    assert op_named("my_steering.op:cap")


WRONG = [
    (
        "magic",
        "no such {kind}; "
        "there are .*, or one's own as module:function or by an entry point in nnsteer.{kind}s",
    ),
    (
        "nowhere.op:cap",
        r"'nowhere.op' can't be imported \(ModuleNotFoundError: No module named 'nowhere'\); install its",
    ),
    (
        "my_steering.broken:f",
        r"'my_steering.broken' can't be imported \(ModuleNotFoundError: No module named 'nowhere_at_all'",
    ),
    ("my_steering.more:none", "my_steering.more has no 'none'; give another"),
    ("my_steering.more:number", "my_steering.more:number is not a function"),
    (":", r"'' can't be imported"),
]


@pytest.mark.parametrize(("name", "says"), WRONG)
def test_a_wrong_name_is_one_line_before_any_model(
    package, sides, folder, tmp_path, capsys, monkeypatch, name, says
):
    nnsteer("fit", *sides, "--model", folder, "--out", tmp_path / "d.safetensors")
    monkeypatch.setattr(
        "nnsteer.model.load.AutoModelForCausalLM.from_pretrained",
        lambda *_, **__: pytest.fail("weights were loaded"),
    )
    steer = ["--directions", tmp_path / "d.safetensors", "--model", folder]
    given = {
        "op": ["generate", "Hi", *steer, "--op", name],
        "method": [
            "fit",
            *sides,
            "--model",
            folder,
            "--method",
            name,
            "--out",
            tmp_path / "e.safetensors",
        ],
    }
    for kind, args in given.items():
        assert re.search(
            f"{kind} {re.escape(name)}: {says.format(kind=kind)}", mistake(capsys, *args)
        )
    recipe = [
        "recipe",
        "refusal",
        "--model",
        folder,
        "--condition-method",
        name,
        "--out",
        tmp_path / "run",
    ]
    assert f"method {name}: " in mistake(capsys, *recipe)
    for kind in ("op", "method", "measure"):
        file = study(tmp_path, folder, **{kind: name})
        said = mistake(capsys, "study", file, "--out", tmp_path / "run")
        assert re.search(f"{kind} {re.escape(name)}: {says.format(kind=kind)}", said)
        assert kind == "measure" or f"{file}, [[variants]] {kind}" in said
    assert not (tmp_path / "run").exists() and not (tmp_path / "e.safetensors").exists()


def test_a_measure_that_is_none_is_refused(package, tmp_path):
    with pytest.raises(
        UserError,
        match=r"measure my_steering.more:nothing: gives int; give a function to an AnswerMeasure",
    ):
        measures(["my_steering.more:nothing"], [], tmp_path)


def test_a_studys_method_of_a_condition_is_looked_up_too(package, sides, folder, tmp_path):
    file = study(tmp_path, folder)
    file.write_text(
        file.read_text() + '[conditions.c]\ndirection = "d"\nlayer = 1\nmethod = "magic"\n'
    )
    with pytest.raises(UserError, match=r"\[conditions.c\] method magic: no such method"):
        read_spec(file)


def test_builtin_names_come_first_in_the_list(package):
    said = registry.unknown("nnsteer.ops", OPS, "x")
    assert (
        said.startswith("op x: no such op; there are add, ablate, affine, clamp, ")
        and "cap, or one's own" in said
    )
