"""Programs on texts, by measures: the table that recipes and studies ask, killed and resumed at
will.

nnsteer study recipes/ablations/layer_strength.toml --out runs/layer_strength
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
