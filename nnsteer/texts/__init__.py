"""What is read and asked: prompts, openers, documents and items, from files, the hub or this
package."""

from nnsteer.texts.refusal import SIDES, Requests, load_requests
from nnsteer.texts.sets import PromptSet
from nnsteer.texts.source import Prompt, load_prompts

__all__ = ["SIDES", "Prompt", "PromptSet", "Requests", "load_prompts", "load_requests"]
