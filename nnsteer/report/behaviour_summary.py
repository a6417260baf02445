"""What the rows of a behaviours run say: matching scores, interference, and the alignment tax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations, permutations, product
from statistics import fmean

from scipy.stats import spearmanr

from nnsteer.folder import Folder
from nnsteer.measure.choice import counted
from nnsteer.report.results import nan_to_null
from nnsteer.statistics import Difference, Estimate, compare, estimate, holm, wilson
from nnsteer.study.cells import BASELINE
from nnsteer.study.rows import read_rows

CLOSE = 0.5  # cosines beyond it are warned of
MOVED = 0.2  # of the matching score
Cells = Mapping[tuple[str, str], dict]
"""The matching score, and what goes with it, of each variant on each behaviour."""


def summarise(folder: Folder) -> dict:
    """The content of summary.json."""
    chosen, cosines = folder.read_json("chosen.json"), folder.read_json("cosines.json")
    names, axes = list(chosen["layers"]), folder.read_json("variants.json")
    controls = {variant for variant in axes if axes[variant].get("control")}
    cells = read_cells(folder, names, controls)
    ways: dict[str, dict[str, dict]] = {}
    for variant, name in cells:
        if variant not in controls:
            ways.setdefault(variant, {})[name] = cells[variant, name]
    alone = chosen["alone"]
    return {
        "alone": {name: both_ways(name, alone, cells) for name in names},
        "others": {variant: ways[variant] for variant in alone},
        "together": {variant: of_all for variant, of_all in ways.items() if variant not in alone},
        "moved_both_ways": [name for name in names if moved(name, cells)],
        "layer": chosen["layer"],
        "layers": chosen["layers"],
        "scalars": chosen["scalars"],
        "cosines": cosines,
        "close": close(cosines[f"block_out[{chosen['layer']}]"], names),
        "interference": interference(names, alone, cosines, cells),
        "text": text(folder, [*ways, *axes]),
        "seconds": folder.read_json("seconds.json"),
    }


def read_cells(folder: Folder, names: Sequence[str], controls: set[str]) -> Cells:
    """The matching scores on the test split, and their changes by steering. Controls are no part of
    the family of tests."""
    limit = folder.read_json("config.json")["settings"]["max_faulty"]
    choices = read_choices(folder, names)
    cells = {key: cell(list(by_prompt.values()), limit) for key, by_prompt in choices.items()}
    steered = [key for key in choices if key[0] != BASELINE]
    changes = {key: change(choices[key], choices[BASELINE, key[1]]) for key in steered}
    family = [key for key in steered if key[0] not in controls]
    corrected = dict(zip(family, holm([changes[key].p for key in family]), strict=True))
    for key in steered:
        p = {"p_holm": corrected.get(key, float("nan"))}
        cells[key]["against_baseline"] = nan_to_null(asdict(changes[key]) | p)
    return cells


def read_choices(folder: Folder, names: Sequence[str]) -> dict[tuple[str, str], dict[str, dict]]:
    """What was said on the test split, by variant and behaviour, and by prompt. Variants come in
    the order in which they were asked."""
    name_of = {f"{name} test": name for name in names}
    order = [BASELINE, *folder.read_json("variants.json")]
    choices: dict[tuple[str, str], dict[str, dict]] = {}
    for row in sorted(read_rows(folder, name_of), key=lambda row: order.index(row.variant)):
        choices.setdefault((row.variant, name_of[row.set]), {})[row.prompt] = row.values["choice"]
    return choices


def cell(choices: Sequence[Mapping], max_faulty: float) -> dict:
    """The matching score of one variant on one behaviour, and whether the model still chooses."""
    tally = counted(choices)
    return {
        **rate(wilson(tally.matching, tally.total)),
        "faulty": tally.faulty / tally.total,
        "too_faulty": tally.faulty > max_faulty * tally.total,
        "collapsed": tally.collapsed,
        "margin": fmean(choice["margin"] for choice in choices),
        "against_baseline": None,
    }


def rate(estimate: Estimate) -> dict:
    """A share with its interval."""
    found = nan_to_null(asdict(estimate))
    return {"rate": found.pop("value"), **found}


def change(choices: Mapping[str, dict], baseline: Mapping[str, dict]) -> Difference:
    """The change of the matching score, item by item."""
    steered, plain = (
        [float(side[prompt]["said"] == side[prompt]["matching"]) for prompt in choices]
        for side in (choices, baseline)
    )
    return compare(steered, plain, binary=True)


def both_ways(name: str, ways: Mapping[str, dict], cells: Cells) -> dict:
    """A behaviour under its own direction, added and subtracted, and under random directions."""
    found = {"baseline": cells[BASELINE, name]}
    for sign in "+-":
        way = f"{name} {sign}"
        place = {part: ways[way][part] for part in ("layer", "coefficient")}
        found[sign] = {**place, "test": cells[way, name], "random": cells[f"random {way}", name]}
    return found


def moved(name: str, cells: Cells) -> bool:
    """Whether a behaviour was moved far both ways without the model ceasing to choose."""
    up, down = (cells[f"{name} {sign}", name] for sign in "+-")
    if any(cell["collapsed"] or cell["too_faulty"] for cell in (up, down)):
        return False
    by = [cell["against_baseline"]["value"] for cell in (up, down)]
    return by[0] >= MOVED and by[1] <= -MOVED


def close(matrix: Sequence[Sequence[float]], names: Sequence[str]) -> list[dict]:
    """Pairs of directions that point the same way or opposite ways."""
    return [
        {"first": names[i], "second": names[j], "cosine": matrix[i][j]}
        for i, j in combinations(range(len(names)), 2)
        if abs(matrix[i][j]) > CLOSE
    ]


def interference(
    names: Sequence[str], ways: Mapping[str, dict], cosines: Mapping, cells: Cells
) -> dict:
    """What steering one behaviour did to each other one, beside the cosine of what was added with
    the other's direction at that layer; and Spearman's rank correlation of the two."""
    pairs = []
    for (name, on), (sign, along) in product(permutations(names, 2), (("+", 1), ("-", -1))):
        way = ways[f"{name} {sign}"]
        if way["coefficient"]:
            at_layer = cosines[f"block_out[{way['layer']}]"]
            cosine = along * at_layer[names.index(name)][names.index(on)]
            by = cells[f"{name} {sign}", on]["against_baseline"]["value"]
            pairs.append({"steered": name, "sign": sign, "on": on, "cosine": cosine, "moved": by})
    both = [[pair[part] for pair in pairs] for part in ("cosine", "moved")]
    varies = all(len(set(values)) > 1 for values in both)
    return {"pairs": pairs, "spearman": float(spearmanr(*both).statistic) if varies else None}


def text(folder: Folder, order: Sequence[str]) -> dict[str, dict]:
    """Top-1 accuracy over all tokens, and its change by steering (the alignment tax), with
    bootstrap intervals over texts. A text weighs as many tokens as it has."""
    counts: dict[str, dict[str, dict]] = {}
    for row in read_rows(folder, {"text"}):
        counts.setdefault(row.variant, {})[row.prompt] = row.values["hits"]
    tokens = {text: counts[BASELINE][text]["tokens"] for text in folder.read_json("texts.json")}
    texts = [text for text, number in tokens.items() if number]
    mean = fmean(tokens[text] for text in texts) if texts else 1
    shares = {}
    for variant in (variant for variant in dict.fromkeys(order) if variant in counts):
        top1 = {text: counts[variant][text]["top1"] / tokens[text] for text in texts}
        shares[variant] = [top1[text] * tokens[text] / mean for text in texts]
    found = {}
    for variant, values in shares.items():
        change = nan_to_null(asdict(compare(values, shares[BASELINE], binary=False)))
        against = {"against_baseline": None if variant == BASELINE else change}
        found[variant] = rate(estimate(values, binary=False)) | against
    return found
