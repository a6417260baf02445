"""From a user's text to tokens: the chat template once, special tokens in the text made harmless, padding on the left."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from nnsteer.errors import UserError
from nnsteer.program.span import Span
from nnsteer.texts.contrast import Text


@dataclass(frozen=True)
class Batch:
    """`ids` and `mask` are [row, token], padded on the left; `response_lengths` [row] counts the tokens after the prompt."""

    ids: Tensor
    mask: Tensor
    response_lengths: Tensor

    @property
    def prompt_lengths(self) -> Tensor:
        """The number of tokens of each prompt, [row]."""
        return self.mask.sum(1) - self.response_lengths

    @property
    def answer_and_one(self) -> int:
        """How many of the last tokens hold every row's response and the prompt's last token."""
        return int(self.response_lengths.max()) + 1


@dataclass(frozen=True)
class Chat:
    """How prompts become tokens, the same for reading, tuning and running. Without a template (`templated=False`, for base
    models) the prompt is the text itself, after the tokenizer's own BOS; no more than its first `max_tokens` tokens."""

    tokenizer: PreTrainedTokenizerBase
    templated: bool = True
    system: str | None = None
    max_tokens: int | None = None
    generation_prompt: bool = True
    """Whether the template's header of the answer follows the user's turn. CAST's library reads texts without it."""

    def fingerprint(self) -> str:
        """A hash of all that decides how a prompt becomes tokens, but for the vocabulary."""
        template = self.tokenizer.chat_template if self.templated else None
        bare = [] if self.generation_prompt else ["bare"]
        cut = [] if self.templated or self.max_tokens is None else [self.max_tokens]
        return hashlib.sha256(json.dumps([template, self.system, *cut, *bare]).encode()).hexdigest()[:16]

    def prompt_ids(self, prompt: str) -> list[int]:
        """The prompt's tokens, up to where the answer begins."""
        return self.prompts_ids([prompt])[0]

    def prompts_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """The same of many prompts, each distinct one looked at once."""
        if not prompts:  # which a template refuses
            return []
        distinct, specials = list(dict.fromkeys(prompts)), special_strings(self.tokenizer)
        texts = [neutralise(prompt, specials) for prompt in distinct]
        if self.templated:
            system = [{"role": "system", "content": self.system}] if self.system else []
            chats = [[*system, {"role": "user", "content": text}] for text in texts]
            texts = self.tokenizer.apply_chat_template(chats, add_generation_prompt=self.generation_prompt, tokenize=False)
        # the template has written its own BOS
        ids = token_ids(self.tokenizer, texts, add_special_tokens=not self.templated)
        cut = None if self.templated else self.max_tokens
        found = {prompt: row[:cut] for prompt, row in zip(distinct, ids, strict=True)}
        return [found[prompt] for prompt in prompts]

    @property
    def post_instruction(self) -> Span:
        """The template's own tokens between the user's text and the answer. Raises UserError where it has none."""
        first, second = (self.prompt_ids(text) for text in ("a", "Why, 7 of them?"))
        shared = next(i for i in range(len(first) + 1) if i == len(first) or first[-1 - i] != second[-1 - i])
        if not self.templated or shared == 0:
            raise UserError("no tokens follow the user's text: this needs a chat template that ends the user's turn")
        return Span(-shared, 0)

    def response_ids(self, response: str) -> list[int]:
        """The tokens of an answer, or of its beginning, as they would follow the prompt."""
        text = neutralise(response, special_strings(self.tokenizer))
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def rows(self, texts: Sequence[Text]) -> list[tuple[list[int], list[int]]]:
        """Prompt and response tokens of each text."""
        responses = {response: self.response_ids(response) for response in {text.response for text in texts}}
        prompts = self.prompts_ids([text.prompt for text in texts])
        return [(prompt, responses[text.response]) for prompt, text in zip(prompts, texts, strict=True)]

    def pad(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Batch:
        """Rows of (prompt, response) tokens, aligned at their right end."""
        width = max(len(prompt) + len(response) for prompt, response in rows)
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        pads = [width - len(prompt) - len(response) for prompt, response in rows]
        ids = torch.tensor(
            [[pad] * n + [*prompt, *response] for n, (prompt, response) in zip(pads, rows, strict=True)], dtype=torch.long
        )
        mask = (torch.arange(width) >= torch.tensor(pads)[:, None]).long()
        return Batch(ids, mask, torch.tensor([len(response) for _, response in rows]))


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
    """Each text's tokens. A fast tokenizer's own call leaves out where each token stands in the text, a third of the time."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not texts:
        return tokenizer(list(texts), add_special_tokens=add_special_tokens)["input_ids"] if texts else []
    tokenizer(texts[0])  # has transformers put away what padding and truncation were set
    return [one.ids for one in backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)]


def special_strings(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The strings that the tokenizer turns into control tokens wherever they stand, the longest first."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted(added | set(tokenizer.all_special_tokens), key=lambda special: (-len(special), special))


def neutralise(text: str, specials: Sequence[str]) -> str:
    """The text with a space inside every special token's string, so that a user cannot end a turn or begin another."""
    for special in specials:
        while len(special) > 1 and special in text:
            text = text.replace(special, f"{special[0]} {special[1:]}")
    return text
