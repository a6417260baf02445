"""Measures by the names that a study's file uses."""

from __future__ import annotations

import json
import math

import pytest

from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.measure import classifier as classifying
from nnsteer.measure.classifier import CAST
from nnsteer.measure.kinds import Answer, AnswerMeasure, ReadingMeasure
from nnsteer.measure.named import KNOWN, measures
from nnsteer.measure.refusal import by_keywords
from nnsteer.measure.skill import top_k
from nnsteer.program.program import Program
from nnsteer.texts.source import Prompt

from conftest import MIXED

PROMPTS = [Prompt(text) for text in MIXED]
NOTHING = [Program()] * len(PROMPTS)


def answers(*texts):
    return [Answer(Prompt(f"prompt {i}"), text, ()) for i, text in enumerate(texts)]


@pytest.fixture
def examples(rejection, tmp_path):
    """A name for every form in KNOWN."""
    judge, pairs = tmp_path / "judge.toml", tmp_path / "pairs.jsonl"
    judge.write_text(
        'url = "http://127.0.0.1:9/v1"\nmodel = "m"\nscale = "yes-no"\nrubric = "{answer}?"\n'
    )
    pairs.write_text(
        "".join(
            json.dumps({"prompt": text, "matching": "A", "other": "B"}) + "\n" for text in MIXED
        )
    )
    given = {"classifier": f"{rejection},label=NORMAL", "either": rejection, "judge": judge}
    filled = {
        form: f"{(kind := form.partition(':')[0])}:{given.get(kind, pairs)}"
        for form in KNOWN
        if ":" in form
    }
    numbered = {form: form.replace("-N", "-2") for form in KNOWN if form.endswith("-N")}
    return {form: filled.get(form) or numbered.get(form, form) for form in KNOWN}


def test_every_name_makes_a_measure_of_that_name(runner, examples, tmp_path):
    found = measures(list(examples.values()), ["I can't help."], tmp_path)
    assert [measure.name for measure in found] == list(examples.values())
    assert len({(measure.name, measure.settings) for measure in found}) == len(KNOWN)
    given = [
        Answer(prompt, "A (B)", tuple(runner.chat.response_ids("A (B)"))) for prompt in PROMPTS
    ]
    for form, measure in zip(examples, found, strict=True):
        if form.startswith("judge") or form in ("classifier", "either"):
            continue  # these ask a server or the hub
        match measure:
            case AnswerMeasure():
                one = measure.values(given)
            case ReadingMeasure():
                one = measure.values(runner, given)
            case _:
                one = measure.values(runner, NOTHING, PROMPTS)
        assert len(one) == len(PROMPTS) and all(map(math.isfinite, one)), form
        assert not measure.binary or set(one) <= {0.0, 1.0}, form


def test_a_name_means_what_it_says(runner, examples, tmp_path):
    names = [
        "distinct-3",
        "top-10",
        "classifier",
        "refusal",
        examples["classifier:MODEL@REVISION[,label=LABEL]"],
    ]
    _, top, cast, refusal, own = measures(names, ["Not today, my friend."], tmp_path)
    assert top.values(runner, NOTHING, PROMPTS) == top_k(10).values(runner, NOTHING, PROMPTS)
    assert CAST in cast.settings and refusal.values(answers("Not today, my dear")) == [1.0]
    assert own.values(answers("Sorry, no", "Sure")) == [0.0, 1.0]  # its label is NORMAL


@pytest.mark.parametrize(
    "name",
    ["refusals", "distinct", "distinct-0", "distinct-x", "judge", "judge:", "kl:x", "-2", ""],
)
def test_an_unknown_name_is_refused_with_a_list_of_what_there_is(tmp_path, name):
    with pytest.raises(UserError) as error:
        measures([name], [], tmp_path)
    assert all(form in str(error.value) for form in KNOWN) and "\n" not in str(error.value)


def test_a_name_may_be_given_once(tmp_path):
    with pytest.raises(UserError, match="kl: given 2 times"):
        measures(["kl", "length", "kl"], [], tmp_path)


def test_the_classifier_is_loaded_once_when_first_used(rejection, tmp_path, monkeypatch):
    loads, load = [], classifying.load
    monkeypatch.setattr(classifying, "load", lambda *given: loads.append(given) or load(*given))
    first, second = measures([f"classifier:{rejection}", f"either:{rejection}"], [], tmp_path)
    assert loads == []
    texts = answers("Sorry, no", "That is illegal", "Sure")
    assert first.values(texts) == [1.0, 0.0, 0.0] and second.values(texts) == [1.0, 1.0, 0.0]
    assert len(loads) == 1


def test_judges_write_in_the_runs_own_folder(examples, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "nnsteer.measure.named.judge", lambda *given: asked.append(given[-1]) or by_keywords()
    )
    measures([examples["judge:FILE.toml"]], [], tmp_path)
    assert asked == [Folder(tmp_path)]
