"""Options that recipes and commands share."""

from __future__ import annotations

from dataclasses import dataclass

from nnsteer.program.names import Dtype


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it is loaded."""

    model: str = "nnsteer:organism"
    """A hub id, a folder, or the bundled model."""
    revision: str | None = None
    """Commit, tag or branch of a hub id."""
    dtype: Dtype = "auto"
    """auto: the checkpoint's own, and float32 on a CPU."""
    device_map: str | None = None
    """Passed on to transformers; `auto` spreads a model over every GPU."""
    remote: str | None = None
    """Run on a server: `ndif`, the URL of another deployment, or `local` for nnsight's simulation
    of one."""
    remote_model: str | None = None
    """The model's name there, where it is another."""


@dataclass(frozen=True)
class RequestOptions(ModelOptions):
    """The same, and what a refusal recipe reads."""

    harmful: str = "nnsteer:harmful.jsonl"
    """SOURCE: a .jsonl, .json, .csv or .parquet file or ORG/NAME@REVISION, with ,column=NAME and
    ,split=NAME where needed."""
    harmless: str = "nnsteer:harmless.jsonl"
    """SOURCE, likewise."""
    refusals: str = "nnsteer:refusals.jsonl"
    """SOURCE of refusal openers."""
    compliances: str = "nnsteer:compliances.jsonl"
    """SOURCE of compliance openers."""
