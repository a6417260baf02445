"""Runs programs on a model: record, scores, logits, losses, generate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from nnsteer.fit import threshold
from nnsteer.fit.activations import Activations
from nnsteer.fit.moments import Moments
from nnsteer.kernels.logits import losses as losses_of
from nnsteer.kernels.logits import whole
from nnsteer.model import fit_there, given, load, passes, traces
from nnsteer.model.chat import Batch, Chat
from nnsteer.model.completion import Completion, Completions, by_row
from nnsteer.model.gather import Read, class_moments, states_and_norms
from nnsteer.model.layout import Layout, Sites, find_layout, num_layers, places_in
from nnsteer.model.load import ModelFiles, find_model, load_model
from nnsteer.model.lower import reading_plan
from nnsteer.model.reading import tokens_to_read
from nnsteer.ndif.estimate import PROMPTS_AT_ONCE
from nnsteer.program.condition import Condition
from nnsteer.program.direction import AnyDirections, Directions, as_directions
from nnsteer.program.identity import ModelId, require_same
from nnsteer.program.names import Method, ReadingName, Score, as_reading
from nnsteer.program.program import Program
from nnsteer.program.site import Place
from nnsteer.program.span import GENERATED, PROMPT, Reading
from nnsteer.progress import Watch, ignore
from nnsteer.texts.contrast import ContrastSet, Text, as_texts

Programs = Program | Sequence[Program]
"""One program for every prompt, or one for each."""
NOTHING = Program()
WINDOW = 8  # batches of texts that are only read: no more of their tokens are held at once


@dataclass(frozen=True)
class Runner:
    """A model ready to be read and steered. Nothing of a program stays on it after a call."""

    envoy: traces.Envoy = field(repr=False)
    chat: Chat = field(repr=False)
    layout: Layout = field(repr=False)
    model: ModelId
    batch_size: int = 32
    remote: traces.Remote = field(default=None, repr=False)

    @staticmethod
    def open(
        model: ModelFiles | Path | str,
        dtype: str = "auto",
        device_map: str | None = None,
        batch_size: int = 32,
    ) -> Runner:
        """Loads a model, by its hub id, its folder, `nnsteer:organism` or what `find_model` found
        (where a revision, a system turn or no template is wanted), and finds its blocks. Raises
        UserError when it can't be loaded."""
        files = model if isinstance(model, ModelFiles) else find_model(str(model))
        loaded = load_model(files, dtype, device_map)
        return Runner.wrap(loaded, files.chat, files.name, files.revision, batch_size)

    @staticmethod
    def connect(files: ModelFiles, link: traces.Link, batch_size: int = 32) -> Runner:
        """A runner for the same model on a server (`ndif.connect`): no weights are loaded here."""
        envoy = traces.open_envoy(load.where(files.name), files.chat.tokenizer, files.revision)
        identity = load.stored_identity(files, envoy._module)
        layout = replace(find_layout(envoy._module), outputs_alone=True)
        return Runner(envoy, files.chat, layout, identity, batch_size, link)

    @staticmethod
    def wrap(
        model: PreTrainedModel | traces.Envoy,
        chat: Chat | PreTrainedTokenizerBase | None = None,
        name: str = "",
        revision: str | None = None,
        batch_size: int = 32,
    ) -> Runner:
        """A runner for a model that is in memory already, with its tokenizer or `Chat`; without a
        name, its config's. Of an `nnsight.LanguageModel` the model is taken, whose weights are
        loaded if they weren't, and its tokenizer where no other is given."""
        model, tokenizer = traces.unwrapped(model)
        chat = given.as_chat(tokenizer if chat is None else chat)
        identity = load.identity_of(model, name, revision)
        envoy = traces.open_envoy(model.eval(), chat.tokenizer)
        return Runner(envoy, chat, find_layout(model), identity, batch_size)

    @property
    def hf(self) -> PreTrainedModel:
        """The plain transformers model."""
        return self.envoy._module

    def simulated(self) -> Runner:
        """The same runner through nnsight's simulation of a server, which packs what is sent."""
        return replace(self, remote="local")

    def with_batch_size(self, batch_size: int) -> Runner:
        """The same runner with another batch size."""
        return replace(self, batch_size=batch_size)

    def record(
        self,
        contrast: ContrastSet,
        sites: Sites,
        span: Reading | ReadingName = PROMPT,
        watch: Watch = ignore,
    ) -> Activations:
        """Reads each text's mean state over `span` at every site, unsteered, before any final norm.
        A layer's number stands for what leaves that block. Raises UserError for a site that the
        model doesn't have."""
        sites, span = places_in(self.hf, sites), as_reading(span)
        contrast = given.as_contrast(contrast)
        read = partial(self.read, sites=sites, span=span, watch=watch)
        positive, positive_norms = states_and_norms(read(contrast.positive), sites)
        negative, negative_norms = states_and_norms(read(contrast.negative), sites)
        norms = {site: (positive_norms[site], negative_norms[site]) for site in sites}
        return Activations(positive, negative, norms, span, self.model, contrast.fingerprint())

    def moments(
        self,
        contrast: ContrastSet,
        sites: Sites,
        span: Reading | ReadingName = PROMPT,
        covariance: bool = False,
        watch: Watch = ignore,
    ) -> Moments:
        """The same as means and, with `covariance`, scatters: memory does not grow with texts."""
        sites, span = places_in(self.hf, sites), as_reading(span)
        contrast = given.as_contrast(contrast)
        read = partial(self.read, sites=sites, span=span, watch=watch)
        positive = class_moments(read(contrast.positive), sites, covariance)
        negative = class_moments(read(contrast.negative), sites, covariance)
        return Moments(positive, negative, span, self.model, contrast.fingerprint())

    def read(
        self, texts: Sequence[Text], sites: Sequence[Place], span: Reading, watch: Watch
    ) -> Iterator[Read]:
        """What is read of each batch at sites in forward order. The longest texts come first, as
        far as characters tell."""
        places = self.layout.places(sites, stops=self.remote is None)
        order = sorted(range(len(texts)), key=lambda i: -sum(map(len, texts[i])))
        window = WINDOW * self.batch_size
        for start in range(0, len(texts), window):
            some = order[start : start + window]
            for batch, _, numbers in self.batches(self.chat.rows([texts[i] for i in some])):
                tokens = tokens_to_read(batch, span)
                means, norms = traces.read_means(self.envoy, self.remote, places, batch, tokens)
                yield [some[i] for i in numbers], means, norms
                watch(len(batch.ids))

    def fit(
        self,
        contrast: ContrastSet,
        sites: Sites | None = None,
        over: Reading | ReadingName | None = None,
        method: Method = "mean_difference",
        watch: Watch = ignore,
    ) -> Directions:
        """A direction per site (none given: every block's output), reduced next to the model
        wherever it is. It is read `over` the responses where there are any, else over the prompts.
        Raises UserError for sites or a reading that isn't there."""
        contrast = given.as_contrast(contrast)
        answered = any(text.response for text in (*contrast.positive, *contrast.negative))
        reading = (GENERATED if answered else PROMPT) if over is None else as_reading(over)
        places = places_in(self.hf, range(num_layers(self.hf.config)) if sites is None else sites)
        return fit_there.directions(self, contrast, places, reading, method, watch)

    def condition(
        self,
        directions: AnyDirections,
        positive: Sequence[str],
        negative: Sequence[str],
        score: Score = "cosine",
        max_false_alarms: float = 1.0,
    ) -> Condition:
        """The condition that best tells positive from negative prompts: the direction, cut and side
        with the highest F1 among those that fire on at most that share of the negatives, by an
        exact sweep. Give prompts on which nothing was fitted."""
        directions = as_directions(directions)
        free = {site: Condition(d, 0.0, score=score) for site, d in directions.items()}
        texts = [given.as_prompts("positive", positive), given.as_prompts("negative", negative)]
        scores = [self.scores(prompts, list(free.values())) for prompts in texts]
        row, point = threshold.best_point(
            list(free.values()), scores[0], scores[1], max_false_alarms
        )
        return threshold.placed(list(free.values())[row], point)

    def scores(
        self, prompts: Sequence[str], conditions: Sequence[Condition], watch: Watch = ignore
    ) -> Tensor:
        """Each condition's score on each prompt, fp32 [condition, prompt]: what `generate` compares
        with the threshold."""
        for condition in conditions:
            require_same(str(condition.direction), condition.direction.model, self.model)
        prompts = as_texts("prompts", prompts)
        plan = reading_plan(conditions, self.layout)
        scores = torch.zeros(len(conditions), len(prompts))
        batches = list(self.batches(self.chat.rows([Text(prompt) for prompt in prompts])))
        at_once = 1 if self.remote is None else max(1, PROMPTS_AT_ONCE // self.batch_size)
        for start in range(0, len(batches), at_once):
            padded = [batch for batch, _, _ in batches[start : start + at_once]]
            rows = [i for _, _, numbers in batches[start : start + at_once] for i in numbers]
            scores[:, rows] = traces.read_scores(self.envoy, self.remote, plan, padded)
            watch(len(rows))
        return scores

    def logits(
        self,
        prompts: Sequence[str],
        program: Programs = NOTHING,
        responses: Sequence[str] | None = None,
    ) -> list[Tensor]:
        """Steered next-token logits from the prompt's last position on, in one pass without a
        cache: for each row fp32 [1 + response tokens, vocab]."""
        prompts = as_texts("prompts", prompts)
        answers = [""] * len(prompts) if responses is None else as_texts("responses", responses)
        given.check_one_each("responses", answers, len(prompts))
        rows = self.chat.rows([Text(*both) for both in zip(prompts, answers, strict=True)])
        return passes.of_responses(self, rows, program, whole, 1)

    def losses(
        self, prompts: Sequence[str], completions: Sequence[Sequence[int]], watch: Watch = ignore
    ) -> list[Tensor]:
        """How surprising the unsteered model finds given tokens after each prompt: nats,
        [completion tokens] a row."""
        pairs = list(zip(prompts, map(tuple, completions), strict=True))
        distinct = list(dict.fromkeys(pairs))  # variants often answer alike
        ids = self.chat.prompts_ids([prompt for prompt, _ in distinct])
        rows = [(row, list(tokens)) for row, (_, tokens) in zip(ids, distinct, strict=True)]
        values = passes.of_responses(self, rows, NOTHING, losses_of, 0)
        losses = dict(zip(distinct, values, strict=True))
        watch(len(pairs))
        return [losses[pair] for pair in pairs]

    def generate(
        self,
        prompts: Sequence[str],
        program: Programs = NOTHING,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        watch: Watch = ignore,
        row_ids: Sequence[int] | None = None,
    ) -> Completions:
        """Answers to each prompt under its program. Temperature 0 is greedy; above it, a row's
        sample depends on its prompt and program, the seed and its number in `row_ids` alone: rows
        with the same have the same sample. Row i's is i where none are given. The checkpoint's own
        sampling settings are not used."""
        given.check_generation(max_new_tokens, temperature)
        prompts = as_texts("prompts", prompts)
        row_ids = given.as_row_ids(row_ids, len(prompts))
        noise = {"temperature": temperature, "seed": seed} if temperature > 0 else None
        answers: dict[int, Completion] = {}
        rows = self.chat.rows([Text(prompt) for prompt in prompts])
        for batch, programs, numbers in self.batches(rows, program):
            sampling = noise | {"row_ids": [row_ids[i] for i in numbers]} if noise else None
            some = [prompts[i] for i in numbers]
            texts = passes.answers(self, batch, programs, some, max_new_tokens, sampling)
            answers |= zip(numbers, texts, strict=True)
            watch(len(programs))
        return Completions(by_row(answers))

    def forward(self, batch: Batch, programs: list[Program], last: int = 0) -> Tensor:
        """Steered logits of a batch's `last` tokens (0: of all), fp32 [row, token, vocab]."""
        return self.reduce_logits(batch, programs, last, whole, batch.ids)

    def reduce_logits(
        self, batch: Batch, programs: list[Program], last: int, take: traces.Take, wanted: Tensor
    ) -> Any:
        """What a function of `nnsteer.kernels.logits` makes of these logits, which stay with the
        model, and of what is `wanted` of them."""
        return passes.reduce_logits(self, batch, programs, last, take, wanted)

    def check(self, program: Program) -> None:
        """Raises UserError for a direction or editor that was fitted on another model."""
        for fitted in given.as_program(program).fitted:
            require_same(str(fitted), fitted.model, self.model)

    def batches(
        self, rows: list, program: Programs = NOTHING
    ) -> Iterator[tuple[Batch, list[Program], list[int]]]:
        """Padded batches, each with its rows' programs and numbers; rows of like length together,
        the longest first, so that little is padded and memory runs out at once or not at all."""
        programs = given.as_programs(program, len(rows))
        order = sorted(range(len(rows)), key=lambda i: -sum(map(len, rows[i])))
        for start in range(0, len(rows), self.batch_size):
            some = order[start : start + self.batch_size]
            yield self.chat.pad([rows[i] for i in some]), [programs[i] for i in some], some
