"""What a sentence encoder knows about words and prompts, for an organism that is too small to have
read about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from nnsteer.errors import UserError
from nnsteer.model.load import reason
from nnsteer.progress import Watch

BATCH = 128
EMBEDDING_STD = 0.02  # as the rest of the embeddings begin


@dataclass(frozen=True)
class Encoder:
    """A BERT-like encoder; the mean of its last states over the tokens is a sentence's vector."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def open_encoder(source: str) -> Encoder:
    try:
        model = AutoModel.from_pretrained(source).eval()
        return Encoder(model, AutoTokenizer.from_pretrained(source))
    except (OSError, ValueError) as error:
        advice = "give a folder, or check the name and the network"
        raise UserError(f"--encoder {source}: {reason(error)}; {advice}") from error


def begin_with_words(
    model: PreTrainedModel, encoder: Encoder, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Sets the embeddings of all tokens that the encoder knows to its own vectors of them."""
    table = model.get_input_embeddings().weight
    vectors = word_vectors(encoder, tokenizer, table.shape[1])
    there = vectors.any(dim=1)
    with torch.no_grad():
        table[there] = EMBEDDING_STD * vectors[there]


def word_vectors(encoder: Encoder, tokenizer: PreTrainedTokenizerBase, width: int) -> Tensor:
    """A row for each of the organism's tokens [token, width]: the encoder's own vectors of the word
    or the part of a word (what no space comes before is taken for a part, where the encoder has
    such a part), in their first `width` principal components, with unit variance overall; zeros for
    what the encoder has no word for, and after its own last component."""
    table = encoder.model.get_input_embeddings().weight.detach()
    rows = torch.zeros(len(tokenizer), table.shape[1])
    vocabulary, unknown = encoder.tokenizer.get_vocab(), encoder.tokenizer.unk_token_id
    for i in set(range(len(tokenizer))) - set(tokenizer.all_special_ids):
        text = tokenizer.decode([i])
        ids = encoder.tokenizer(text.strip(), add_special_tokens=False)["input_ids"]
        if (part := f"##{text.lower()}") in vocabulary:
            ids = [vocabulary[part]]
        if ids and unknown not in ids:
            rows[i] = table[ids].mean(0)
    there = rows.any(dim=1)
    centred = rows[there] - rows[there].mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    components = centred @ axes[:width].T
    vectors = torch.zeros(len(rows), width)
    vectors[there, : components.shape[1]] = components / components.std()
    return vectors


@torch.no_grad()
def sentence_vectors(encoder: Encoder, texts: Sequence[str], watch: Watch) -> Tensor:
    """Unit vectors [text, hidden]; `watch` is told the number of texts done."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors = torch.empty(len(texts), encoder.model.config.hidden_size)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        some = [texts[i] for i in rows]
        batch = encoder.tokenizer(some, padding=True, truncation=True, return_tensors="pt")
        mask = batch["attention_mask"][..., None].float()
        states = encoder.model(**batch).last_hidden_state
        vectors[rows] = (states * mask).sum(1) / mask.sum(1)
        watch(len(rows))
    return torch.nn.functional.normalize(vectors, dim=1)
