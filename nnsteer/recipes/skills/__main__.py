"""python -m nnsteer.recipes.skills"""

from nnsteer import command
from nnsteer.recipes import skills

if __name__ == "__main__":
    command.run(skills.Config, skills.main, skills.__doc__ or "")
