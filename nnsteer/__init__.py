"""nnsteer: activation-steering recipes on nnsight.

The public names are listed in `__init__.pyi` and load on first use, so that `import nnsteer` does
not load torch.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version("nnsteer")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
