"""Directions from contrast pairs, beside the bare forward passes on the same batches and the peers.
Their forwards, and the tokenising of their texts, are in the time; the bare passes' batches are
ready, and they compute the last token's logits alone. A second row has the same passes with
transformers' own chat template and tokenizer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from benchmarks.measure import Measured, Subject, paired, timed
from benchmarks.models import Opened, Settings, opened, prompts
from benchmarks.peers.driver import Job
from benchmarks.peers.start import Peer, started
from nnsteer import LAST_PROMPT, PROMPT, Runner, Site, fit, of_prompts
from nnsteer.model.chat import Batch, Chat
from nnsteer.program.direction import Directions
from nnsteer.program.span import Reading
from nnsteer.texts.contrast import ContrastSet, Text

OF_PEERS: tuple[tuple[str, fit.Method], ...] = (
    ("steering-vectors", "mean_difference"),
    ("pyvene", "mean_difference"),
    ("repeng", "pca_diff"),
    ("steering-vectors", "pca_pairwise"),
)
SHORTEST, LONGEST = 5, 200  # tokens of prompts of mixed length, template included


def extraction(settings: Settings) -> Iterator[Measured]:
    """Short prompts: the last token, with the peers; and the mean over the prompt, which none of
    them has."""
    for model in opened(settings):
        contrast = of_prompts(
            prompts("harmful", settings.pairs), prompts("harmless", settings.pairs)
        )
        yield from beside_peers(
            f"extraction, {settings.pairs} pairs, last token", model, contrast, OF_PEERS, settings
        )
        means = {
            name: extracting(model.runner, contrast, name, PROMPT)
            for name in ("mean_difference", "pca_pairwise")
        }
        subjects = {"transformers forward": bare(model, contrast)} | {
            f"nnsteer, {n}": timed(m) for n, m in means.items()
        }
        yield paired(
            f"extraction, {settings.pairs} pairs, mean over the prompt",
            model.name,
            "s",
            subjects,
            settings.rounds,
        )


def mixed_lengths(settings: Settings) -> Iterator[Measured]:
    """Prompts of 5 to 200 tokens in no order, at the last token."""
    count, draw = settings.mixed_pairs, random.Random(1)
    lengths = [[draw.randint(SHORTEST, LONGEST) for _ in range(count)] for _ in range(2)]
    for model in opened(settings):
        texts = [prompts(side, 4 * count) for side in ("harmful", "harmless")]
        sides = [of_lengths(model.runner.chat, *both) for both in zip(texts, lengths, strict=True)]
        contrast, work = of_prompts(*sides), f"extraction, {count} pairs of 5 to 200 tokens"
        yield from beside_peers(work, model, contrast, OF_PEERS[:3], settings)


def early_stop(settings: Settings) -> Iterator[Measured]:
    """Reading up to layer k of L, where k / L of the forward pass is needed."""
    for model in opened(settings):
        contrast = of_prompts(
            prompts("harmful", settings.pairs), prompts("harmless", settings.pairs)
        )
        subjects = {"transformers forward": bare(model, contrast)}
        count = len(model.sites)
        for k in sorted({count // 4, count // 2, 3 * count // 4, count}):
            one = extracting(
                model.runner, contrast, "mean_difference", LAST_PROMPT, model.sites[k - 1 : k]
            )
            subjects[f"nnsteer, layer {k} of {count}"] = timed(one)
        yield paired(
            f"extraction, {settings.pairs} pairs, one layer",
            model.name,
            "s",
            subjects,
            settings.rounds,
        )


def beside_peers(
    work: str,
    model: Opened,
    contrast: ContrastSet,
    of_peers: Sequence[tuple[str, fit.Method]],
    settings: Settings,
) -> Iterator[Measured]:
    """Each method at the last token, and how far the peers' directions agree with ours."""
    sides = [
        tuple(rendered(model.runner.chat, texts))
        for texts in (contrast.positive, contrast.negative)
    ]
    job = Job("extract", str(model.folder), settings.threads, settings.batch_size, *sides)
    own = {
        name: extracting(model.runner, contrast, name, LAST_PROMPT)
        for name in dict.fromkeys(m for _, m in of_peers)
    }
    with started(job, {}) as peers:
        subjects: dict[str, Subject | None] = {"transformers forward": bare(model, contrast)}
        subjects["transformers template, tokenizer, forward"] = from_texts(model, contrast)
        subjects |= {f"nnsteer, {name}": timed(one) for name, one in own.items()}
        for name, method in of_peers:
            peer = peers[name]
            subjects[f"{name}, {method}"] = None if peer is None else peer.subject(method)
        yield paired(work, model.name, "s", subjects, settings.rounds)
        found = {name: one() for name, one in own.items()}
        agreed = {f"{name}, {m}": agreement(peers[name], m, found[m]) for name, m in of_peers}
        yield Measured(
            f"{work}: agreement with nnsteer, layer by layer", model.name, "cosine", agreed
        )


def extracting(
    runner: Runner,
    contrast: ContrastSet,
    method: fit.Method,
    span: Reading,
    sites: Sequence[Site] = (),
) -> Callable[[], Directions]:
    """Reads and fits, at every block unless told where."""
    where = sites or [Site(layer) for layer in range(runner.layout.num_layers)]
    if method == "mean_difference":
        return lambda: fit.mean_difference(runner.moments(contrast, where, span))
    return lambda: fit.METHODS[method](runner.record(contrast, where, span))


def agreement(peer: Peer | None, method: str, ours: Directions) -> list[float]:
    """Absolute cosines of the peer's directions with ours at each layer but the last, where
    transformers' hidden states, which they read, come after the final norm."""
    if peer is None:
        return []
    made = {int(layer): vector for layer, vector in peer.made[method].items()}
    layers = sorted(made)[:-1]
    return [
        cosine_similarity(made[i].double(), ours[Site(i)].vector.double(), dim=0).abs().item()
        for i in layers
    ]


def bare(model: Opened, contrast: ContrastSet) -> Subject:
    """The forward passes alone, on the batches that the Runner makes."""
    batches = [
        batch
        for side in (contrast.positive, contrast.negative)
        for batch in batches_of(model.runner, side)
    ]
    return timed(lambda: forwards(model.plain, batches))


def from_texts(model: Opened, contrast: ContrastSet) -> Subject:
    """The same passes, from the prompts on, with nothing of nnsteer but the order of the
    prompts."""
    runner, tokenizer = model.runner, model.runner.chat.tokenizer
    sides = (contrast.positive, contrast.negative)
    numbered = [
        (side, rows) for side in sides for _, _, rows in runner.batches(runner.chat.rows(side))
    ]
    batches = [
        [[{"role": "user", "content": side[i].prompt}] for i in rows] for side, rows in numbered
    ]

    def passes() -> None:
        for chats in batches:
            made = tokenizer.apply_chat_template(
                chats,
                add_generation_prompt=True,
                return_dict=True,
                padding=True,
                return_tensors="pt",
            )
            with torch.no_grad():
                model.plain(
                    made["input_ids"],
                    attention_mask=made["attention_mask"],
                    use_cache=False,
                    logits_to_keep=1,
                )

    return timed(passes)


def batches_of(runner: Runner, texts: Sequence[Text]) -> list[Batch]:
    """What the Runner passes through the model."""
    return [batch for batch, _, _ in runner.batches(runner.chat.rows(texts))]


def forwards(model: PreTrainedModel, batches: Sequence[Batch]) -> None:
    """One pass each, with no cache and the last token's logits."""
    with torch.no_grad():
        for batch in batches:
            model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False, logits_to_keep=1)


def rendered(chat: Chat, texts: Sequence[Text]) -> list[str]:
    """Each prompt as its template writes it, without the BOS, which a tokenizer adds."""
    bos = chat.tokenizer.bos_token
    return [chat.tokenizer.decode(chat.prompt_ids(text.prompt)).removeprefix(bos) for text in texts]


def of_lengths(chat: Chat, texts: Sequence[str], lengths: Sequence[int]) -> list[str]:
    """Prompts of so many tokens each, template included, cut out of all the texts one after the
    other."""
    around, draw = len(chat.prompt_ids("")), random.Random(0)
    ids = [i for text in texts for i in chat.response_ids(f"{text} ")]
    starts = [draw.randrange(len(ids) - length) for length in lengths]
    return [
        chat.tokenizer.decode(ids[start : start + n - around])
        for start, n in zip(starts, lengths, strict=True)
    ]
