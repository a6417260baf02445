"""A study: every variant on every prompt, with every measure; run again, it goes on where it was,
and changed, it asks only what is new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnsteer.folder import Folder, hold
from nnsteer.measure.kinds import Measure, ModelMeasure
from nnsteer.model.runner import Runner
from nnsteer.study.cells import BASELINE, Sampling, Variant
from nnsteer.study.rows import ANSWERS, VALUES, forget_failures, of_answers, of_values, set_aside
from nnsteer.study.table import Table
from nnsteer.texts.sets import PromptSet


@dataclass(frozen=True)
class Study:
    """Every variant is run on every prompt, and every measure taken of it. `controls` names each
    variant's random control."""

    variants: tuple[Variant, ...]
    sets: tuple[PromptSet, ...]
    measures: tuple[Measure, ...]
    controls: Mapping[str, str]
    max_new_tokens: int = 24
    recommend: Mapping[str, Any] | None = None
    """[recommend] of the file, for the report."""
    planes: Mapping[str, str] = field(default_factory=dict)
    """For the report: the file in which each direction's texts are projected, by its name."""
    scores: Mapping[str, str] = field(default_factory=dict)
    """For the report: the file of each condition's scores, by the condition's name."""

    @property
    def generates(self) -> bool:
        """Whether some measure needs answers."""
        return not all(isinstance(measure, ModelMeasure) for measure in self.measures)


def run(study: Study, runner: Runner, folder: Folder) -> None:
    """Completes completions.jsonl and rows.jsonl; values that could not be had are asked for again.
    Raises UserError while another process is at work."""
    lock = hold(folder.path)
    try:
        folder.write_json("study.json", described(study))
        table = Table(folder, runner, Sampling(study.max_new_tokens))
        asked = table.questions(study.variants, study.sets)
        if study.generates:
            set_aside(folder, ANSWERS, (keyed.place for keyed in of_answers(asked)))
        values = (of_values(asked, measure) for measure in study.measures)
        set_aside(folder, VALUES, (keyed.place for own in values for keyed in own))
        forget_failures(folder)
        table.complete(asked, study.measures)
    finally:
        lock.release()


def described(study: Study) -> dict:
    """What study.json says for the report."""
    return {
        "baseline": BASELINE,
        "variants": [
            {"name": v.name, "axes": dict(v.axes), "program": ", ".join(map(str, v.in_turn))}
            for v in study.variants
        ],
        "controls": dict(study.controls),
        "sets": [{"name": s.name, "n": len(s.prompts)} for s in study.sets],
        "measures": [
            {"name": m.name, "settings": m.settings, "binary": m.binary} for m in study.measures
        ],
        "max_new_tokens": study.max_new_tokens,
        "recommend": study.recommend,
        "planes": dict(study.planes),
        "scores": dict(study.scores),
    }
