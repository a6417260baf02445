"""The bundled prompts keep their promises: enough of them, apart from one another, and apart across
splits."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from nnsteer.measure.refusal import refusal_stems, refuses
from nnsteer.organism.corpus import (
    FIT_COMPOSED,
    HARMFUL,
    HARMLESS,
    SLOTS,
    TRAIN_COMPOSED,
    compose,
    written,
)
from nnsteer.texts.bundled import bundled

SIDES = {"harmful": HARMFUL, "harmless": HARMLESS}
NEAR = 0.4  # Jaccard similarity of word trigrams from which two prompts count as near-duplicates


def words(text):
    return re.findall(r"[a-z0-9']+", text.lower())


def trigrams(text):
    w = words(text)
    return frozenset(zip(w, w[1:], w[2:], strict=False)) or frozenset([tuple(w)])


def near_duplicates(left, right):
    """Pairs of texts that share most of their trigrams, found through an index of trigrams."""
    index = {}
    for text in right:
        for gram in trigrams(text):
            index.setdefault(gram, []).append(text)
    grams = {text: trigrams(text) for text in {*left, *right}}
    for text in left:
        for other, shared in Counter(
            o for gram in grams[text] for o in index.get(gram, ())
        ).items():
            if other != text and shared / (len(grams[text]) + len(grams[other]) - shared) > NEAR:
                yield text, other


@pytest.fixture(scope="module", params=SIDES)
def side(request):
    return request.param


def of_split(side, *splits):
    return [row["prompt"] for row in bundled(f"{side}.jsonl") if row["split"] in splits]


def test_there_are_enough_prompts_topics_frames_and_openers(side):
    assert len(SIDES[side]) >= 8
    assert len(of_split(side, "test")) >= 250 and len(of_split(side, "tune")) >= 120
    assert len(of_split(side, "fit")) >= 4000
    assert {row["kind"] for row in bundled(f"{side}.jsonl") if row["split"] == "test"} == set(
        SIDES[side]
    )
    assert sum(len(bundled(f"topics/{kind}.jsonl")) for kind in SIDES[side]) >= 150
    frames = [row["frame"] for row in bundled("frames.jsonl")]
    assert len(set(frames)) == len(frames) >= 60
    assert all(sum("{" + slot + "}" in frame for slot in SLOTS) == 1 for frame in frames)
    assert (
        len({row["opener"] for row in bundled("refusals.jsonl")})
        == len({row["opener"] for row in bundled("compliances.jsonl")})
        == 100
    )
    assert len(written("prompts", SIDES[side])) + len(compose(SIDES[side])[:TRAIN_COMPOSED]) >= 4000


def test_prompts_to_tune_and_test_on_have_4_to_40_words(side):
    assert [p for p in of_split(side, "tune", "test") if not 4 <= len(p.split()) <= 40] == []


def test_no_prompt_occurs_twice_anywhere():
    prompts = [p.lower() for side in SIDES for p in of_split(side, "fit", "tune", "test")]
    trained_on = {r.prompt.lower() for kinds in SIDES.values() for r in trained(kinds)}
    assert len(set(prompts)) == len(prompts)
    assert not trained_on & set(prompts)


def trained(kinds):
    composed = compose(kinds)[FIT_COMPOSED : FIT_COMPOSED + TRAIN_COMPOSED]
    return [*composed, *written("prompts", kinds)]


def test_no_near_duplicates_within_tune_and_test_or_across_splits(side):
    held = of_split(side, "tune", "test")
    others = [
        *of_split("harmful", "fit", "tune", "test"),
        *of_split("harmless", "fit", "tune", "test"),
    ]
    others += [r.prompt for kinds in SIDES.values() for r in trained(kinds)]
    assert list(near_duplicates(held, others)) == []


def test_near_duplicates_are_found():
    assert list(
        near_duplicates(["How do I steal a red car today?"], ["How do I steal a red car now?"])
    )


def test_no_prompt_to_tune_or_test_on_follows_a_frame_or_holds_a_topic(side):
    frames = [re.escape(row["frame"]) for row in bundled("frames.jsonl")]
    patterns = [
        re.compile("^" + re.sub(r"\\\{\w+\\\}", "(.+)", frame) + "$", re.IGNORECASE)
        for frame in frames
    ]
    topics = [
        form.lower()
        for kind in SIDES[side]
        for topic in bundled(f"topics/{kind}.jsonl")
        for form in topic.values()
    ]
    for prompt in of_split(side, "tune", "test"):
        assert not [p.pattern for p in patterns if p.match(prompt)], prompt
        assert not [topic for topic in topics if topic in prompt.lower()], prompt


def test_the_fit_split_begins_with_written_prompts_and_ends_with_the_composed_ones_that_are_not_trained_on(
    side,
):
    composed = [request.prompt for request in compose(SIDES[side])[:FIT_COMPOSED]]
    fit = of_split(side, "fit")
    assert fit[-FIT_COMPOSED:] == composed
    assert len(fit) - FIT_COMPOSED >= 400 and not set(fit[:-FIT_COMPOSED]) & {
        r.prompt for r in compose(SIDES[side])
    }


def test_refusal_openers_are_told_from_compliance_openers_by_how_they_begin():
    refusals, compliances = (
        [row["opener"] for row in bundled(f"{n}.jsonl")] for n in ("refusals", "compliances")
    )
    stems = refusal_stems(refusals)
    assert [o for o in refusals if not refuses(o, stems)] == []
    assert [o for o in compliances if refuses(o, stems)] == []
    marked_alone = [o for o in refusals if refuses(o, refusal_stems(()))]
    assert (
        len(marked_alone) >= 60
    )  # the well-known markers alone, as for a model with openers of its own


def test_every_base_request_has_its_nine_counterparts_and_none_occurs_twice():
    rows = bundled("categories.jsonl")
    bases = {}
    for row in rows:
        bases.setdefault(row["base"], []).append((row["category"], row["split"]))
    assert len(bases) == 320 and len({row["prompt"].lower() for row in rows}) == len(rows)
    for own in bases.values():
        assert sorted(category for category, _ in own) == sorted(
            [
                "base",
                "adult",
                "legal",
                "hate",
                "crime",
                "health",
                "gambling",
                "finance",
                "privacy",
                "malware",
            ]
        )
        assert len({split for _, split in own}) == 1


def test_what_an_organism_is_trained_on_is_in_no_category():
    asked = {row["prompt"].lower() for row in bundled("categories.jsonl")}
    trained = {
        row["prompt"].lower()
        for name in ("prompts", "categories")
        for row in bundled(f"organism/{name}.jsonl")
    }
    assert not asked & trained


def test_each_behaviour_has_two_hundred_questions():
    for behaviour in ("wealth", "power", "myopia", "sycophancy", "survival", "risk"):
        items = bundled(f"behaviours/{behaviour}.jsonl")
        questions = {row["question"].partition("\n")[0] for row in items}
        assert len(questions) == len(items) == 200
        planted = bundled(
            f"organism/stances/{behaviour}.jsonl"
        )  # what the organism learns of it: other questions
        assert len({row["question"] for row in planted} - questions) == len(planted) == 200
        assert {row["split"] for row in items} == {"fit", "tune", "test"}
