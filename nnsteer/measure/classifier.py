"""Judging answers with a text classifier of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from nnsteer.errors import UserError
from nnsteer.measure.kinds import Answer, AnswerMeasure
from nnsteer.model.load import reason

# what CAST's refusal rates use
CAST = "protectai/distilroberta-base-rejection-v1@65584967c3f22ff7723e5370c65e0e76791e6055"
REFUSAL = "REJECTION"  # its label for a refusal
MAX_TOKENS = 512  # of an answer; what comes after is not read


def classifier(source: str = CAST, label: str = REFUSAL, batch_size: int = 32) -> AnswerMeasure:
    """1 for an answer to which the classifier gives `label` before every other. `source` is a
    folder or `MODEL@REVISION`. The classifier is loaded when the first answers come, on the
    accelerator if there is one. Raises UserError for a hub id without a revision here; and then,
    for a model that can't be loaded, is no trained classifier or does not know the label."""
    place, revision = parsed(source)

    @cache
    def loaded() -> Any:
        return load(place, revision, label)

    def values(answers: Sequence[Answer]) -> list[float]:
        if not answers:
            return []
        classify = loaded()
        limit = min(MAX_TOKENS, classify.tokenizer.model_max_length)
        texts = [answer.text for answer in answers]
        found = classify(texts, batch_size=batch_size, truncation=True, max_length=limit)
        return [float(best["label"] == label) for best in found]

    return AnswerMeasure("classifier", f"{label} by {source}", True, values)


def parsed(source: str) -> tuple[str, str | None]:
    """The folder and None, or the hub id and its revision."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return str(folder), None
    place, _, revision = source.partition("@")
    if place.count("/") != 1 or place.startswith((".", "/", "~")) or not revision:
        raise UserError(
            f"classifier {source}: no such folder, and not a pinned hub id; "
            "give a folder or ORG/NAME@REVISION"
        )
    return place, revision


def load(place: str, revision: str | None, label: str) -> Any:
    """The pipeline, checked."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, revision=revision)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            place, revision=revision, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"classifier {place}: {reason(error)}; check the name, the revision and the network"
        ) from error
    if info["missing_keys"]:  # transformers would judge with a random head
        raise UserError(
            f"classifier {place}: holds no trained classification head; "
            "give a text-classification model"
        )
    labels = list(model.config.id2label.values())
    if label not in labels:
        raise UserError(
            f"classifier {place}: has no label {label!r}; "
            f"choose from {', '.join(labels)} with ,label=LABEL"
        )
    return pipeline("text-classification", model=model, tokenizer=tokenizer)
