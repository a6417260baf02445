"""Several A/B behaviours steered alone and at once; `__main__` is the recipe."""
