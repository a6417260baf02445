"""Measures of answers, of how they read, and of the steered model itself."""

from nnsteer.measure.divergence import broken, drift, kl
from nnsteer.measure.kinds import Measure, OfAnswers, OfModel, OfReading
from nnsteer.measure.named import measures
from nnsteer.measure.refusal import by_keywords, by_openers, either, is_broken, is_refused
from nnsteer.measure.skill import predictions

__all__ = [
    "Measure",
    "OfAnswers",
    "OfModel",
    "OfReading",
    "broken",
    "by_keywords",
    "by_openers",
    "drift",
    "either",
    "is_broken",
    "is_refused",
    "kl",
    "measures",
    "predictions",
]
