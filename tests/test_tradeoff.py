"""What the skills recipe counts with, worked by hand; its programs' identities; and its
documents."""

from __future__ import annotations

import json
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch

from nnsteer.errors import UserError
from nnsteer.measure.skill import hits
from nnsteer.measure.tradeoff import Counts, TradeOff, estimate, further, gap, kept_at
from nnsteer.program.program import Program, add
from nnsteer.program.site import Site
from nnsteer.recipes.skills.walks import steered
from nnsteer.texts import documents
from nnsteer.texts.skills import load_documents
from nnsteer.texts.source import Prompt

from conftest import MIXED

# the walk


def visits(scores, coefficients=tuple(range(20))):
    """What the walk tries where the skill's accuracy at each coefficient is in a table."""
    tried, at = [], {"one": 0}
    while at:
        tried.append(coefficients[at["one"]])
        at = further(at, {"one": scores[tried[-1]]}, len(coefficients))
    return tried


def test_V7_the_walk_skips_five_below_15_percent_and_ends_below_5():
    slow = {c: 1.0 - 0.1 * c for c in range(9)} | {9: 0.10} | {c: 0.10 for c in range(10, 20)}
    assert visits(slow) == [*range(10), 14, 19]
    assert visits(slow | {14: 0.04}) == [*range(10), 14]
    assert visits({0: 1.0, 1: 0.15, 2: 0.149, 7: 0.05, 12: 0.049, 17: 0.5}) == [0, 1, 2, 7, 12]
    assert visits(dict.fromkeys(range(20), 1.0)) == list(range(20))


def test_places_are_walked_side_by_side_and_each_at_its_own_pace():
    assert further({"a": 1, "b": 1, "c": 6}, {"a": 0.1, "b": 0.5, "c": 0.01}, 8) == {"a": 6, "b": 2}
    assert further({"a": 6, "b": 2}, {"a": 0.1, "b": 0.14, "c": 0.01}, 8) == {"b": 7}


# T@x and gap


def trade_off(skill, retained, coefficients=None, tokens=100):
    """Both domains' accuracies in percent, of one document of 100 tokens each."""
    counts = [
        Counts(np.full((len(row), 1), tokens), np.array(row)[:, None]) for row in (skill, retained)
    ]
    return TradeOff(tuple(coefficients or range(len(skill))), *counts)


def test_T_and_gap_are_those_worked_by_hand():
    one = trade_off([80, 76, 64, 40, 4], [50, 50, 45, 30, 5], [0, 0.5, 1, 2, 4])
    # relative skill 1, .95, .8, .5, .05; relative rest 1, 1, .9, .6, .1
    both = one.skill.relative(), one.retained.relative()
    assert both[0] == pytest.approx([1, 0.95, 0.8, 0.5, 0.05]) and both[1] == pytest.approx(
        [1, 1, 0.9, 0.6, 0.1]
    )
    assert kept_at(0.9)(*both) == pytest.approx(1 - 0.1 / 3)  # a third of the way from .95 to .8
    assert kept_at(0.8)(*both) == pytest.approx(0.9)
    assert kept_at(0.5)(*both) == pytest.approx(0.6)
    assert gap(*both) == pytest.approx(0.1)
    assert one.at(0.9) == pytest.approx((1 - 0.1 / 3, 0.5 + 0.5 / 3))


def test_the_first_fall_counts_and_a_skill_that_never_falls_so_far_has_no_value():
    dips = trade_off([100, 80, 100, 60], [100, 90, 100, 20])
    assert dips.at(0.9).retained == pytest.approx(0.95)
    never = trade_off([100, 95, 91], [100, 99, 80])
    assert np.isnan(never.at(0.9)).all() and np.isnan(
        kept_at(0.9)(never.skill.relative(), never.retained.relative())
    )
    assert gap(never.skill.relative(), never.retained.relative()) == pytest.approx(0.04)
    worse = trade_off([100, 90, 50], [100, 40, 10])
    assert gap(worse.skill.relative(), worse.retained.relative()) == 0.0


def test_V6_accuracy_weighs_documents_by_their_tokens():
    counts = Counts(np.array([[10, 30], [10, 30]]), np.array([[10, 0], [5, 15]]))
    assert counts.accuracy() == pytest.approx([10 / 40, 20 / 40])
    assert counts.accuracy(np.array([[0, 0], [1, 1]])) == pytest.approx(
        np.array([[1.0, 0.5], [0.0, 0.5]])
    )
    assert np.isnan(counts.relative(np.array([1, 1]))).all()  # nothing right without steering


def test_intervals_are_those_of_documents_drawn_anew():
    """Against a plain loop over draws."""
    rng = np.random.default_rng(7)

    def noisy(n, rates):
        tokens = rng.integers(20, 60, size=(1, n)).repeat(len(rates), 0)
        return Counts(tokens, rng.binomial(tokens, np.array(rates)[:, None]))

    one = TradeOff((0, 1, 2), noisy(40, [0.8, 0.7, 0.3]), noisy(30, [0.5, 0.48, 0.3]))
    found = estimate(one, kept_at(0.9), seed=3)
    values = []
    for _ in range(4000):
        s, r = rng.integers(0, 40, 40), rng.integers(0, 30, 30)
        share = [
            (t.right[:, d].sum(1) / t.tokens[:, d].sum(1))
            for t, d in ((one.skill, s), (one.retained, r))
        ]
        skill, rest = (x / x[0] for x in share)
        at = next(i for i in range(3) if skill[i] <= 0.9)
        values.append(np.interp(0.9, [skill[at], skill[at - 1]], [rest[at], rest[at - 1]]))
    assert (found.low, found.high) == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.01)
    assert found.low < found.value < found.high and found.n == 30
    same = estimate(one, gap, minus=one)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    never = replace(one, skill=Counts(one.skill.tokens, one.skill.right[[0, 0, 0]]))
    assert np.isnan([estimate(never, kept_at(0.9)).value, estimate(never, kept_at(0.9)).low]).all()


# the programs


@pytest.fixture(scope="module")
def plain(runner):
    """Without a chat template, as documents are read."""
    return replace(runner, chat=replace(runner.chat, templated=False))


def at(directions, layers, coefficient):
    """The program that steers at these layers."""
    return steered("some layers", [directions.at(*layers)], coefficient).in_turn[0]


def logits(runner, program):
    return runner.logits(MIXED, program, MIXED[::-1])


def close(a, b):
    return all(torch.allclose(x, y, atol=1e-4) for x, y in zip(a, b, strict=True))


def test_V1_coefficient_0_is_the_unsteered_model(plain, directions):
    program = at(directions, (1, 2), 0.0)
    assert all(map(torch.equal, logits(plain, program), logits(plain, Program())))
    assert not close(logits(plain, at(directions, (1, 2), 1.0)), logits(plain, Program()))


def test_V2_the_difference_is_one_mean_added_and_the_other_taken_away(plain, directions):
    d = directions[Site(1)]
    a, b = replace(d, vector=d.vector + d.origin), replace(d, vector=d.origin)
    apart = add({Site(1): a}, 1.7) + add({Site(1): b}, -1.7)
    assert close(logits(plain, at(directions, (1,), 1.7)), logits(plain, apart))


def test_V3_adding_at_a_blocks_output_is_a_bias_of_its_mlp_and_adding_at_the_next_input(
    plain, directions
):
    steered = logits(plain, at(directions, (1,), 1.3))
    vector = directions[Site(1)].vector * 1.3
    after = Site(2, "block_in")
    assert close(steered, logits(plain, add({after: directions[Site(1)].moved(after)}, 1.3)))
    down = plain.hf.get_submodule(f"{plain.layout.blocks}.1.{plain.layout.down}")
    handle = down.register_forward_hook(lambda *seen: seen[-1] + vector)
    try:
        assert close(steered, logits(plain, Program()))
    finally:
        handle.remove()


def test_hits_are_transformers_own_top_1_and_top_10(plain, directions):
    block, vector = (
        plain.hf.get_submodule(f"{plain.layout.blocks}.2"),
        directions[Site(2)].vector * 0.5,
    )
    texts = [Prompt(text) for text in MIXED]
    found = hits(12).values(plain, [at(directions, (2,), 0.5)] * len(texts), texts)

    def steered(*seen):
        return (
            (seen[-1][0] + vector, *seen[-1][1:])
            if isinstance(seen[-1], tuple)
            else seen[-1] + vector
        )

    for text, own in zip(texts, found, strict=True):
        ids = plain.chat.tokenizer(text.text)["input_ids"][:12]
        handle = block.register_forward_hook(steered)
        with torch.no_grad():
            ranks = (
                plain.hf(torch.tensor([ids])).logits[0, :-1].argsort(-1, descending=True).tolist()
            )
        handle.remove()
        right = [
            sum(token in rank[:k] for rank, token in zip(ranks, ids[1:], strict=True))
            for k in (1, 10)
        ]
        assert own == {"tokens": len(ids) - 1, "top1": right[0], "top10": right[1]}


# documents


def test_no_document_of_the_library_is_in_two_parts():
    for read in (documents.code, documents.prose):
        parts = [read(part) for part in documents.PARTS]
        assert all(len(texts) > 200 for texts in parts) and len(set().union(*parts)) == sum(
            map(len, parts)
        )


def test_the_librarys_parts_are_the_splits_in_an_order_drawn_by_the_seed():
    splits = load_documents(["nnsteer:code"], (30, 20, 10), 0)
    assert [len(part) for part in (splits.fit, splits.tune, splits.test)] == [30, 20, 10]
    assert {d.text for d in splits.tune} <= set(documents.code("tune"))
    assert (
        load_documents(["nnsteer:code"], (30, 20, 10), 1)
        != splits
        == load_documents(["nnsteer:code"], (30, 20, 10), 0)
    )


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_two_sources_are_one_to_fit_on_and_one_to_tune_and_test_on(tmp_path):
    a = jsonl(
        tmp_path / "a.jsonl",
        [{"body": f"fit {i}", "meta": {"set": "x" if i % 2 else "y"}} for i in range(20)],
    )
    b = jsonl(
        tmp_path / "b.jsonl",
        [{"body": f"held {i}"} for i in range(12)] + [{"body": "fit 1"}, {"body": " "}],
    )
    splits = load_documents(
        [f"{a},column=body,where=meta.set=x", f"{b},column=body"], (50, 10, 20), 0
    )
    assert {d.text for d in splits.fit} == {f"fit {i}" for i in range(1, 20, 2)}
    assert (len(splits.tune), len(splits.test)) == (4, 8)
    assert {d.text for d in (*splits.tune, *splits.test)} == {
        f"held {i}" for i in range(12)
    }  # what is fitted on is not tested on
    alone = load_documents([f"{a},column=body,where=meta.set!=x"], (20, 10, 20), 0)
    assert [len(part) for part in (alone.fit, alone.tune, alone.test)] == [4, 2, 4]


def test_a_hub_dataset_is_streamed_filtered_and_divided(tmp_path, monkeypatch):
    rows = [
        {"text": f"document {i}", "meta": {"pile_set_name": "Github" if i % 4 == 0 else "Books3"}}
        for i in range(400)
    ]
    file, asked, read_one = jsonl(tmp_path / "pile.jsonl", rows), [], datasets.load_dataset

    def fake(name, revision, split, streaming):
        asked.append((name, revision, split, streaming))
        return read_one("json", data_files=file, split="train", streaming=True)

    monkeypatch.setattr(datasets, "load_dataset", fake)
    source = "org/pile@abc,column=text,split=validation,where=meta.pile_set_name=Github"
    splits = load_documents([source], (10, 5, 7), 13)
    assert asked == [("org/pile", "abc", "validation", True)]
    parts = [
        [int(d.text.split()[1]) for d in part] for part in (splits.fit, splits.tune, splits.test)
    ]
    assert [len(part) for part in parts] == [10, 5, 7] and len(
        {i for part in parts for i in part}
    ) == 22
    assert all(i % 4 == 0 for part in parts for i in part) and parts[0] != sorted(parts[0])
    with pytest.raises(UserError, match=r"no column meta\.name \(columns: text, meta\)"):
        load_documents(["org/pile@abc,column=text,where=meta.name=Github"], (1, 1, 1), 0)
    with pytest.raises(UserError, match="holds no document"):
        load_documents(["org/pile@abc,column=text,where=meta.pile_set_name=None"], (1, 1, 1), 0)
