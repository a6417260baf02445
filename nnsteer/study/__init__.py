"""Programs on texts, by measures: the table that recipes and studies ask, killed and resumed at
will.

nnsteer study recipes/ablations/layer_strength.toml --out runs/layer_strength
"""

from nnsteer.study.cells import BASELINE, Sampling, Variant
from nnsteer.study.choose import Dose, layer_bands
from nnsteer.study.run import Run, start

__all__ = ["BASELINE", "Dose", "Run", "Sampling", "Variant", "layer_bands", "start"]
