from .cells import BASELINE as BASELINE
from .cells import Sampling as Sampling
from .cells import Variant as Variant
from .choose import Dose as Dose
from .choose import layer_bands as layer_bands
from .run import Run as Run
from .run import start as start
