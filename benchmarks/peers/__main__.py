"""Makes the environments of the peers, some 200 MB each: they stand on this one's packages and
bring what clashes with it.

python -m benchmarks.peers [NAME ...]
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import version

from benchmarks.peers.start import CACHE, PEERS, python_of


def install(name: str) -> None:
    """Makes one environment, or completes it."""
    folder = CACHE / name
    venv.create(folder, with_pip=True)
    theirs = sysconfig.get_path("purelib", vars={"base": str(folder)})
    with open(f"{theirs}/ours.pth", "w", encoding="utf-8") as file:
        file.write(sysconfig.get_path("purelib") + "\n")
    same = f"torch=={version('torch')}"  # so that it is not brought again
    subprocess.run(
        [
            python_of(name),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-warn-conflicts",
            same,
            *PEERS[name],
        ],
        check=True,
    )


if __name__ == "__main__":
    for peer in sys.argv[1:] or PEERS:
        install(peer)
        print(f"{peer}: {CACHE / peer}")
