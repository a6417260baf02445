"""One addition, eight implementations (*Implementing activation steering*, LessWrong): the
difference of two words at one block's output, added to every token of the prompt and the answer, by
nnsight, by PyTorch hooks, by a wrapper around the block, by TransformerLens, by `attach` and by
`bake`; and the blog's bias edit, which acts on attention alone, against a hook there.

    python -m nnsteer.recipes.implementations          # the bundled model: seconds
    python -m nnsteer.recipes.implementations --words Wedding Funeral --layer 2 --coefficient 20
    python -m nnsteer.recipes.implementations --config recipes/implementations.toml
    pip install "nnsteer[transformer-lens]"            # for TransformerLens's row

The third is the blog's run, of gpt2-xl: 6 GB to download, 20 GB of memory.
Words and prompt are plain text, without a chat template. Each implementation is written out in
`nnsteer/recipes/implementations/ways.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnsteer import Last, Site, of_prompts, report
from nnsteer.recipes.implementations import options, trials
from nnsteer.recipes.implementations.ways import Subject, difference_at_input


@dataclass(frozen=True)
class Config:
    """Defaults run the bundled model."""

    model: str = "nnsteer:organism"
    """A hub id, a folder, or the bundled model."""
    revision: str | None = None
    """Commit, tag or branch of a hub id."""
    dtype: options.Dtype = "auto"
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


def main(config: Config) -> None:
    """The method, step by step."""
    # 0. Whatever can be wrong is found before any weights are loaded.
    run, model = options.opened(config)

    # 1. The direction: the first word minus the second, on the last token of each, at the block's
    #    output and at its attention's input.
    site, contrast = Site(config.layer), of_prompts(*([word] for word in config.words))
    direction = run.fit("direction", contrast, [site], Last(), "mean_difference")[site]
    words = map(run.runner.chat.prompt_ids, config.words)
    at_input = difference_at_input(model, run.runner.layout.path(site), *words)

    # 2. Every implementation adds it, at length c, 0 and -c: logits of the prompt and the unsteered
    #    answer, and a greedy answer, each beside those of its site's first implementation.
    subject = Subject(run.runner, model, direction, at_input, config.prompt, config.max_new_tokens)
    rows, sites = trials.steer(subject, config.coefficient)

    # 3. The time per token at +c: round by round, so that what slows the machine for a while slows
    #    all.
    trials.clock(subject, config.coefficient, rows, config.repeats)

    # 4. The table, with what was expected beside what was found.
    expected = options.checks(config, sites)
    run.folder.write_json("table.json", {"rows": rows, "sites": sites, "expected": expected})

    # 5. The page, and the same in Markdown.
    report.write(run.folder)
