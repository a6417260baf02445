"""The verbs of the `nnsteer` command, one a module: `Config`, `main(config)`, and examples in the docstring.

A verb's module is imported for its `--help` too, so it imports nothing heavy: what needs torch is reached through the lazy names
of `nnsteer`, or imported in `main`.
"""
