"""A study's summary, its tables, its figures and its page. All is rebuilt from the run folder."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nnsteer.folder import Folder
from nnsteer.report.look import STAR, difference, gap, interval, moved, number, probability, star
from nnsteer.report.results import Results, by_cell, read, summarise
from nnsteer.report.section import Answer, Answers, Asked, Page, Section, Table, publish
from nnsteer.report.study_figures import figures

RAW = ("summary.json", "study.json", "config.json", "rows.jsonl", "completions.jsonl")


def write(folder: Folder) -> dict:
    """Writes summary.json, the figures and report.html from what lies in the folder, prints the tables, and returns the
    summary. Raises UserError where the folder holds no study."""
    results = read(folder)
    summary = summarise(results)
    folder.write_json("summary.json", summary)
    sets = ", ".join(f"{prompts['n']} prompts {prompts['name']}" for prompts in results.study["sets"])
    about = [f"{len(results.variants)} variants on {sets}, measured by {', '.join(results.measures)}."]
    there, expected = summary["rows"]["there"], summary["rows"]["expected"]
    if there < expected:
        about.append(f"Not finished: {there} of {expected} values are there. The same command goes on.")
    if best := summary["recommended"]:
        about.append(f"Recommended: {best['variant'] or 'none'}. {best['why']}")
        about.append("It was chosen on the prompts that it is reported on, which flatters it. Measure it again on others.")
    raw = (*RAW, *results.study["scores"].values(), *results.study["planes"].values())
    page = Page(f"Study: {folder.path.resolve().name}", lead(results, summary), about, list(sections(results, summary)), raw)
    publish(folder, page)
    return summary


def lead(results: Results, summary: dict) -> str:
    """What the recommended variant did, or how many differences hold."""
    wish, best = results.study.get("recommend"), (summary["recommended"] or {}).get("variant")
    found = [
        cell["against_baseline"] for cell in summary["cells"] if cell["variant"] in results.grid and cell["against_baseline"]
    ]
    sure = sum(star(difference) == "*" for difference in found)
    if not best or not wish:
        return (
            f"{len(results.grid)} ways to steer were measured by {', '.join(results.measures)}; {sure} of "
            f"{len(found)} differences from "
            f"the baseline hold (p < {STAR} after correction)."
        )
    at, binary = by_cell(summary["cells"]), results.measures
    (effect, drift) = ((wish["on"], wish["effect"]), (wish["drift_on"], wish["drift"]))
    before, after = (at[(variant, *effect)]["value"] for variant in (results.study["baseline"], best))
    return (
        f"Of {len(results.grid)} ways to steer, {best} "
        f"{moved(f'{effect[1]} on {effect[0]}', before, after, binary[effect[1]])}, at a "
        f"{drift[1]} on {drift[0]} of {number(at[(best, *drift)]['value'], binary[drift[1]])}; {sure} of {len(found)} "
        f"differences from "
        f"the baseline hold (p < {STAR} after correction)."
    )


def sections(results: Results, summary: dict) -> Iterator[Section]:
    """The page."""
    terms = ("interval", "p", *(("random direction",) if results.study["controls"] else ()))
    note = "Each cell: the rate or the mean with its interval; then the difference from the baseline, prompt by prompt."
    tables = [table(results, summary, measure) for measure in results.measures]
    yield Section("Results", [note], [*tables, differences(results, summary)], terms=terms)
    drawn = figures(results, summary)
    if results.conditions:
        texts = [
            f"{name} fires when its {point['score']} score at {point['site']} is {point['fires_when']} "
            f"{number(point['threshold'], False)} (a threshold {point['found']})."
            for name, point in results.conditions.items()
        ]
        yield Section("Conditions", texts, [fires(name, results, summary) for name in results.conditions])
    for title, (note, own) in drawn.items():
        yield Section(title, [note], (), own)
    if results.completions:
        yield Section("Every answer", answers=answers(results))
    programs = [[variant["name"], variant["program"]] for variant in results.study["variants"]]
    measures = [[measure["name"], measure["settings"] or "no settings"] for measure in results.study["measures"]]
    columns = ("variant", "program")
    shown = [
        Table(columns, programs, "Every variant", folded=True),
        Table(("measure", "settings"), measures, "Measures", folded=True),
    ]
    yield Section("What was run", (), shown)


def table(results: Results, summary: dict, measure: str) -> Table:
    """One measure: variants down, sets across. The recommended variant stands out."""
    at, binary = by_cell(summary["cells"]), results.measures[measure]
    variants, controls = [results.study["baseline"], *results.grid], results.study["controls"]
    rows = []
    for variant in variants:
        row = [variant]
        for prompts in results.sets:
            cell = at[variant, prompts, measure]
            found, failed = cell["against_baseline"], f", {cell['failed']} failed" if cell["failed"] else ""
            row += [interval(cell, binary), f"{gap(found['value'], binary)}{star(found)}" if found else ""]
            if controls:
                row.append(number(at[controls[variant], prompts, measure]["value"], binary) if variant in controls else "")
            row.append(f"{cell['n']}{failed}")
        rows.append(row)
    own = ("change", "random", "n") if controls else ("change", "n")
    columns = ["", *(name for prompts in results.sets for name in (prompts, *own))]
    best = (summary["recommended"] or {}).get("variant")
    return Table(columns, rows, f"{measure}, with 95 % intervals", frozenset([variants.index(best)] if best else []))


def differences(results: Results, summary: dict) -> Table:
    """Every difference from the baseline and from the random control."""
    rows = []
    for cell in summary["cells"]:
        if found := cell["against_baseline"]:
            binary, control = results.measures[cell["measure"]], cell["against_control"]
            row = [
                cell["variant"],
                cell["measure"],
                cell["set"],
                f"{cell['n']}",
                difference(found, binary),
                probability(found["p"]),
            ]
            rows.append([*row, difference(control, binary) if control else ""])
    columns = ("variant", "measure", "set", "n", "against the baseline", "p alone", "against its random control")
    return Table(columns, rows, "All differences, with intervals and p-values", folded=True)


def fires(name: str, results: Results, summary: dict) -> Table:
    """How well a condition tells its sides apart on each split."""
    point, rows = results.conditions[name], []
    for split, found in summary["conditions"][name].items():
        cells = [found["fires"][side] for side in ("positive", "negative")]
        rows.append([split, *(text for cell in cells for text in (interval(cell), f"{cell['n']}")), number(found["auc"], False)])
    columns = ("split", f"fires on {point['positive']}", "n", f"fires on {point['negative']}", "n", "area under ROC")
    return Table(columns, rows, name)


def answers(results: Results) -> Answers:
    """A column for each variant, the baseline first; ringed where a verdict isn't the baseline's."""
    variants = list(dict.fromkeys([results.study["baseline"], *results.variants]))
    ranks = {prompts: i for i, prompts in enumerate(results.sets)}
    found: dict[tuple[str, str, str], dict[str, list[Answer]]] = {}
    for row in sorted(results.completions, key=lambda row: ranks.get(row["set"], len(ranks))):
        verdicts = [verdict(results, row, measure, binary) for measure, binary in results.measures.items()]
        scores = [f"{score:.3g}" for score in row.get("scores") or []]
        fired = ["fired" if fired else "did not fire" for fired in row.get("fired") or []]
        said = [f"{one} ({scores[i]})" if i < len(scores) else one for i, one in enumerate(fired)]
        own = found.setdefault((row["set"], row["kind"], row["prompt"]), {})
        tags, changed = tuple(text for text, _ in verdicts), any(changed for _, changed in verdicts)
        own[row["variant"]] = [Answer(row["completion"], tags, ", ".join(said), changed)]
    asked = [Asked(prompt, f"{prompts}: {kind}" if kind else prompts, own) for (prompts, kind, prompt), own in found.items()]
    return Answers(variants, asked, "verdict changed")


def verdict(results: Results, row: dict, measure: str, binary: bool) -> tuple[str, bool]:
    """What a measure says of an answer, and whether that is a 0 where the baseline has a 1 or the other way round."""
    value, other = (
        results.values.get((variant, row["set"], measure), {}).get(row["prompt"], math.nan)
        for variant in (row["variant"], results.study["baseline"])
    )
    said = "failed" if math.isnan(value) else ("no", "yes")[int(value)] if binary else f"{value:.3g}"
    return f"{measure} {said}", binary and abs(value - other) == 1
