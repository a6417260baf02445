"""The behaviours recipe from files to page, and again from a folder in which it was killed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from test_evaluations import ITEMS, published

from nnsteer import command
from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.measure import choice, skill
from nnsteer.model.load import find_model
from nnsteer.model.runner import Runner
from nnsteer.program.files import load_directions, load_programs
from nnsteer.program.op import Add
from nnsteer.program.program import Program
from nnsteer.program.site import Site
from nnsteer.recipes.behaviours import Config, main
from nnsteer.recipes.behaviours.options import spaced
from nnsteer.recipes.behaviours.ways import DRAWS
from nnsteer.study import Variant
from nnsteer.study.table import Table
from nnsteer.texts.behaviours import Form, load_behaviour
from nnsteer.texts.bundled import data_path
from nnsteer.texts.sets import PromptSet
from nnsteer.texts.source import Prompt

from conftest import MIXED


@pytest.fixture(scope="module")
def config(folder, tmp_path_factory):
    """A small run on a random model, whose every answer is faulty: its answers are noise, its
    bookkeeping is not."""
    path = tmp_path_factory.mktemp("behaviours")
    split = lambda i: ("fit", "fit", "tune", "test")[i % 4]  # noqa: E731
    sources = [
        published(path / "wealth.jsonl", 16, (" (A)", " (B)"), split),
        published(path / "power.json", 16, (" Yes", " No")),
        published(path / "risk.jsonl", 16, ("(A)", "(B)")),
    ]
    (path / "text.jsonl").write_text(
        "".join(json.dumps({"text": text * 2}) + "\n" for text in MIXED)
    )
    return Config(
        model=str(folder), behaviours=tuple(map(str, sources)), coefficients=(1.0, 3.0), scalars=(0.5, 1.0), max_faulty=1.0,
        layers=(0, 2), text=str(path / "text.jsonl"), texts=3, batch_size=16, out=path / "out",
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(config):
    main(config)
    return config.out


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def near(row):
    """A line of rows.jsonl, its margin as another batch would have it."""
    margin = {k: pytest.approx(v, abs=1e-3) for k, v in row["value"].items() if k == "margin"}
    return row | {"value": row["value"] | margin}


def said_on_test(out, variant, name):
    """What was said of a behaviour's test items, by prompt."""
    rows = [
        row
        for row in lines(out / "rows.jsonl")
        if (row["variant"], row["set"]) == (variant, f"{name} test")
    ]
    return {row["prompt"]: row["value"] for row in rows}


ALONE = [f"{name} {sign}" for name in ("wealth", "power", "risk") for sign in "+-"]
TOGETHER = [
    f"{way} {sign}"
    for way in ("mean", "weighted mean", "sum", "weighted sum", "simultaneous")
    for sign in "+-"
]


def test_the_folder_holds_everything(done):
    names = {str(p.relative_to(done)) for p in done.rglob("*") if p.is_file() and p.name != ".lock"}
    tables = [
        "config",
        "cosines",
        "grid",
        "chosen",
        "sweep",
        "summary",
        "seconds",
        "texts",
        "variants",
    ]
    rows = ["rows"]
    tensors = ["direction_wealth", "direction_power", "direction_risk", "programs"]
    pictures = ["alone", "others", "together", "cosines", "interference", "sweep", "tax"]
    pictures += [f"grid-{name}" for name in ("wealth", "power", "risk")]
    assert names == {
        "report.html", *(f"{t}.json" for t in tables), *(f"{r}.jsonl" for r in rows), *(f"{t}.safetensors" for t in tensors),
        *(f"figures/{p}.{kind}" for p in pictures for kind in ("png", "pdf")),
    }  # fmt: skip


def test_rows_and_summary_agree(done):
    rows, summary = lines(done / "rows.jsonl"), json.loads((done / "summary.json").read_text())
    tested = {row["variant"] for row in rows if row["set"].endswith(" test")}
    assert tested == {"baseline", *ALONE, *TOGETHER, *(f"random {name}" for name in ALONE)}
    assert set(summary["alone"]) == {"wealth", "power", "risk"} and set(summary["together"]) == {
        "baseline",
        *TOGETHER,
    }
    for (variant, name), found in {
        **{
            (v, n): cell
            for v, own in (summary["together"] | summary["others"]).items()
            for n, cell in own.items()
        },
        **{
            (f"random {n} {s}", n): summary["alone"][n][s]["random"]
            for n in summary["alone"]
            for s in "+-"
        },
    }.items():
        own = list(said_on_test(done, variant, name).values())
        assert len(own) == found["n"] == (4 if name == "wealth" else 5)
        assert found["rate"] == sum(row["said"] == row["matching"] for row in own) / len(own)
        assert found["faulty"] == sum(
            row["said"] not in (row["matching"], row["other"]) for row in own
        ) / len(own)
        assert found["margin"] == pytest.approx(sum(row["margin"] for row in own) / len(own))
        assert found["low"] <= found["rate"] <= found["high"]


def test_general_text_is_pooled_over_its_tokens(done):
    rows = [row for row in lines(done / "rows.jsonl") if row["set"] == "text"]
    found = json.loads((done / "summary.json").read_text())["text"]
    assert {f"simultaneous {s}" for s in ("-1", "-0.5", "0", "0.5", "1")} | {
        "baseline",
        *ALONE,
        *TOGETHER,
    } <= set(found)
    for variant, cell in found.items():
        own = [row["value"] for row in rows if row["variant"] == variant]
        pooled = sum(row["top1"] for row in own) / sum(row["tokens"] for row in own)
        assert len(own) == 3 and cell["rate"] == pytest.approx(pooled)
        if variant != "baseline":
            assert cell["against_baseline"]["value"] == pytest.approx(
                pooled - found["baseline"]["rate"]
            )
    assert found["simultaneous 0"]["against_baseline"]["value"] == 0


def test_saved_programs_repeat_the_rows_and_are_those_that_were_chosen(done, config):
    programs, chosen = (
        load_programs(done / "programs.safetensors"),
        json.loads((done / "chosen.json").read_text()),
    )
    runner = Runner.open(find_model(config.model), batch_size=5)
    form = Form(config.question, config.opener)
    behaviours = {
        b.name: b for b in (load_behaviour(text, form, config.seed) for text in config.behaviours)
    }
    for variant in ("baseline", *ALONE, *TOGETHER):
        for name, behaviour in behaviours.items():
            prompts = [Prompt(item.prompt) for item in behaviour.test]
            again = choice.choice(behaviour.test).values(
                runner, [programs[variant]] * len(prompts), prompts
            )
            own = [said_on_test(done, variant, name)[prompt.text] for prompt in prompts]
            assert [row["said"] for row in again] == [row["said"] for row in own]
            assert [row["margin"] for row in again] == pytest.approx(
                [row["margin"] for row in own], abs=1e-3
            )
    for name in ALONE:
        (step,) = programs[name].steps
        direction = load_directions(done / f"direction_{name.split()[0]}.safetensors")[
            Site(chosen["alone"][name]["layer"])
        ]
        assert (
            step.op == Add(direction, chosen["alone"][name]["coefficient"])
            and step.site == direction.site
        )
        random = [programs[f"random {name} {i}"].steps[0].op.direction.vector for i in range(DRAWS)]
        assert all(
            vector.norm().item() == pytest.approx(direction.vector.norm().item(), rel=1e-4)
            for vector in random
        )
        assert len({tuple(vector.tolist()) for vector in random}) == DRAWS
    assert sorted(set(chosen["layers"].values())) == [0, 2]


def test_the_page_stands_alone_and_holds_every_item(done):
    page = (done / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 10 and page.count("<tr data-kind") == 4 + 5 + 5
    assert "not measured here" in page and 'src="http' not in page


def test_a_killed_run_goes_on_where_it_stopped_and_repeats_nothing(
    done, config, tmp_path, monkeypatch
):
    """Every third row of every step is lost, and half a line is at the end; they come back, and
    nothing else is asked again."""
    out = tmp_path / "killed"
    shutil.copytree(done, out)
    cut = (out / "rows.jsonl").read_bytes().splitlines(keepends=True)
    (out / "rows.jsonl").write_bytes(
        b"".join(line for i, line in enumerate(cut) if i % 3) + cut[0][:25]
    )
    asked, reply, count = [], choice.replies, skill.of_tokens
    monkeypatch.setattr(
        choice,
        "replies",
        lambda runner, prompts, *a: asked.extend(prompts) or reply(runner, prompts, *a),
    )
    monkeypatch.setattr(skill, "of_tokens", lambda *a: asked.extend(a[3]) or count(*a))
    monkeypatch.setattr(
        Runner, "moments", lambda *_, **__: pytest.fail("directions were read again")
    )
    monkeypatch.setattr(
        Runner, "record", lambda *_, **__: pytest.fail("directions were read again")
    )
    main(replace(config, out=out, batch_size=7))
    before = lines(done / "rows.jsonl")
    kept = {row["key"] for i, row in enumerate(before) if i % 3}
    assert len(asked) == len({row["key"] for row in before} - kept) > 50
    there = {where(row): row for row in lines(out / "rows.jsonl")}
    assert len(there) == len(before) == len(lines(out / "rows.jsonl"))
    for row in before:
        assert there[where(row)] == near(row)  # the batches differ
    assert json.loads((out / "chosen.json").read_text())["alone"].keys() == {*ALONE}


def where(row):
    return row["variant"], row["set"], row["prompt"]


def test_the_recipe_through_a_simulated_server_has_the_same_rows(done, config, tmp_path):
    main(replace(config, remote="local", out=tmp_path / "there"))
    for here, there in zip(
        lines(done / "rows.jsonl"), lines(tmp_path / "there" / "rows.jsonl"), strict=True
    ):
        assert there == near(here) | {"key": there["key"]}  # directions differ in their last digits


def test_rows_come_in_the_order_asked_whatever_the_file_holds(tmp_path, runner):
    table, prompts = Table(Folder(tmp_path), runner), tuple(Prompt(item.prompt) for item in ITEMS)

    def ask(prompts):
        sets = [PromptSet("b", prompts)]
        return table.ask([Variant("v", Program())], sets, [choice.choice(ITEMS)])

    first = ask(prompts[3:])
    found = ask(prompts)
    assert [row.prompt for row in found] == MIXED and found[3:] == first


def test_another_run_is_not_written_over(done, config):
    with pytest.raises(UserError, match=r"already holds another run \(balanced, seed differ\)"):
        main(replace(config, seed=1, balanced=False))


def test_the_presets_can_be_read_and_the_default_one_is_the_default():
    recipes = data_path("").parent / "recipes"
    default, paper = (
        command.parse(Config, "", ["--config", str(recipes / f"behaviours{which}.toml")])
        for which in ("", "-llama2")
    )
    assert default == Config()
    assert (
        paper.question == "Human:\n{question}\n\nAI:\n"
        and len(paper.simultaneous_layers) == len(paper.behaviours) == 5
    )


def test_a_large_models_layers_are_spaced_evenly():
    assert spaced(4) == (0, 1, 2, 3) and spaced(1) == (0,)
    assert spaced(32) == (0, 4, 9, 13, 18, 22, 27, 31)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--behaviours", "nowhere.jsonl"], "data nowhere.jsonl: no such file"),
        (["--behaviours", "prompts.jsonl"], "no text in column 'question' (columns: prompt)"),
        (
            ["--behaviours", "a=good.jsonl", "a=good.jsonl"],
            "--behaviours: a is given twice; name them apart with NAME=SOURCE",
        ),
        (
            ["--question", "Well?"],
            "--question 'Well?': where does the question go? Put {question} there",
        ),
        (["--layers", "2", "9"], "layer 9: this model has 4 layers"),
        (["--combined-layer", "7"], "layer 7: this model has 4 layers"),
        (
            ["--simultaneous-layers", "1", "2"],
            "--simultaneous-layers: 2 for 6 behaviours; give one for each",
        ),
        (["--coefficients", "0"], "--coefficients 0.0: must be finite and above 0"),
        (["--scalars", "nan"], "--scalars nan: must be finite and above 0"),
        (["--max-faulty", "5"], "--max-faulty 5.0: must be a share from 0 to 1"),
        (["--texts", "0"], "--texts 0: must be at least 1"),
        (["--text", "prompts.jsonl"], "no text in column 'text'"),
        (["--model", "no/such/folder"], "model no/such/folder: no such folder, and not a hub id"),
        (["--span", "some"], "span"),
    ],
)
def test_bad_input_ends_in_one_line_before_anything_is_loaded(
    capsys, monkeypatch, tmp_path, args, says
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Runner, "open", lambda *_: pytest.fail("weights were loaded"))
    (tmp_path / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": f"Ask {i}"}) + "\n" for i in range(9))
    )
    published(tmp_path / "good.jsonl", 12, (" (A)", " (B)"))
    with pytest.raises(SystemExit) as stop:
        command.run(Config, main, "", [*args, "--out", "run"])
    said = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and len(said) == 1 and says in said[0]
    assert not (tmp_path / "run").exists()
