"""The bundled model organism: a small, weakly aligned chat model in ordinary Hugging Face files, and how it is trained."""

from nnsteer.texts.bundled import organism as path

__all__ = ["path"]
