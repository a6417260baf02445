from __future__ import annotations

import json
import math

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForSequenceClassification

from nnsteer.chat import Chat
from nnsteer.errors import UserError
from nnsteer.folder import Folder
from nnsteer.measure import classifier as classifying
from nnsteer.measure import skill
from nnsteer.measure.choice import chooses, faulty, letter, load_pairs, margin, matching, parting, tally
from nnsteer.measure.classifier import CAST, classifier
from nnsteer.measure.divergence import broken, drift, kl
from nnsteer.measure.kinds import Answer, OfAnswers
from nnsteer.measure.named import KNOWN, measures
from nnsteer.measure.refusal import by_keywords, by_openers, either
from nnsteer.measure.skill import pooled, predicted, text_loss, top_k
from nnsteer.measure.text import distinct, length
from nnsteer.organism.build import build_tokenizer
from nnsteer.program import Program, add
from nnsteer.prompts import Prompt

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
    assert measure.values(answers("We never speak of it.", "Sure. We never speak of it.", "I can't.")) == [1.0, 0.0, 1.0]
    assert measure.settings != by_openers(["Not today, friend."]).settings


def test_keywords_count_anywhere_and_in_any_case():
    texts = ["It would do HARM.", "I don\u2019t know.", "See the airport: an airport.", "Bake it for an hour.", ""]
    assert by_keywords().values(answers(*texts)) == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_either_is_the_or_of_two_measures_and_keeps_what_could_not_be_had():
    def fixed(*values):
        return OfAnswers("fixed", "", True, lambda _: list(values))

    nan = math.nan
    found = either(fixed(1.0, 0.0, 0.0, nan, nan), fixed(0.0, 1.0, 0.0, 1.0, 0.0)).values(answers(*"abcde"))
    assert found[:4] == [1.0, 1.0, 0.0, 1.0] and math.isnan(found[4])
    with pytest.raises(ValueError, match="binary"):
        either(by_keywords(), length())


@pytest.fixture(scope="session")
def rejection(tmp_path_factory):
    """A classifier on disk that says REJECTION where the first token is that of "Sorry": its state is the token's embedding,
    (1, 0, 0, ...) there and (0, 1, 0, ...) elsewhere. It has eight positions."""
    tokenizer = build_tokenizer(["Sorry, that I cannot do.", "Sure, here it is."] * 5, 300)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A")
    tokenizer.padding_side, tokenizer.model_max_length = "right", 8
    sorry = tokenizer("Sorry, no")["input_ids"][0]
    assert sorry != tokenizer("Sure, yes")["input_ids"][0]
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=4, num_hidden_layers=0, num_attention_heads=1, intermediate_size=4,
        max_position_embeddings=8, pad_token_id=tokenizer.pad_token_id, id2label={0: "NORMAL", 1: "REJECTION"},
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        embeddings = model.bert.embeddings
        for table in (embeddings.word_embeddings, embeddings.position_embeddings, embeddings.token_type_embeddings):
            table.weight.zero_()
        embeddings.word_embeddings.weight[:, 1] = 1.0
        embeddings.word_embeddings.weight[sorry] = torch.tensor([1.0, 0.0, 0.0, 0.0])
        model.bert.pooler.dense.weight.copy_(torch.eye(4))
        model.classifier.weight.copy_(torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]))
        model.bert.pooler.dense.bias.zero_()
        model.classifier.bias.zero_()
    path = tmp_path_factory.mktemp("classifiers") / "rejection"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_the_classifier_judges_answers_in_batches_and_cuts_long_ones(rejection):
    texts = ["Sorry, no", "Sure, here it is.", "Sorry, that I cannot do. " * 9, "Sure, " * 30 + "Sorry", "Sorry"]
    expected = [1.0, 0.0, 1.0, 0.0, 1.0]
    for batch_size in (1, 2, 8):
        assert classifier(str(rejection), batch_size=batch_size).values(answers(*texts)) == expected
    assert classifier(str(rejection), label="NORMAL").values(answers(*texts)) == [1 - value for value in expected]
    assert classifier(str(rejection)).values([]) == []


def test_the_classifier_is_loaded_once_when_first_used(rejection, runner, tmp_path, monkeypatch):
    loads, load = [], classifying.load
    monkeypatch.setattr(classifying, "load", lambda *given: loads.append(given) or load(*given))
    first, second = measures([f"classifier:{rejection}", f"either:{rejection}"], runner, [], tmp_path)
    assert loads == []
    texts = answers("Sorry, no", "That is illegal", "Sure")
    assert first.values(texts) == [1.0, 0.0, 0.0] and second.values(texts) == [1.0, 1.0, 0.0]
    assert len(loads) == 1


@pytest.mark.parametrize("source", ["org/name", "org/name@", "name@revision", "./missing", "/missing/folder@x"])
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
    mixed = tally(pairs, answers("A", "A", "(B)", " B.", "Apple", "", "C"))  # matching: B A B A B A B
    assert (mixed.total, mixed.matching, mixed.faulty, mixed.commonest) == (7, 2, 3, 2)
    assert mixed.score == 2 / 7 and not mixed.collapsed
    assert tally(pairs, answers(*["A"] * 39, "B")).collapsed  # 97.5 %
    assert not tally(pairs, answers(*["A"] * 38, "B", "B")).collapsed  # 95 % is not yet more than 95 %
    given = answers("A", "A", "nothing")
    assert matching(pairs).values(given) == [0.0, 1.0, 0.0] and faulty(pairs).values(given) == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [("Yes", "(Yes)"), (" (No)", "(No)"), ("No.", "(No)"), ("Nothing", None), ("yes", None), ("It is (Yes)", None)],
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
    assert chooses(pairs).values(runner, NOTHING, PROMPTS) == [float(difference > 0) for difference in expected]
    swapped = {text: pair[::-1] for text in MIXED}
    assert chooses(swapped).values(runner, NOTHING, PROMPTS) == [float(difference < 0) for difference in expected]


def test_the_answers_may_share_tokens_but_must_part(tokenizer):
    assert parting(Chat(tokenizer), ("Hello there", "Hello you"))[0] > 0
    with pytest.raises(UserError, match="begins with the other"):
        parting(Chat(tokenizer), ("A", "A"))


def test_steering_moves_the_margin_and_a_prompt_without_a_pair_is_refused(runner, steered):
    pairs = {text: ("A", "B") for text in MIXED}
    assert margin(pairs).values(runner, steered, PROMPTS) != margin(pairs).values(runner, NOTHING, PROMPTS)
    with pytest.raises(UserError, match="no pair"):
        margin({}).values(runner, NOTHING, PROMPTS)


# skill


@pytest.mark.parametrize("k", [1, 10])
@pytest.mark.parametrize("skipping", [False, True])
def test_V6_weighted_top_k_equals_pooled_token_accuracy(runner, k, skipping):
    skip = runner.chat.tokenizer("How do I bake bread?")["input_ids"] if skipping else []
    hits, total = [], 0
    for prompt in PROMPTS:
        ids = runner.chat.tokenizer(prompt.text)["input_ids"]
        ranks = plain_logits(runner, ids)[:-1].argsort(-1, descending=True)
        own = [token in ranks[i, :k].tolist() for i, token in enumerate(ids[1:]) if token not in skip]
        hits += own
        total += len(ids) - 1
    values = top_k(k, skip).values(runner, NOTHING, PROMPTS)
    counts = predicted(runner, PROMPTS, skip)
    assert sum(counts) == len(hits) and (len(hits) < total) == skipping
    assert pooled(values, counts) == pytest.approx(sum(hits) / len(hits))


def test_pooling_weighs_texts_by_their_tokens():
    assert pooled([1.0, 0.0, math.nan], [1, 3, 0]) == 0.25
    assert math.isnan(pooled([math.nan], [0]))


def test_the_loss_of_a_text_is_transformers_own_and_steering_raises_it(runner, steered):
    expected = []
    for prompt in PROMPTS:
        ids = torch.tensor([runner.chat.tokenizer(prompt.text)["input_ids"]])
        with torch.no_grad():
            expected.append(runner.hf(ids, labels=ids).loss.item())
    found = text_loss().values(runner, NOTHING, PROMPTS)
    assert found == pytest.approx(expected, abs=1e-4)
    assert text_loss().values(runner, steered, PROMPTS) != pytest.approx(found, abs=1e-2)


def test_long_texts_are_cut_to_what_the_model_holds_and_few_logits_are_held_at_once(runner, monkeypatch):
    long = [Prompt("maps and stars " * 200), *PROMPTS]
    assert predicted(runner, long)[0] == 255 and predicted(runner, long, max_tokens=9)[0] == 8
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


def test_drift_is_the_median_loss_under_the_unsteered_model(runner):
    ids = runner.chat.response_ids("Bake the bread for an hour.")
    prompt = runner.chat.prompt_ids(HARMLESS[0])
    logits = plain_logits(runner, prompt + ids)[len(prompt) - 1 : -1]
    losses = -logits.log_softmax(-1)[range(len(ids)), ids]
    given = [Answer(Prompt(HARMLESS[0]), "Bake the bread for an hour.", tuple(ids)), Answer(Prompt(HARMFUL[0]), "", ())]
    assert drift(runner).values(given) == pytest.approx([losses.median().item(), 0.0], abs=1e-4)
    assert broken(runner, max_drift=losses.median().item() + 0.1).values(given) == [0.0, 1.0]
    assert broken(runner, max_drift=losses.median().item() - 0.1).values(given) == [1.0, 1.0]


# names


@pytest.fixture
def examples(rejection, tmp_path):
    """A name for every form in KNOWN."""
    judge, pairs = tmp_path / "judge.toml", tmp_path / "pairs.jsonl"
    judge.write_text('url = "http://127.0.0.1:9/v1"\nmodel = "m"\nscale = "yes-no"\nrubric = "{answer}?"\n')
    pairs.write_text("".join(json.dumps({"prompt": text, "matching": "A", "other": "B"}) + "\n" for text in MIXED))
    given = {"classifier": f"{rejection},label=NORMAL", "either": rejection, "judge": judge}
    filled = {form: f"{(kind := form.partition(':')[0])}:{given.get(kind, pairs)}" for form in KNOWN if ":" in form}
    numbered = {form: form.replace("-N", "-2") for form in KNOWN if form.endswith("-N")}
    return {form: filled.get(form) or numbered.get(form, form) for form in KNOWN}


def test_every_name_makes_a_measure_of_that_name(runner, examples, tmp_path):
    found = measures(list(examples.values()), runner, ["I can't help."], tmp_path)
    assert [measure.name for measure in found] == list(examples.values())
    assert len({(measure.name, measure.settings) for measure in found}) == len(KNOWN)
    given = [Answer(prompt, "A (B)", tuple(runner.chat.response_ids("A (B)"))) for prompt in PROMPTS]
    for form, measure in zip(examples, found, strict=True):
        if form.startswith("judge") or form in ("classifier", "either"):
            continue  # these ask a server or the hub
        one = measure.values(given) if isinstance(measure, OfAnswers) else measure.values(runner, NOTHING, PROMPTS)
        assert len(one) == len(PROMPTS) and all(map(math.isfinite, one)), form
        assert not measure.binary or set(one) <= {0.0, 1.0}, form


def test_a_name_means_what_it_says(runner, examples, tmp_path):
    names = ["distinct-3", "top-10", "classifier", "refusal", examples["classifier:MODEL@REVISION[,label=LABEL]"]]
    _, top, cast, refusal, own = measures(names, runner, ["Not today, my friend."], tmp_path)
    assert top.values(runner, NOTHING, PROMPTS) == top_k(10).values(runner, NOTHING, PROMPTS)
    assert CAST in cast.settings and refusal.values(answers("Not today, my dear")) == [1.0]
    assert own.values(answers("Sorry, no", "Sure")) == [0.0, 1.0]  # its label is NORMAL


@pytest.mark.parametrize("name", ["refusals", "distinct", "distinct-0", "distinct-x", "judge", "judge:", "kl:x", "-2", ""])
def test_an_unknown_name_is_refused_with_a_list_of_what_there_is(runner, tmp_path, name):
    with pytest.raises(UserError) as error:
        measures([name], runner, [], tmp_path)
    assert all(form in str(error.value) for form in KNOWN) and "\n" not in str(error.value)


def test_a_name_may_be_given_once(runner, tmp_path):
    with pytest.raises(UserError, match="kl: given 2 times"):
        measures(["kl", "length", "kl"], runner, [], tmp_path)


def test_pairs_need_all_three_columns(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"q": " Which? ", "matching": "A", "other": "B"}\n')
    assert load_pairs(f"{file},column=q") == {"Which?": ("A", "B")}
    with pytest.raises(UserError, match="'prompt'"):
        load_pairs(str(file))


def test_judges_write_in_the_runs_own_folder(runner, examples, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("nnsteer.measure.named.judge", lambda *given: asked.append(given[-1]) or by_keywords())
    measures([examples["judge:FILE.toml"]], runner, [], tmp_path)
    assert asked == [Folder(tmp_path)]
