"""The roomy cache holds what transformers' own holds, and is used where it may be."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache, Gemma2Config, LlamaConfig
from transformers.cache_utils import DynamicSlidingWindowLayer

from nnsteer.model import cache as caches
from nnsteer.model.cache import RoomyLayer, roomy_cache

from conftest import MIXED

SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 32,
}


@pytest.mark.parametrize("room", [1, 3, 100])
def test_the_keys_and_values_are_transformers_own(room):
    config = LlamaConfig(**SHAPE)
    plain, roomy = DynamicCache(config=config), DynamicCache(config=config)
    roomy.layers = [RoomyLayer(room) for _ in roomy.layers]
    generator = torch.Generator().manual_seed(0)
    for tokens in (5, 1, 1, 1, 2):
        for layer in range(2):
            keys, values = torch.randn(2, 3, 1, tokens, 8, generator=generator)
            wanted, got = plain.update(keys, values, layer), roomy.update(keys, values, layer)
            assert all(map(torch.equal, wanted, got))
        assert roomy.get_seq_length() == plain.get_seq_length()
        assert roomy.get_mask_sizes(1, 0) == plain.get_mask_sizes(1, 0)


def test_tokens_are_written_in_place_until_the_room_is_full():
    layer = RoomyLayer(2)
    step = torch.ones(1, 1, 1, 4)
    prompt = step.repeat(1, 1, 3, 1)
    places = [layer.update(prompt, prompt)[0].data_ptr()]
    places += [layer.update(step, step)[0].data_ptr() for _ in range(3)]
    assert places[0] == places[1] == places[2] != places[3]


def test_generation_past_the_room_is_the_same(runner, monkeypatch):
    wanted, moves, grown = runner.generate(MIXED, max_new_tokens=7), [], caches.grown
    monkeypatch.setattr(caches, "ROOM", 2)
    monkeypatch.setattr(caches, "grown", lambda *given: moves.append(given) or grown(*given))
    assert runner.generate(MIXED, max_new_tokens=7) == wanted
    assert (
        len(moves) > 2 * runner.layout.num_layers
    )  # the keys and values of every layer, more than once


def test_layers_that_keep_less_stay_as_transformers_makes_them(runner, monkeypatch):
    assert all(type(layer) is RoomyLayer for layer in roomy_cache(runner.hf, 8, {}).layers)
    kinds = ["sliding_attention", "full_attention"]
    monkeypatch.setattr(runner.hf, "config", Gemma2Config(**SHAPE, layer_types=kinds))
    assert [type(layer) for layer in roomy_cache(runner.hf, 8, {}).layers] == [
        DynamicSlidingWindowLayer,
        RoomyLayer,
    ]


def test_a_model_with_another_kind_of_cache_makes_its_own(runner, monkeypatch):
    monkeypatch.setattr(runner.hf.generation_config, "cache_implementation", "offloaded")
    assert roomy_cache(runner.hf, 8, {}) is None
    monkeypatch.undo()
    monkeypatch.setattr(runner.hf, "config", LlamaConfig(**SHAPE, is_encoder_decoder=True))
    assert roomy_cache(runner.hf, 8, {}) is None
