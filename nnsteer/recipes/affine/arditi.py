"""Where r is read: the selection of Arditi et al. 2024 (*Refusal in Language Models Is Mediated by
a Single Direction*), on the tune split.

A candidate is the mean difference at one of the template's tokens after the prompt, at one block's
input, in the first 80 % of the layers. Of those that make the model refuse harmless prompts when
they are added there (induce score at least 0) and hardly change what it says to them when they are
ablated everywhere (KL at most `max_kl`), the one is taken whose ablation refuses harmful prompts
least. A refusal score is log p - log (1 - p) of the refusal tokens' total probability p after the
prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from torch.nn.functional import kl_div

from nnsteer.errors import UserError
from nnsteer.program.direction import Direction
from nnsteer.program.op import Ablate
from nnsteer.program.program import Program, Step, add
from nnsteer.program.site import Site, Stream
from nnsteer.program.span import Positions
from nnsteer.progress import bar
from nnsteer.recipes.affine.refused import next_logs, refusal_scores, refusal_tokens
from nnsteer.study.run import Run
from nnsteer.texts.contrast import ContrastSet
from nnsteer.texts.refusal import Requests

EARLY = 0.8  # of the layers
EVERYWHERE: tuple[Stream, ...] = ("block_in", "attn_out", "mlp_out")
ROWS = "arditi_rows.jsonl"


@dataclass(frozen=True)
class Trial:
    """A candidate and its three scores."""

    position: int
    """-1 is the prompt's last token."""
    layer: int
    refusal: float
    """Mean refusal score on harmful prompts, ablated everywhere."""
    kl: float
    """Mean KL(unsteered || ablated) of the next token on harmless prompts, nats."""
    induce: float
    """Mean refusal score on harmless prompts, added once at its site."""


def best_candidate(
    run: Run, requests: Requests, texts: ContrastSet, max_kl: float, prompts: int
) -> Direction:
    """The chosen direction, at the input of a block. Every trial is kept in arditi_rows.jsonl, the
    choice in layer.json."""
    tokens = refusal_tokens(run.runner.chat, requests)
    candidates = read_candidates(run, texts)
    trials = tried(run, candidates, *requests.both("tune", prompts), tokens)
    best = choose(trials, max_kl)
    facts = {
        "chosen": f"{Site(best.layer, 'block_in')}, position {best.position}",
        "selection": asdict(best),
        "max_kl": max_kl,
        "refusal_tokens": [run.runner.chat.tokenizer.decode([token]) for token in tokens],
        "candidates": [asdict(trial) for trial in trials],
    }
    run.folder.write_json("layer.json", facts)
    return candidates[best.position, best.layer]


def read_candidates(run: Run, texts: ContrastSet) -> dict[tuple[int, int], Direction]:
    """The mean difference at each of the template's last tokens and each early block's input, by
    (position, layer)."""
    early = max(1, int(EARLY * run.runner.layout.num_layers))
    sites = [Site(layer, "block_in") for layer in range(early)]
    candidates = {}
    for position in range(run.runner.chat.post_instruction.first or -1, 0):
        name, reading = f"candidates{position}", Positions((position,))
        for direction in run.fit(name, texts, sites, reading, "mean_difference").values():
            if direction.vector.norm() > 0:  # a position's embedding is the same in all texts
                candidates[position, direction.site.layer] = direction
    return candidates


def tried(
    run: Run,
    candidates: dict[tuple[int, int], Direction],
    harmful: Sequence[str],
    harmless: Sequence[str],
    tokens: Sequence[int],
) -> list[Trial]:
    """Every candidate's three scores."""
    folder, runner = run.folder, run.runner
    layers, plain = range(runner.layout.num_layers), next_logs(runner, harmless)
    everywhere = [Site(layer, stream) for layer in layers for stream in EVERYWHERE]
    trials = [Trial(**line) for line in folder.read_lines(ROWS, ("position", "layer"))]
    done = {(trial.position, trial.layer) for trial in trials}
    with bar("selecting", len(candidates)) as watch:
        watch(len(done))
        for place in [place for place in candidates if place not in done]:
            added = add(candidates[place])
            ablated = Program(tuple(Step(Ablate(candidates[place]), site) for site in everywhere))
            refusal = refusal_scores(next_logs(runner, harmful, ablated), tokens).mean()
            after = next_logs(runner, harmless, ablated)
            kl = kl_div(after, plain, log_target=True, reduction="batchmean")
            induce = refusal_scores(next_logs(runner, harmless, added), tokens).mean()
            trials.append(Trial(*place, refusal.item(), kl.item(), induce.item()))
            folder.append(ROWS, [asdict(trials[-1])])
            watch(1)
    return trials


def choose(trials: Sequence[Trial], max_kl: float) -> Trial:
    """The lowest refusal score within both limits. Raises UserError where no candidate keeps
    them."""
    within = [trial for trial in trials if trial.kl <= max_kl and trial.induce >= 0]
    if not within:
        raise UserError(
            f"--layer arditi: no candidate has a KL of at most {max_kl:g} "
            f"(lowest: {min(t.kl for t in trials):.2g}) and an induce score of at least 0 "
            f"(highest: {max(t.induce for t in trials):.2g}); "
            "use --layer tuned, or where KL is the limit raise --max-kl"
        )
    return min(within, key=lambda trial: (trial.refusal, trial.layer))
