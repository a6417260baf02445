"""One addition, eight implementations (*Implementing activation steering*, LessWrong): the difference of two words at one
block's output, added to every token of the prompt and the answer, by nnsight, by PyTorch hooks, by a wrapper around the block,
by TransformerLens, by `attach` and by `bake`; and the blog's bias edit, which acts on attention alone, against a hook there.

    python -m nnsteer.recipes.implementations                                        # the bundled model: seconds
    python -m nnsteer.recipes.implementations --model my-folder --words Wedding Funeral --layer 6 --coefficient 20
    python -m nnsteer.recipes.implementations --config recipes/implementations.toml  # the blog's run: gpt2-xl, 20 GB of memory
    pip install "nnsteer[transformer-lens]"                                          # for TransformerLens's row

Words and prompt are plain text, without a chat template. Each implementation is written out in `nnsteer/recipes/ways.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn.functional import normalize

from nnsteer import command, fit
from nnsteer.command import at_least_one
from nnsteer.errors import UserError
from nnsteer.folder import check_folder, open_folder
from nnsteer.model.layout import check_layers, num_layers
from nnsteer.model.load import find_model, load_model
from nnsteer.model.runner import Runner
from nnsteer.program.files import save_directions
from nnsteer.program.names import Dtype
from nnsteer.program.site import Site
from nnsteer.program.span import Last
from nnsteer.progress import bar
from nnsteer.recipes.implementations.ways import WAYS, Subject, Way, difference_at_input
from nnsteer.texts.contrast import of_prompts


@dataclass(frozen=True)
class Config:
    """Defaults run the bundled model."""

    model: str = "nnsteer:organism"
    """A hub id, a folder, or the bundled model."""
    revision: str | None = None
    """Commit, tag or branch of a hub id."""
    dtype: Dtype = "auto"
    words: tuple[str, str] = ("Love", "Hate")
    """The direction is the first minus the second, on the last token of each."""
    prompt: str = "I think dogs are "
    layer: int = 1
    """The block, from 0."""
    coefficient: float = 1.0
    """The length of what is added."""
    max_new_tokens: int = 24
    repeats: int = 5
    """Timed answers by each implementation, after one to warm up."""
    expected_lengths: tuple[float, float] | None = None
    """The difference's length at the block's output and at its attention's input, to two places."""
    expected_texts: tuple[str, str, str] | None = None
    """Prompt and answer at +c, 0 and -c, steered at the block's output."""
    expected_bias_texts: tuple[str, str, str] | None = None
    """The same, steered at the attention's input."""
    out: Path = Path("runs/implementations")
    """The run's folder."""


SIGNS = {"+c": 1, "0": 0, "-c": -1}


class Trial(NamedTuple):
    """One pass and one answer of an implementation."""

    logits: Tensor
    """fp32 [token, vocab], of the same tokens in every trial: the prompt and the unsteered answer."""
    answer: list[int]
    ms: float
    """Per token of the answer, with all that the call sets up."""


Turn = tuple[str, str]
"""A site and one of its implementations."""
TURNS = {(site, name): way for site, ways in WAYS.items() for name, way in ways.items()}


def main(config: Config) -> None:
    """The method, step by step."""
    # 0. Whatever can be wrong is found before any weights are loaded.
    check_numbers(config)
    files = find_model(config.model, config.revision, templated=False)
    check_layers([config.layer], num_layers(files.config))
    prompt, first, second = (files.chat.prompt_ids(text) for text in (config.prompt, *config.words))
    if not (prompt and first and second) or first == second:
        raise UserError(f"--prompt {config.prompt!r} --words {config.words}: give a prompt and two different words")
    settings = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(config).items() if name != "out"}
    check_folder(config.out, settings, "implementations")
    runner, model = Runner.open(files, config.dtype), load_model(files, config.dtype).eval()
    folder = open_folder(config.out, settings, {"model": asdict(runner.model)}, "implementations")

    # 1. The direction: the first word minus the second, at the block's output and at its attention's input.
    site = Site(config.layer)
    direction = fit.mean_difference(runner.record(of_prompts(*([word] for word in config.words)), [site], Last()))[site]
    save_directions(folder / "direction.safetensors", [direction])
    at_input = difference_at_input(model, runner.layout.path(site), first, second)
    unit = None if at_input is None else normalize(at_input, dim=0)
    subject = Subject(runner, model, direction.unit(), unit, config.prompt, config.max_new_tokens)

    # 2. Every implementation at +c, 0 and -c.
    tokens = [*prompt, *runner.generate([config.prompt], max_new_tokens=config.max_new_tokens)[0].ids]
    tried: dict[Turn, dict[str, Trial]] = {}
    skipped: dict[Turn, str] = {}
    with bar("steering", len(TURNS)) as watch:
        for turn, way in TURNS.items():
            try:
                tried[turn] = {name: run(way, subject, sign * config.coefficient, tokens) for name, sign in SIGNS.items()}
            except UserError as error:
                skipped[turn] = str(error)
            watch(1)

    # 3. The time per token at +c: round by round, so that what slows the machine for a while slows all.
    clock: dict[Turn, list[float]] = {turn: [] for turn in tried}
    with bar("timing", config.repeats * len(tried)) as watch:
        for _ in range(config.repeats):
            for turn, times in clock.items():
                times.append(run(TURNS[turn], subject, config.coefficient, tokens).ms)
                watch(1)

    # 4. The table: each implementation beside its site's first; the texts; and what was expected of them.
    decode = files.chat.tokenizer.decode
    sites = []
    for where, vector in zip(WAYS, (direction.vector, at_input), strict=True):
        if vector is not None:
            own = tried[first_of(where)]
            moved = (own["+c"].logits - own["0"].logits).abs().max().item()
            texts = {sign: config.prompt + decode(trial.answer) for sign, trial in own.items()}
            sites.append({"site": where, "length": vector.norm().item(), "moved": moved, "texts": texts})
    table = {"rows": rows(tried, clock, skipped), "sites": sites, "expected": checks(config, sites)}
    folder.write_json("table.json", table)
    folder.write_text("table.md", page(table))
    print(page(table), end="")


def check_numbers(config: Config) -> None:
    """Refuses numbers that no run can use."""
    at_least_one(config, "max_new_tokens", "repeats")
    if not isfinite(config.coefficient) or config.coefficient == 0:
        raise UserError(f"--coefficient {config.coefficient}: must be a finite number other than 0, such as 1.5")


def run(way: Way, subject: Subject, c: float, tokens: list[int]) -> Trial:
    """One trial. The pass comes before the answer, so that the clock finds a new copy of the model warm."""
    with way(subject, c) as steered:
        logits = steered.logits(tokens)
        start = perf_counter()
        answer = steered.answer()
        return Trial(logits, answer, 1000 * (perf_counter() - start) / max(1, len(answer)))


def first_of(site: str) -> Turn:
    """The implementation that the site's others are held against."""
    return site, next(iter(WAYS[site]))


def rows(tried: dict[Turn, dict[str, Trial]], clock: dict[Turn, list[float]], skipped: dict[Turn, str]) -> list[dict]:
    """A row an implementation: its largest logit difference from its site's first and whether every answer is the same; the
    median time, its range, and the median of its ratio to the first's in the same round."""
    table = []
    for turn in TURNS:
        row: dict[str, Any] = {"site": turn[0], "implementation": turn[1]}
        if turn in skipped:
            row["skipped"] = skipped[turn]
        else:
            first = first_of(turn[0])
            pairs = [(trial, tried[first][sign]) for sign, trial in tried[turn].items()]
            row["difference"] = max((a.logits - b.logits).abs().max().item() for a, b in pairs)
            row["same_texts"] = all(a.answer == b.answer for a, b in pairs)
            row["ms_per_token"] = [median(clock[turn]), min(clock[turn]), max(clock[turn])]
            row["times_first"] = median(a / b for a, b in zip(clock[turn], clock[first], strict=True))
        table.append(row)
    return table


def checks(config: Config, sites: list[dict]) -> list[dict]:
    """Each value that the config expects, beside the one found."""
    table = []
    lengths, texts = config.expected_lengths or (None, None), (config.expected_texts, config.expected_bias_texts)
    for site, length, said in zip(sites, lengths, texts, strict=False):
        wanted = {} if length is None else {"length": f"{length:.2f}"}
        found = {"length": f"{site['length']:.2f}"} | site["texts"]
        for what, value in (wanted | dict(zip(SIGNS, said or (), strict=False))).items():
            table.append(
                {"site": site["site"], "what": what, "expected": value, "found": found[what], "equal": value == found[what]}
            )
    return table


def page(table: dict) -> str:
    """The same in Markdown."""
    lines = [
        "| site | implementation | largest logit difference | same texts | ms per token | times the first |",
        "|---|---|---|---|---|---|",
    ]
    for row in table["rows"]:
        if "skipped" in row:
            cells = [f"skipped: {row['skipped']}", "", "", ""]
        else:
            time = "{:.1f} ({:.1f} to {:.1f})".format(*row["ms_per_token"])
            cells = [f"{row['difference']:.1e}", "yes" if row["same_texts"] else "no", time, f"{row['times_first']:.2f}"]
        lines.append(f"| {' | '.join([row['site'], row['implementation'], *cells])} |")
    for site in table["sites"]:
        lines.append(
            f"\n{site['site']}: the words differ by {site['length']:.2f}; +c moves logits by up to {site['moved']:.2g}\n"
        )
        lines += [f"- {sign}: {text!r}" for sign, text in site["texts"].items()]
    if table["expected"]:
        lines.append("\nexpected values\n")
    for check in table["expected"]:
        verdict = "equal" if check["equal"] else f"expected {check['expected']!r}, found {check['found']!r}"
        lines.append(f"- {check['site']}, {check['what']}: {verdict}")
    return "\n".join(lines) + "\n"

