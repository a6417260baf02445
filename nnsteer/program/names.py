"""What command lines and study files call things. Light, so that `--help` needs no torch."""

from __future__ import annotations

from typing import Literal

from nnsteer.errors import UserError
from nnsteer.program.span import NAMES, Last, Positions, Reading, Span, Where

# these two also stand for names from outside
Method = (
    Literal["mean_difference", "pca_pairwise", "pca_center", "pca_diff", "lda", "logistic"] | str
)
OpName = Literal["add", "ablate", "affine", "clamp"] | str
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Score = Literal["cosine", "cast", "projection", "coordinate"]
Side = Literal["above", "below"]
Unit = Literal["length", "absolute", "norm"]
SpanName = Literal["all", "prompt", "last_prompt", "generated"]
ReadingName = Literal["prompt", "last_prompt", "response", "first_3", "last"]

SPANS: dict[str, Where] = {name: span for span, name in NAMES.items()}
READINGS: dict[str, Reading] = {
    "prompt": SPANS["prompt"],
    "last_prompt": SPANS["last_prompt"],
    "response": SPANS["generated"],
    "first_3": Span(0, 3),
    "last": Last(),
}


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
    expected = f"expected one of {', '.join(READINGS)}, or a Span, Positions or Last"
    raise UserError(f"reading {reading!r}: {expected}")
