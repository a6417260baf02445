"""The `nnsteer` command: one entry point over everything. Only the verb that is asked for is
imported."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from typing import Any, NamedTuple

from nnsteer import registry
from nnsteer.cli.sketch import sketched
from nnsteer.errors import UserError


class Verb(NamedTuple):
    """What a verb is for, and one way to use it. Its module has `Config`, `main(config)` and a
    docstring."""

    module: str
    purpose: str
    example: str


VERBS = {
    "recipe refusal": Verb(
        "nnsteer.recipes.refusal",
        "Make a model refuse harmful requests, and only those (CAST), from prompts to a report.",
        "recipe refusal --model my-folder --harmful mine.csv,column=request --out runs/mine",
    ),
    "recipe affine": Verb(
        "nnsteer.recipes.affine",
        "Set how much of the refusal direction is in a model (ACE), beside other ways to steer.",
        "recipe affine --methods ace add ablate --alphas 0 0.5 1 --out runs/ace",
    ),
    "recipe skills": Verb(
        "nnsteer.recipes.skills",
        "Take a broad skill, such as coding, from a model, and measure what that costs elsewhere.",
        "recipe skills --skill code.jsonl --retained prose.jsonl --out runs/coding",
    ),
    "recipe behaviours": Verb(
        "nnsteer.recipes.behaviours",
        "Move several behaviours, alone and at once; measure how they interfere and what it costs.",
        "recipe behaviours --behaviours wealth.jsonl myopia=mine.json --layers 1 2 --out runs/two",
    ),
    "recipe categories": Verb(
        "nnsteer.recipes.categories",
        "Refuse one category of requests, several, or all but one, by rules (CAST).",
        "recipe categories --model my-folder --categories mine.jsonl --out runs/categories",
    ),
    "recipe implementations": Verb(
        "nnsteer.recipes.implementations",
        "Add one vector in eight ways, and compare logits, texts and time.",
        "recipe implementations --words Love Hate --layer 1 --coefficient 1",
    ),
    "study": Verb(
        "nnsteer.cli.study",
        "Run a grid of variants over prompt sets and measures; --dry-run says what it would take.",
        "study recipes/ablations/layer_strength.toml --out runs/layer_strength --dry-run",
    ),
    "fit": Verb(
        "nnsteer.cli.fit",
        "Fit directions from two sides of texts, to a file.",
        "fit --positive nnsteer:harmful.jsonl --negative nnsteer:harmless.jsonl --method lda "
        "--out harm.safetensors",
    ),
    "tune": Verb(
        "nnsteer.cli.tune",
        "Find the layer and threshold at which a direction tells two sides of prompts apart.",
        "tune harm.safetensors --positive nnsteer:harmful.jsonl "
        "--negative nnsteer:harmless.jsonl --out harmful.safetensors",
    ),
    "generate": Verb(
        "nnsteer.cli.generate",
        "Answer prompts steered and unsteered, side by side; without prompts, it asks for them.",
        'generate "How do I bake bread?" --programs runs/refusal --variant conditional',
    ),
    "explain": Verb(
        "nnsteer.cli.explain",
        "Show which tokens and layers a program changes, and by how much.",
        'explain "How do I bake bread?" --programs runs/refusal --variant conditional',
    ),
    "bake": Verb(
        "nnsteer.cli.bake",
        "Put a program in the weights: a folder that plain transformers loads.",
        "bake --directions refusal.safetensors --layers 1 --out steered",
    ),
    "report": Verb(
        "nnsteer.cli.report",
        "Rebuild the page of a recipe's run or a study from its folder.",
        "report runs/refusal",
    ),
    "compare": Verb(
        "nnsteer.cli.compare",
        "Compare two studies, prompt by prompt.",
        "compare runs/layers runs/layers-again --page comparison.html",
    ),
    "judge": Verb(
        "nnsteer.cli.judge",
        "Have a language model judge a run's answers.",
        "judge runs/refusal --judge recipes/judge.toml",
    ),
    "ndif": Verb(
        "nnsteer.cli.ndif",
        "Look at an NDIF server: key, versions, running models, and what a run would take.",
        "ndif --model meta-llama/Llama-3.3-70B-Instruct",
    ),
    "organism train": Verb(
        "nnsteer.organism.__main__",
        "Train a small chat model to steer, like the bundled one.",
        "organism train --data rows.jsonl --out my-organism",
    ),
}
HELP, COMPLETION = ("-h", "--help"), ("--tyro-print-completion", "--tyro-write-completion")
OPENING = """usage: nnsteer VERB [OPTIONS]

Describe an intervention on a model's activations once, as data; fit, tune and run it, look at it.
To begin, `nnsteer recipe refusal` takes a minute, offline. By hand: fit, then tune, then generate.
"""
CLOSING = """
What goes in and what comes out:
  SOURCE      Texts: a .jsonl, .json, .csv or .parquet file; nnsteer:NAME, which is bundled
              (harmful.jsonl, harmless.jsonl, refusals.jsonl, compliances.jsonl, ...); or
              ORG/NAME@REVISION, a dataset of the hub. After it, where needed, ,column=NAME (if not
              `prompt`, or `opener` for openers) and ,split=NAME. Rows whose `split` is fit, tune or
              test stay there; the others are divided by --seed, half to fit, a fifth to tune and
              the rest to test. Directions are fitted on fit, all is chosen on tune.
  DIRECTIONS  What `fit` writes, a .safetensors file: a vector a layer, and where, on which tokens,
              by which method, from which texts and on which model's weights it was fitted. On other
              weights it is refused.
  conditions  What `tune --out` writes, a .safetensors file: a direction with a threshold, named
              like the file.
  programs    What `tune --program` and the recipes write, a .safetensors file: by name, what is
              done to which tokens at which layers, and when.
  RUN         The folder of a recipe or a study, which --out names: config.json (settings, command,
              versions), what was fitted, a .jsonl line for each answer and value, summary.json,
              figures/, and report.html to look at.

`nnsteer VERB --help` lists a verb's options. Every verb takes --config FILE.toml with any of them;
what is typed wins. With --quiet there are no progress bars.

Exit status: 0 done; 2 a mistake in what was asked for, said in one line; 130 stopped by Ctrl-C, and
the same command goes on with a recipe or a study where it was; anything else is a failure of the
program.

Shell completion:
  nnsteer --tyro-write-completion bash ~/.local/share/bash-completion/completions/nnsteer
For zsh, tcsh or fish: that word, and a file that your shell reads."""


def main(args: list[str] | None = None) -> None:
    """Finds the verb and hands it the rest of the command line."""
    args = sys.argv[1:] if args is None else args
    verbs = all_verbs()
    name = next((name for name in (" ".join(args[:2]), *args[:1]) if name in verbs), None)
    prefix = f"{args[0]} " if args else ""
    group = {verb: entry for verb, entry in verbs.items() if verb.startswith(prefix)}
    if not args or args[0] in HELP:
        print("\n".join([OPENING, *described(verbs), CLOSING]))
    elif args == ["--version"]:
        print(f"nnsteer {version('nnsteer')}")
    elif group and args[1:2] in ([], ["-h"], ["--help"]):
        print("\n".join([f"usage: nnsteer {args[0]} VERB [OPTIONS]\n", *described(group)]))
    else:
        from nnsteer import command  # imports tyro, which the help above need not wait for

        with command.reported():
            if args[0] in COMPLETION:
                complete(args, verbs)
            elif name is None:
                raise UserError(unknown(args, verbs))
            else:
                module = opened(name, verbs[name], sketch=any(arg in HELP for arg in args))
                rest, prog = args[len(name.split()) :], f"nnsteer {name}"
                command.run(module.Config, module.main, module.__doc__ or "", rest, prog)


def all_verbs() -> dict[str, Verb]:
    """The recipes, then those of other packages, then the other verbs."""
    recipes = {name: verb for name, verb in VERBS.items() if name.startswith("recipe ")}
    return recipes | outside_recipes() | VERBS


def outside_recipes() -> dict[str, Verb]:
    """The recipes of other packages, by entry points; nothing of them is imported."""
    verbs = {}
    for point in registry.points_of("nnsteer.recipes"):
        name, purpose = f"recipe {point.name}", f"From {point.value}, a module of another package."
        verbs[name] = Verb(point.value, purpose, f"{name} --help")
    return verbs


def opened(name: str, verb: Verb, sketch: bool) -> Any:
    """A verb's module; with `sketch`, of nnsteer's own only as much as its help needs."""
    if name in VERBS:
        return (sketched if sketch else import_module)(verb.module)
    module = registry.module(verb.module, name)
    if lacking := [part for part in ("Config", "main") if not hasattr(module, part)]:
        mistake = f"{verb.module} has no {' and no '.join(lacking)}"
        raise UserError(f"{name}: {mistake}; give it a dataclass Config and main(config)")
    return module


def described(verbs: Mapping[str, Verb]) -> list[str]:
    """Each verb with its purpose and, below, an example."""
    form = "  {:<24}{}\n" + " " * 26 + "nnsteer {}"
    return [form.format(name, verb.purpose, verb.example) for name, verb in verbs.items()]


def unknown(args: list[str], verbs: Mapping[str, Verb]) -> str:
    """What to say to a verb that is none."""
    given = " ".join(args[:2]) if any(verb.startswith(f"{args[0]} ") for verb in verbs) else args[0]
    near = [f"did you mean {verb}? " for verb in get_close_matches(given, verbs, n=1)]
    there = f"{''.join(near)}there are {', '.join(verbs)}"
    return f"{given}: no such verb; {there}; see nnsteer --help"


def complete(args: list[str], verbs: Mapping[str, Verb]) -> None:
    """Prints or writes tyro's completion script, which knows every verb's options."""
    from tyro.extras import SubcommandApp

    from nnsteer import command

    apps = {"": SubcommandApp()}
    for name, verb in verbs.items():
        group, _, last = name.rpartition(" ")
        if group not in apps:
            apps[""].command(apps.setdefault(group, SubcommandApp()), name=group)
        apps[group].command(opened(name, verb, sketch=True).Config, name=last)
    with command.READABLE:
        apps[""].cli(args=args, prog="nnsteer")


if __name__ == "__main__":
    main()
