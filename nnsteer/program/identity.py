"""Where a number came from: the model, and hashes of what was fitted. A direction that was fitted
on another model is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from nnsteer.errors import UserError

SAMPLES = 16  # values taken from each parameter


@dataclass(frozen=True)
class ModelId:
    """`name` is a hub id or a folder's name, `revision` a commit hash where the hub gave one,
    `weights` a hash of values sampled from every parameter: the same wherever the model lies and in
    whatever dtype it is loaded. It is empty where the weights were never seen, on a server; then
    name and revision say which model it is."""

    name: str
    revision: str | None
    weights: str


@dataclass(frozen=True)
class Vouch:
    """A person's word that a direction holds for another model than it was fitted on."""

    fitted_on: ModelId
    because: str

    def __str__(self) -> str:
        return f"fitted on {described(self.fitted_on)}, vouched for: {self.because}"


def as_model_id(given: Any) -> ModelId:
    """A model's identity, or that of what has one as its `model`, such as a Runner. Raises
    UserError for anything else."""
    model = given if isinstance(given, ModelId) else getattr(given, "model", None)
    if not isinstance(model, ModelId):
        kind = type(given).__name__
        raise UserError(f"model: got {kind}; expected a ModelId or a Runner; give runner.model")
    return model


def facts_of(fitted: Any) -> list:
    """What a direction and an editor both say of where they came from, as JSON has it."""
    place, span = ([str(part), asdict(part)] for part in (fitted.site, fitted.span))
    return [place, span, fitted.method, asdict(fitted.model), fitted.data]


def digest(facts: str, tensors: Iterable[Tensor]) -> str:
    """Sixteen hex digits of facts and of tensors' values."""
    values = b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)
    return hashlib.sha256(facts.encode() + values).hexdigest()[:16]


def weights_fingerprint(model: torch.nn.Module) -> str:
    """Sixteen hex digits that change when any parameter is retrained."""
    return fingerprint((name, parameter.detach()) for name, parameter in model.named_parameters())


def fingerprint(parameters: Iterable[tuple[str, Tensor]]) -> str:
    """The same of parameters by name, in the order of the model's."""
    weights = hashlib.sha256()
    for name, parameter in parameters:
        flat = parameter.flatten()
        sample = flat[:: max(1, flat.numel() // SAMPLES)][:SAMPLES]
        # fp16 and bf16 checkpoints differ from their fp32 copies by rounding; bf16 is the coarsest
        coarse = sample.float().to(torch.bfloat16).float().cpu()
        weights.update(name.encode() + coarse.numpy().tobytes())
    return weights.hexdigest()[:16]


def require_same(what: str, fitted_on: ModelId, used_on: ModelId) -> None:
    """Raises UserError when the two are not the same model."""
    if fitted_on.weights and used_on.weights:
        same = fitted_on.weights == used_on.weights
    else:
        same = (fitted_on.name, fitted_on.revision) == (used_on.name, used_on.revision)
    if not same:
        raise UserError(
            f"{what} was fitted on {described(fitted_on)}, not on {described(used_on)}: "
            "if you know that a direction holds here too (for a fine-tune of its model, say), use "
            "direction.vouched_for(runner.model, because=...); otherwise fit it again on this model"
        )


def described(model: ModelId) -> str:
    """Which model, for a person."""
    which = f"weights {model.weights}" if model.weights else f"revision {model.revision}"
    return f"{model.name} ({which})"
