"""python -m nnsteer.recipes.categories"""

from nnsteer import command
from nnsteer.recipes import categories

if __name__ == "__main__":
    command.run(categories.Config, categories.main, categories.__doc__ or "")
