"""What the behaviours recipe is made of: directions, programs, the rules of its grid, and
answers."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import permutations

import pytest
import torch
from test_evaluations import ITEMS
from torch.nn.functional import cosine_similarity

from nnsteer import fit
from nnsteer.folder import Folder
from nnsteer.measure.choice import choice, counted
from nnsteer.measure.replies import replies
from nnsteer.program.direction import Directions
from nnsteer.program.op import Add
from nnsteer.program.program import Program, Step, add
from nnsteer.program.site import Site, block_outs
from nnsteer.program.span import ALL, Last
from nnsteer.recipes.behaviours import grid
from nnsteer.recipes.behaviours.grid import Score, best_scalar
from nnsteer.recipes.behaviours.ways import Way, combined, cosines, simultaneous
from nnsteer.study.rows import Row
from nnsteer.texts.behaviours import Form, contrast, load_behaviour
from nnsteer.texts.source import Prompt

from conftest import MIXED

# directions


def test_the_direction_is_the_mean_difference_on_the_letter(runner):
    """v = mean over items of out_l(q + matching)[last] - out_l(q + other)[last], here by
    transformers alone, row by row."""
    states = {}
    with torch.no_grad():
        for item in ITEMS:
            for response in item.responses:
                ids = runner.chat.prompt_ids(item.prompt) + runner.chat.response_ids(response)
                states[item.prompt, response] = runner.hf(
                    torch.tensor([ids]), output_hidden_states=True
                ).hidden_states
    found = fit.mean_difference(
        runner.record(contrast(ITEMS, balanced=False), block_outs(range(3)), Last())
    )
    for layer in range(3):
        both = [
            [states[item.prompt, item.responses[side]][layer + 1][0, -1] for item in ITEMS]
            for side in (0, 1)
        ]
        expected = torch.stack(both[0]).mean(0) - torch.stack(both[1]).mean(0)
        assert torch.allclose(found[Site(layer)].vector, expected, atol=1e-4)
        assert expected.norm() > 0.1


@pytest.fixture(scope="module")
def directions(runner):
    parts = [ITEMS[:3], ITEMS[1:4], ITEMS[2:]]
    return {
        name: fit.mean_difference(
            runner.record(contrast(part, balanced=False), block_outs(range(4)), Last())
        )
        for name, part in zip("abc", parts, strict=True)
    }


def test_cosines_are_pytorchs(directions):
    found = cosines(directions)
    assert list(found) == [f"block_out[{layer}]" for layer in range(4)]
    for layer, matrix in enumerate(found.values()):
        for i, first in enumerate(directions.values()):
            for j, second in enumerate(directions.values()):
                expected = cosine_similarity(
                    first[Site(layer)].vector, second[Site(layer)].vector, dim=0
                ).item()
                assert matrix[i][j] == pytest.approx(expected, abs=1e-5)
    assert max(abs(found["block_out[1]"][0][1]), abs(found["block_out[1]"][0][2])) < 0.999


# programs


def same(runner, first, second):
    pairs = list(zip(*(runner.logits(MIXED, program) for program in (first, second)), strict=True))
    return max((a - b).abs().max().item() for a, b in pairs)


def test_V4_combined_programs_are_those_made_by_hand(runner, directions):
    weights = {"+": [1.5, 0.0, 3.0], "-": [-1.0, -2.0, -0.5]}
    best = {
        f"{name} {sign}": Way(name, 2, w)
        for sign, own in weights.items()
        for name, w in zip("abc", own, strict=True)
    }
    found, site = {v.name: v.programs for v in combined(directions, best, 2, ALL)}, Site(2)
    ones = {"+": [1.0] * 3, "-": [-1.0] * 3}
    for kind, given in (("", ones), ("weighted ", weights)):
        for sign, own in given.items():
            steps = [
                Step(Add(d[site], w), site) for d, w in zip(directions.values(), own, strict=True)
            ]
            assert same(runner, found[f"{kind}sum {sign}"], Program(tuple(steps))) < 1e-3
            thirds = [
                replace(step, op=replace(step.op, strength=step.op.strength / 3)) for step in steps
            ]
            assert same(runner, found[f"{kind}mean {sign}"], Program(tuple(thirds))) < 1e-3
    assert len(found) == 8
    assert (
        same(runner, found["sum +"], found["sum -"]) > 0.1
        and same(runner, found["sum +"], found["weighted sum +"]) > 0.1
    )


def at_half(directions, layers):
    variants = simultaneous(directions, layers, [0.5], ALL)
    assert list(variants) == [-0.5, 0.0, 0.5]
    return variants[0.5].programs


def test_V5_simultaneous_steering_is_each_at_its_layer_and_one_alone_is_single_steering(
    runner, directions
):
    layers = {"a": 0, "b": 2, "c": 2}
    by_hand = [
        add({Site(layer): directions[name][Site(layer)]}, 0.5) for name, layer in layers.items()
    ]
    assert same(runner, at_half(directions, layers), by_hand[0] + by_hand[1] + by_hand[2]) < 1e-4
    silent = {site: replace(d, vector=1e-12 * d.vector) for site, d in directions["a"].items()}
    alone = at_half(
        {"a": Directions(silent), "b": directions["b"], "c": Directions(silent)}, layers
    )
    assert same(runner, alone, by_hand[1]) < 1e-5
    assert same(runner, by_hand[1], Program()) > 0.01


# the rules


def rows_of(said, matching="A", other="B"):
    words = {"matching": matching, "other": other, "margin": 1.0}
    return [
        Row("v", "b tune", "", f"q{i}", 0, {"choice": {"said": word, **words}})
        for i, word in enumerate(said)
    ]


def choices_of(*given):
    return [row.values["choice"] for row in rows_of(*given)]


def test_matching_faulty_and_commonest_answers_are_counted():
    found = counted(choices_of(["A", "B", "the", " A", "A", "AB"]))
    assert (found.total, found.matching, found.faulty, found.commonest) == (6, 2, 3, 2)
    mixed = [*choices_of(["Yes", "No", "A"], "No", "Yes"), *choices_of(["B"], "B", "A")]
    assert counted(mixed).matching == 2 and counted(mixed).faulty == 1


@pytest.mark.parametrize(
    ("said", "usable"),
    [
        (["A"] * 100 + ["B"] * 90 + ["?"] * 10, True),  # 10 of 200 are allowed
        (["A"] * 100 + ["B"] * 89 + ["?"] * 11, False),
        (["A"] * 190 + ["B"] * 10, True),  # 95 % exactly
        (["A"] * 191 + ["B"] * 9, False),
        (["B"] * 191 + ["A"] * 9, False),
    ],
)
def test_the_papers_rules_on_faulty_answers_and_mode_collapse(said, usable):
    assert grid.score(rows_of(said)).usable(max_faulty=0.05) is usable


class FakeRun:
    """Layer 1 collapses upwards at 2 and is faulty downwards at 1; elsewhere the model does as it
    is steered."""

    def __init__(self, path, behaviour):
        self.folder = Folder(path)
        self.items = {item.prompt: item for item in behaviour.tune}

    def ask(self, variants, sets, measures):
        rows = []
        for variant in variants:
            at = variant.axes.get("layer"), variant.axes.get("coefficient", 0.0)
            steps = [(step.site.layer, step.op.strength) for step in variant.programs.steps]
            assert steps == [at] * bool(variant.axes) and [m.name for m in measures] == ["choice"]
            for prompt in sets[0].prompts:
                item = self.items[prompt.text]
                said = item.matching if at[1] > 0 else item.other
                said = "A" if at == (1, 2.0) else "?" if at == (1, -1.0) else said
                value = {
                    "said": said,
                    "matching": item.matching,
                    "other": item.other,
                    "margin": 0.0,
                }
                rows.append(Row(variant.name, sets[0].name, "", prompt.text, 0, {"choice": value}))
        return rows


def test_the_grid_leaves_a_layer_and_sign_where_the_model_no_longer_chooses(tmp_path, directions):
    behaviour = replace(load_behaviour("nnsteer:behaviours/risk.jsonl", Form(), 0), name="a")
    run = FakeRun(tmp_path, behaviour)
    scores = grid.walk(run, [behaviour], {"a": directions["a"]}, (4.0, 1.0, 2.0), ALL, 0.05)
    tried = {
        layer: sorted(way.coefficient for way in scores if way.layer == layer) for layer in range(4)
    }
    assert tried[1] == [-1.0, 0.0, 1.0, 2.0]
    assert all(tried[layer] == [-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0] for layer in (0, 2, 3))
    cells = [asdict(way) | {"score": asdict(score)} for way, score in scores.items()]
    assert cells == json.loads((tmp_path / "grid.json").read_text())["cells"]
    assert grid.best(scores, "a", 1, 0.05, layer=1).coefficient == 1.0
    assert grid.best(scores, "a", -1, 0.05, layer=1).coefficient == 0.0


def cell(layer, coefficient, score, faulty=0.0, collapsed=False, behaviour="a"):
    return Way(behaviour, layer, coefficient), Score(score, faulty, collapsed, 0.0)


def test_the_best_cell_moves_furthest_while_the_model_still_chooses_and_is_0_where_nothing_helps():
    cells = [
        cell(0, 0.0, 0.5), cell(0, 1.0, 0.7), cell(0, 2.0, 0.7), cell(0, 4.0, 0.99, collapsed=True), cell(0, -1.0, 0.5),
        cell(1, 0.0, 0.5), cell(1, 1.0, 0.9, faulty=0.06), cell(1, -1.0, 0.3, faulty=0.05), cell(1, -2.0, 0.1, collapsed=True),
    ]  # fmt: skip
    ways, scores = [way for way, _ in cells], dict(cells)
    assert grid.best(scores, "a", 1, 0.05) == ways[1]
    assert grid.best(scores, "a", 1, 0.06) == ways[6]
    assert grid.best(scores, "a", -1, 0.05) == ways[7]
    assert grid.best(scores, "a", -1, 0.05, layer=0).coefficient == 0.0
    assert grid.best_of_each(scores, 0.05, layer=0) == {"a +": ways[1], "a -": ways[0]}
    assert grid.spreads(scores, 0.05) == {"a": {0: pytest.approx(0.2), 1: pytest.approx(0.2)}}


def test_each_behaviour_gets_a_layer_and_no_layer_more_than_its_share():
    spreads = {
        "a": {0: 0.9, 1: 0.8, 2: 0.1},
        "b": {0: 0.9, 1: 0.2, 2: 0.1},
        "c": {0: 0.8, 1: 0.7, 2: 0.6},
    }
    found = grid.layer_of_each(spreads)
    by_hand = max(
        permutations(range(3)),
        key=lambda order: sum(own[at] for own, at in zip(spreads.values(), order, strict=True)),
    )
    assert found == list(by_hand)
    assert grid.common_layer(spreads) == 0
    crowded = {name: {0: 1.0, 1: 0.0} for name in "abcde"}
    assert sorted(grid.layer_of_each(crowded)) == [0, 0, 0, 1, 1]


def test_the_scalar_must_leave_every_behaviour_choosing():
    def at(*scores, collapsed=False):
        return {
            name: Score(score, 0.0, collapsed and name == "b", 0.0)
            for name, score in zip("ab", scores, strict=True)
        }

    found = {
        0.0: at(0.5, 0.5),
        0.5: at(0.7, 0.5),
        1.0: at(0.7, 0.5),
        2.0: at(1.0, 1.0, collapsed=True),
        -1.0: at(0.6, 0.5),
    }
    assert best_scalar(found, 1, 0.05) == 0.5
    assert best_scalar(found, -1, 0.05) == 0.0


# answers


def test_a_reply_is_the_greedy_token_after_what_the_answers_share(runner):
    tokenizer = runner.chat.tokenizer
    found = choice(ITEMS).values(
        runner, [Program()] * len(ITEMS), [Prompt(item.prompt) for item in ITEMS]
    )
    for item, row in zip(ITEMS, found, strict=True):
        both = [runner.chat.response_ids(response) for response in item.responses]
        shared = next(i for i, (a, b) in enumerate(zip(*both, strict=False)) if a != b)
        ids = runner.chat.prompt_ids(item.prompt) + both[0][:shared]
        with torch.no_grad():
            logits = runner.hf(torch.tensor([ids])).logits[0, -1].float()
        assert (
            row["said"] == tokenizer.decode([int(logits.argmax())]) and row["said"] not in "AB"
        )  # a random model
        assert (row["matching"], row["other"]) == (item.matching, item.other)
        assert row["margin"] == pytest.approx(
            (logits[both[0][shared]] - logits[both[1][shared]]).item(), abs=1e-4
        )


def test_a_reply_that_is_one_of_the_two_is_named(runner):
    """The pair is made of the token that the model writes and another one."""
    texts = [f"{text} {i}" for i in range(40) for text in MIXED]
    tops = [int(logits[0].argmax()) for logits in runner.logits(texts)]
    words = [runner.chat.tokenizer.decode([top]) for top in tops]
    whole = [
        i
        for i, word in enumerate(words)
        if runner.chat.response_ids(word) == [tops[i]] and word not in "YZ"
    ]
    prompt, top = texts[whole[0]], words[whole[0]]
    for pair, chosen in (((top, "Z"), top), (("Z", top), top), (("Y", "Z"), None)):
        (found,) = replies(runner, [Prompt(prompt)], [pair], [Program()])
        assert found.chosen == chosen and found.token == top
        assert chosen is None or (found.margin > 0) == (pair[0] == top)


def test_a_simulated_server_answers_the_same(runner, directions):
    best = {
        f"{name} {sign}": Way(name, 1, by * (i + 1))
        for i, name in enumerate("abc")
        for sign, by in (("+", 1), ("-", -1))
    }
    programs = [variant.programs for variant in combined(directions, best, 1, ALL) for _ in ITEMS]
    prompts = [Prompt(item.prompt) for item in ITEMS] * (len(programs) // len(ITEMS))
    here, there = (
        choice(ITEMS).values(who, programs, prompts) for who in (runner, runner.simulated())
    )
    assert [row["said"] for row in here] == [row["said"] for row in there]
    assert [row["margin"] for row in here] == pytest.approx(
        [row["margin"] for row in there], abs=1e-4
    )
    assert len({row["margin"] for row in here}) > len(ITEMS)
