"""What the rows of a behaviours run say: matching scores with intervals, interference, and the alignment tax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product

import numpy as np
from scipy.stats import spearmanr

from nnsteer.folder import Folder
from nnsteer.measure.items import KEY, TEXT_KEY, Row, counted
from nnsteer.report.results import bare
from nnsteer.statistics import Difference, compare, estimate, holm, wilson

CLOSE = 0.5  # cosines beyond it are warned of


def summarise(folder: Folder) -> dict:
    """The content of summary.json."""
    chosen, limit = folder.read_json("chosen.json"), folder.read_json("config.json")["settings"]["max_faulty"]
    rows: dict[tuple[str, str], dict[str, Row]] = {}
    for line in folder.read_lines("rows.jsonl", KEY):
        rows.setdefault((line["variant"], line["behaviour"]), {})[line["prompt"]] = Row(**line)
    cells = {key: cell(list(own.values()), limit) for key, own in rows.items()}
    found = {key: against(rows[key], rows["baseline", key[1]]) for key in rows if key[0] != "baseline"}
    controls = {variant for (variant, _), own in rows.items() if any(row.control for row in own.values())}
    family = [key for key in found if key[0] not in controls]
    corrected = dict(zip(family, holm([found[key].p for key in family]), strict=True))
    for key, difference in found.items():
        cells[key]["against_baseline"] = bare(asdict(difference) | {"p_holm": corrected.get(key, float("nan"))})
    names = list(chosen["layers"])
    ways = {name: {sign: chosen["alone"][f"{name} {sign}"] for sign in "+-"} for name in names}
    together = [v for v in dict.fromkeys(v for v, _ in rows) if v not in controls and v not in chosen["alone"]]
    cosines = folder.read_json("cosines.json")
    return {
        "alone": {
            name: {"baseline": cells["baseline", name]}
            | {
                sign: {
                    "layer": way["layer"],
                    "coefficient": way["coefficient"],
                    "test": cells[f"{name} {sign}", name],
                    "random": cells[f"random {name} {sign}", name],
                }
                for sign, way in ways[name].items()
            }
            for name in names
        },
        "others": {f"{name} {sign}": {on: cells[f"{name} {sign}", on] for on in names} for name, sign in product(names, "+-")},
        "together": {variant: {name: cells[variant, name] for name in names} for variant in together},
        "moved_both_ways": [name for name in names if moved(name, cells, 0.2)],
        "layer": chosen["layer"],
        "layers": chosen["layers"],
        "scalars": chosen["scalars"],
        "cosines": cosines,
        "close": close(cosines[f"block_out[{chosen['layer']}]"], names),
        "interference": interference(ways, cosines, cells),
        "text": text(folder.read_lines("text_rows.jsonl", TEXT_KEY)),
        "seconds": folder.read_json("seconds.json"),
    }


def cell(rows: Sequence[Row], max_faulty: float) -> dict:
    """The matching score of one variant on one behaviour, and whether the model still chooses."""
    tally = counted(rows)
    rate = wilson(tally.matching, tally.total)
    return {
        "rate": rate.value,
        "low": rate.low,
        "high": rate.high,
        "n": rate.n,
        "faulty": tally.faulty / tally.total,
        "too_faulty": tally.faulty > max_faulty * tally.total,
        "collapsed": tally.collapsed,
        "margin": float(np.mean([row.margin for row in rows])),
        "against_baseline": None,
    }


def against(own: Mapping[str, Row], baseline: Mapping[str, Row]) -> Difference:
    """The change of the matching score, item by item."""
    first, second = ([float(rows[prompt].said == rows[prompt].matching) for prompt in own] for rows in (own, baseline))
    return compare(first, second, binary=True)


def moved(name: str, cells: Mapping[tuple[str, str], dict], points: float) -> bool:
    """Whether a behaviour was moved so far both ways without the model ceasing to choose."""
    up, down = (cells[f"{name} {sign}", name] for sign in "+-")
    whole = not any(cell["collapsed"] or cell["too_faulty"] for cell in (up, down))
    return whole and up["against_baseline"]["value"] >= points and down["against_baseline"]["value"] <= -points


def close(matrix: Sequence[Sequence[float]], names: Sequence[str]) -> list[dict]:
    """Pairs of directions that point the same way or opposite ways."""
    pairs = [(i, j) for i, j in product(range(len(names)), repeat=2) if i < j and abs(matrix[i][j]) > CLOSE]
    return [{"first": names[i], "second": names[j], "cosine": matrix[i][j]} for i, j in pairs]


def interference(ways: Mapping[str, Mapping[str, dict]], cosines: Mapping, cells: Mapping[tuple[str, str], dict]) -> dict:
    """What steering one behaviour did to each other one, beside the cosine of what was added with the other's direction at that
    layer; and Spearman's rank correlation of the two."""
    names, pairs = list(ways), []
    for name, on in product(names, repeat=2):
        for sign, way in ways[name].items():
            if name != on and way["coefficient"]:
                cosine = cosines[f"block_out[{way['layer']}]"][names.index(name)][names.index(on)]
                moved = cells[f"{name} {sign}", on]["against_baseline"]["value"]
                direction = 1 if sign == "+" else -1
                pairs.append({"steered": name, "sign": sign, "on": on, "cosine": direction * cosine, "moved": moved})
    both = [{pair[part] for pair in pairs} for part in ("cosine", "moved")]
    known = all(len(values) > 1 for values in both)
    rank = float(spearmanr([p["cosine"] for p in pairs], [p["moved"] for p in pairs]).statistic) if known else None
    return {"pairs": pairs, "spearman": rank}


def text(rows: Sequence[dict]) -> dict[str, dict]:
    """Top-1 accuracy over all tokens, and its change by steering (the alignment tax), with bootstrap intervals over texts. A text
    weighs as many tokens as it has."""
    rows = [row for row in rows if row["tokens"]]
    mean = sum(row["tokens"] for row in rows) / max(1, len(rows))
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row["variant"], []).append(row["top1"] * row["tokens"] / mean)
    found = {}
    for variant, own in values.items():
        one = estimate(own, binary=False)
        found[variant] = bare({"rate": one.value, "low": one.low, "high": one.high, "n": one.n})
        change = bare(asdict(compare(own, values["baseline"], binary=False)))
        found[variant]["against_baseline"] = None if variant == "baseline" else change
    return found
