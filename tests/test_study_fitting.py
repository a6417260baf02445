"""What a study fits, finds and shows of it, and that it does so once."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nnsteer import fit
from nnsteer.errors import UserError
from nnsteer.fit import threshold
from nnsteer.folder import Folder
from nnsteer.program.condition import Condition
from nnsteer.program.site import Site, block_outs
from nnsteer.study.fitting import find_conditions, fit_directions, plane_file, scores_file
from nnsteer.study.inputs import load_inputs, side_names
from nnsteer.study.spec import DirectionSpec, read_spec
from nnsteer.texts.source import load_prompts

from conftest import HARMFUL, HARMLESS

SPEC = """
measures = ["length"]
[sets.harmful]
source = {harmful!r}
[directions.d]
positive = {harmful!r}
negative = {harmless!r}
[conditions.tuned]
direction = "d"
layer = 2
[conditions.given]
direction = "d"
method = "mean_difference"
layer = 1
threshold = 0.25
fires_when = "below"
[[variants]]
direction = "d"
method = ["mean_difference", "pca_pairwise"]
layer = 1
"""


@pytest.fixture
def sources(tmp_path):
    for name, prompts in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        rows = [
            {"prompt": f"{p} ({i})", "split": s}
            for i, s in enumerate(("fit", "fit", "tune", "test"))
            for p in prompts
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: str(tmp_path / f"{name}.jsonl") for name in ("harmful", "harmless")}


@pytest.fixture
def spec(sources, tmp_path):
    (tmp_path / "s.toml").write_text(SPEC.format(**sources))
    return read_spec(tmp_path / "s.toml")


@pytest.fixture
def counted(runner, monkeypatch):
    """The texts that are recorded, and those that are scored."""
    seen = {"record": [], "scores": []}
    record, scores = type(runner).record, type(runner).scores
    monkeypatch.setattr(
        type(runner),
        "record",
        lambda self, c, *rest: seen["record"].append(c) or record(self, c, *rest),
    )
    monkeypatch.setattr(
        type(runner),
        "scores",
        lambda self, t, *rest: seen["scores"].append(t) or scores(self, t, *rest),
    )
    return seen


def test_texts_are_read_once_for_all_methods_and_again_only_when_they_change(
    runner, spec, sources, tmp_path, counted
):
    inputs, folder = load_inputs(spec), Folder(tmp_path)
    fitted = fit_directions(spec, inputs, runner, folder)
    assert set(fitted) == {("d", method) for method in ("lda", "mean_difference", "pca_pairwise")}
    assert counted["record"] == [inputs.contrasts["d"]]
    read = runner.record(inputs.contrasts["d"], block_outs(range(4)))
    assert all(fitted["d", method] == fit.METHODS[method](read) for _, method in fitted)
    find_conditions(spec, inputs, fitted, runner, folder)
    assert [len(texts) for texts in counted["scores"]] == [
        12
    ]  # both sides of tune and test, for both conditions together

    counted["record"].clear()
    find_conditions(spec, inputs, fit_directions(spec, inputs, runner, folder), runner, folder)
    assert counted["record"] == [] and len(counted["scores"]) == 1
    with open(sources["harmful"], "a") as file:
        file.write(json.dumps({"prompt": "Another one", "split": "fit"}) + "\n")
    with open(sources["harmless"], "a") as file:
        file.write(json.dumps({"prompt": "One more", "split": "fit"}) + "\n")
    fit_directions(spec, load_inputs(spec), runner, folder)
    assert len(counted["record"]) == 1


def test_the_plane_is_that_of_the_principal_components(runner, spec, tmp_path):
    inputs, folder = load_inputs(spec), Folder(tmp_path)
    fit_directions(spec, inputs, runner, folder)
    plane = folder.read_json(plane_file(spec, inputs, "d", runner.model.weights))
    assert plane["labels"] == ["harmful"] * 6 + ["harmless"] * 6 and set(plane["layers"]) == set(
        "0123"
    )
    read = runner.record(inputs.contrasts["d"], block_outs(range(4)))
    for layer, shown in plane["layers"].items():
        rows = np.concatenate(
            [side[Site(int(layer))].double().numpy() for side in (read.positive, read.negative)]
        )
        values, vectors = np.linalg.eigh(
            np.cov(rows.T, bias=True)
        )  # another way than the singular values
        points, expected = np.array(shown["points"]), (rows - rows.mean(0)) @ vectors[:, :-3:-1]
        assert np.abs(points) == pytest.approx(
            np.abs(expected), rel=2e-3, abs=1e-3 * np.abs(expected).max()
        )
        assert shown["shares"] == pytest.approx(values[:-3:-1] / values.sum(), abs=1e-4)
        assert (points[:6].mean(0) >= points[6:].mean(0)).all()


def test_conditions_are_tuned_on_tune_and_keep_the_scores_of_both_splits(
    runner, spec, sources, tmp_path
):
    inputs, folder = load_inputs(spec), Folder(tmp_path)
    fitted = fit_directions(spec, inputs, runner, folder)
    found = find_conditions(spec, inputs, fitted, runner, folder)
    free = Condition(fitted["d", "lda"][Site(2)], 0.0)
    sides = [load_prompts(sources[name], 0) for name in ("harmful", "harmless")]
    scores = {
        s: [runner.scores([p.text for p in getattr(side, s)], [free])[0] for side in sides]
        for s in ("tune", "test")
    }
    point = threshold.condition_point({Site(2): threshold.sweep(*scores["tune"])})
    assert (
        found["tuned"].threshold == pytest.approx(point.threshold, abs=1e-5)
        and found["tuned"].fires_when == point.fires_when
    )
    assert (found["given"].threshold, found["given"].fires_when) == (0.25, "below")
    kept = folder.read_json(scores_file(spec.conditions["tuned"], inputs, fitted))
    assert kept["found"].startswith("found") and kept["positive"] == "harmful"
    for split, (positive, negative) in scores.items():
        assert kept["scores"][split]["positive"] == pytest.approx(positive.tolist(), abs=1e-5)
        assert kept["scores"][split]["negative"] == pytest.approx(negative.tolist(), abs=1e-5)


def test_sides_are_called_by_their_sources():
    def named(positive, negative):
        return tuple(side_names(DirectionSpec(positive, negative)).values())

    assert named("nnsteer:harmful.jsonl", "/a/b/calm.csv") == ("harmful", "calm")
    assert named("mine.csv,column=angry", "mine.csv,column=calm") == (
        "mine,column=angry",
        "mine,column=calm",
    )
    assert named("org/one@3f2a9c1,split=train", "org/two@3f2a9c1") == ("one,split=train", "two")


def test_a_condition_on_openers_is_refused(tmp_path):
    file = tmp_path / "s.toml"
    openers = 'positive = "nnsteer:refusals.jsonl"\nnegative = "nnsteer:compliances.jsonl"\nprompts = "nnsteer:harmless.jsonl"\n'
    file.write_text(
        SPEC.format(harmful="nnsteer:harmful.jsonl", harmless="nnsteer:harmless.jsonl")
        .replace("[directions.d]", f"[directions.o]\n{openers}[directions.d]")
        .replace('direction = "d"\nlayer = 2', 'direction = "o"\nlayer = 2')
    )
    with pytest.raises(
        UserError, match="'o': contrasts openers of answers, and a condition reads prompts"
    ):
        load_inputs(read_spec(file))
