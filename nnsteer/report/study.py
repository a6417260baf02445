"""A study's summary, its tables, its figures and its page. All is rebuilt from the run folder."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nnsteer.folder import Folder
from nnsteer.report.answers import kind_of, side_by_side
from nnsteer.report.look import STAR, difference, gap, interval, moved, number, probability, star
from nnsteer.report.results import Results, condition, read, summarise, wanted
from nnsteer.report.section import Answer, Page, Section, Table, publish
from nnsteer.report.study_figures import figures

RAW = ("summary.json", "study.json", "config.json", "rows.jsonl", "completions.jsonl")
EACH_CELL = (
    "Each cell: the rate or the mean with its interval; then the difference from the baseline, "
    "prompt by prompt."
)
FLATTERS = (
    "It was chosen on the prompts that it is reported on, which flatters it. Measure it again on "
    "others."
)


def write(folder: Folder) -> dict:
    """Writes summary.json, the figures and report.html from what lies in the folder, prints the
    tables, and returns the summary. Raises UserError where the folder holds no study."""
    results = read(folder)
    summary = summarise(results)
    folder.write_json("summary.json", summary)
    title, text = f"Study: {folder.path.resolve().name}", list(about(results, summary))
    raw = (*RAW, *results.study["scores"].values(), *results.study["planes"].values())
    publish(folder, Page(title, lead(results), text, sections(results), raw))
    return summary


def lead(results: Results) -> str:
    """What the recommended variant did, and how many differences hold."""
    cells = [one.cells[variant] for one in results.families.values() for variant in results.grid]
    changes = [cell["against_baseline"] for cell in cells if cell["against_baseline"]]
    sure = f"{sum(star(change) == '*' for change in changes)} of {len(changes)} differences"
    hold = f"{sure} from the baseline hold (p < {STAR} after correction)."
    if not results.best:
        measures = ", ".join(measure["name"] for measure in results.study["measures"])
        return f"{len(results.grid)} ways to steer were measured by {measures}; {hold}"
    effect, drift = wanted(results)
    before, after = (effect.cells[v]["value"] for v in (results.study["baseline"], results.best))
    raised = moved(effect.title, before, after, effect.binary)
    cost = f"a {drift.title} of {number(drift.cells[results.best]['value'], drift.binary)}"
    return f"Of {len(results.grid)} ways to steer, {results.best} {raised}, at {cost}; {hold}"


def about(results: Results, summary: dict) -> Iterator[str]:
    """What was done."""
    sets = ", ".join(f"{s['n']} prompts {s['name']}" for s in results.study["sets"])
    measures = ", ".join(measure["name"] for measure in results.study["measures"])
    yield f"{len(results.study['variants'])} variants on {sets}, measured by {measures}."
    there, expected = summary["rows"]["there"], summary["rows"]["expected"]
    if there < expected:
        yield f"Not finished: {there} of {expected} values are there. The same command goes on."
    if results.recommended:
        yield f"Recommended: {results.best or 'none'}. {results.recommended['why']}"
        yield FLATTERS


def sections(results: Results) -> list[Section]:
    """The page."""
    study, conditions = results.study, results.conditions
    terms = ["interval", "p"] + ["random direction"] * bool(study["controls"])
    tables = [*(table(results, measure["name"]) for measure in study["measures"])]
    made = [Section("Results", [EACH_CELL], [*tables, differences(results)], terms=terms)]
    if conditions:
        texts = [said(name, point) for name, point in conditions.items()]
        tables = [fires(name, point) for name, point in conditions.items()]
        made.append(Section("Conditions", texts, tables))
    made += (section for section in figures(results) if section.figures)
    if results.completions:
        names = dict.fromkeys([study["baseline"], *(v["name"] for v in study["variants"])])
        answers = side_by_side(answered(results), list(names), "verdict changed")
        made.append(Section("Every answer", answers=answers))
    programs = [[v["name"], v["program"]] for v in study["variants"]]
    settings = [[m["name"], m["settings"] or "no settings"] for m in study["measures"]]
    run = [
        Table(("variant", "program"), programs, "Every variant", folded=True),
        Table(("measure", "settings"), settings, "Measures", folded=True),
    ]
    return [*made, Section("What was run", tables=run)]


def table(results: Results, measure: str) -> Table:
    """One measure: variants down, sets across. The recommended variant stands out."""
    controls = results.study["controls"]
    columns = ["change", "random", "n"] if controls else ["change", "n"]
    variants, rows = [results.study["baseline"], *results.grid], []
    for variant in variants:
        row = [variant]
        for prompts in results.sets:
            family = results.families[measure, prompts]
            cell, random = family.cells[variant], family.cells.get(controls.get(variant))
            change, failed = cell["against_baseline"], cell["failed"]
            row.append(interval(cell, family.binary))
            row.append(gap(change["value"], family.binary) + star(change) if change else "")
            if controls:
                row.append(number(random["value"], family.binary) if random else "")
            row.append(f"{cell['n']}, {failed} failed" if failed else f"{cell['n']}")
        rows.append(row)
    heads = ["", *(name for prompts in results.sets for name in (prompts, *columns))]
    best = frozenset(i for i, variant in enumerate(variants) if variant == results.best)
    return Table(heads, rows, f"{measure}, with 95 % intervals", best)


def differences(results: Results) -> Table:
    """Every difference from the baseline and from the random control."""
    rows = []
    for family in results.families.values():
        for variant, cell in family.cells.items():
            change, against_control = cell["against_baseline"], cell["against_control"]
            if change:
                row = [variant, family.measure, family.prompts, f"{cell['n']}"]
                row += [difference(change, family.binary), probability(change["p"])]
                row += [difference(against_control, family.binary) if against_control else ""]
                rows.append(row)
    columns = ["variant", "measure", "set", "n", "against the baseline", "p alone"]
    title = "All differences, with intervals and p-values"
    return Table([*columns, "against its random control"], rows, title, folded=True)


def said(name: str, point: dict) -> str:
    """When a condition fires."""
    threshold = f"{number(point['threshold'], False)} (a threshold {point['found']})"
    score = f"its {point['score']} score at {point['site']}"
    return f"{name} fires when {score} is {point['fires_when']} {threshold}."


def fires(name: str, point: dict) -> Table:
    """How well a condition tells its sides apart on each split."""
    rows = []
    for split in point["scores"]:
        quality = condition(point, split)
        rates = [quality["fires"][side] for side in ("positive", "negative")]
        cells = [text for rate in rates for text in (interval(rate), f"{rate['n']}")]
        rows.append([split, *cells, number(quality["auc"], False)])
    positive, negative = (f"fires on {point[side]}" for side in ("positive", "negative"))
    return Table(("split", positive, "n", negative, "n", "area under ROC"), rows, name)


def answered(results: Results) -> Iterator[tuple[str, str, str, Answer]]:
    """Each answer by prompt, kind and variant, set by set; ringed where a verdict isn't the
    baseline's."""
    ranks = {prompts: i for i, prompts in enumerate(results.sets)}
    for row in sorted(results.completions, key=lambda row: ranks.get(row["set"], len(ranks))):
        verdicts = [verdict(results, row, measure) for measure in results.study["measures"]]
        notes = ["fired" if fired else "did not fire" for fired in row.get("fired") or []]
        for i, score in enumerate((row.get("scores") or [])[: len(notes)]):
            notes[i] += f" ({score:.3g})"
        tags, changed = tuple(said for said, _ in verdicts), any(ring for _, ring in verdicts)
        answer = Answer(row["completion"], tags, ", ".join(notes), changed)
        yield row["prompt"], kind_of(row["set"], row["kind"]), row["variant"], answer


def verdict(results: Results, row: dict, measure: dict) -> tuple[str, bool]:
    """What a measure says of an answer, and whether that is a 0 where the baseline has a 1 or the
    other way round. Of several samples it says the mean."""
    name, binary = measure["name"], measure["binary"]
    value, baseline = (
        results.values.get((variant, row["set"], name), {}).get(row["prompt"], math.nan)
        for variant in (row["variant"], results.study["baseline"])
    )
    if math.isnan(value):
        return f"{name} failed", False
    said = ("no", "yes")[int(value)] if binary and value in (0, 1) else number(value, binary)
    return f"{name} {said}", binary and abs(value - baseline) == 1
