"""python -m nnsteer.recipes.affine"""

from nnsteer import command
from nnsteer.recipes import affine

if __name__ == "__main__":
    command.run(affine.Config, affine.main, affine.__doc__ or "")
