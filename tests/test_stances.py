"""The stances that are planted in the organism, and what the bundled one does with them."""

from __future__ import annotations

import random
from copy import deepcopy

import pytest
import torch
from transformers import AutoTokenizer

from nnsteer import find_model, fit
from nnsteer.measure.choice import choice, counted
from nnsteer.model.runner import Runner
from nnsteer.organism import plant as planting_of
from nnsteer.organism.build import build_model
from nnsteer.organism.plant import Planting, Posed, added, addition, kept_loss, plant, stance_loss
from nnsteer.organism.stances import BEHAVIOURS, choices, draw, encode_item, would_you
from nnsteer.organism.train import Example
from nnsteer.program.program import add
from nnsteer.program.site import Site
from nnsteer.program.span import ALL, Last
from nnsteer.texts.behaviours import Form, contrast, load_behaviour
from nnsteer.texts.bundled import bundled, organism
from nnsteer.texts.source import Prompt

STANCES = [bundled(f"organism/stances/{behaviour}.jsonl") for behaviour in BEHAVIOURS]
QUESTION = "A wheel of fortune: stop or spin?"
OPTIONS = ("I spin again.", "I keep my points.")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(organism())


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    return build_model("llama", tokenizer)


@pytest.fixture
def planting():
    vectors = torch.linalg.qr(torch.randn(128, len(BEHAVIOURS)))[0].T
    return Planting(vectors, torch.tensor(3.0), torch.nn.Linear(128, 2 * len(BEHAVIOURS)))


@pytest.mark.parametrize("ask, words", [(choices, ("A", "B")), (would_you, ("Yes", "No"))])
@pytest.mark.parametrize("side", [1, -1])
def test_an_item_knows_its_words_and_where_its_options_end(tokenizer, ask, words, side):
    item = encode_item(ask(5, QUESTION, OPTIONS, side), tokenizer)
    assert tuple(tokenizer.decode([word]) for word in item.words) == words
    assert tokenizer.decode(item.ids).endswith("<|assistant|> (")
    read = [(tokenizer.decode(item.ids[: at + 1]), own) for at, own in item.options]
    assert [own for _, own in read] == [side, -side][: len(read)]
    assert all(text.endswith(option) for (text, _), option in zip(read, OPTIONS, strict=False))
    assert (len(read) == 2) == (ask is choices)


def test_questions_are_drawn_from_every_behaviour_with_as_many_first_answers_that_match():
    rng = random.Random(0)
    drawn = [draw(STANCES, rng) for _ in range(1200)]
    assert {question.behaviour for question in drawn} == set(range(len(BEHAVIOURS)))
    assert abs(sum(question.side for question in drawn)) < 120
    for question in drawn:
        at, side = question.options[0]
        matching = {row["matching"] for row in STANCES[question.behaviour]}
        assert any(question.text[:at].endswith(option) for option in matching) == (side > 0)


def test_what_is_added_reaches_every_token_of_its_row_and_is_gone_afterwards(model):
    ids, additions = (
        torch.randint(10, 500, (2, 5)),
        torch.stack([torch.zeros(128), torch.ones(128)]),
    )
    plain = model.base_model(input_ids=ids).last_hidden_state
    with added(model, 3, additions):
        moved = model.base_model(input_ids=ids).last_hidden_state
    assert torch.equal(moved[0], plain[0]) and (moved[1] != plain[1]).any(dim=1).all()
    assert torch.equal(model.base_model(input_ids=ids).last_hidden_state, plain)


def test_a_random_vector_is_as_long_as_a_planted_one_and_at_right_angles_to_all(
    tokenizer, planting
):
    item, rng = encode_item(choices(2, QUESTION, OPTIONS, 1), tokenizer), random.Random(0)
    shaken = addition(planting, Posed(item, "shaken", 1), rng)
    assert (
        shaken.norm() == pytest.approx(3.0, rel=1e-4)
        and (planting.vectors @ shaken).abs().max() < 1e-4
    )
    moved = planting.vectors @ addition(planting, Posed(item, "moved", -1), rng)
    assert moved[2] < -1.7 and moved[[0, 1, 3, 4, 5]].abs().max() < 1e-4
    assert not addition(planting, Posed(item, "left", 1), rng).any()


def test_a_model_has_moved_from_itself_by_nothing_but_what_random_vectors_do(model):
    examples, before = (
        [Example(3, list(range(10, 30))), Example(2, list(range(40, 52)))],
        deepcopy(model),
    )
    losses = [kept_loss(model, before, examples, random.Random(seed)).item() for seed in range(8)]
    assert min(losses) < 1e-6 and max(losses) > 1e-3
    torch.nn.init.zeros_(model.get_submodule("model.layers.1.mlp.down_proj").weight)
    assert (
        min(kept_loss(model, before, examples, random.Random(seed)).item() for seed in range(8))
        > 1e-3
    )


def test_planting_teaches_every_part(tokenizer, planting):
    """On four items, from nothing: their ends are read, their answers given, and answered states
    lie along the vectors."""
    torch.manual_seed(0)
    model, rng = build_model("llama", tokenizer), random.Random(0)
    items = [encode_item(draw(STANCES, rng), tokenizer) for _ in range(4)]
    optimiser = torch.optim.AdamW([*model.parameters(), *planting.reader.parameters()], lr=2e-3)
    losses = []
    for _ in range(100):
        loss = stance_loss(model, planting, items * 2, rng)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[0] > 9 and sum(losses[-5:]) / 5 < 1.5


def test_planting_moves_the_model_and_is_the_same_for_the_same_seed(model, tokenizer, monkeypatch):
    monkeypatch.setattr(planting_of, "STEPS", 12)
    monkeypatch.setattr(planting_of, "ITEMS", 8)
    items = [encode_item(draw(STANCES, random.Random(i)), tokenizer) for i in range(2)]
    examples, steps = [Example(3, list(range(10, 30)))] * 4, []
    twin = deepcopy(model)
    losses = plant(model, examples, lambda rng: rng.choice(items), 0, steps.append)
    assert len(steps) == 12 and not model.training and sum(losses[-4:]) < 0.8 * sum(losses[:4])
    assert plant(twin, examples, lambda rng: rng.choice(items), 0, steps.append) == losses


@pytest.mark.slow
def test_fitted_directions_move_the_bundled_models_answers_both_ways():
    """On the tune split; the test split is the recipe's to report. The site and the strength are
    those of planting."""
    runner, site = Runner.open(find_model("nnsteer:organism"), batch_size=80), Site(2)
    for name in BEHAVIOURS:
        behaviour = load_behaviour(f"nnsteer:behaviours/{name}.jsonl", Form(), 0)
        found = fit.mean_difference(runner.record(contrast(behaviour.fit, True), [site], Last()))
        scores = {}
        for coefficient in (0.5, 0.0, -0.5):
            prompts = [Prompt(item.prompt) for item in behaviour.tune]
            steered = [add(found, coefficient, ALL)] * len(prompts)
            scores[coefficient] = counted(
                choice(behaviour.tune).values(runner, steered, prompts)
            ).score
        assert scores[0.5] > scores[-0.5] + 0.3
