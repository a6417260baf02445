"""The identities A1 to A12 of affine concept editing, in the recipe's own programs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nnsteer import fit
from nnsteer.fit.moments import Moments
from nnsteer.folder import Folder
from nnsteer.kernels import edits
from nnsteer.model.attach import attach
from nnsteer.model.lower import lower_op
from nnsteer.program import program
from nnsteer.program.op import Add, Affine
from nnsteer.program.program import Program, Step
from nnsteer.program.site import Site
from nnsteer.program.span import Last
from nnsteer.recipes.affine.methods import DRAWS, METHODS, UNSTEERED, at, load, save
from nnsteer.recipes.affine.places import Fitted, read_at
from nnsteer.texts.contrast import Text, of_prompts

from conftest import HARMFUL, HARMLESS, MIXED

SITE, TEXTS = Site(2), of_prompts(HARMFUL, HARMLESS)
RESPONSES = ["so", "", "I", "yes and", "no"]
ALPHAS = (-0.5, 0.0, 0.3, 1.0, 1.7)
NEW_TOKENS = 4


@pytest.fixture
def found(runner):
    return read_at("layer", SITE, runner, TEXTS, Last(), True)


@pytest.fixture
def r(found):
    return found.directions[SITE]


def of(method, found, alpha, steered="both"):
    """A program as the recipe makes it."""
    (variant,) = at("layer", found, [method], [alpha], steered)
    return variant.programs[0]


def same(runner, a, b, atol=2e-4):
    for x, y in zip(
        runner.logits(MIXED, a, RESPONSES), runner.logits(MIXED, b, RESPONSES), strict=True
    ):
        torch.testing.assert_close(x, y, atol=atol, rtol=0)


def edited(program, h):
    """States after a program's steps at one site."""
    for step in program.steps:
        h = edits.kernel(h, lower_op(step.op))
    return h


def passes(runner, program):
    """For each forward pass that the program edits, by number: which tokens are no pads, and the
    states before and after."""
    batch, seen = runner.chat.pad(runner.chat.rows([Text(prompt) for prompt in MIXED])), {}

    def observe(_visit, running, before, after):
        seen[running.number] = running.tokens["mask"].bool(), before, after

    steps = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
    with attach(runner.hf, program, observe), torch.no_grad():
        runner.hf.generate(batch.ids, attention_mask=batch.mask, **steps)
    return seen


def coefficient(h, r):
    return h @ r.vector / (r.vector @ r.vector)


def test_A1_it_is_ablation_then_the_projection_of_r_minus_then_alpha_r(runner, found, r):
    back = replace(r, vector=coefficient(r.origin, r) * r.vector)
    for alpha in ALPHAS:
        parts = [program.add({SITE: back}), program.add({SITE: r}, alpha)]
        for order in (parts, parts[::-1]):
            same(runner, of("ace", found, alpha), sum(order, of("ablate", found, alpha)))


def test_A2_the_coefficient_is_that_of_r_minus_plus_alpha_at_every_position_and_step(
    runner, found, r
):
    for alpha in ALPHAS:
        seen = passes(runner, of("ace", found, alpha))
        assert len(seen) == NEW_TOKENS
        for mask, before, after in seen.values():
            got = coefficient(after, r)[mask]
            torch.testing.assert_close(
                got, torch.full_like(got, coefficient(r.origin, r) + alpha), atol=1e-4, rtol=1e-4
            )
            assert coefficient(before, r)[mask].std() > 0 or mask.sum() == 1


def test_A3_the_class_means_go_to_one_another_and_to_themselves(found, r):
    minus, plus = r.origin, r.origin + r.vector
    for start, alpha, end in (
        (minus, 0.0, minus),
        (plus, 1.0, plus),
        (plus, 0.0, minus),
        (minus, 1.0, plus),
    ):
        torch.testing.assert_close(
            edited(of("ace", found, alpha), start), end, atol=1e-4, rtol=1e-4
        )


def test_A4_what_is_perpendicular_stays(runner, found, r):
    for method in ("ace", "ablate", "ablate_add", "orth", "add"):
        for mask, before, after in passes(runner, of(method, found, 0.4)).values():
            moved = (after - before)[mask]
            torch.testing.assert_close(
                moved, coefficient(moved, r)[:, None] * r.vector, atol=1e-4, rtol=0
            )


def test_A5_the_last_edit_counts(runner, found):
    same(runner, of("ace", found, 1.3) + of("ace", found, 0.2), of("ace", found, 0.2))


def test_A6_from_an_origin_of_zero_it_is_ablation_and_addition(runner, found, r):
    from_zero = Fitted({SITE: r.with_origin(torch.zeros_like(r.origin))}, found.moments)
    same(runner, of("ace", from_zero, 0.0), of("ablate", found, 0.0))
    same(runner, of("ace", from_zero, 0.7), of("ablate_add", found, 0.7))
    same(runner, of("ablate", found, 0.0), of("ablate", found, 1.0), atol=0)


def test_A7_at_its_own_coefficient_it_is_the_identity_and_addition_differs_as_the_input_does(
    runner, found, r
):
    mask, before, added = passes(runner, of("add", found, 0.4))[0]
    set_to = passes(runner, of("ace", found, 0.4))[0][2]
    h = before[mask]
    own = coefficient(h[0] - r.origin, r).item()
    torch.testing.assert_close(edited(of("ace", found, own), h[0]), h[0], atol=1e-4, rtol=1e-4)
    gap = (added - set_to)[mask]
    torch.testing.assert_close(
        gap, coefficient(h - r.origin, r)[:, None] * r.vector, atol=1e-4, rtol=1e-3
    )
    assert coefficient(gap, r).std() > 0.01


@pytest.mark.parametrize("extra", [0, 1])
def test_A8_orthogonal_erasure_and_addition_are_it_counted_from_the_mean_of_all(runner, extra):
    """With classes of one size the published multiplier is alpha - 1/2, with 4 against 3 it is
    alpha - 4/7."""
    texts = replace(TEXTS, positive=TEXTS.positive + TEXTS.positive[:extra])
    found = read_at("layer", SITE, runner, texts, Last(), True)
    assert found.share == pytest.approx((3 + extra) / (6 + extra))
    for alpha in ALPHAS:
        same(runner, of("orth", found, alpha), of("ace", found, alpha))
        published = program.edit(fit.orth(found.moments)) + program.add(
            found.directions, alpha - (3 + extra) / (6 + extra)
        )
        same(runner, of("orth", found, alpha), published, atol=0)


def shifted(found, c):
    """The same fitted on states to all of which `c` was added."""
    sides = [
        {site: replace(moments, mean=moments.mean + c.double()) for site, moments in side.items()}
        for side in (found.moments.positive, found.moments.negative)
    ]
    moments = Moments(*sides, found.moments.span, found.moments.model, found.moments.data)
    return Fitted(fit.mean_difference(moments), moments)


def test_A9_a_constant_added_to_all_states_is_carried_along_but_not_by_ablation(found):
    torch.manual_seed(0)
    h, c = torch.randn(6, 32), 3 * torch.randn(32)
    moved = shifted(found, c)
    for method in ("ace", "add", "leace", "orth", "quadratic"):
        for alpha in (0.0, 0.8):
            a, b = edited(of(method, moved, alpha), h + c), edited(of(method, found, alpha), h) + c
            torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-3)
    for method in ("ablate", "ablate_add"):
        assert not torch.allclose(
            edited(of(method, moved, 0.8), h + c), edited(of(method, found, 0.8), h) + c, atol=0.1
        )


def test_A10_swapping_the_classes_turns_alpha_round(runner, found):
    swapped = read_at("layer", SITE, runner, of_prompts(HARMLESS, HARMFUL), Last(), True)
    for alpha in ALPHAS:
        same(runner, of("ace", swapped, alpha), of("ace", found, 1 - alpha))


def halves(runner):
    """The modules of the 2L residual sites."""
    llama = hasattr(runner.hf, "model")
    for layer, block in enumerate(runner.hf.model.layers if llama else runner.hf.transformer.h):
        yield Site(layer, "attn_out"), block.self_attn if llama else block.attn
        yield Site(layer, "mlp_out"), block.mlp


def test_A11_residual_sites_are_hooks_on_both_halves_of_every_block(runner):
    found = read_at("residual", SITE, runner, TEXTS, Last(), False)
    assert list(found.directions) == [site for site, _ in halves(runner)]
    handles = []
    for site, module in halves(runner):
        d = found.directions[site]

        def hook(_module, _args, out, d=d):
            h = out if isinstance(out, torch.Tensor) else out[0]
            new = h + (0.6 + coefficient(d.origin, d) - coefficient(h, d))[..., None] * d.vector
            return new if isinstance(out, torch.Tensor) else (new, *out[1:])

        handles.append(module.register_forward_hook(hook))
    try:
        with torch.no_grad():
            want = [
                runner.hf(torch.tensor([runner.chat.prompt_ids(p)])).logits[0, -1] for p in MIXED
            ]
    finally:
        for handle in handles:
            handle.remove()
    (variant,) = at("residual", found, ["ace"], [0.6], "both")
    assert variant.axes == {"method": "ace residual", "alpha": 0.6}
    for got, row in zip(runner.logits(MIXED, variant.programs[0]), want, strict=True):
        torch.testing.assert_close(got[0], row, atol=5e-4, rtol=0)


@pytest.mark.parametrize(
    ("steered", "prompt", "last", "decoded"),
    [
        ("both", True, True, True),
        ("before", True, True, False),
        ("after", False, False, True),
        ("published-before", True, False, True),
        ("published-after", False, True, False),
    ],
)
def test_A12_a_scope_edits_exactly_these_steps_and_positions(
    runner, found, steered, prompt, last, decoded
):
    """Left padding, a prefill and decode steps; published: what the code's slices edit under its
    cache."""
    seen = passes(runner, of("ace", found, 0.4, steered))
    for step, (mask, before, after) in seen.items():
        changed = (before != after).any(-1)
        wanted = torch.full_like(mask, decoded) if step else torch.full_like(mask, prompt)
        if step == 0:
            wanted[:, -1] = last
        assert torch.equal(changed, wanted & mask), (steered, step)
    assert set(seen) == ({*range(NEW_TOKENS)} if decoded else {0})


def test_the_editors_leave_the_classes_where_their_names_say(found):
    """LEACE: both class means at one place for alpha = share; quadratic: each class's mean at the
    target's."""
    (site,) = found.directions
    positive, negative = (
        side[site].mean.float() for side in (found.moments.positive, found.moments.negative)
    )
    middle = of("leace", found, found.share)
    torch.testing.assert_close(
        edited(middle, positive), edited(middle, negative), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(
        edited(of("quadratic", found, 1.0), (positive + negative) / 2),
        positive,
        atol=1e-3,
        rtol=1e-3,
    )
    torch.testing.assert_close(
        edited(of("quadratic", found, 0.0), (positive + negative) / 2),
        negative,
        atol=1e-3,
        rtol=1e-3,
    )
    assert of("quadratic", found, 0.5) == of("quadratic_lda", found, 0.5) == Program()
    assert of("quadratic", found, 0.6) == of("quadratic", found, 1.5) != of("quadratic", found, 0.4)


def test_the_control_is_ace_along_random_directions_of_the_same_length(found, r):
    (variant,) = at("layer", found, ["random"], [0.3], "both")
    assert len(set(variant.programs)) == DRAWS
    for one in variant.programs:
        (step,) = one.steps
        assert (
            isinstance(step.op, Affine)
            and step.op.alpha == 0.3
            and torch.equal(step.op.direction.origin, r.origin)
        )
        assert step.op.direction.vector.norm().item() == pytest.approx(
            r.vector.norm().item(), rel=1e-5
        )


def test_scrubbing_fits_each_site_on_streams_from_which_the_earlier_ones_were_erased(runner):
    """The same with plain PyTorch hooks, one prompt at a time."""
    found = read_at("scrubbed", SITE, runner, TEXTS, Last(), False)
    plain = read_at("residual", SITE, runner, TEXTS, Last(), False)
    modules, handles = dict(halves(runner)), []
    try:
        for site, module in modules.items():
            states = {
                side: [last_state(runner, module, t.prompt) for t in getattr(TEXTS, side)]
                for side in ("positive", "negative")
            }
            means = {side: torch.stack(own).mean(0) for side, own in states.items()}
            v = means["positive"] - means["negative"]
            torch.testing.assert_close(found.directions[site].vector, v, atol=1e-3, rtol=1e-3)
            centre, unit = (means["positive"] + means["negative"]) / 2, v / v.norm()

            def erase(_module, _args, out, centre=centre, unit=unit):
                h = out if isinstance(out, torch.Tensor) else out[0]
                new = h - ((h - centre) @ unit)[..., None] * unit
                return new if isinstance(out, torch.Tensor) else (new, *out[1:])

            handles.append(module.register_forward_hook(erase))
    finally:
        for handle in handles:
            handle.remove()
    first, *_, last = found.directions
    torch.testing.assert_close(found.directions[first].vector, plain.directions[first].vector)
    assert (
        found.directions[last].vector - plain.directions[last].vector
    ).norm() > 0.05 * plain.directions[last].vector.norm()
    half = read_at("scrubbed-half", SITE, runner, TEXTS, Last(), False)
    for site, d in half.directions.items():
        torch.testing.assert_close(2 * d.vector, found.directions[site].vector)
        torch.testing.assert_close(d.origin, found.directions[site].origin)


def last_state(runner, module, prompt):
    """What leaves a module on the prompt's last token."""
    kept = []
    handle = module.register_forward_hook(
        lambda _m, _a, out: kept.append(out if isinstance(out, torch.Tensor) else out[0])
    )
    try:
        with torch.no_grad():
            runner.hf(torch.tensor([runner.chat.prompt_ids(prompt)]))
    finally:
        handle.remove()
    return kept[0][0, -1]


def test_variants_survive_being_saved_and_every_method_has_its_own_programs(found, tmp_path):
    made = [UNSTEERED, *at("layer", found, METHODS, [0.25, 1.0], "both")]
    save(Folder(tmp_path), made)
    assert load(Folder(tmp_path)) == made
    assert len({v.programs for v in made if v.axes["alpha"] == 1.0}) == len(METHODS)
    assert Step(Add(found.directions[SITE], 0.25), SITE) in of("add", found, 0.25).steps
