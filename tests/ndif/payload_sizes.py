"""What fitting and scoring send and bring home, measured against the loopback server: the table in
docs/ndif.md.

python tests/ndif/payload_sizes.py
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from serving import KEY, serving

COUNTS = (100, 1000, 4000)


def main() -> None:
    """One Markdown row for each number of prompts a side."""
    os.environ["NDIF_API_KEY"] = KEY
    from nnsteer import Condition, block_outs, of_prompts
    from nnsteer.folder import Folder
    from nnsteer.model import fit_there
    from nnsteer.model.load import find_model
    from nnsteer.model.runner import Runner
    from nnsteer.ndif.client import Link
    from nnsteer.ndif.journal import Journal
    from nnsteer.program.span import PROMPT
    from nnsteer.texts.bundled import bundled, organism

    sides = [
        [row["prompt"] for row in bundled(f"{side}.jsonl") if row["split"] == "fit"]
        for side in ("harmful", "harmless")
    ]
    sites = block_outs(range(4))
    print(
        "| prompts a side | step | requests | up | down | numbers asked for, "
        "as fp32 |\n|---|---|---|---|---|---|"
    )
    with serving(organism(), "trusted") as server:
        for count in COUNTS:
            with TemporaryDirectory() as path:
                folder = Folder(Path(path))
                link = Link(server.url, server.model_key, Journal(folder))
                runner = Runner.connect(find_model(str(organism())), link, 128)
                contrast = of_prompts(*(side[:count] for side in sides))
                found = fit_there.directions(runner, contrast, sites, PROMPT, "pca_pairwise")
                for side in (contrast.positive, contrast.negative):
                    runner.scores(
                        [text.prompt for text in side], [Condition(d, 0.0) for d in found.values()]
                    )
                rows = [
                    row for row in folder.read_lines("requests.jsonl") if row["state"] == "done"
                ]
                asked = {
                    "fitting": sum(2 * len(d.vector) for d in found.values()),
                    "scoring": 2 * count * len(sites),
                }
                for step, numbers in asked.items():
                    own = [row for row in rows if row["step"] == step]
                    up, down = (
                        sum(row[name] for row in own) for name in ("bytes_up", "bytes_down")
                    )
                    print(
                        f"| {count:,} | {step} | {len(own)} | {up:,} | {down:,} | {4 * numbers:,} "
                        "|",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
