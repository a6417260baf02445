"""python -m nnsteer.recipes.refusal"""

from nnsteer import command
from nnsteer.recipes import refusal

if __name__ == "__main__":
    command.run(refusal.Config, refusal.main, refusal.__doc__ or "")
