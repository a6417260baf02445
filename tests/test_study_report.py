"""The page of a study whose effects are known."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nnsteer import report
from nnsteer.errors import UserError
from nnsteer.folder import FORMAT, Folder
from nnsteer.report.compare import compare
from nnsteer.report.grid_figures import in_order
from nnsteer.report.look import repeated
from nnsteer.report.results import condition, read, summarise
from nnsteer.report.study import write

CHROMIUM = shutil.which("chromium")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
         "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr")  # fmt: skip
LAYERS, STRENGTHS, SIDES = ("1", "2", "10"), (0.5, 1.0, 2.0), ("harmful", "harmless")
GOOD = "add layer=2 strength=1.0"
TRAP = "add layer=2 strength=2.0"  # refuses most, and drifts too far


def synthetic(path, prompts=40, layers=LAYERS, strengths=STRENGTHS, seed=0):
    """A study's folder. Refusal of harmful prompts rises with the strength at layer 2 alone;
    strength 2 drifts too far; random controls do nothing; a few judgements failed."""
    rng, folder = np.random.default_rng(seed), Folder(path)
    path.mkdir(parents=True, exist_ok=True)
    grid = [(layer, strength) for layer in layers for strength in strengths]
    variants = [{"name": "baseline", "axes": {}, "program": "nothing"}]
    for layer, strength in grid:
        axes = {
            "op": "add",
            "layer": layer,
            "strength": strength,
            "span": "all",
            "method": "mean_difference",
        }
        name = f"add layer={layer} strength={strength}"
        variants.append(
            {
                "name": name,
                "axes": axes,
                "program": f"add {strength} x harm | block_out {layer}, all | always",
            }
        )
        variants.append(
            {
                "name": f"random, {name}",
                "axes": {},
                "program": f"add {strength} x random | block_out {layer}",
            }
        )
    study = {
        "baseline": "baseline", "variants": variants, "sets": [{"name": side, "n": prompts} for side in SIDES],
        "controls": {v["name"]: f"random, {v['name']}" for v in variants if v["axes"]},
        "measures": [{"name": "refusal", "settings": "stems of refusals.jsonl", "binary": True},
                     {"name": "kl", "settings": "first 8 tokens", "binary": False}],
        "recommend": {"effect": "refusal", "on": "harmful", "drift": "kl", "drift_on": "harmless", "limit": 0.5},
        "planes": {"harm": "plane_1.json"}, "scores": {"dangerous": "condition_1.json"},
    }  # fmt: skip
    asked = [
        (side, f"{side} request {i}: how do I open the lock <b>numbered</b> {i}?")
        for side in SIDES
        for i in range(prompts)
    ]
    mood = {prompt: rng.random() for _, prompt in asked}
    score = {
        prompt: float(rng.normal(0.3 if side == "harmful" else -0.1, 0.2)) for side, prompt in asked
    }
    rows, completions = [], []
    for variant in variants:
        layer, strength = variant["axes"].get("layer"), variant["axes"].get("strength", 0)
        for side, prompt in asked:
            push = 0.45 * strength if layer == "2" and side == "harmful" else 0.0
            refused = float(mood[prompt] < (0.4 if side == "harmful" else 0.03) + push)
            kl = (
                0.0
                if variant["name"] == "baseline"
                else float(rng.gamma(2, 0.08 * (strength or 1) ** 2.2))
            )
            failed = side == "harmless" and rng.random() < 0.01
            at = {
                "key": str(len(completions)),
                "variant": variant["name"],
                "set": side,
                "kind": "locks",
                "prompt": prompt,
            }
            text = (
                "I can't help with that."
                if refused
                else f"First, take a & b, then <i>turn</i> them {round(kl, 1)} times."
            )
            scores = [score[prompt]] if layer else []
            completions.append(
                {**at, "completion": text, "scores": scores, "fired": [s > 0.1 for s in scores]}
            )
            rows.append({**at, "measure": "refusal", "value": None if failed else refused})
            rows.append({**at, "measure": "kl", "value": kl})
    folder.write_json("study.json", study)
    command = [
        "/home/me/nnsteer/nnsteer/study/__main__.py",
        "layers and strengths.toml",
        "--out",
        "runs/layers",
    ]
    model = {"name": "nnsteer:organism", "revision": None, "weights": "0123"}
    folder.write_json(
        "config.json",
        {
            "settings": {"seed": 0},
            "command": command,
            "versions": {"torch": "2.13"},
            "model": model,
        },
    )
    folder.append("rows.jsonl", rows)
    folder.append("completions.jsonl", completions)
    points = np.concatenate(
        [rng.normal((2, 0), 1, (prompts, 2)), rng.normal((-2, 0), 1, (prompts, 2))]
    )
    labels = [side for side in SIDES for _ in range(prompts)]
    plane = {layer: {"points": points.tolist(), "shares": [0.6, 0.2]} for layer in layers}
    folder.write_json("plane_1.json", {"read": "prompt", "labels": labels, "layers": plane})
    harmful, harmless = ([score[prompt] for at, prompt in asked if at == side] for side in SIDES)
    scores = {"positive": harmful, "negative": harmless}
    point = {"site": "block_out[2]", "score": "cosine", "threshold": 0.1, "fires_when": "above", "found": "given",
             "positive": "harmful", "negative": "harmless", "scores": {"tune": scores, "test": scores}}  # fmt: skip
    folder.write_json("condition_1.json", point)
    return folder


def cell_of(summary, variant, side, measure):
    (cell,) = (
        c
        for c in summary["cells"]
        if (c["variant"], c["set"], c["measure"]) == (variant, side, measure)
    )
    return cell


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = synthetic(tmp_path_factory.mktemp("study") / "run")
    write(folder)
    return folder


@pytest.fixture(scope="module")
def summary(done):
    return done.read_json("summary.json")


def test_the_summary_holds_every_cell_and_counts_what_failed(done, summary):
    assert len(summary["cells"]) == 19 * 2 * 2 and summary["rows"] == {
        "there": 19 * 80 * 2,
        "expected": 19 * 80 * 2,
    }
    rows = done.read_lines("rows.jsonl")
    for cell in summary["cells"]:
        names = ("variant", "set", "measure")
        own = [r["value"] for r in rows if all(r[name] == cell[name] for name in names)]
        kept = [value for value in own if value is not None]
        assert (cell["n"], cell["failed"]) == (len(kept), len(own) - len(kept))
        assert (
            cell["value"] == pytest.approx(np.mean(kept))
            and cell["low"] <= cell["value"] <= cell["high"]
        )
    assert any(cell["failed"] for cell in summary["cells"])
    assert "NaN" not in (done / "summary.json").read_text()


def test_an_effect_is_found_where_it_is_and_nowhere_else(summary):
    found = {
        c["variant"]
        for c in summary["cells"]
        if c["measure"] == "refusal" and (c["against_baseline"] or {}).get("p_holm", 1) < 0.05
    }
    assert found == {GOOD, TRAP}
    good = cell_of(summary, GOOD, "harmful", "refusal")
    assert 0.25 < good["against_baseline"]["low"] < 0.45 < good["against_baseline"]["high"]
    assert good["against_control"]["p_holm"] < 0.001 and good["against_control"]["n"] == 40
    assert cell_of(summary, f"random, {GOOD}", "harmful", "refusal")["against_control"] is None
    assert cell_of(summary, "baseline", "harmful", "kl")["against_baseline"] is None


def test_the_recommended_variant_has_the_most_effect_within_the_limit(done, summary):
    best = summary["recommended"]
    assert best["variant"] == GOOD and best["why"].startswith(
        "6 of 9 variants keep kl on harmless at or under 0.5."
    )
    assert "Against its random control: +4" in best["why"]
    assert (
        cell_of(summary, TRAP, "harmful", "refusal")["value"]
        > cell_of(summary, GOOD, "harmful", "refusal")["value"]
    )
    for change, expected in (
        ({"limit": 0.0}, None),
        ({"limit": 9}, TRAP),
        ({"prefer": "lower"}, "add layer=1 strength=0.5"),
    ):
        assert wished(done, change)["recommended"]["variant"] == expected
    with pytest.raises(
        UserError,
        match="recommend: bleu on harmful is not in this study; it has refusal, kl on harmful, harmless",
    ):
        wished(done, {"effect": "bleu"})


def wished(folder, change):
    """The summary when something else is to be recommended."""
    results = read(folder)
    return summarise(
        replace(results, study=results.study | {"recommend": results.study["recommend"] | change})
    )


def test_the_condition_is_judged_by_its_scores(done, summary):
    scored = [row for row in done.read_lines("completions.jsonl") if row["variant"] == GOOD]
    sides = {side: [row["scores"][0] for row in scored if row["set"] == side] for side in SIDES}
    wins = np.mean([h > o for h in sides["harmful"] for o in sides["harmless"]])
    found = summary["conditions"]["dangerous"]["test"]
    assert found["auc"] == pytest.approx(wins)
    assert found["fires"]["positive"]["value"] == pytest.approx(
        np.mean(np.array(sides["harmful"]) > 0.1)
    )
    reverse = condition(read(done).conditions["dangerous"] | {"fires_when": "below"}, "test")
    assert reverse["auc"] == pytest.approx(1 - wins)
    assert reverse["fires"]["positive"]["value"] == pytest.approx(
        1 - found["fires"]["positive"]["value"]
    )


def test_the_figures_are_there_twice_and_fit_a_phone(done):
    names = {p.stem for p in (done / "figures").glob("*.png")}
    panels = {
        f"{kind}-{measure}-{side}"
        for kind in ("heat", "dose")
        for measure in ("refusal", "kl")
        for side in SIDES
    }
    assert names == panels | {
        "trade-off",
        "condition-dangerous-scores",
        "condition-dangerous-roc",
        "activations-harm",
    }
    assert names == {p.stem for p in (done / "figures").glob("*.pdf")}
    for name in names:
        with Image.open(done / "figures" / f"{name}.png") as image:
            assert (
                image.width == 720
            )  # 3.6 inches: 9 points are 11 pixels high on a phone 360 pixels wide


def test_the_page_stands_alone_and_escapes_what_models_write(done):
    page = (done / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 12 and "default-src 'none'" in page
    assert not re.search(r"""(src|href)=["']?(https?:|//)""", page)
    for link in re.findall(r'href="([^"#]+)"', page):
        assert (done / link).exists()
    assert (
        page.count("<tr data-kind") == 80
        and "<i>turn</i>" not in page
        and "<b>numbered</b>" not in page
    )
    assert "python -m nnsteer.study &#39;layers and strengths.toml&#39; --out runs/layers" in page
    assert page.count("as baseline, word for word") > 500


def test_an_answer_that_is_a_script_is_shown_and_not_run(done, tmp_path):
    """Nor is one that tries to end the page's own script, or to open a tag in a prompt or a
    variant's name."""
    evil = "</p></td></table></script><script>document.title = 'taken'</script><img src=x onerror=alert(1)>"
    folder = Folder(tmp_path)
    shutil.copytree(done.path, tmp_path, dirs_exist_ok=True)
    rows = done.read_lines("completions.jsonl")
    folder.write_lines(
        "completions.jsonl", [row | {"completion": evil, "kind": "<script>"} for row in rows]
    )
    write(folder)
    page = (tmp_path / "report.html").read_text()
    assert "&lt;script&gt;document.title" in page and "harmful: &lt;script&gt;" in page
    assert page.count("<script>") == page.count("</script>") == 1 and "<img src=x" not in page
    if CHROMIUM:
        shown, said = opened(tmp_path / "report.html", "", tmp_path / "profile")
        assert said == [] and "<title>Study: " in shown and "80 of 80 prompts" in shown


def test_the_page_opens_with_what_was_found_and_breaks_no_interval(done):
    page = (done / "report.html").read_text()
    lead = re.sub(r"<[^>]+>", "", re.search(r'<p class="lead">(.*?)</p>', page, re.S)[1])
    assert lead.startswith(
        f"Of 9 ways to steer, {GOOD} raised refusal on harmful from 35.0 % to 80.0 %"
    )
    cells = re.findall(r"<td>([^\n]*?)</td>", page)
    intervals = [cell for cell in cells if re.search(r"\[-?[\d.]+, ", cell)]
    assert len(intervals) > 50 and all('<span class="whole">[' in cell for cell in intervals)


def test_the_page_of_ten_thousand_answers_stays_small(tmp_path):
    folder = synthetic(
        tmp_path / "large",
        prompts=102,
        layers=[str(i) for i in range(6)],
        strengths=(0.5, 1, 1.5, 2),
    )
    study = folder.read_json("study.json")
    folder.write_json("study.json", study | {"measures": study["measures"][:1], "recommend": None})
    write(folder)
    answers = len(folder.read_lines("completions.jsonl"))
    text = sum(len(row["completion"]) for row in folder.read_lines("completions.jsonl"))
    page = (folder / "report.html").read_text()
    assert answers == 9996
    assert len(page) - len("".join(re.findall(r"data:image[^\"]+", page))) < text + 260 * answers


def test_a_study_without_a_grid_or_answers_has_a_page_too(done, tmp_path):
    """Named variants, values alone, half of them: neither doses nor layers, no completions, no
    recommendation."""
    folder = Folder(tmp_path)
    study = done.read_json("study.json")
    for i, variant in enumerate(study["variants"]):
        variant["axes"] = {"op": str(i)} if variant["axes"] else {}
    folder.write_json("study.json", study | {"recommend": None, "planes": {}, "scores": {}})
    folder.write_json("config.json", done.read_json("config.json"))
    folder.append("rows.jsonl", done.read_lines("rows.jsonl")[: 19 * 40])
    summary = write(folder)
    assert summary["recommended"] is None and summary["conditions"] == {}
    page = (tmp_path / "report.html").read_text()
    assert "Not finished: 760 of 3040 values" in page and "Every answer" not in page
    assert {p.stem for p in (tmp_path / "figures").glob("*.png")} == {
        f"variants-{m}-{s}" for m in ("refusal", "kl") for s in SIDES
    }


def test_a_prompt_that_is_sampled_counts_once_with_the_mean_of_its_samples(done, tmp_path):
    """Twice the same answers: the same estimates. Shares have a bootstrap's interval, not
    Wilson's."""
    folder = Folder(tmp_path)
    for name in ("study.json", "condition_1.json", "plane_1.json"):
        folder.write_json(name, done.read_json(name))
    rows = done.read_lines("rows.jsonl")
    folder.append("rows.jsonl", [row | {"sample": sample} for row in rows for sample in range(2)])
    assert summarise(read(folder)) == done.read_json("summary.json")
    share = {"sample": 2, "value": 1.0}
    folder.append("rows.jsonl", [row | share for row in rows if row["measure"] == "refusal"])
    cell = read(folder).families["refusal", "harmful"].cells["baseline"]
    assert cell["n"] == 40 and cell["value"] == pytest.approx((1 + 2 * 0.35) / 3)
    assert cell["low"] < cell["value"] < cell["high"]


def test_a_folder_without_a_study_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"holds no study\.json; give the folder of a study"):
        write(Folder(tmp_path))


def test_the_page_is_that_of_the_recipe_that_the_folder_names(tmp_path, monkeypatch):
    folder, named = Folder(tmp_path), {"settings": {}, "format": FORMAT}
    monkeypatch.setattr("nnsteer.report.skills.write", lambda _: {"page of": "skills"})
    folder.write_json("config.json", named | {"recipe": "skills"})
    assert report.write(folder) == {"page of": "skills"}
    for config, says in (
        (named | {"recipe": "elsewhere"}, "a run of elsewhere, whose pages nnsteer doesn't write"),
        ({"settings": {}, "recipe": "skills", "format": 1}, "holds a run of an earlier version"),
        ({"settings": {}}, "holds a run of an earlier version"),
    ):
        folder.write_json("config.json", config)
        with pytest.raises(
            UserError,
            match=f"{says}.*; give the folder of a study, or of a finished run of refusal",
        ):
            report.write(folder)


def test_layers_stand_in_the_order_of_their_numbers():
    assert in_order(["10", "2", "1-2-3", "1"]) == ["1", "1-2-3", "2", "10"]
    assert in_order([2.0, -1, 0.5, 2]) == [-1, 0.5, 2.0]


def test_the_command_is_shown_as_it_is_typed():
    assert (
        repeated(["/home/nnsteer/nnsteer/study/__main__.py", "a b.toml"])
        == "python -m nnsteer.study 'a b.toml'"
    )
    assert repeated(["/usr/bin/nnsteer-study", "x.toml"]) == "nnsteer-study x.toml"


def opened(page, view, tmp_path):
    """The page's body after its script has run, and what was said on the console."""
    where = [
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=3000",
        "--dump-dom",
        f"{page.as_uri()}#{view}",
    ]
    ran = subprocess.run([CHROMIUM, *QUIET, *where], capture_output=True, text=True, timeout=120)
    return ran.stdout, [line for line in ran.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_filters_the_answers_without_an_error_or_a_request(done, tmp_path):
    """The page's own policy forbids every request; a violation would be said on the console, as the
    last page shows."""
    view = "text=request+3&kind=harmful&variant=" + GOOD.replace(" ", "+").replace("=", "%3D")
    page, said = opened(done / "report.html", view, tmp_path / "profile")
    shown = [
        d
        for d in re.findall(r"<tr data-kind=.*?</tr>", page, re.S)
        if " hidden" not in d.split(">")[0]
    ]
    assert said == [] and "11 of 80 prompts" in page
    assert len(shown) == 11 and all("harmful request 3" in d for d in shown)
    heads = re.findall(
        r"<th([^>]*)>([^<]*)</th>", re.search(r'<table id="answers">.*?</thead>', page, re.S)[0]
    )
    assert [name for hidden, name in heads if "hidden" not in hidden] == [
        "prompt",
        "baseline",
        GOOD,
    ]
    for row in shown:
        assert len([cell for cell in re.findall(r"<td[^>]*>", row) if "hidden" not in cell]) == 3
    leaky = tmp_path / "leaky.html"
    leaky.write_text(
        (done / "report.html")
        .read_text()
        .replace("<h1>", '<img src="https://example.com/a.png"><h1>')
    )
    assert any(
        "Content Security Policy" in line for line in opened(leaky, "", tmp_path / "profile")[1]
    )


def test_two_studies_are_compared_prompt_by_prompt(done, tmp_path, capsys):
    """b is a with another seed, five prompts fewer, another program, and every refusal of one
    variant taken away."""
    other = Folder(tmp_path / "other")
    shutil.copytree(done.path, other.path)
    rows = [
        r
        for r in other.read_lines("rows.jsonl")
        if not re.match(r"harmful request \d:", r["prompt"]) and r["variant"] != TRAP
    ]
    for row in rows:
        if (row["variant"], row["measure"], row["value"]) == (GOOD, "refusal", 1):
            row["value"] = 0.0
    other.write_lines("rows.jsonl", rows)
    config, study = other.read_json("config.json"), other.read_json("study.json")
    other.write_json("config.json", config | {"settings": {"seed": 1}})
    study["variants"][1]["program"] = "another"
    other.write_json("study.json", study)
    found = compare(done, other, tmp_path / "compare.html")
    assert set(found["settings"]) == {"settings: seed", "program add layer=1 strength=0.5"}
    assert found["settings"]["settings: seed"] == (0, 1)
    assert {variant for variant, _, _ in found["only_a"]} == {TRAP} and found["only_b"] == []
    changed = [c for c in found["cells"] if c["difference"]["p_holm"] < 0.05]
    assert [(c["variant"], c["set"], c["measure"]) for c in changed] == [
        (GOOD, "harmful", "refusal")
    ]
    assert (
        changed[0]["difference"]["n"] == 30
        and changed[0]["b"]["value"] == 0
        and changed[0]["difference"]["value"] < -0.5
    )
    assert "settings: seed" in capsys.readouterr().out
    page = (tmp_path / "compare.html").read_text()
    assert (
        page.count("<tr") == 2 + 2 + sum(not c["same"] for c in found["cells"])
        and page.count('<tr class="marked"') == 1
    )
    with pytest.raises(UserError, match="have no variant, set and measure in common"):
        other.write_lines("rows.jsonl", [])
        compare(done, other)
