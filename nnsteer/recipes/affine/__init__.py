"""ACE (*Refusal in LLMs is an Affine Function*) beside other ways of editing a direction; `__main__` is the recipe."""
