"""Directions that are fitted next to the model against those of recorded activations."""

from __future__ import annotations

import re

import pytest
import torch

from nnsteer import PROMPT, fit, of_prompts
from nnsteer.errors import UserError
from nnsteer.model import fit_there
from nnsteer.program.site import Head, Site, block_outs
from nnsteer.program.span import Last

PROMPTS = [
    "Name a bird.",
    "How do I boil an egg?",
    "Say something long about the rivers of Europe, please.",
    "Why?",
    "Hello there.",
]
CONTRAST = of_prompts(PROMPTS, [f"{p} Tell me how to hurt somebody." for p in reversed(PROMPTS)])
SITES = [*block_outs(range(2)), Site(1, "mlp_out"), Head(1, 0)]
METHODS = sorted(fit_there.KERNELS)


def close(found, expected, atol=1e-5):
    assert list(found) == list(expected)
    for site, direction in expected.items():
        other = found[site]
        torch.testing.assert_close(other.vector, direction.vector, atol=atol, rtol=1e-4)
        torch.testing.assert_close(other.origin, direction.origin, atol=atol, rtol=1e-4)
        assert other.norm == pytest.approx(direction.norm, rel=1e-5)
        assert other.boundary == (
            direction.boundary and pytest.approx(direction.boundary, rel=1e-3)
        )
        assert (other.site, other.span, other.method, other.data, other.model) == (
            direction.site, direction.span, direction.method, direction.data, direction.model,
        )  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("span", [PROMPT, Last()], ids=str)
def test_in_one_request_as_from_recorded_activations(runner, method, span):
    here = fit_there.directions(runner.with_batch_size(2), CONTRAST, SITES, span, method)
    close(
        fit_there.directions(runner.with_batch_size(2).simulated(), CONTRAST, SITES, span, method),
        here,
    )


@pytest.mark.parametrize("method", ["mean_difference", "lda", "pca_pairwise"])
def test_in_several_requests(runner, method):
    here = fit_there.directions(runner, CONTRAST, SITES, PROMPT, method)
    close(
        fit_there.directions(runner.simulated(), CONTRAST, SITES, PROMPT, method, pairs_at_once=2),
        here,
        1e-4,
    )


def test_a_truncated_factor_says_what_it_leaves_out(runner, capsys):
    exact = fit_there.directions(runner, CONTRAST, block_outs([1]), PROMPT, "pca_pairwise")[Site(1)]
    coarse = fit_there.directions(
        runner.simulated(),
        CONTRAST,
        block_outs([1]),
        PROMPT,
        "pca_pairwise",
        pairs_at_once=3,
        rank=1,
    )[Site(1)]
    similarity = torch.cosine_similarity(exact.vector, coarse.vector, dim=0)
    assert 0.9 < similarity < 0.999999
    share = float(
        re.search(
            r"factors of rank 1 leave out (\S+) of", " ".join(capsys.readouterr().err.split())
        )[1]
    )
    assert 0 < share < 1


def test_a_method_that_does_not_merge_is_refused_before_anything_is_sent(runner):
    with pytest.raises(
        UserError, match="pca_center of 5 texts takes 3 requests: give fewer, or mean_difference"
    ):
        fit_there.directions(
            runner.simulated(), CONTRAST, SITES, PROMPT, "pca_center", pairs_at_once=2
        )


def test_logistic_regression_brings_the_states_home(runner):
    here = fit.logistic(runner.record(CONTRAST, SITES, PROMPT))
    close(fit_there.directions(runner.simulated(), CONTRAST, SITES, PROMPT, "logistic"), here)
