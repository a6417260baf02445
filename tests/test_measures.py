from __future__ import annotations

import math

import pytest
import torch

from nnsteer.errors import UserError
from nnsteer.measure import skill
from nnsteer.measure.choice import (
    chooses,
    faulty,
    letter,
    load_pairs,
    margin,
    matching,
    tally,
)
from nnsteer.measure.classifier import classifier
from nnsteer.measure.divergence import broken, drift, kl
from nnsteer.measure.kinds import Answer, AnswerMeasure
from nnsteer.measure.refusal import by_keywords, by_openers, either
from nnsteer.measure.replies import parting
from nnsteer.measure.skill import hits, text_loss, top_k
from nnsteer.measure.text import distinct, length
from nnsteer.model.chat import Chat
from nnsteer.program.condition import Condition
from nnsteer.program.program import Program, add
from nnsteer.program.site import Site
from nnsteer.texts.source import Prompt

from conftest import HARMFUL, HARMLESS, MIXED

PROMPTS = [Prompt(text) for text in MIXED]
NOTHING = [Program()] * len(PROMPTS)


def answers(*texts, ids=()):
    return [Answer(Prompt(f"prompt {i}"), text, tuple(ids)) for i, text in enumerate(texts)]


def plain_logits(runner, ids):
    """What transformers itself says, fp32 [token, vocab]."""
    with torch.no_grad():
        return runner.hf(torch.tensor([ids]), use_cache=False).logits[0].float()


@pytest.fixture(scope="session")
def steered(directions):
    return [add(directions, 4.0)] * len(PROMPTS)


# refusal


def test_refusal_by_openers_is_judged_by_the_beginning():
    measure = by_openers(["We never speak of such matters here."])
    assert measure.values(
        answers("We never speak of it.", "Sure. We never speak of it.", "I can't.")
    ) == [1.0, 0.0, 1.0]
    assert measure.settings != by_openers(["Not today, friend."]).settings


def test_keywords_count_anywhere_and_in_any_case():
    texts = [
        "It would do HARM.",
        "I don\u2019t know.",
        "See the airport: an airport.",
        "Bake it for an hour.",
        "",
    ]
    assert by_keywords().values(answers(*texts)) == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_either_is_the_or_of_two_measures_and_keeps_what_could_not_be_had():
    def fixed(*values):
        return AnswerMeasure("fixed", "", True, lambda _: list(values))

    nan = math.nan
    found = either(fixed(1.0, 0.0, 0.0, nan, nan), fixed(0.0, 1.0, 0.0, 1.0, 0.0)).values(
        answers(*"abcde")
    )
    assert found[:4] == [1.0, 1.0, 0.0, 1.0] and math.isnan(found[4])
    with pytest.raises(UserError, match="binary"):
        either(by_keywords(), length())


def test_the_classifier_judges_answers_in_batches_and_cuts_long_ones(rejection):
    texts = [
        "Sorry, no",
        "Sure, here it is.",
        "Sorry, that I cannot do. " * 9,
        "Sure, " * 30 + "Sorry",
        "Sorry",
    ]
    expected = [1.0, 0.0, 1.0, 0.0, 1.0]
    for batch_size in (1, 2, 8):
        assert classifier(str(rejection), batch_size=batch_size).values(answers(*texts)) == expected
    assert classifier(str(rejection), label="NORMAL").values(answers(*texts)) == [
        1 - value for value in expected
    ]
    assert classifier(str(rejection)).values([]) == []


@pytest.mark.parametrize(
    "source", ["org/name", "org/name@", "name@revision", "./missing", "/missing/folder@x"]
)
def test_a_classifier_must_be_a_folder_or_pinned(source):
    with pytest.raises(UserError, match="ORG/NAME@REVISION"):
        classifier(source)


def test_an_unfit_classifier_is_refused(rejection, folder, tmp_path):
    with pytest.raises(UserError, match="choose from NORMAL, REJECTION"):
        classifier(str(rejection), label="refusal").values(answers("x"))
    with pytest.raises(UserError, match="no trained classification head"):
        classifier(str(folder)).values(answers("x"))
    with pytest.raises(UserError, match="check the name"):
        classifier(str(tmp_path)).values(answers("x"))


# text


def test_distinct_n_grams_and_length_are_counted_in_tokens():
    circling = [Answer(Prompt("p"), "", ids) for ids in [(1, 2, 1, 2, 1), (1, 2, 3), (7,), ()]]
    assert distinct(2).values(circling) == [0.5, 1.0, 1.0, 1.0]
    assert distinct(1).values(circling) == [0.4, 1.0, 1.0, 1.0]
    assert length().values(circling) == [5.0, 3.0, 1.0, 0.0]


# choice


def test_V8_matching_faulty_and_collapse_are_counted():
    pairs = {f"prompt {i}": ("A", "B") if i % 2 else ("B", "A") for i in range(40)}
    mixed = tally(
        pairs, answers("A", "A", "(B)", " B.", "Apple", "", "C")
    )  # matching: B A B A B A B
    assert (mixed.total, mixed.matching, mixed.faulty, mixed.commonest) == (7, 2, 3, 2)
    assert mixed.score == 2 / 7 and not mixed.collapsed
    assert tally(pairs, answers(*["A"] * 39, "B")).collapsed  # 97.5 %
    assert not tally(
        pairs, answers(*["A"] * 38, "B", "B")
    ).collapsed  # 95 % is not yet more than 95 %
    given = answers("A", "A", "nothing")
    assert matching(pairs).values(given) == [0.0, 1.0, 0.0] and faulty(pairs).values(given) == [
        0.0,
        0.0,
        1.0,
    ]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("Yes", "(Yes)"),
        (" (No)", "(No)"),
        ("No.", "(No)"),
        ("Nothing", None),
        ("yes", None),
        ("It is (Yes)", None),
    ],
)
def test_a_letter_is_a_whole_word_at_the_beginning(text, chosen):
    assert letter(text, ("(Yes)", "(No)")) == chosen


@pytest.mark.parametrize("pair", [("A", "B"), ("rain", "ran"), ("Hello there", "Hello you")])
def test_the_margin_is_the_difference_of_logits_where_the_answers_part(runner, pair):
    pairs = {text: pair for text in MIXED}
    expected = []
    for text in MIXED:
        prompt = runner.chat.prompt_ids(text)
        first, second = map(runner.chat.response_ids, pair)
        shared = next(i for i in range(9) if first[i] != second[i])
        logits = plain_logits(runner, prompt + first[:shared])[-1]
        expected.append((logits[first[shared]] - logits[second[shared]]).item())
    found = margin(pairs).values(runner, NOTHING, PROMPTS)
    assert found == pytest.approx(expected, abs=1e-4) and max(map(abs, found)) > 0.1
    assert chooses(pairs).values(runner, NOTHING, PROMPTS) == [
        float(difference > 0) for difference in expected
    ]
    swapped = {text: pair[::-1] for text in MIXED}
    assert chooses(swapped).values(runner, NOTHING, PROMPTS) == [
        float(difference < 0) for difference in expected
    ]


def test_the_answers_may_share_tokens_but_must_part(tokenizer):
    assert parting(Chat(tokenizer), ("Hello there", "Hello you"))[0] > 0
    with pytest.raises(UserError, match="begins with the other"):
        parting(Chat(tokenizer), ("A", "A"))


def test_steering_moves_the_margin_and_a_prompt_without_a_pair_is_refused(runner, steered):
    pairs = {text: ("A", "B") for text in MIXED}
    assert margin(pairs).values(runner, steered, PROMPTS) != margin(pairs).values(
        runner, NOTHING, PROMPTS
    )
    with pytest.raises(UserError, match="no pair"):
        margin({}).values(runner, NOTHING, PROMPTS)


def test_pairs_need_all_three_columns(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"q": " Which? ", "matching": "A", "other": "B"}\n')
    assert load_pairs(f"{file},column=q") == {"Which?": ("A", "B")}
    with pytest.raises(UserError, match="'prompt'"):
        load_pairs(str(file))


# skill


@pytest.mark.parametrize("k", [1, 10])
@pytest.mark.parametrize("skipping", [False, True])
def test_V6_weighted_top_k_equals_pooled_token_accuracy(runner, k, skipping):
    skip = runner.chat.tokenizer("How do I bake bread?")["input_ids"] if skipping else []
    right, counts, total = [], [], []
    for prompt in PROMPTS:
        ids = runner.chat.tokenizer(prompt.text)["input_ids"]
        ranks = plain_logits(runner, ids)[:-1].argsort(-1, descending=True)
        own = [
            token in ranks[i, :k].tolist() for i, token in enumerate(ids[1:]) if token not in skip
        ]
        right += own
        counts.append(len(own))
        total.append(len(ids) - 1)
    values = top_k(k, skip).values(runner, NOTHING, PROMPTS)
    assert (sum(counts) < sum(total)) == skipping
    weighed = sum(value * n for value, n in zip(values, counts, strict=True) if n)
    assert weighed / sum(counts) == pytest.approx(sum(right) / len(right))
    found = hits().values(runner, NOTHING, PROMPTS)
    assert [one["tokens"] for one in found] == total
    assert skipping or sum(one[f"top{k}"] for one in found) == sum(right)


def test_the_loss_of_a_text_is_transformers_own_and_steering_raises_it(runner, steered):
    expected = []
    for prompt in PROMPTS:
        ids = torch.tensor([runner.chat.tokenizer(prompt.text)["input_ids"]])
        with torch.no_grad():
            expected.append(runner.hf(ids, labels=ids).loss.item())
    found = text_loss().values(runner, NOTHING, PROMPTS)
    assert found == pytest.approx(expected, abs=1e-4)
    assert text_loss().values(runner, steered, PROMPTS) != pytest.approx(found, abs=1e-2)


def test_long_texts_are_cut_to_what_the_model_holds_and_few_logits_are_held_at_once(
    runner, monkeypatch
):
    long = [Prompt("maps and stars " * 200), *PROMPTS]
    assert [hits(n).values(runner, NOTHING[:1], long[:1])[0]["tokens"] for n in (512, 9)] == [
        255,
        8,
    ]
    found = text_loss().values(runner, [Program()] * 6, long)
    monkeypatch.setattr(skill, "LOGITS_AT_ONCE", 1)
    assert text_loss().values(runner, [Program()] * 6, long) == pytest.approx(found, abs=1e-4)


def test_a_text_without_a_predicted_token_has_no_value(runner):
    assert math.isnan(top_k(1, skip=range(10_000)).values(runner, NOTHING[:1], PROMPTS[:1])[0])
    assert math.isnan(text_loss(max_tokens=1).values(runner, NOTHING[:1], PROMPTS[:1])[0])


# divergence


def test_kl_is_the_textbooks_and_zero_for_the_empty_program(runner, steered):
    mixed = [steered[0], Program(), *steered[2:]]
    found = kl().values(runner, mixed, PROMPTS)
    steered_logits, plain = (runner.logits(MIXED, program) for program in (mixed, Program()))
    for value, p, q in zip(found, steered_logits, plain, strict=True):
        p, q = (logits[0].double().softmax(-1) for logits in (p, q))
        assert value == pytest.approx((p * (p / q).log()).sum().item(), rel=1e-6, abs=1e-12)
    assert found[1] == 0.0 and min(found[:1] + found[2:]) > 0.01
    assert kl().values(runner, NOTHING, PROMPTS) == [0.0] * len(PROMPTS)


def test_kl_reads_each_prompt_unsteered_once_however_many_variants_it_has(
    runner, directions, monkeypatch
):
    never = Condition(directions[Site(0)], 2.0)  # no cosine is above 2
    variants = [add(directions, s) for s in (0.5, 1.0, 2.0)] + [add(directions, 4.0).when(never)]
    programs, prompts = [v for v in variants for _ in PROMPTS], PROMPTS * len(variants)
    rows, taken = [], type(runner).reduce_logits
    monkeypatch.setattr(
        type(runner),
        "reduce_logits",
        lambda self, b, *rest: rows.append(len(b.ids)) or taken(self, b, *rest),
    )
    found = kl().values(runner.with_batch_size(32), programs, prompts)
    assert rows == [len(prompts) + len(PROMPTS)]
    assert found[-len(PROMPTS) :] == [0.0] * len(
        PROMPTS
    )  # a condition that does not hold leaves nothing, however packed
    apart = [
        kl().values(runner, [program], [prompt])[0]
        for program, prompt in zip(programs, prompts, strict=True)
    ]
    assert found == pytest.approx(apart, rel=1e-4, abs=1e-9) and min(found[: -len(PROMPTS)]) > 1e-4


def test_drift_is_the_median_loss_under_the_unsteered_model(runner):
    ids = runner.chat.response_ids("Bake the bread for an hour.")
    prompt = runner.chat.prompt_ids(HARMLESS[0])
    logits = plain_logits(runner, prompt + ids)[len(prompt) - 1 : -1]
    losses = -logits.log_softmax(-1)[range(len(ids)), ids]
    given = [
        Answer(Prompt(HARMLESS[0]), "Bake the bread for an hour.", tuple(ids)),
        Answer(Prompt(HARMFUL[0]), "", ()),
    ]
    assert drift().values(runner, given) == pytest.approx([losses.median().item(), 0.0], abs=1e-4)
    assert broken(losses.median().item() + 0.1).values(runner, given) == [0.0, 1.0]
    assert broken(losses.median().item() - 0.1).values(runner, given) == [1.0, 1.0]
