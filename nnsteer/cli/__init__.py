"""The verbs of the `nnsteer` command, one a module: `Config`, `main(config)`, examples in its text.

A verb's module is imported for its `--help` too, so it imports nothing heavy: what needs torch is
reached through the lazy names of `nnsteer`, or imported in `main`.
"""
