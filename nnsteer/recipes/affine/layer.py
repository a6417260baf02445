"""Where r is read and written: the layer that standardises best on the tune split."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from nnsteer.folder import Folder
from nnsteer.measure.sampled import Cell, Judged, Question, Row, Sampling, ask
from nnsteer.measure.standardisation import curve, score
from nnsteer.model.runner import Runner
from nnsteer.program import program
from nnsteer.program.direction import Direction, Directions
from nnsteer.texts.refusal import SIDES

ALPHAS = (0.0, 0.5, 1.0)


def best_layer(
    folder: Folder, runner: Runner, directions: Directions, questions: Sequence[Question], sampling: Sampling, judged: Judged
) -> Direction:
    """The direction whose site gives ACE the highest standardisation score on the tune questions; ties go to the earlier. Every
    answer is kept in layer_rows.jsonl, every trial in layer.json."""
    cells = [Cell(str(site), a, (program.affine({site: d}, a),)) for (site, d), a in product(directions.items(), ALPHAS)]
    rows = ask(folder, "layer_rows.jsonl", runner, cells, questions, sampling, judged)
    trials = {str(site): trial(rows, str(site)) for site in directions}
    best = max(directions, key=lambda site: (trials[str(site)]["score"], -site.layer))
    folder.write_json("layer.json", {"chosen": str(best), "trials": trials})
    return directions[best]


def trial(rows: Sequence[Row], name: str) -> dict:
    """The score of one site, and the refused shares that it comes from, by alpha."""
    own = [row for row in rows if row.method == name]
    curves = [curve(own, side, ALPHAS) for side in SIDES]
    refused = {side: c.refused.mean(axis=0).tolist() for side, c in zip(SIDES, curves, strict=True)}
    return {"score": score(ALPHAS, *curves), "alphas": list(ALPHAS), "refused": refused}
