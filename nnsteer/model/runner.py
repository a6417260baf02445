"""Runs programs on a model: record, scores, logits, losses, generate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from nnsteer.errors import UserError
from nnsteer.fit import threshold
from nnsteer.fit.activations import Activations
from nnsteer.fit.moments import ClassMoments, Moments, merged, of_rows
from nnsteer.kernels.logits import losses as losses_of
from nnsteer.kernels.logits import whole
from nnsteer.model import fit_there, traces
from nnsteer.model.cache import check_cache_survives, expands, roomy_cache
from nnsteer.model.chat import Batch, Chat
from nnsteer.model.completion import Completion, by_row, completions, end_ids
from nnsteer.model.given import as_chat, as_contrast, as_program, as_programs, check_generation
from nnsteer.model.layout import Layout, Sites, find_layout, num_layers, places_in
from nnsteer.model.load import ModelFiles, find_model, load_model, stored_fingerprint, where
from nnsteer.model.lower import lower, reading_plan
from nnsteer.model.reading import tokens_to_read
from nnsteer.model.sharing import shared_blocks, with_shared
from nnsteer.ndif.estimate import PROMPTS_AT_ONCE
from nnsteer.program.condition import Condition
from nnsteer.program.direction import AnyDirections, Directions, as_directions
from nnsteer.program.identity import ModelId, require_same, weights_fingerprint
from nnsteer.program.names import Method, ReadingName, Score, as_reading
from nnsteer.program.program import Program
from nnsteer.program.site import Place
from nnsteer.program.span import GENERATED, PROMPT, Reading
from nnsteer.progress import Watch, ignore
from nnsteer.texts.contrast import ContrastSet, Text, as_texts

Programs = Program | Sequence[Program]
"""One program for every prompt, or one for each."""
NOTHING = Program()
WINDOW = 8  # batches; texts that are only read are tokenised so many at a time, and no more of their tokens are held
Read = tuple[list[int], list[Tensor], list[Tensor]]


@dataclass(frozen=True)
class Runner:
    """A model ready to be read and steered. Nothing of a program stays on the model after a call."""

    envoy: traces.Envoy = field(repr=False)
    chat: Chat = field(repr=False)
    layout: Layout = field(repr=False)
    model: ModelId
    batch_size: int = 32
    remote: traces.Remote = field(default=None, repr=False)

    @staticmethod
    def open(model: ModelFiles | Path | str, dtype: str = "auto", device_map: str | None = None, batch_size: int = 32) -> Runner:
        """Loads a model, by its hub id, its folder, `nnsteer:organism` or what `find_model` found (where a revision, a system
        turn or no template is wanted), and finds its blocks. Raises UserError when it can't be loaded."""
        files = model if isinstance(model, ModelFiles) else find_model(str(model))
        return Runner.wrap(load_model(files, dtype, device_map), files.chat, files.name, files.revision, batch_size)

    @staticmethod
    def connect(files: ModelFiles, link: traces.Link, batch_size: int = 32) -> Runner:
        """A runner for the same model on a server (`ndif.connect`): no weights are loaded here."""
        envoy = traces.open_envoy(where(files.name), files.chat.tokenizer, files.revision)
        identity = ModelId(files.name, files.revision, stored_fingerprint(files, envoy._module))
        layout = replace(find_layout(envoy._module), outputs_alone=True)
        return Runner(envoy, files.chat, layout, identity, batch_size, link)

    @staticmethod
    def wrap(
        model: PreTrainedModel, chat: Chat | PreTrainedTokenizerBase, name: str = "", revision: str | None = None,
        batch_size: int = 32,
    ) -> Runner:  # fmt: skip
        """A runner for a model that is in memory already, with its tokenizer or `Chat`; without a name, its config's."""
        chat, name = as_chat(chat), name or model.config.name_or_path or type(model).__name__
        identity = ModelId(name, revision, weights_fingerprint(model))
        envoy = traces.open_envoy(model.eval(), chat.tokenizer)
        return Runner(envoy, chat, find_layout(model), identity, batch_size)

    @property
    def hf(self) -> PreTrainedModel:
        """The plain transformers model."""
        return self.envoy._module

    def simulated(self) -> Runner:
        """The same runner through nnsight's simulation of a server: what is sent there is packed, unpacked and run here."""
        return replace(self, remote="local")

    def with_batch_size(self, batch_size: int) -> Runner:
        """The same runner with another batch size."""
        return replace(self, batch_size=batch_size)

    def record(
        self, contrast: ContrastSet, sites: Sites, span: Reading | ReadingName = PROMPT, watch: Watch = ignore
    ) -> Activations:
        """Reads each text's mean state over `span` at every site, unsteered, before any final norm. A layer's number stands for
        what leaves that block. Raises UserError for a site that the model doesn't have."""
        ordered, contrast, span = places_in(self.hf, sites), as_contrast(contrast), as_reading(span)
        sides = []
        for texts in (contrast.positive, contrast.negative):
            read = list(self.read(texts, ordered, span, watch))
            back = torch.tensor([i for rows, _, _ in read for i in rows]).argsort()
            states = {site: torch.cat([states[i] for _, states, _ in read])[back] for i, site in enumerate(ordered)}
            lengths = {site: torch.cat([norms[i] for _, _, norms in read])[back] for i, site in enumerate(ordered)}
            sides.append((states, lengths))
        (positive, positive_norms), (negative, negative_norms) = sides
        both = {site: (positive_norms[site], negative_norms[site]) for site in ordered}
        return Activations(positive, negative, both, span, self.model, contrast.fingerprint())

    def moments(
        self,
        contrast: ContrastSet,
        sites: Sites,
        span: Reading | ReadingName = PROMPT,
        covariance: bool = False,
        watch: Watch = ignore,
    ) -> Moments:
        """The same as means and, with `covariance`, scatters: memory does not grow with the number of texts."""
        ordered, contrast, span = places_in(self.hf, sites), as_contrast(contrast), as_reading(span)
        sides = []
        for texts in (contrast.positive, contrast.negative):
            so_far: dict[Place, ClassMoments] = {}
            for _, states, norms in self.read(texts, ordered, span, watch):
                for site, rows, norm in zip(ordered, states, norms, strict=True):
                    new = of_rows(rows, norm, covariance)
                    so_far[site] = merged(so_far[site], new) if site in so_far else new
            sides.append(so_far)
        return Moments(sides[0], sides[1], span, self.model, contrast.fingerprint())

    def read(self, texts: Sequence[Text], sites: Sequence[Place], span: Reading, watch: Watch) -> Iterator[Read]:
        """Batch by batch the numbers of its texts and, for each site, mean states [row, hidden] and mean norms of the states
        [row]. The longest texts come first, as far as characters tell."""
        places, window = [self.layout.place(site) for site in sites], WINDOW * self.batch_size
        last_mlp = self.layout.last_mlp(sites) if self.remote is None else None
        order = sorted(range(len(texts)), key=lambda i: -sum(map(len, texts[i])))
        for start in range(0, len(texts), window):
            some = order[start : start + window]
            for batch, _, numbers in self.batches(self.chat.rows([texts[i] for i in some])):
                means, norms = traces.read_means(self.envoy, self.remote, places, last_mlp, batch, tokens_to_read(batch, span))
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
        """A direction per site (none given: every block's output), reduced next to the model wherever it is. It is read `over`
        the responses where there are any, else over the prompts. Raises UserError for sites or a reading that isn't there."""
        contrast = as_contrast(contrast)
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
        """The condition that best tells positive from negative prompts: the direction, cut and side with the highest F1 among
        those that fire on at most that share of the negatives, by an exact sweep. Give prompts on which nothing was fitted."""
        free = {site: Condition(d, 0.0, score=score) for site, d in as_directions(directions).items()}
        scores = []
        for name, side in (("positive", positive), ("negative", negative)):
            if not (prompts := as_texts(name, side)):
                raise UserError(f"{name}: no prompts; give at least one")
            scores.append(self.scores(prompts, list(free.values())))
        row, point = threshold.best_point(list(free.values()), *scores, max_false_alarms)
        return threshold.placed(list(free.values())[row], point)

    def scores(self, prompts: Sequence[str], conditions: Sequence[Condition], watch: Watch = ignore) -> Tensor:
        """Each condition's score on each prompt, fp32 [condition, prompt]: what `generate` compares with the threshold."""
        for condition in conditions:
            require_same(str(condition.direction), condition.direction.model, self.model)
        prompts = as_texts("prompts", prompts)
        plan = reading_plan(conditions, self.layout)
        found = torch.zeros(len(conditions), len(prompts))
        batches = list(self.batches(self.chat.rows([Text(prompt) for prompt in prompts])))
        at_once = 1 if self.remote is None else max(1, PROMPTS_AT_ONCE // self.batch_size)
        for start in range(0, len(batches), at_once):
            some = batches[start : start + at_once]
            rows = [i for _, _, numbers in some for i in numbers]
            found[:, rows] = traces.read_scores(self.envoy, self.remote, plan, [batch for batch, _, _ in some])
            watch(len(rows))
        return found

    def logits(self, prompts: Sequence[str], program: Programs = NOTHING, responses: Sequence[str] | None = None) -> list[Tensor]:
        """Steered next-token logits from the prompt's last position on, in one pass without a cache: for each row fp32
        [1 + response tokens, vocab]."""
        prompts = as_texts("prompts", prompts)
        answers = [""] * len(prompts) if responses is None else as_texts("responses", responses)
        if len(answers) != len(prompts):
            raise UserError(f"{len(prompts)} prompts but {len(answers)} responses: give one for each prompt")
        texts = [Text(*both) for both in zip(prompts, answers, strict=True)]
        out: dict[int, Tensor] = {}
        for batch, programs, rows in self.batches(self.chat.rows(texts), program):
            logits = self.forward(batch, programs, batch.answer_and_one)
            out |= {i: row[len(row) - 1 - n :] for i, row, n in zip(rows, logits, batch.response_lengths.tolist(), strict=True)}
        return by_row(out)

    def losses(self, prompts: Sequence[str], completions: Sequence[Sequence[int]], watch: Watch = ignore) -> list[Tensor]:
        """How surprising the unsteered model finds given tokens after each prompt: nats, [completion tokens] a row."""
        asked = [(prompt, tuple(completion)) for prompt, completion in zip(prompts, completions, strict=True)]
        distinct = list(dict.fromkeys(asked))  # variants often answer alike
        ids = self.chat.prompts_ids([prompt for prompt, _ in distinct])
        found: dict[tuple, Tensor] = {}
        for batch, unsteered, numbers in self.batches([(own, list(c)) for own, (_, c) in zip(ids, distinct, strict=True)]):
            last = batch.answer_and_one
            losses = self.taken(batch, unsteered, last, losses_of, batch.ids[:, -last:])
            for i, row, n in zip(numbers, losses, batch.response_lengths.tolist(), strict=True):
                found[distinct[i]] = row[len(row) - n :]
        watch(len(asked))
        return [found[pair] for pair in asked]

    def generate(
        self,
        prompts: Sequence[str],
        program: Programs = NOTHING,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        watch: Watch = ignore,
        row_ids: Sequence[int] | None = None,
    ) -> list[Completion]:
        """Answers to each prompt under its program. Temperature 0 is greedy; above it, row i's sample depends on the seed
        and i alone. The checkpoint's own sampling settings are not used."""
        check_generation(max_new_tokens, temperature)
        prompts, out = as_texts("prompts", prompts), dict[int, Completion]()
        for batch, programs, rows in self.batches(self.chat.rows([Text(prompt) for prompt in prompts]), program):
            check_cache_survives(self.layout, programs)
            plan, ahead = self.prepare(batch, programs)
            plan, cache = self.with_cache(plan, batch, programs, max_new_tokens)
            noise = rows if row_ids is None else [row_ids[i] for i in rows]
            sampling = {"temperature": temperature, "seed": seed, "row_ids": noise} if temperature > 0 else None
            call = (plan, batch, ahead, max_new_tokens, sampling, self.layout.head, cache)
            ids, scores = traces.generate(self.envoy, self.remote, *call)
            texts, ends = [prompts[i] for i in rows], end_ids(self.hf)
            answers = completions(ids[:, batch.ids.shape[1] :], scores, programs, texts, self.chat.tokenizer, ends)
            out |= zip(rows, answers, strict=True)
            watch(len(programs))
        return by_row(out)

    def with_cache(self, plan: dict, batch: Batch, programs: list[Program], new_tokens: int) -> tuple[dict, Cache | None]:
        """The plan of a generation with the blocks that its prefill shares, and the cache that it fills; a server has its own."""
        if self.remote is not None:
            return plan, None
        shared = self.shared(batch, programs)
        cache = roomy_cache(self.hf, new_tokens, {block["layer"]: block["back"] for block in shared})
        return (with_shared(plan, shared, self.layout) if expands(cache) else plan), cache

    def shared(self, batch: Batch, programs: list[Program]) -> list[dict]:
        """The blocks that a prefill runs once for several rows; none where the model's own loss asks for every row's routes."""
        return [] if getattr(self.hf.config, "output_router_logits", False) else shared_blocks(batch, programs, self.layout)

    def forward(self, batch: Batch, programs: list[Program], last: int = 0) -> Tensor:
        """Steered logits of a batch's `last` tokens (0: of all), fp32 [row, token, vocab]."""
        return self.taken(batch, programs, last, whole, batch.ids)

    def taken(self, batch: Batch, programs: list[Program], last: int, take: traces.Take, wanted: Tensor) -> Any:
        """What a function of `nnsteer.kernels.logits` makes of these logits, which stay with the model, and of what is
        `wanted` of them."""
        plan, ahead = self.prepare(batch, programs)
        if self.remote is None:
            plan = with_shared(plan, self.shared(batch, programs), self.layout)
        return traces.steered_pass(self.envoy, self.remote, plan, batch, ahead, last, take, wanted)

    def prepare(self, batch: Batch, programs: list[Program]) -> tuple[dict, list[Tensor] | None]:
        """The lowered programs, and the conditions' scores where an edit comes before the condition that decides it. Every
        direction must belong to this model."""
        for program in dict.fromkeys(programs):
            self.check(program)
            for condition in program.conditions:
                tokens_to_read(batch, condition.span)
        plan = lower(programs, self.layout)
        return plan, (list(traces.read_scores(self.envoy, self.remote, plan, [batch])) if plan["ahead"] else None)

    def check(self, program: Program) -> None:
        """Raises UserError for a direction or editor that was fitted on another model."""
        for fitted in as_program(program).fitted:
            require_same(str(fitted), fitted.model, self.model)

    def batches(self, rows: list, program: Programs = NOTHING) -> Iterator[tuple[Batch, list[Program], list[int]]]:
        """Padded batches, each with its rows' programs and numbers; rows of like length together, the longest first, so that
        little is padded and memory runs out at once or not at all."""
        programs = as_programs(program, len(rows))
        order = sorted(range(len(rows)), key=lambda i: -sum(map(len, rows[i])))
        for start in range(0, len(rows), self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield self.chat.pad([rows[i] for i in chosen]), [programs[i] for i in chosen], chosen
