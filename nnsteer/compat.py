"""What the sources' code does where it differs from what they say: for reproducing published numbers, and off unless called."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch

from nnsteer.condition import Condition
from nnsteer.direction import Direction, Directions
from nnsteer.fit.means import Read, as_moments
from nnsteer.moments import merged
from nnsteer.program import Program
from nnsteer.site import Place, Site
from nnsteer.span import GENERATED, LAST_PROMPT, Span


def cast_skew(directions: Directions) -> dict[Place, Direction]:
    """CAST's library reads what leaves block l and writes, and compares, what enters it: one layer before."""
    moved: dict[Place, Direction] = {}
    for site, direction in directions.items():
        if not isinstance(site, Site) or site.stream != "block_out":
            raise ValueError(f"{site}: CAST's skew is between block_out and block_in; fit the direction at a block's output")
        entering = Site(site.layer, "block_in")
        moved[entering] = direction.moved(entering)
    return moved


def cast_condition(direction: Direction, threshold: float, threshold_is: Literal["larger", "smaller"]) -> Condition:
    """CAST's comparator is named for the threshold: "larger" fires when the similarity is strictly below it, "smaller" when it
    is strictly above. The similarity is the published, sign-blind one."""
    if threshold_is == "smaller":
        return Condition(direction, threshold, "above", "cast")
    below = torch.nextafter(torch.tensor(threshold), torch.tensor(-math.inf)).item()
    return Condition(direction, below, "below", "cast")


def pooled_reference(directions: Directions, read: Read) -> dict[Place, Direction]:
    """steering-llama3 counts alpha from the mean of all states, not from the negative mean: its multiplier is ACE's alpha minus
    the positive class's share."""
    moments = as_moments(read, covariance=False)
    return {
        site: direction.with_origin(merged(moments.positive[site], moments.negative[site]).mean)
        for site, direction in directions.items()
    }


def llama3_before(program: Program) -> Program:
    """steering-llama3 `--toks before`, which under its cache edits every prompt token but the last, and every generated one."""
    return Program(tuple(replace(s, span=span) for s in program.steps for span in (Span(None, -1), GENERATED)))


def llama3_after(program: Program) -> Program:
    """steering-llama3 `--toks after`, which under its cache edits the prompt's last token alone."""
    return Program(tuple(replace(step, span=LAST_PROMPT) for step in program.steps))
