"""From a user's text to tokens: the chat template once, special tokens in the text made harmless,
padding on the left."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jinja2.exceptions import TemplateError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from nnsteer.errors import UserError
from nnsteer.program.span import Span
from nnsteer.texts.contrast import Text
from nnsteer.texts.conversation import Conversation


@dataclass(frozen=True)
class Batch:
    """`ids` and `mask` are [row, token], padded on the left; `response_lengths` [row] counts the
    tokens after the prompt."""

    ids: Tensor
    mask: Tensor
    response_lengths: Tensor

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What the model is called with."""
        return {"input_ids": self.ids, "attention_mask": self.mask}

    @property
    def prompt_lengths(self) -> Tensor:
        """The number of tokens of each prompt, [row]."""
        return self.mask.sum(1) - self.response_lengths

    @property
    def answer_and_one(self) -> int:
        """How many of the last tokens hold every response and its prompt's last token."""
        return int(self.response_lengths.max()) + 1


@dataclass(frozen=True)
class Chat:
    """How prompts become tokens, the same for reading, tuning and running. Without a template
    (`templated=False`, for base models) the prompt is the text itself, after the tokenizer's own
    BOS; no more than its first `max_tokens` tokens."""

    tokenizer: PreTrainedTokenizerBase
    templated: bool = True
    system: str | None = None
    max_tokens: int | None = None
    generation_prompt: bool = True
    """Whether the template's header of the answer follows the user's turn. CAST's library reads
    texts without it."""

    def fingerprint(self) -> str:
        """A hash of all that decides how a prompt becomes tokens, but for the vocabulary."""
        facts = [self.tokenizer.chat_template if self.templated else None, self.system]
        if not self.templated and self.max_tokens is not None:
            facts.append(self.max_tokens)
        if not self.generation_prompt:
            facts.append("bare")
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def prompt_ids(self, prompt: str) -> list[int]:
        """The prompt's tokens, up to where the answer begins."""
        return self.prompts_ids([prompt])[0]

    def prompts_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """The same of many prompts, each distinct one looked at once."""
        if not prompts:  # which a template refuses
            return []
        distinct, specials = list(dict.fromkeys(prompts)), special_strings(self.tokenizer)
        if self.templated:
            texts = self.rendered([self.messages(prompt, specials) for prompt in distinct])
        else:
            texts = [neutralise(plain(prompt), specials) for prompt in distinct]
        # the template has written its own BOS
        ids = token_ids(self.tokenizer, texts, add_special_tokens=not self.templated)
        cut = None if self.templated else self.max_tokens
        by_prompt = {prompt: row[:cut] for prompt, row in zip(distinct, ids, strict=True)}
        return [by_prompt[prompt] for prompt in prompts]

    def messages(self, prompt: str, specials: Sequence[str]) -> list[dict[str, str]]:
        """A prompt's turns as the template takes them, the system's first where there is one."""
        chat = prompt.turns if isinstance(prompt, Conversation) else (("user", prompt),)
        if self.system and chat[0][0] != "system":
            chat = (("system", self.system), *chat)
        return [{"role": role, "content": neutralise(text, specials)} for role, text in chat]

    def rendered(self, chats: list[list[dict[str, str]]]) -> list[str]:
        """What the template makes of chats. Raises UserError for turns that it refuses."""
        header = self.generation_prompt
        try:
            return self.tokenizer.apply_chat_template(
                chats, add_generation_prompt=header, tokenize=False
            )
        except TemplateError as error:
            raise UserError(
                f"the chat template refuses these turns: {error}; change them"
            ) from error

    @property
    def post_instruction(self) -> Span:
        """The template's own tokens between the user's text and the answer. Raises UserError where
        it has none."""
        ends = [reversed(self.prompt_ids(text)) for text in ("a", "Why, 7 of them?")]
        alike = [one == other for one, other in zip(*ends, strict=False)]
        shared = [*alike, False].index(False)
        if not self.templated or shared == 0:
            needed = "this needs a chat template that ends the user's turn"
            raise UserError(f"no tokens follow the user's text: {needed}")
        return Span(-shared, 0)

    def response_ids(self, response: str) -> list[int]:
        """The tokens of an answer, or of its beginning, as they would follow the prompt."""
        text = neutralise(response, special_strings(self.tokenizer))
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def rows(self, texts: Sequence[Text]) -> list[tuple[list[int], list[int]]]:
        """Prompt and response tokens of each text."""
        distinct = {text.response for text in texts}
        responses = {response: self.response_ids(response) for response in distinct}
        prompts = self.prompts_ids([text.prompt for text in texts])
        return [(ids, responses[text.response]) for ids, text in zip(prompts, texts, strict=True)]

    def pad(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Batch:
        """Rows of (prompt, response) tokens, aligned at their right end."""
        pad = self.tokenizer.pad_token_id
        pad = self.tokenizer.eos_token_id if pad is None else pad
        whole = [[*prompt, *response] for prompt, response in rows]
        width = max(map(len, whole))
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in whole], dtype=torch.long)
        pads = torch.tensor([width - len(row) for row in whole])
        mask = (torch.arange(width) >= pads[:, None]).long()
        return Batch(ids, mask, torch.tensor([len(response) for _, response in rows]))


def plain(prompt: str) -> str:
    """A prompt that no template is put around. Raises UserError for a chat's turns."""
    if isinstance(prompt, Conversation):
        raise UserError("a chat's turns need a chat template; give a chat model, or a plain text")
    return prompt


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], add_special_tokens: bool
) -> list[list[int]]:
    """Each text's tokens, by the call of a fast tokenizer that leaves out where each token stands
    in the text, a third of the time."""
    if not texts:
        return []
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tokenizer(list(texts), add_special_tokens=add_special_tokens)["input_ids"]
    tokenizer(texts[0])  # has transformers put away what padding and truncation were set
    encodings = backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
    return [encoding.ids for encoding in encodings]


def special_strings(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The strings that the tokenizer turns into control tokens wherever they stand, the longest
    first."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted(added | set(tokenizer.all_special_tokens), key=lambda text: (-len(text), text))


def neutralise(text: str, specials: Sequence[str]) -> str:
    """The text with a space inside every special token's string, so that a user cannot end a turn
    or begin another."""
    for special in specials:
        while len(special) > 1 and special in text:
            text = text.replace(special, f"{special[0]} {special[1:]}")
    return text
