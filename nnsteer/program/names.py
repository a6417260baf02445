"""What command lines and study files call things. Light, so that `--help` needs no torch."""

from __future__ import annotations

from typing import Literal

from nnsteer.errors import UserError
from nnsteer.program.span import ALL, GENERATED, LAST_PROMPT, PROMPT, Last, Positions, Reading, Span, Where, first_generated

Method = Literal["mean_difference", "pca_pairwise", "pca_center", "pca_diff", "lda", "logistic"] | str  # or one from outside
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Score = Literal["cosine", "cast", "projection", "coordinate"]
Side = Literal["above", "below"]
OpName = Literal["add", "ablate", "affine", "clamp"] | str
Unit = Literal["length", "absolute", "norm"]
SpanName = Literal["all", "prompt", "last_prompt", "generated"]
ReadingName = Literal["prompt", "last_prompt", "response", "first_3", "last"]

SPANS: dict[SpanName, Where] = {"all": ALL, "prompt": PROMPT, "last_prompt": LAST_PROMPT, "generated": GENERATED}
READINGS: dict[ReadingName, Reading] = {
    "prompt": PROMPT, "last_prompt": LAST_PROMPT, "response": GENERATED, "first_3": first_generated(3), "last": Last(),
}  # fmt: skip


def as_where(span: Where | SpanName) -> Where:
    """Steered tokens, or their name. Raises UserError for anything else."""
    if isinstance(span, Span | Positions):
        return span
    if isinstance(span, str) and span in SPANS:
        return SPANS[span]
    raise UserError(f"span {span!r}: expected one of {', '.join(SPANS)}, or a Span or Positions")


def as_reading(reading: Reading | ReadingName) -> Reading:
    """Read tokens, or their name. Raises UserError for anything else."""
    if isinstance(reading, Span | Positions | Last):
        return reading
    if isinstance(reading, str) and reading in READINGS:
        return READINGS[reading]
    raise UserError(f"reading {reading!r}: expected one of {', '.join(READINGS)}, or a Span, Positions or Last")
