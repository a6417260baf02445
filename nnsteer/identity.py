"""Which model a number came from. Directions carry it, and one that was fitted on another model is refused."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from nnsteer.errors import UserError

SAMPLES = 16  # values taken from each parameter


@dataclass(frozen=True)
class ModelId:
    """`name` is a hub id or a folder's name, `revision` a commit hash where the hub gave one, `weights` a hash of values
    sampled from every parameter: the same wherever the model lies and in whatever dtype it is loaded."""

    name: str
    revision: str | None
    weights: str


def weights_fingerprint(model: torch.nn.Module) -> str:
    """Sixteen hex digits that change when any parameter is retrained."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, flat.numel() // SAMPLES)][:SAMPLES]
        # fp16 and bf16 checkpoints differ from their fp32 copies by rounding alone; bf16 is the coarsest of the three
        digest.update(name.encode() + sample.float().to(torch.bfloat16).float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def require_same(what: str, fitted_on: ModelId, used_on: ModelId) -> None:
    """Raises UserError when the two models have different weights."""
    if fitted_on.weights != used_on.weights:
        raise UserError(
            f"{what} was fitted on {fitted_on.name} (weights {fitted_on.weights}), not on {used_on.name} "
            f"(weights {used_on.weights}): fit it again on this model"
        )
