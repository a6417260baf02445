"""Steered greedy generation beside transformers' own on the same batches: what steering costs.
nnsteer's chat template, tokenising, padding and decoding are in its time; the others' batches are
ready, and they decode nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from transformers import PreTrainedModel

from benchmarks.extraction import batches_of, rendered
from benchmarks.measure import Measured, Subject, paired, rate, timed
from benchmarks.models import Opened, Settings, opened, prompts
from benchmarks.peers.driver import Job
from benchmarks.peers.start import Peer, started
from nnsteer import Condition, Program, Site, add, fit, of_prompts
from nnsteer.model.attach import attach
from nnsteer.model.bake import bake
from nnsteer.model.chat import Batch
from nnsteer.program.direction import Directions
from nnsteer.texts.contrast import Text

STRENGTH = 0.1


def conditional(settings: Settings) -> Iterator[Measured]:
    """Additions at all later layers, under a condition at the second that about half of the prompts
    meet; and at all layers, so that the condition needs a pass of its own."""
    for model in opened(settings):
        directions = fitted(model)
        free = Condition(directions[Site(1)], 0.0)
        late = {site: direction for site, direction in directions.items() if site.layer > 1}
        for count in settings.asked:
            asked = mixed(count)
            when = Condition(
                directions[Site(1)], model.runner.scores(asked, [free])[0].median().item()
            )
            programs = {
                "read on the way": add(late, STRENGTH).when(when),
                "read ahead": add(directions, STRENGTH).when(when),
            }
            subjects = {
                "transformers generate": speed(
                    asked, settings, plain(model.plain, batches(model, asked), settings)
                )
            }
            subjects |= {
                f"nnsteer, {name}": speed(
                    asked, settings, answering(model, asked, program, settings)
                )
                for name, program in programs.items()
            }
            yield paired(
                f"conditional generation, {count} prompts",
                model.name,
                "tokens/s",
                subjects,
                settings.rounds,
            )


def unconditional(settings: Settings) -> Iterator[Measured]:
    """An addition at every layer: by the Runner, attached, baked, and by the peers."""
    for model in opened(settings):
        asked = mixed(settings.asked[0])
        directions = fitted(model)
        everywhere = add(directions, STRENGTH)
        ready = batches(model, asked)
        texts = tuple(tuple(rendered_batch) for rendered_batch in texts_of(model, asked))
        job = Job(
            "generate",
            str(model.folder),
            settings.threads,
            batches=texts,
            new_tokens=settings.new_tokens,
        )
        vectors = {
            str(site.layer): STRENGTH * direction.vector for site, direction in directions.items()
        }

        def attached(
            model: Opened = model, program: Program = everywhere, ready: list[Batch] = ready
        ) -> None:
            with attach(model.plain, program):
                plain(model.plain, ready, settings)()

        with started(job, vectors) as peers:
            ways: dict[str, Callable[[], object]] = {
                "transformers generate": plain(model.plain, ready, settings),
                "nnsteer, unsteered": answering(model, asked, Program(), settings),
                "nnsteer, Runner": answering(model, asked, everywhere, settings),
                "nnsteer, attached": attached,
                "nnsteer, baked": plain(bake(model.plain, everywhere), ready, settings),
            }
            subjects: dict[str, Subject | None] = {
                name: speed(asked, settings, way) for name, way in ways.items()
            }
            for name, peer in peers.items():
                subjects[name] = (
                    None
                    if peer is None
                    else rate(len(asked) * settings.new_tokens, peer.subject("add"))
                )
            work = f"add at {len(model.sites)} layers, {len(asked)} prompts"
            yield paired(work, model.name, "tokens/s", subjects, settings.rounds)
            with attach(model.plain, everywhere):
                wanted = plain(model.plain, ready, settings)()
            equal = {name: agreement(peer, wanted) for name, peer in peers.items()}
            yield Measured(
                f"{work}: agreement with nnsteer, batch by batch",
                model.name,
                "share of tokens",
                equal,
            )


def fitted(model: Opened) -> Directions:
    """Mean differences of every layer."""
    return fit.mean_difference(
        model.runner.moments(
            of_prompts(prompts("harmful", 32), prompts("harmless", 32)), model.sites
        )
    )


def mixed(count: int) -> list[str]:
    """Prompts that were not fitted on, half of them of each side."""
    return [
        *prompts("harmful", count // 2, "tune"),
        *prompts("harmless", count - count // 2, "tune"),
    ]


def batches(model: Opened, asked: list[str]) -> list[Batch]:
    """What the Runner generates from."""
    return batches_of(model.runner, [Text(prompt) for prompt in asked])


def texts_of(model: Opened, asked: list[str]) -> Iterator[list[str]]:
    """The texts of those batches."""
    texts = [Text(prompt) for prompt in asked]
    for _, _, rows in model.runner.batches(model.runner.chat.rows(texts)):
        yield rendered(model.runner.chat, [texts[i] for i in rows])


def plain(
    model: PreTrainedModel, ready: list[Batch], settings: Settings
) -> Callable[[], list[torch.Tensor]]:
    """transformers' generate on every batch, to the new tokens."""
    options = {"max_new_tokens": settings.new_tokens, "do_sample": False}

    def generate() -> list[torch.Tensor]:
        every = [
            model.generate(input_ids=batch.ids, attention_mask=batch.mask, **options)
            for batch in ready
        ]
        return [ids[:, -settings.new_tokens :] for ids in every]

    return generate


def answering(
    model: Opened, asked: list[str], program: Program, settings: Settings
) -> Callable[[], object]:
    """The Runner's answers."""
    return partial(model.runner.generate, asked, program, settings.new_tokens)


def speed(asked: list[str], settings: Settings, way: Callable[[], object]) -> Subject:
    """A way of generating in tokens per second."""
    return rate(len(asked) * settings.new_tokens, timed(way))


def agreement(peer: Peer | None, wanted: list[torch.Tensor]) -> list[float]:
    """How many of a peer's new tokens are those of the attached model, batch by batch."""
    if peer is None:
        return []
    return [(peer.made["add"][str(i)] == ids).float().mean().item() for i, ids in enumerate(wanted)]
