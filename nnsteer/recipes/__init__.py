"""Methods, as modules to run: `python -m nnsteer.recipes.refusal`."""
