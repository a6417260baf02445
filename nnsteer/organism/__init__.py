"""The bundled model organism: a small, weakly aligned chat model, and how it is trained."""

from nnsteer.texts.bundled import organism as path

__all__ = ["path"]
