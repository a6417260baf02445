"""Studies: variants of a program, over prompt sets, by measures; killed and resumed at will.

python -m nnsteer.study recipes/ablations/layer_strength.toml --out runs/layer_strength
"""
