"""What the Python interface of models and texts takes, and what it refuses in one line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import NamedTuple

import nnsight  # noqa: TID251  with which a user may have opened a model
import pytest
import torch

from nnsteer import (
    PROMPT,
    RESPONSE,
    ContrastSet,
    Directions,
    Last,
    Runner,
    Site,
    Span,
    UserError,
    add,
    attach,
    explain,
    find_model,
    fit,
    of_prompts,
    of_responses,
)
from nnsteer.model import fit_there
from nnsteer.model.chat import Chat
from nnsteer.program.program import Program
from nnsteer.texts.bundled import bundled, organism

from conftest import HARMFUL, HARMLESS

BAD = [
    ("a text alone", "I am happy", "expected texts; give a list"),
    ("a number", 3, "expected texts; give a list"),
    ("a mapping", {"a": "b"}, "got a dict; expected texts"),
    ("a list with none", ["a", None], r"\[1\]: got a NoneType"),
]


@pytest.mark.parametrize(("given", "says"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_is_no_list_of_texts_is_refused_in_one_line(runner, given, says):
    calls = (
        lambda: of_prompts(given, HARMLESS),
        lambda: of_prompts(HARMFUL, given),
        lambda: of_responses(given, ["no"], ["yes"]),
        lambda: of_responses(HARMFUL, given, ["yes"]),
        lambda: runner.generate(given),
        lambda: runner.logits(given),
        lambda: runner.scores(given, []),
        lambda: explain(runner, Program(), given),
    )
    for call in calls:
        with pytest.raises(UserError, match=says) as refusal:
            call()
        assert "\n" not in str(refusal.value)


def test_tuples_and_generators_of_texts_are_taken(runner):
    assert of_prompts(tuple(HARMFUL), (text for text in HARMLESS)) == of_prompts(HARMFUL, HARMLESS)
    assert runner.generate(tuple(HARMLESS), max_new_tokens=2) == runner.generate(
        HARMLESS, max_new_tokens=2
    )


def test_no_prompts_have_no_answers_and_no_contrast(runner):
    assert runner.generate([]) == []
    with pytest.raises(UserError, match="positive side of a contrast set is empty"):
        of_prompts([], [])
    with pytest.raises(UserError, match="negative: no openers"):
        of_responses(HARMLESS, ["no"], [])


class At(NamedTuple):
    runner: Runner
    contrast: ContrastSet
    directions: Directions


MISTAKES = {
    "two programs for one": lambda at: at.runner.generate(["hi"], [Program(), Program()]),
    "directions for a program": lambda at: at.runner.generate(["hi"], at.directions),
    "a direction among programs": lambda at: at.runner.generate(["hi"], [at.directions[1]]),
    "directions attached": lambda at: attach(at.runner.hf, at.directions).__enter__(),
    "directions explained": lambda at: explain(at.runner, at.directions, ["hi"]),
    "texts for a contrast": lambda at: at.runner.record(HARMFUL, [1]),
    "sides for a contrast": lambda at: at.runner.fit((HARMFUL, HARMLESS)),
    "moments of nothing": lambda at: at.runner.moments(None, [1]),
    "a reading misspelt": lambda at: at.runner.record(at.contrast, [1], "promt"),
    "too few responses": lambda at: at.runner.logits(["a", "b"], Program(), ["x"]),
    "no new tokens": lambda at: at.runner.generate(["a"], max_new_tokens=0),
    "no temperature": lambda at: at.runner.generate(["a"], temperature=float("nan")),
    "a share of seven": lambda at: at.runner.condition(
        at.directions, HARMFUL, HARMLESS, max_false_alarms=7
    ),
    "a share of NaN": lambda at: at.runner.condition(
        at.directions, HARMFUL, HARMLESS, max_false_alarms=float("nan")
    ),
    "a layer below 0": lambda at: at.runner.record(at.contrast, [Site(-1)]),
    "a stream that is none": lambda at: at.runner.record(at.contrast, [Site(1, "middle")]),
    "a span without tokens": lambda at: at.runner.record(at.contrast, [1], Span(2, 1)),
    "no last token": lambda at: at.runner.record(at.contrast, [1], Last(0)),
    "a text for a tokenizer": lambda at: Runner.wrap(at.runner.hf, "tokenizer"),
    "no tokenizer": lambda at: Runner.wrap(at.runner.hf),
    "a text for a model": lambda at: Runner.wrap("gpt2", at.runner.chat),
    "one row id for two": lambda at: at.runner.generate(["a", "b"], row_ids=[0]),
    "a row id that is none": lambda at: at.runner.generate(["a"], row_ids=["0"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(runner, directions, mistake):
    with pytest.raises(UserError) as refusal:
        MISTAKES[mistake](At(runner, of_prompts(HARMFUL, HARMLESS), directions))
    assert "\n" not in str(refusal.value)


def test_a_model_in_memory_is_wrapped_with_its_tokenizer(runner):
    wrapped = Runner.wrap(runner.hf, runner.chat.tokenizer)
    assert wrapped.model.weights == runner.model.weights and wrapped.model.name
    assert wrapped.generate(HARMLESS, max_new_tokens=2) == runner.generate(
        HARMLESS, max_new_tokens=2
    )
    assert "\n" not in repr(wrapped)


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "not loaded yet"])
def test_a_model_that_nnsight_opened_is_wrapped_with_its_tokenizer(runner, tmp_path, loaded):
    runner.hf.save_pretrained(tmp_path)
    tokenizer = runner.chat.tokenizer
    with pytest.warns(nnsight.NNsightDeprecationWarning, match="LanguageModel is deprecated"):
        opened = nnsight.LanguageModel(str(tmp_path), tokenizer=tokenizer, dispatch=loaded)
    wrapped = Runner.wrap(opened, name="mine")
    assert wrapped.model == replace(runner.model, name="mine")
    expected = runner.generate(HARMLESS, max_new_tokens=2)
    assert wrapped.generate(HARMLESS, max_new_tokens=2) == expected
    untemplated = Chat(tokenizer, templated=False)
    plain = Runner.wrap(opened, untemplated).generate(HARMLESS, max_new_tokens=2)
    assert plain == Runner.wrap(runner.hf, untemplated).generate(HARMLESS, max_new_tokens=2)


def test_a_sample_is_drawn_by_its_rows_id_wherever_it_stands(runner):
    prompts = [*HARMLESS, *HARMFUL, HARMLESS[0]]
    ids = [7, 1, 2, 3, 4, 5, 7]
    drawn = runner.generate(prompts, max_new_tokens=4, temperature=1.0, seed=3, row_ids=ids)
    assert (
        drawn[0] == drawn[-1] != runner.generate(prompts[:1], Program(), 4, 1.0, 3, row_ids=[8])[0]
    )
    alone = runner.with_batch_size(2)
    backwards = alone.generate(
        prompts[::-1], max_new_tokens=4, temperature=1.0, seed=3, row_ids=ids[::-1]
    )
    assert backwards[::-1] == drawn
    numbered = runner.generate(prompts, max_new_tokens=4, temperature=1.0, row_ids=range(7))
    assert numbered == runner.generate(prompts, max_new_tokens=4, temperature=1.0)


def test_answers_know_what_was_asked(runner):
    answers = runner.generate([*HARMFUL, *HARMLESS], max_new_tokens=2)
    assert [answer.prompt for answer in answers] == [*HARMFUL, *HARMLESS]


def test_a_layers_number_stands_for_what_leaves_its_block(runner):
    contrast = of_prompts(HARMFUL, HARMLESS)
    by_site = runner.record(contrast, [Site(1), Site(2)]).positive
    by_number = runner.record(contrast, [2, 1]).positive
    assert list(by_site) == list(by_number)
    assert all(torch.equal(by_site[site], by_number[site]) for site in by_site)
    assert list(runner.record(contrast, 1).positive) == [Site(1)]


@pytest.mark.parametrize("sites", [[], [9], [-1], ["1"], [Site(4)]])
def test_sites_that_the_model_does_not_have_are_refused_before_any_pass(runner, sites, monkeypatch):
    monkeypatch.setattr(
        "nnsteer.model.traces.read_means", lambda *_: pytest.fail("the model was run")
    )
    for call in (runner.record, runner.moments, runner.fit):
        with pytest.raises(UserError):
            call(of_prompts(HARMFUL, HARMLESS), sites)


def test_a_fit_reads_responses_where_there_are_any_and_every_block_unless_told(runner):
    answered = of_responses(HARMLESS, ["no, never"], ["yes, sure"])
    directions = runner.fit(answered)
    assert directions == fit.mean_difference(runner.record(answered, range(4), RESPONSE))
    assert runner.fit(of_prompts(HARMFUL, HARMLESS))[0].span == PROMPT
    assert runner.fit(answered, [1], "last", "lda")[1].span == Last()
    for wrong in ({"over": "middle"}, {"method": "magic"}):
        with pytest.raises(UserError, match=r"expected one of|there are mean_difference"):
            runner.fit(answered, **wrong)


def test_a_fit_is_the_one_that_reduces_next_to_the_model(runner):
    contrast, simulated = of_prompts(HARMFUL, HARMLESS), runner.simulated()
    there = fit_there.directions(simulated, contrast, [Site(1)], PROMPT, "mean_difference")
    torch.testing.assert_close(
        simulated.fit(contrast, 1)[1].vector, there[Site(1)].vector, atol=0, rtol=0
    )


def test_a_condition_is_the_best_cut_over_all_its_directions(runner):
    directions = runner.fit(of_prompts(HARMFUL, HARMLESS))
    condition = runner.condition(directions, HARMFUL, HARMLESS)
    scores = runner.scores([*HARMFUL, *HARMLESS], [condition])[0].tolist()
    assert [condition.holds(score) for score in scores] == [True] * 3 + [False] * 3
    single = runner.condition(directions[2], HARMFUL, HARMLESS, score="projection")
    assert single.site == Site(2) and single.score == "projection"
    with pytest.raises(UserError, match="negative: no prompts"):
        runner.condition(directions, HARMFUL, [])


def test_a_model_is_opened_by_its_name_its_folder_or_its_files(folder):
    ids = {
        Runner.open(given).model.weights for given in (folder, str(folder), find_model(str(folder)))
    }
    assert len(ids) == 1
    with pytest.raises(UserError, match="no-such-folder"):
        Runner.open("./no-such-folder")


def test_the_quickstart_steers_the_bundled_model():
    rows = {side: bundled(f"{side}.jsonl") for side in ("harmful", "harmless")}
    fitted = {
        s: [row["prompt"] for row in own if row["split"] == "fit"][:40] for s, own in rows.items()
    }
    tuned = {
        s: [row["prompt"] for row in own if row["split"] == "tune"][:20] for s, own in rows.items()
    }
    refusals = [row["opener"] for row in bundled("refusals.jsonl")]
    compliances = [row["opener"] for row in bundled("compliances.jsonl")]

    runner = Runner.open("nnsteer:organism")
    refusal = runner.fit(of_responses(fitted["harmless"], refusals, compliances))
    concept = runner.fit(of_prompts(fitted["harmful"], fitted["harmless"]))
    harm = runner.condition(concept, tuned["harmful"], tuned["harmless"])
    program = add(refusal.at(1, 2), strength=1.0).when(harm)
    answers = runner.generate([*tuned["harmful"], *tuned["harmless"]], program, max_new_tokens=8)
    fired = [answer.fired == (True,) for answer in answers]
    assert sum(fired[:20]) >= 15 and sum(fired[20:]) <= 5
    plain = runner.generate([answer.prompt for answer in answers], max_new_tokens=8)
    same = [a.ids == b.ids for a, b in zip(answers, plain, strict=True)]
    assert all(same[i] for i, f in enumerate(fired) if not f) and not all(same)
    assert organism().is_dir()


def test_an_explanation_says_why_nothing_changes(runner, directions):
    assert "the program has no steps" in str(explain(runner, Program(), HARMLESS))
    never = runner.condition(directions[1], HARMFUL, HARMLESS)
    gated = add(directions[1], 2.0).when(never)
    assert "no condition holds" in str(explain(runner, gated, HARMLESS[:1]))
    shown = explain(runner, add(directions[1], 2.0), ["<b>bold</b>"])
    assert "&lt;b&gt;bold" in shown._repr_html_() and "<b>" not in shown._repr_html_()


def test_anyio_can_be_imported_after_nnsteer_and_the_version_is_there():
    code = "import nnsteer; nnsteer.Runner; import anyio, anyio.streams.tls; print(nnsteer.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip()[0].isdigit()


def test_answers_show_themselves_as_a_table(runner, directions):
    answers = runner.generate(["<b>", "a map?"], add(directions[1], 1.0), max_new_tokens=2)
    html = answers._repr_html_()
    assert html.count("<tr>") == 3 and "<td>&lt;b&gt;</td>" in html and answers == list(answers)
