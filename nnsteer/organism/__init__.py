"""The bundled model organism: a small, weakly aligned chat model in ordinary Hugging Face files."""

from pathlib import Path

FOLDER = Path(__file__).parent / "weights"


def path() -> Path:
    """Where the bundled model lies; `AutoModelForCausalLM.from_pretrained(path())` loads it."""
    return FOLDER
