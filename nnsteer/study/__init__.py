"""Studies: variants of a program, over prompt sets, by measures; killed and resumed at will.

nnsteer study recipes/ablations/layer_strength.toml --out runs/layer_strength
"""
