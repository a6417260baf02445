"""nnsteer: activation-steering recipes on nnsight. The public names, loaded when they are first used."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnsteer.activations import Activations
    from nnsteer.contrast import ContrastSet, Text, of_prompts, of_responses
    from nnsteer.direction import Direction
    from nnsteer.errors import UserError
    from nnsteer.fit import mean_difference, pca_pairwise, random_like
    from nnsteer.formats import load_directions, load_programs, save_directions, save_programs
    from nnsteer.load import find_model
    from nnsteer.program import Ablate, Add, Affine, Condition, Program, Step, ablate, add, affine
    from nnsteer.runner import Completion, Runner
    from nnsteer.site import Site, block_outs
    from nnsteer.span import ALL, GENERATED, LAST_PROMPT, PROMPT, Span, first_generated

WHERE = {
    "activations": ["Activations"],
    "contrast": ["ContrastSet", "Text", "of_prompts", "of_responses"],
    "direction": ["Direction"],
    "errors": ["UserError"],
    "fit": ["mean_difference", "pca_pairwise", "random_like"],
    "formats": ["load_directions", "load_programs", "save_directions", "save_programs"],
    "load": ["find_model"],
    "program": ["Ablate", "Add", "Affine", "Condition", "Program", "Step", "ablate", "add", "affine"],
    "runner": ["Completion", "Runner"],
    "site": ["Site", "block_outs"],
    "span": ["ALL", "GENERATED", "LAST_PROMPT", "PROMPT", "Span", "first_generated"],
}
MODULES = {name: module for module, names in WHERE.items() for name in names}
__all__ = sorted(MODULES)  # noqa: PLE0605


def __getattr__(name: str) -> object:
    """Imports a public name's module: torch, transformers and nnsight load only when something needs them."""
    if name not in MODULES:
        raise AttributeError(f"module 'nnsteer' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"nnsteer.{MODULES[name]}"), name)
