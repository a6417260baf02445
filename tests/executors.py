"""Writes docs/executors.md: how far each executor's logits lie from the oracle's, for every op over
every span.

    python tests/executors.py

The logits compared are those at each position from the prompt's last on, over five prompts with
responses of several lengths, batched and padded on the left, on a tiny random Llama and GPT-2; the
larger of the two differences is shown.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from rich.progress import track

from nnsteer.errors import UserError
from nnsteer.model.attach import attach
from nnsteer.model.bake import bake
from nnsteer.model.chat import Chat
from nnsteer.model.runner import Runner
from nnsteer.organism.build import build_tokenizer
from nnsteer.program.program import Program
from nnsteer.texts.contrast import Text

import catalogue
import oracle
from conftest import HARMFUL, HARMLESS, MIXED, tiny

RESPONSES = ["I can't help", "Sure", "", "Here is a long answer about it", "No"]
TARGET = Path(__file__).parent.parent / "docs" / "executors.md"
Rows = list[torch.Tensor]


def expected(runner: Runner, program: Program) -> Rows:
    """The oracle's logits, [1 + response, vocab] a prompt."""
    ids = [
        (runner.chat.prompt_ids(p), runner.chat.response_ids(r))
        for p, r in zip(MIXED, RESPONSES, strict=True)
    ]
    return [oracle.logits(runner.hf, prompt, response, program) for prompt, response in ids]


def by_attach(runner: Runner, program: Program) -> Rows:
    """A cached prefill over the prompts, then the responses' tokens one at a time, as `generate`
    feeds them."""
    batch = runner.chat.pad(runner.chat.rows([Text(prompt) for prompt in MIXED]))
    responses = [runner.chat.response_ids(r) for r in RESPONSES]
    mask, positions = batch.mask, (batch.mask.cumsum(1) - 1).clamp(min=0)
    ids, out = batch.ids, []
    with torch.no_grad(), attach(runner.hf, program):
        cache = None
        for step in range(max(map(len, responses)) + 1):
            got = runner.hf(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
            cache, _ = got.past_key_values, out.append(got.logits[:, -1])
            ids = torch.tensor([[r[step] if step < len(r) else 0] for r in responses])
            mask = torch.cat([mask, torch.ones(len(MIXED), 1, dtype=torch.long)], dim=1)
            positions = positions[:, -1:] + 1
    return [torch.stack([step[i] for step in out[: len(r) + 1]]) for i, r in enumerate(responses)]


def by_baking(runner: Runner, program: Program) -> Rows:
    baked = Runner.wrap(bake(runner.hf, program, untie=True), runner.chat, "baked")
    return baked.logits(MIXED, Program(), RESPONSES)


EXECUTORS: dict[str, Callable[[Runner, Program], Rows]] = {
    "Runner": lambda runner, program: runner.logits(MIXED, program, RESPONSES),
    "simulated": lambda runner, program: runner.simulated().logits(MIXED, program, RESPONSES),
    "attach": by_attach,
    "baked": by_baking,
}


def difference(
    runners: list[Runner], programs: list[Program], wanted: list[Rows], run: Callable
) -> str:
    """The largest difference over the models, or that it is refused."""
    try:
        off = [
            (got - want).abs().max().item()
            for runner, program, rows in zip(runners, programs, wanted, strict=True)
            for got, want in zip(run(runner, program), rows, strict=True)
        ]
    except UserError:
        return "refused"
    return f"{max(off):.1e}"


def main() -> None:
    """The two tables."""
    tokenizer = build_tokenizer([*HARMFUL, *HARMLESS, *MIXED] * 3, 400)
    runners = [
        Runner.wrap(tiny(arch, tokenizer), Chat(tokenizer), f"tiny-{arch}", batch_size=8)
        for arch in ("llama", "gpt2")
    ]
    read = [catalogue.fitted(runner) for runner in runners]
    named = [
        catalogue.everything(runner, activations)
        for runner, activations in zip(runners, read, strict=True)
    ]
    lines = ["| program | " + " | ".join(EXECUTORS) + " |", "|---" * (len(EXECUTORS) + 1) + "|"]
    for name in track(named[0], "executors"):
        programs = [programs[name] for programs in named]
        wanted = [
            expected(runner, program) for runner, program in zip(runners, programs, strict=True)
        ]
        cells = [difference(runners, programs, wanted, run) for run in EXECUTORS.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    versions = ", ".join(f"{name} {version(name)}" for name in ("nnsight", "torch", "transformers"))
    versions = ", ".join(f"{name} {version(name)}" for name in ("nnsight", "torch", "transformers"))
    about = [
        "# Every program through every executor",
        f"Written by `python tests/executors.py` with {versions}, "
        f"Python {platform.python_version()}.",
        " ".join((__doc__ or "").split("\n\n")[2].split()),
        "Maximum absolute difference in fp32; "
        "`refused` stands where weights can't hold the program, and `bake` says why.",
    ]
    TARGET.write_text("\n\n".join([*about, "\n".join(lines)]) + "\n")


if __name__ == "__main__":
    main()
