"""python -m nnsteer.recipes.implementations"""

from nnsteer import command
from nnsteer.recipes import implementations

if __name__ == "__main__":
    command.run(implementations.Config, implementations.main, implementations.__doc__ or "")
