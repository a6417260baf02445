"""A key-value cache with room to grow. transformers' own copies all keys and values every step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from nnsteer.errors import UserError
from nnsteer.model.layout import Layout
from nnsteer.program.program import Program, places_of
from nnsteer.program.site import Site

ROOM = 128  # tokens by which a layer grows, so that a short answer takes no more than it needs


class RoomyLayer(DynamicLayer):
    """A layer that writes new keys and values [row, head, token, width] behind the old ones, and
    moves only when it is full."""

    keys: Tensor
    values: Tensor

    def __init__(self, room: int, back: Tensor | None = None) -> None:
        """`back` [row] says which row of a first update is each row's, where the update has one for
        several of them (`sharing.shared_blocks`)."""
        super().__init__()
        self.room, self.back = room, back

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """As transformers does it, with nothing in the room yet."""
        super().lazy_initialization(key_states, value_states)
        self.all_keys, self.all_values = key_states[..., :0, :], value_states[..., :0, :]

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Adds the new tokens; returns all keys and all values. What other kinds of layer need
        besides is passed over."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = self.spread(key_states), self.spread(value_states)
        start = self.get_seq_length()
        stop = start + keys.shape[-2]
        if stop > self.all_keys.shape[-2]:
            self.all_keys = grown(self.keys, keys, stop + self.room)
            self.all_values = grown(self.values, values, stop + self.room)
        self.all_keys[..., start:stop, :] = keys
        self.all_values[..., start:stop, :] = values
        self.keys, self.values = self.all_keys[..., :stop, :], self.all_values[..., :stop, :]
        return (self.keys, self.values) if keys is key_states else (key_states, value_states)

    def spread(self, states: Tensor) -> Tensor:
        """Every row's states, [row, head, token, width]."""
        if self.back is None or len(states) == len(self.back):
            return states
        return states[self.back.to(states.device)]


def grown(old: Tensor, new: Tensor, tokens: int) -> Tensor:
    """Room for so many tokens like the `new` ones, the old ones at its beginning."""
    room = new.new_empty(*new.shape[:-2], tokens, new.shape[-1])
    if old.numel():
        room[..., : old.shape[-2], :] = old
    return room


def roomy_cache(
    model: PreTrainedModel, new_tokens: int, back: Mapping[int, Tensor]
) -> Cache | None:
    """The cache that transformers would make for one call of `generate`, with room in the layers
    that keep every token. `back` has the rows of layers that are run once for several
    (`sharing.shared_blocks`). None for a model that makes a cache of another kind."""
    config, generation = model.config, model.generation_config
    if not model._supports_default_dynamic_cache() or config.is_encoder_decoder:
        return None
    if "mamba" in type(model).__name__.lower() or (generation and generation.cache_implementation):
        return None
    cache = DynamicCache(config=config.get_text_config(decoder=True))
    for i, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[i] = RoomyLayer(min(new_tokens, ROOM), back.get(i))
    return cache


def expands(cache: Cache | None) -> bool:
    """Whether every layer can take the rows of a block that was run once for several."""
    return cache is not None and all(isinstance(layer, RoomyLayer) for layer in cache.layers)


def check_cache_survives(layout: Layout, programs: Iterable[Program]) -> None:
    """Raises UserError for a generation whose cache would be lost where a block's outputs alone can
    be written, as in NDIF's sandbox."""
    if layout.outputs_alone and Site(0, "block_in") in places_of(programs):
        raise UserError(
            "block_in[0]: NDIF's sandbox would lose the cache of a generation; use block_out[0] or "
            "a later block_in"
        )
