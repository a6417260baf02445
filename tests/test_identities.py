"""The identities of the sources that no other file tests, named C (CAST), V (broad skills), A (ACE)
and G (general)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from nnsteer import fit
from nnsteer.errors import UserError
from nnsteer.fit.means import as_moments
from nnsteer.fit.moments import merged
from nnsteer.kernels import edits
from nnsteer.model.lower import lower_op, lower_where
from nnsteer.program import quirks
from nnsteer.program.condition import Condition
from nnsteer.program.op import Ablate, Add, Affine, BoundNorm
from nnsteer.program.program import Program, Step, ablate, add, affine, edit
from nnsteer.program.site import Site
from nnsteer.program.span import ALL, GENERATED, LAST_PROMPT, PROMPT
from nnsteer.texts.contrast import of_prompts

import catalogue
from conftest import HARMFUL, HARMLESS, MIXED

NEW_TOKENS = 8
RESPONSES = ["so", "", "I", "yes and", "no"]


def at(directions, *layers):
    return {Site(layer): directions[Site(layer)] for layer in layers}


def same(runner, a, b, atol=1e-4):
    for x, y in zip(
        runner.logits(MIXED, a, RESPONSES), runner.logits(MIXED, b, RESPONSES), strict=True
    ):
        torch.testing.assert_close(x, y, atol=atol, rtol=0)


def texts(runner, program):
    return [c.ids for c in runner.generate(MIXED, program, NEW_TOKENS)]


def cast_condition(direction, threshold, threshold_is):
    """CAST's comparator is named for the threshold: "larger" fires when the similarity is strictly
    below it, "smaller" when it is strictly above. The similarity is the published, sign-blind
    one."""
    if threshold_is == "smaller":
        return Condition(direction, threshold, "above", "cast")
    below = torch.nextafter(torch.tensor(threshold), torch.tensor(-math.inf)).item()
    return Condition(direction, below, "below", "cast")


def pooled_reference(directions, read):
    """steering-llama3 counts alpha from the mean of all states, not from the negative mean: its
    multiplier is ACE's alpha minus the positive class's share."""
    moments = as_moments(read, covariance=False)
    return {
        site: direction.with_origin(merged(moments.positive[site], moments.negative[site]).mean)
        for site, direction in directions.items()
    }


def test_C4_the_published_comparator_is_named_for_the_threshold_and_strict_on_both_sides(d):
    at_threshold = torch.tensor([0.1, 0.2, 0.3])
    theta = at_threshold[1].item()
    smaller = cast_condition(d[Site(1)], theta, "smaller")
    larger = cast_condition(d[Site(1)], theta, "larger")
    assert [smaller.holds(s) for s in at_threshold.tolist()] == [False, False, True]
    assert [larger.holds(s) for s in at_threshold.tolist()] == [True, False, False]
    verdict = edits.verdict(at_threshold, {"threshold": larger.threshold, "above": False})
    assert verdict.tolist() == [True, False, False]


def test_C7_decode_only_and_all_scopes_differ_and_join(runner, d):
    late = at(d, 2)
    assert len({str(texts(runner, add(late, 3.0, span))) for span in (ALL, PROMPT, GENERATED)}) == 3
    same(runner, add(late, 3.0, PROMPT) + add(late, 3.0, GENERATED), add(late, 3.0))


def test_C9_out_of_input_normalisation_restores_norms_when_one_grew_and_only_then(d):
    torch.manual_seed(0)
    v = d[Site(2)]
    unit = v.vector / v.vector.norm()
    across = torch.nn.functional.normalize(torch.randn_like(unit) - 0, dim=0)
    across = across - across @ unit * unit
    h = torch.stack(
        [
            torch.stack([3 * unit + across, -9 * unit + across]),
            torch.stack([-9 * unit, -8 * unit + across]),
        ]
    )
    offsets, mask = torch.tensor([[-2, -1], [-2, -1]]), torch.ones(2, 2)
    step = lower_op(BoundNorm(Add(v.unit(), 2.0))) | {
        "where": lower_where(ALL),
        "rows": None,
        "when": None,
        "columns": None,
    }
    plain = lower_op(Add(v.unit(), 2.0)) | {
        "where": lower_where(ALL),
        "rows": None,
        "when": None,
        "columns": None,
    }
    lengths = torch.tensor([2, 2])
    bound, free = (
        edits.apply(h, [s], edits.tokens_of(offsets, lengths, mask), {}) for s in (step, plain)
    )
    torch.testing.assert_close(
        bound[0].norm(dim=-1), h[0].norm(dim=-1)
    )  # its first token grew: both are restored
    torch.testing.assert_close(
        bound[0], free[0] * (h[0].norm(dim=-1) / free[0].norm(dim=-1))[:, None]
    )
    assert torch.equal(bound[1], free[1])  # none grew


def test_C11_the_published_skew_is_one_layer_earlier(runner, d):
    skewed = quirks.cast_skew(at(d, 2, 3))
    earlier = {Site(layer - 1): d[Site(layer)].moved(Site(layer - 1)) for layer in (2, 3)}
    same(runner, add(skewed, 1.3), add(earlier, 1.3), atol=0)
    with pytest.raises(UserError, match="fit the direction at a block's output"):
        quirks.cast_skew({Site(1, "mlp_out"): d[Site(1, "mlp_out")]})


def test_C13_one_condition_is_a_rule_of_one_and_its_complement_constrains(runner, d):
    when = catalogue.condition(runner, d, 1)
    single, joined = add(at(d, 3), 2.0).when(when), add(at(d, 3), 2.0).when(when & when)
    assert texts(runner, single) == texts(runner, joined)
    fired = [c.fired[0] for c in runner.generate(MIXED, single, 1)]
    plain, steered = texts(runner, Program()), texts(runner, add(at(d, 3), 2.0))
    constrained = texts(runner, add(at(d, 3), 2.0).when(~when))
    assert constrained == [p if yes else s for p, s, yes in zip(plain, steered, fired, strict=True)]


def test_V1_strength_zero_is_the_unsteered_model(runner, d):
    same(runner, add(d, 0.0), Program(), atol=0)


def test_V2_a_difference_is_added_like_its_parts(runner, d):
    a, b = at(d, 2), {Site(2): fit.random_like(d, 1)[Site(2)]}
    same(runner, add(fit.total([a, b], [1.0, -1.0]), 0.8), add(a, 0.8) + add(b, -0.8))


def test_V3_adding_after_a_block_is_adding_before_the_next(runner, d):
    after, before = at(d, 1), {Site(2, "block_in"): d[Site(1)].moved(Site(2, "block_in"))}
    same(runner, add(after, 1.7), add(before, 1.7), atol=0)


def test_V4_a_sum_is_its_parts_in_sequence_and_a_mean_is_the_sum_divided(runner, d):
    parts = [at(d, 2), *({Site(2): fit.random_like(d, seed)[Site(2)]} for seed in range(4))]
    in_sequence = sum((add(part, 0.3) for part in parts), Program())
    same(runner, add(fit.total(parts), 0.3), in_sequence)
    same(runner, add(fit.mean(parts), 1.5), in_sequence)


def test_V5_several_behaviours_with_one_at_work_are_that_one(runner, d):
    alone = add(at(d, 2), 0.9)
    same(runner, alone + add(at(d, 1), 0.0) + add(at(d, 3), 0.0), alone, atol=0)


def test_V9_a_permuted_control_keeps_the_entries_of_each_mean_and_can_be_norm_matched(read, d):
    control = fit.permuted(read, 0)
    for site, direction in control.items():
        negative = direction.origin
        positive = direction.vector + negative
        moments = read.moments(covariance=False)
        torch.testing.assert_close(
            negative.sort().values, moments.negative[site].mean.float().sort().values
        )
        torch.testing.assert_close(
            positive.sort().values,
            moments.positive[site].mean.float().sort().values,
            atol=1e-5,
            rtol=0,
        )
        assert abs(torch.cosine_similarity(direction.vector, d[site].vector, dim=0)) < 0.9
    matched = fit.norm_matched(control, d)
    assert all(
        matched[s].vector.norm().item() == pytest.approx(d[s].vector.norm().item(), rel=1e-5)
        for s in d
    )


@pytest.fixture
def h(d):
    torch.manual_seed(2)
    return torch.randn(3, 5, len(d[Site(2)].vector))


def run(op, h):
    return edits.kernel(h, lower_op(op))


def test_A4_what_is_perpendicular_stays(h, d):
    r = d[Site(2)].vector
    for op in (Affine(d[Site(2)], 0.3), Ablate(d[Site(2)])):
        moved = run(op, h) - h
        torch.testing.assert_close(moved, (moved @ r / (r @ r))[..., None] * r, atol=1e-5, rtol=0)


def test_A6_with_a_reference_of_zero_and_alpha_zero_it_is_ablation(h, d):
    r = d[Site(2)]
    across = torch.randn_like(r.vector)
    across = across - across @ r.vector / (r.vector @ r.vector) * r.vector
    for origin in (torch.zeros_like(r.vector), across):
        torch.testing.assert_close(
            run(Affine(r.with_origin(origin), 0.0), h), run(Ablate(r), h), atol=1e-5, rtol=0
        )


def test_A7_at_its_own_coefficient_it_is_the_identity_and_addition_differs_along_r_alone(h, d):
    r = d[Site(2)]
    own = ((h[0, 0] - r.origin) @ r.vector / (r.vector @ r.vector)).item()
    torch.testing.assert_close(run(Affine(r, own), h)[0, 0], h[0, 0], atol=1e-5, rtol=0)
    gap = run(Add(r, 0.4), h) - run(Affine(r, 0.4), h)
    torch.testing.assert_close(
        gap, (gap @ r.vector / (r.vector @ r.vector))[..., None] * r.vector, atol=1e-5, rtol=0
    )
    assert gap.norm(dim=-1).std() > 0.01  # and by as much as the input had


def test_A8_the_orthogonal_eraser_and_an_addition_are_ace_counted_from_the_pooled_mean(runner):
    contrast = of_prompts(HARMFUL, HARMLESS)
    contrast = replace(contrast, positive=contrast.positive + contrast.positive[:1])  # 4 against 3
    read = runner.record(contrast, [Site(2)], LAST_PROMPT)
    d = fit.mean_difference(read)
    multiplier, share = 0.2, 4 / 7
    by_parts = edit(fit.orth(read)) + add(d, multiplier)
    same(runner, by_parts, affine(d, multiplier + share))
    same(runner, by_parts, affine(pooled_reference(d, read), multiplier))


def test_A10_swapping_the_classes_turns_alpha_round(runner, d):
    r = d[Site(2)]
    swapped = replace(r, vector=-r.vector, origin=r.origin + r.vector)
    for alpha in (0.0, 0.3, 1.0):
        same(runner, affine({Site(2): swapped}, alpha), affine({Site(2): r}, 1 - alpha))


def test_A11_residual_mode_is_a_hook_on_each_half_of_each_block(runner):
    """steering-llama3 --residual: read and written at the outputs of attention and MLP, 2L
    sites."""
    sites = [Site(layer, half) for layer in range(4) for half in ("attn_out", "mlp_out")]
    d = fit.mean_difference(runner.record(of_prompts(HARMFUL, HARMLESS), sites, LAST_PROMPT))
    model, handles = runner.hf, []
    llama = hasattr(model, "model")
    blocks = model.model.layers if llama else model.transformer.h
    for layer, block in enumerate(blocks):
        for half, module in (
            ("attn_out", block.self_attn if llama else block.attn),
            ("mlp_out", block.mlp),
        ):
            v = 0.6 * d[Site(layer, half)].vector

            def hook(_module, _args, out, v=v):
                return out + v if isinstance(out, torch.Tensor) else (out[0] + v, *out[1:])

            handles.append(module.register_forward_hook(hook))
    try:
        with torch.no_grad():
            want = [model(torch.tensor([runner.chat.prompt_ids(p)])).logits[:, -1] for p in MIXED]
    finally:
        for handle in handles:
            handle.remove()
    for got, row in zip(runner.logits(MIXED, add(d, 0.6)), want, strict=True):
        torch.testing.assert_close(got, row, atol=1e-4, rtol=0)


def test_A12_published_token_scopes_edit_exactly_these_steps_and_positions(d):
    """A prompt of three tokens, then three decode steps; the intended scopes beside the published
    ones."""
    mask, lengths = torch.ones(1, 3), torch.tensor([3])
    passes = [
        edits.prefill_offsets(mask, torch.tensor([0])),
        *(edits.decode_offsets(mask, step) for step in (1, 2, 3)),
    ]

    def touched(program):
        spans = [lower_where(step.span) for step in program.steps]
        return [
            sum(edits.inside(o, lengths, where).int() for where in spans)[0].tolist()
            for o in passes
        ]

    program = add(at(d, 2))
    assert touched(quirks.llama3_before(program)) == [[1, 1, 0], [1], [1], [1]]
    assert touched(quirks.llama3_after(program)) == [[0, 0, 1], [0], [0], [0]]
    assert touched(add(at(d, 2), span=PROMPT)) == [[1, 1, 1], [0], [0], [0]]
    assert touched(add(at(d, 2), span=GENERATED)) == [[0, 0, 0], [1], [1], [1]]


def test_G3_programs_that_do_nothing_change_no_bit(runner, d):
    never = Condition(d[Site(1)], 2.0)
    for nothing in (
        Program(),
        add(d, 0.0),
        add(d, 5.0).when(never),
        add(d, 5.0).when(never & ~never),
    ):
        same(runner, nothing, Program(), atol=0)


def test_G5_at_one_site_programs_add_up_and_at_several_they_follow_one_another(runner, d):
    a, b = at(d, 2), {Site(2): fit.random_like(d, 1)[Site(2)]}
    same(runner, add(a) + add(b), add(fit.total([a, b])))
    two = runner.logits(MIXED, add(at(d, 1)) + ablate(at(d, 3)))
    other_order = runner.logits(MIXED, ablate(at(d, 3)) + add(at(d, 1)))
    for x, y in zip(two, other_order, strict=True):
        assert torch.equal(x, y)


def test_steps_at_sites_out_of_order_run_in_forward_order(runner, d):
    steps = add(at(d, 3)).steps + add(at(d, 1)).steps
    same(runner, Program(steps), Program(tuple(reversed(steps))), atol=0)
    assert Step(Add(d[Site(2)]), Site(2)) != Step(Add(d[Site(2)]), Site(3))
