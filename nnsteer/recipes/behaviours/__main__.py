"""python -m nnsteer.recipes.behaviours"""

from nnsteer import command
from nnsteer.recipes import behaviours

if __name__ == "__main__":
    command.run(behaviours.Config, behaviours.main, behaviours.__doc__ or "")
