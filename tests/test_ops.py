"""The kernel and the masks as theorems, on tensors alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nnsteer.errors import UserError
from nnsteer.kernels import edits
from nnsteer.model.lower import lower_op, lower_where
from nnsteer.program.direction import Direction
from nnsteer.program.identity import ModelId
from nnsteer.program.op import Ablate, Add, Affine
from nnsteer.program.site import Site
from nnsteer.program.span import (
    ALL,
    GENERATED,
    LAST_PROMPT,
    PROMPT,
    Positions,
    Span,
    first_generated,
)


@pytest.fixture
def direction():
    torch.manual_seed(0)
    origin = torch.randn(16)
    return Direction(torch.randn(16), Site(0), PROMPT, "made", origin, ModelId("m", None, "w"), "d")


@pytest.fixture
def h():
    torch.manual_seed(2)
    return torch.randn(3, 5, 16)


def coefficient(h, r):
    return (h @ r) / r.dot(r)


def test_A2_affine_sets_the_coefficient_whatever_the_input(h, direction):
    for alpha in (-1.0, 0.0, 0.5, 1.0):
        got = edits.kernel(h, lower_op(Affine(direction, alpha)))
        want = coefficient(direction.origin, direction.vector) + alpha
        torch.testing.assert_close(
            coefficient(got, direction.vector), want.expand(3, 5), atol=1e-5, rtol=0
        )


def test_A3_affine_takes_each_class_mean_to_the_other(direction):
    negative = direction.origin[None, None]
    positive = negative + direction.vector
    for alpha, target in ((0.0, negative), (1.0, positive)):
        for start in (negative, positive):
            torch.testing.assert_close(
                edits.kernel(start, lower_op(Affine(direction, alpha))), target, atol=1e-5, rtol=0
            )


def test_A1_affine_is_ablation_then_the_references_projection_then_addition(h, direction):
    r = direction.vector
    by_parts = (
        edits.kernel(h, lower_op(Ablate(direction)))
        + coefficient(direction.origin, r) * r
        + 0.7 * r
    )
    torch.testing.assert_close(
        edits.kernel(h, lower_op(Affine(direction, 0.7))), by_parts, atol=1e-5, rtol=0
    )


def test_A5_affine_twice_is_the_last_one(h, direction):
    once = edits.kernel(h, lower_op(Affine(direction, 0.2)))
    torch.testing.assert_close(
        edits.kernel(
            edits.kernel(h, lower_op(Affine(direction, 3.0))), lower_op(Affine(direction, 0.2))
        ),
        once,
        atol=1e-5,
        rtol=0,
    )


def test_A9_affine_moves_with_a_shift_of_all_states_and_ablation_does_not(h, direction):
    constant = torch.randn(16, generator=torch.Generator().manual_seed(4))
    moved = replace(direction, origin=direction.origin + constant)
    shifted = edits.kernel(h + constant, lower_op(Affine(moved, 0.5)))
    torch.testing.assert_close(
        shifted, edits.kernel(h, lower_op(Affine(direction, 0.5))) + constant, atol=1e-5, rtol=0
    )
    ablated = edits.kernel(h + constant, lower_op(Ablate(direction)))
    assert (ablated - edits.kernel(h, lower_op(Ablate(direction))) - constant).abs().max() > 0.1


def test_ablation_removes_the_direction_once_and_leaves_the_rest(h, direction):
    r = direction.vector
    once = edits.kernel(h, lower_op(Ablate(direction)))
    torch.testing.assert_close(coefficient(once, r), torch.zeros(3, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        edits.kernel(once, lower_op(Ablate(direction))), once, atol=1e-5, rtol=0
    )
    across = h - coefficient(h, r)[..., None] * r
    torch.testing.assert_close(once, across, atol=1e-5, rtol=0)
    half = edits.kernel(h, lower_op(Ablate(direction, 0.5)))
    torch.testing.assert_close(coefficient(half, r), coefficient(h, r) / 2, atol=1e-5, rtol=0)


def test_C10_V2_addition_is_linear_in_its_strength(h, direction):
    there = edits.kernel(h, lower_op(Add(direction, 2.5)))
    torch.testing.assert_close(there - h, (2.5 * direction.vector).expand_as(h), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        edits.kernel(there, lower_op(Add(direction, -2.5))), h, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("op", [Add, Ablate, Affine])
def test_half_precision_states_stay_in_half_precision(h, direction, op):
    half = edits.kernel(h.bfloat16(), lower_op(op(direction)))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(
        half.float(), edits.kernel(h, lower_op(op(direction))), atol=0.1, rtol=0.02
    )


def test_a_direction_without_length_can_be_added_but_not_projected_on(direction):
    none = replace(direction, vector=torch.zeros(16))
    lower_op(Add(none))
    for op in (Ablate(none), Affine(none)):
        with pytest.raises(UserError, match="its length is 0"):
            lower_op(op)


def test_spans_touch_these_tokens_and_no_others_in_every_pass():
    """Two rows, the second padded by two: prompts of 4 and 2 tokens, then three decode steps."""
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    prefill, lengths = edits.prefill_offsets(mask, torch.tensor([0, 0])), torch.tensor([4, 2])
    table = {
        ALL: ([[1, 1, 1, 1], [0, 0, 1, 1]], [1, 1, 1]),
        PROMPT: ([[1, 1, 1, 1], [0, 0, 1, 1]], [0, 0, 0]),
        LAST_PROMPT: ([[0, 0, 0, 1], [0, 0, 0, 1]], [0, 0, 0]),
        GENERATED: ([[0, 0, 0, 0], [0, 0, 0, 0]], [1, 1, 1]),
        first_generated(2): ([[0, 0, 0, 0], [0, 0, 0, 0]], [1, 1, 0]),
        Span(-2, 1): ([[0, 0, 1, 1], [0, 0, 1, 1]], [1, 0, 0]),
        Positions((0, -1)): ([[1, 0, 0, 1], [0, 0, 1, 1]], [0, 0, 0]),
        Positions((-3,)): ([[0, 1, 0, 0], [0, 0, 0, 0]], [0, 0, 0]),
    }
    for span, (in_prefill, in_steps) in table.items():
        touched = edits.inside(prefill, lengths, lower_where(span)) & mask.bool()
        assert touched.int().tolist() == in_prefill, span
        for step, expected in enumerate(in_steps, start=1):
            offsets = edits.decode_offsets(mask, step)
            assert edits.inside(offsets, lengths, lower_where(span)).int().tolist() == [
                [expected],
                [expected],
            ], (span, step)


def test_the_prompt_ends_where_each_rows_own_response_begins():
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 1]])
    offsets = edits.prefill_offsets(mask, torch.tensor([2, 1]))
    assert offsets.tolist() == [[-3, -2, -1, 0, 1], [-4, -3, -2, -1, 0]]


def test_padding_is_never_pooled_even_when_it_is_not_a_number():
    h = torch.tensor([[[float("nan")], [1.0], [3.0]]])
    assert edits.mean_over(h, torch.tensor([[False, True, True]])).item() == 2.0


def test_pooling_is_in_fp32():
    h = torch.full((1, 3000, 1), 0.1).bfloat16()
    got = edits.mean_over(h, torch.ones(1, 3000, dtype=torch.bool)).item()
    assert got == pytest.approx(torch.tensor(0.1).bfloat16().item(), rel=1e-6)


def test_C3_cast_similarity_ignores_signs_and_the_cosine_does_not(h, direction):
    mask, offsets = torch.ones(3, 5), torch.arange(5).expand(3, 5) - 5
    facts = {"vector": direction.vector, "where": lower_where(ALL), "columns": None}

    def scored(h, sign, kind):
        return edits.score(
            h,
            facts | {"vector": sign * direction.vector, "score": kind},
            edits.tokens_of(offsets, mask.sum(1), mask),
        )

    cast = scored(h, 1, "cast")
    torch.testing.assert_close(scored(h, -1, "cast"), cast)
    torch.testing.assert_close(scored(-h, 1, "cast"), cast)
    torch.testing.assert_close(scored(h, -1, "cosine"), -scored(h, 1, "cosine"))
    assert not torch.allclose(scored(h * 5, 1, "cast"), cast)  # tanh sees the scale
    # small projections: tanh is the identity, and CAST's similarity is |cos|
    torch.testing.assert_close(
        scored(h * 1e-4, 1, "cast"), scored(h, 1, "cosine").abs(), atol=1e-5, rtol=0
    )


def test_verdicts_at_and_around_the_threshold():
    scores = torch.tensor([0.1, 0.2, 0.3])
    at = scores[1].item()
    assert edits.verdict(scores, {"threshold": at, "above": True}).tolist() == [False, False, True]
    assert edits.verdict(scores, {"threshold": at, "above": False}).tolist() == [True, True, False]


def test_touched_tokens_are_worked_out_once_a_pass(monkeypatch):
    asked: list[dict] = []
    inside = edits.inside
    monkeypatch.setattr(
        edits,
        "inside",
        lambda offsets, lengths, where: asked.append(where) or inside(offsets, lengths, where),
    )
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    direction = Direction(
        torch.ones(4), Site(0), PROMPT, "made", torch.zeros(4), ModelId("m", None, "w"), "d"
    )
    edit = lower_op(Add(direction, 1.0)) | {
        "where": lower_where(ALL),
        "rows": None,
        "when": None,
        "columns": None,
    }
    h = torch.zeros(2, 3, 4)
    for _ in range(2):  # a new pass each
        tokens = edits.tokens_of(
            edits.prefill_offsets(mask, torch.zeros(2, dtype=torch.long)), mask.sum(1), mask
        )
        once = edits.apply(h, [edit], tokens, {})
        assert torch.equal(edits.apply(h, [edit], tokens, {}), once) and not once[0, 0].any()
    assert len(asked) == 2 * 2  # the prompt's tokens and the edit's
