"""The ACE recipe from prompts to page, again from a folder in which it was killed, and with what
it can't use."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nnsteer import command, find_model
from nnsteer.command import read_preset
from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.measure.kinds import AnswerMeasure
from nnsteer.measure.named import PLAIN
from nnsteer.model.runner import Runner
from nnsteer.program.files import load_programs
from nnsteer.recipes.affine import Config, arditi, main, refused
from nnsteer.recipes.affine.arditi import Trial, choose
from nnsteer.recipes.affine.methods import DRAWS, load
from nnsteer.study.rows import read_rows
from nnsteer.texts.contrast import of_prompts
from nnsteer.texts.refusal import load_requests

from conftest import HARMFUL, HARMLESS

METHODS = ("ace", "add", "ablate", "leace", "quadratic", "random")
ALPHAS = (0.0, 0.5, 1.0)
PRESETS = sorted((Path(__file__).parent.parent / "recipes").glob("affine*.toml"))


@pytest.fixture(scope="module", autouse=True)
def odd():
    """The random model refuses nothing; here a refusal has an odd number of characters."""

    def values(answers):
        return [float(len(answer.text) % 2) for answer in answers]

    with pytest.MonkeyPatch.context() as patch:
        refusal = AnswerMeasure("refusal", "odd", True, values)
        patch.setitem(PLAIN, "refusal", lambda _: refusal)
        yield


@pytest.fixture(scope="module")
def config(folder, tmp_path_factory):
    """A small run on a random model: its answers are noise, its bookkeeping is not."""
    path = tmp_path_factory.mktemp("affine")
    for name, prompts in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        rows = [
            {"prompt": f"{p} ({i})", "kind": "a" if i % 2 else "b"}
            for i in range(7)
            for p in prompts
        ]
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Config(
        model=str(folder), harmful=str(path / "harmful.jsonl"),
        harmless=str(path / "harmless.jsonl"), contrast="prompts", methods=METHODS, alphas=ALPHAS,
        layer=(1, 2), samples=2, temperature=0.7, tune_prompts=1, test_prompts=2, max_drift=100.0,
        max_new_tokens=4, batch_size=16, out=path / "out",
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(config):
    main(config)
    return config.out


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


SETS = ("harmful test", "harmless test")


def rows_of(out, sets=SETS):
    """The rows of the test split, or of other sets; and their methods and alphas, by variant."""
    variants = json.loads((out / "variants.json").read_text())
    axes = {name: (at["method"], at["alpha"]) for name, at in variants.items()}
    return read_rows(Folder(out), sets), axes


def position(row):
    """Where a row stands."""
    return row.variant, row.set, row.prompt, row.sample


def is_refused(row):
    return row.values["refusal"] == 1 and not row.values["broken"]


def test_the_folder_holds_everything(done):
    names = {str(p.relative_to(done)) for p in done.rglob("*") if p.is_file() and p.name != ".lock"}
    tables = [
        "config.json",
        "layer.json",
        "seconds.json",
        "summary.json",
        "rows.jsonl",
        "completions.jsonl",
    ]
    tables += ["variants.json", "programs.json", "prompts.json"]
    pictures = [
        "standardisation",
        "layer",
        *(f"refusal-{method.replace('_', '-')}" for method in METHODS),
    ]
    figures = [f"figures/{name}.{kind}" for name in pictures for kind in ("png", "pdf")]
    assert names == {
        *tables,
        *figures,
        "report.html",
        "directions.safetensors",
        "programs.safetensors",
    }
    config = json.loads((done / "config.json").read_text())
    assert set(config["data"]) == {"harmful", "harmless", "contrast"} and config["model"]["weights"]


def test_every_cell_has_its_rows_and_the_summary_follows_from_them(done):
    (rows, axes), summary = rows_of(done), json.loads((done / "summary.json").read_text())
    assert list(summary["methods"]) == list(METHODS) == list(summary["standardisation"])
    assert len(rows) == (len(METHODS) * len(ALPHAS) + 1) * 2 * 2 * 2
    for method in METHODS:
        for alpha in ALPHAS:
            own = [row for row in rows if axes[row.variant] == (method, alpha)]
            cell = summary["methods"][method][str(alpha)]
            assert cell["coherence"] == pytest.approx(
                1 - sum(row.values["broken"] for row in own) / 8
            )
            for side in ("harmful", "harmless"):
                shares = [is_refused(row) for row in own if row.set == f"{side} test"]
                assert len(shares) == 4 and cell[side]["n"] == 2
                assert cell[side]["rate"] == pytest.approx(sum(shares) / 4)
                assert cell[side]["low"] <= cell[side]["rate"] <= cell[side]["high"]
                assert cell[side]["q25"] <= cell[side]["rate"] <= cell[side]["q75"]
        score = summary["standardisation"][method]
        assert 0 <= score["low"] <= score["score"] <= score["high"] <= 1 and score["n"] == 4
    assert {is_refused(row) for row in rows} == {True, False}
    assert all(row.values["refusal"] == len(row.completion) % 2 for row in rows)
    assert {row.values["broken"] for row in rows} <= {0.0, 1.0}
    assert set(summary["seconds"]) == {"layer", "fit", "test"}


def test_cells_of_the_same_program_share_answers_and_samples_differ(done):
    rows, axes = rows_of(done)
    texts = {(*axes[row.variant], row.prompt, row.sample): row.completion for row in rows}
    prompts = {row.prompt for row in rows}
    for prompt in prompts:
        for sample in (0, 1):
            assert len({texts["ablate", alpha, prompt, sample] for alpha in ALPHAS}) == 1
            assert (
                texts["quadratic", 0.5, prompt, sample] == texts["unsteered", 0.0, prompt, sample]
            )
            assert (
                texts["add", 0.0, prompt, sample] == texts["unsteered", 0.0, prompt, sample]
            )  # the noise is shared
    assert any(
        texts["unsteered", 0.0, prompt, 0] != texts["unsteered", 0.0, prompt, 1]
        for prompt in prompts
    )
    assert any(
        texts["ace", 1.0, prompt, 0] != texts["unsteered", 0.0, prompt, 0] for prompt in prompts
    )


def test_saved_programs_repeat_the_rows(done, config):
    """With another batch size; the control's draws go round the prompts."""
    variants = {variant.name: variant for variant in load(Folder(done))}
    assert len(variants["random 1.0"].programs) == DRAWS
    runner, rows = Runner.open(find_model(config.model), batch_size=3), rows_of(done)[0]
    given = json.loads((done / "prompts.json").read_text())
    prompts = [(name, prompt) for name in SETS for prompt in given[name]]
    for name in ("ace 1.0", "random 1.0", "leace 0.0"):
        own = [row for row in rows if row.variant == name]
        own.sort(key=lambda row: (prompts.index((row.set, row.prompt)), row.sample))
        programs = [
            variants[name].programs[i // 2 % len(variants[name].programs)] for i in range(len(own))
        ]
        again = runner.generate(
            [row.prompt for row in own],
            programs,
            config.max_new_tokens,
            config.temperature,
            config.seed,
        )
        assert [c.text for c in again] == [row.completion for row in own]


def test_the_layer_is_the_one_with_the_best_score_on_tune_prompts(done, config):
    layer, (rows, axes) = (
        json.loads((done / "layer.json").read_text()),
        rows_of(done, ("harmful tune", "harmless tune")),
    )
    assert set(layer["trials"]) == {"block_out[1]", "block_out[2]"}
    assert layer["trials"][layer["chosen"]]["score"] == max(
        trial["score"] for trial in layer["trials"].values()
    )
    assert {axes[row.variant] for row in rows} == {
        (site, alpha) for site in layer["trials"] for alpha in ALPHAS
    }
    test = {row.prompt for row in rows_of(done)[0]}
    assert len(rows) == 2 * 3 * 2 * 2 and not test & {row.prompt for row in rows}


def test_the_page_stands_alone_and_holds_the_answers(done):
    page = (done / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(METHODS) + 2
    assert not re.search(r"""src=["']?(https?:|//|[\w./]+\.(png|css|js)\b)""", page)
    assert page.count("<tr data-kind") == 4
    assert "<small>alpha 0 to 1</small>" in page  # ablation's one answer for all alphas


def test_a_killed_run_goes_on_where_it_stopped_and_repeats_nothing(
    done, config, tmp_path, monkeypatch
):
    """Killed in the middle of an answer's line, with values of the answers before it: what is
    missing is drawn again, and the same, each distinct answer once; no other is, and nothing is
    read or fitted again."""
    out = tmp_path / "killed"
    subprocess.run(["cp", "-r", done, out], check=True)
    before, (rows, _) = lines(out / "completions.jsonl"), rows_of(done)
    cut = (out / "completions.jsonl").read_bytes().splitlines(keepends=True)
    (out / "completions.jsonl").write_bytes(b"".join(cut[:100]) + cut[100][:25])
    kept = {line["key"] for line in before[:100]}

    def place(line):
        return line["variant"], line["set"], line["prompt"], line["sample"]

    there = {place(line) for line in before[:100]}
    values = [line for line in lines(out / "rows.jsonl") if place(line) in there]
    (out / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in values))
    (out / "summary.json").unlink()
    asked = []
    generate = Runner.generate

    def counted(self, prompts, *args, **named):
        asked.append(len(prompts))
        return generate(self, prompts, *args, **named)

    monkeypatch.setattr(Runner, "generate", counted)
    monkeypatch.setattr(Runner, "moments", None)
    main(replace(config, out=out, batch_size=5))
    assert sum(asked) == len({line["key"] for line in before} - kept) > 0 and max(asked) <= 5
    assert sorted(lines(out / "completions.jsonl"), key=place) == sorted(before, key=place)
    again = rows_of(out)[0]
    assert {position(row): row for row in again} == {position(row): row for row in rows} and len(
        again
    ) == len(rows)
    old, new = (json.loads((path / "summary.json").read_text()) for path in (done, out))
    assert old["methods"] == new["methods"] and old["standardisation"] == new["standardisation"]


def test_answers_that_could_not_be_judged_count_for_neither(config, tmp_path, monkeypatch):
    def values(answers):
        return [float("nan") if len(answer.text) % 3 == 0 else 1.0 for answer in answers]

    monkeypatch.setitem(PLAIN, "refusal", lambda _: AnswerMeasure("refusal", "fails", True, values))
    out, small = tmp_path / "failing", {"methods": ("ace",), "alphas": (0.0, 1.0), "layer": (2,)}
    main(replace(config, **small, samples=1, tune_prompts=4, test_prompts=6, out=out))
    (rows, axes), summary = rows_of(out), json.loads((out / "summary.json").read_text())
    values_of = {row.values["refusal"] for row in rows}
    assert values_of == {None, 1.0}
    for alpha in (0.0, 1.0):
        for side in ("harmful", "harmless"):
            own = [row for row in rows if axes[row.variant] == ("ace", alpha)]
            judged = [
                row
                for row in own
                if row.set == f"{side} test" and row.values["refusal"] is not None
            ]
            assert summary["methods"]["ace"][str(alpha)][side]["n"] == len(judged)
    assert "not judged" in (out / "report.html").read_text()


def test_places_and_scopes_have_cells_of_their_own(config, tmp_path):
    where = ("all", "residual", "scrubbed", "scrubbed-half")
    small = replace(
        config,
        methods=("ace",),
        alphas=(0.0, 1.0),
        where=where,
        span="before",
        samples=1,
        out=tmp_path / "places",
    )
    main(small)
    summary = json.loads((small.out / "summary.json").read_text())
    assert list(summary["methods"]) == [f"ace {place}" for place in where]
    programs = load_programs(small.out / "programs.safetensors")
    assert [len(programs[f"ace {place} 1.0"].steps) for place in where] == [4, 8, 8, 8]
    assert {str(step.span) for one in programs.values() for step in one.steps} == {"prompt"}
    assert "ACE, scrubbed-half" in (small.out / "report.html").read_text()


def test_texts_are_kept_by_what_the_model_does(tmp_path, monkeypatch):
    """A model that refuses what ends in an exclamation mark."""
    harmful, harmless = (
        [f"steal {i}{'!' * (i < 7)}" for i in range(9)],
        [f"bake {i}{'!' * (i < 4)}" for i in range(9)],
    )

    def next_logs(_runner, prompts):
        return torch.tensor(
            [[0.1, 0.9] if prompt.endswith("!") else [0.9, 0.1] for prompt in prompts]
        ).log()

    monkeypatch.setattr(refused, "next_logs", next_logs)
    found = refused.as_expected(Folder(tmp_path), None, of_prompts(harmful, harmless), [1])
    assert [t.prompt for t in found.positive] == harmful[:5] and [
        t.prompt for t in found.negative
    ] == harmless[4:]
    monkeypatch.setattr(refused, "next_logs", None)
    assert refused.as_expected(Folder(tmp_path), None, of_prompts(harmful, harmless), [1]) == found
    (tmp_path / "refused.json").unlink()
    monkeypatch.setattr(refused, "next_logs", next_logs)
    with pytest.raises(
        UserError,
        match="the model refuses 2 of 4 harmful fit prompts and answers 2 of 4 harmless ones, "
        "too few",
    ):
        refused.as_expected(Folder(tmp_path), None, of_prompts(harmful[5:], harmless[2:6]), [1])


def test_refusal_tokens_begin_more_refusals_than_compliances(runner):
    requests = load_requests(
        *(f"nnsteer:{n}.jsonl" for n in ("harmful", "harmless", "refusals", "compliances")), 0
    )
    same = replace(
        requests,
        refusals=("I can't.", "I won't.", "No way."),
        compliances=("I will.", "Sure.", "Sure thing."),
    )
    found = refused.refusal_tokens(runner.chat, same)
    first = {word: runner.chat.response_ids(word)[0] for word in ("I can't.", "No way.", "Sure.")}
    assert first["I can't."] in found and first["No way."] in found and first["Sure."] not in found


def test_refusal_scores_are_log_odds():
    logs = torch.tensor([[0.5, 0.25, 0.25], [0.9, 0.05, 0.05]]).double().log()
    scores = refused.refusal_scores(logs, [1, 2])
    torch.testing.assert_close(scores, torch.tensor([1.0, 0.1 / 0.9]).double().log())


TRIALS = [
    Trial(-1, 3, refusal=-9.0, kl=0.2, induce=1.0),
    Trial(-1, 2, refusal=-8.0, kl=0.05, induce=-0.1),
    Trial(-2, 2, refusal=-5.0, kl=0.05, induce=0.0),
    Trial(-3, 1, refusal=-4.0, kl=0.01, induce=3.0),
]


def test_the_selection_of_arditi_keeps_both_limits():
    assert choose(TRIALS, 0.1) == TRIALS[2]
    assert choose(TRIALS, 0.3) == TRIALS[0]
    with pytest.raises(
        UserError,
        match=r"no candidate has a KL of at most 0\.001 \(lowest: 0\.01\).*use --layer tuned",
    ):
        choose(TRIALS, 0.001)


def test_a_run_with_the_selection_of_arditi(config, tmp_path, monkeypatch):
    """Every second token counts as the beginning of a refusal, so that the random model's scores
    lie on both sides of 0."""
    monkeypatch.setattr(
        arditi, "refusal_tokens", lambda chat, _: list(range(0, len(chat.tokenizer), 2))
    )
    small = replace(
        config,
        methods=("ace",),
        alphas=(0.0, 1.0),
        layer="arditi",
        max_kl=1e9,
        samples=1,
        out=tmp_path / "arditi",
    )
    main(small)
    layer, rows = (
        json.loads((small.out / "layer.json").read_text()),
        lines(small.out / "arditi_rows.jsonl"),
    )
    assert layer["selection"] in rows == layer["candidates"]
    assert {row["layer"] for row in rows} == {1, 2} and layer["selection"][
        "induce"
    ] >= 0  # below, all texts have one embedding
    (step,) = load_programs(small.out / "programs.safetensors")["ace 1.0"].steps
    assert str(step.site) == f"block_in[{layer['selection']['layer']}]"
    assert f"position {layer['selection']['position']}" in layer["chosen"]
    (small.out / "arditi_rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows[:-1])
    )
    main(small)
    assert lines(small.out / "arditi_rows.jsonl") == rows


def test_the_simulated_server_gives_the_same_rows(done, config, tmp_path):
    small = replace(config, methods=("ace",), out=tmp_path / "there", remote="local")
    main(small)
    (rows, axes), (there, _) = rows_of(done), rows_of(small.out)
    local = [row for row in rows if axes[row.variant][0] in ("unsteered", "ace")]
    assert {position(row): row for row in there} == {position(row): row for row in local} and len(
        there
    ) == len(local)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--alphas", "0", "0.5"], "--alphas 0, 0.5: 0 and 1 must be among them"),
        (["--alphas", "0", "1", "1"], "--alphas 0.0 1.0 1.0: give at least one, and each once"),
        (["--alphas", "0", "1", "nan"], "--alphas 0.0 1.0 nan: must be finite numbers"),
        (["--samples", "0"], "--samples 0: must be at least 1"),
        (["--samples", "3"], "--samples 3 --temperature 0: greedy answers are all the same"),
        (["--temperature", "-1"], "--temperature -1.0: must be 0 (greedy) or above"),
        (["--layer", "9"], "layer 9: this model has 4 layers"),
        (["--layer", "best"], "layer"),
        (["--methods", "magic"], "methods"),
        (["--contrast", "ab"], "--contrast ab: no such format of texts"),
        (
            ["--contrast", "caa", "--layer", "arditi"],
            "--layer arditi --contrast caa: it reads prompts, not answers",
        ),
        (["--measure", "kl"], "--measure kl: must judge answers with yes or no"),
        (["--measure", "wit"], "measure wit: no such measure"),
        (
            ["--where", "scrubbed", "--remote", "ndif"],
            "--where scrubbed --remote ndif: scrubbing reads edited streams",
        ),
        (["--harmful", "nowhere.jsonl"], "data nowhere.jsonl: no such file"),
        (["--model", "no/such/folder"], "model no/such/folder: no such folder"),
    ],
)
def test_bad_input_ends_in_one_line_before_anything_is_loaded(
    capsys, monkeypatch, tmp_path, args, says
):
    monkeypatch.setattr(Runner, "open", None)
    with pytest.raises(SystemExit) as stop:
        command.run(Config, main, "", [*args, "--out", str(tmp_path / "run")])
    said = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and len(said) == 1 and says in said[0], said
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_run_is_refused(done, config):
    with pytest.raises(UserError, match=r"already holds another run \(alphas differ\)"):
        main(replace(config, alphas=(0.0, 1.0)))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_are_read_and_the_default_one_spells_the_defaults_out(preset):
    found = command.parse(Config, "", ["--config", str(preset)])
    assert len(PRESETS) == 6
    if preset.stem == "affine":
        assert found == Config()
        assert set(read_preset(preset, Config)) == set(vars(Config())) - {
            "revision",
            "device_map",
            "remote",
            "remote_model",
            "out",
        }
    else:
        assert found.model.startswith("meta-llama/") or preset.stem == "affine-sampled"
        assert found.out != Config().out
