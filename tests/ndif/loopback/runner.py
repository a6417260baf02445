"""NDIF's own sandbox runner, forked afresh for every request: `python runner.py SOCKET MODEL_FOLDER
HIDDEN...`.

NDIF starts a Python process per request and keeps a few warm, as a start takes seconds: it imports
nnsight and builds the weightless model. Here one process does that and forks at each connection,
which gives each request the same state, untouched, in milliseconds. Prints a line when ready; ends
when its standard input does, and its children with it.
"""

from __future__ import annotations

import os
import select
import signal
import sys

from hide import hide


def main(path: str, folder: str, *hidden: str) -> None:
    """Serves until standard input ends."""
    hide(hidden)
    from ndif.services.ray.sandbox import nns
    from ndif.services.ray.sandbox.runner import Connection, Runner, die_with_parent
    from nnsight import TransformersModel
    from transformers import AutoTokenizer

    # Runner(model_key=...) would build this itself, but for nnsight 0.8.1 no longer finding the
    # tokenizer in transformers 5.23
    nns.META_MODEL = TransformersModel(
        folder, task="text-generation", tokenizer=AutoTokenizer.from_pretrained(folder)
    )
    nns.PERSISTENT_OBJECTS.update(nns.META_MODEL._remoteable_persistent_objects())
    runner = Runner(path)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([runner.socket, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = runner.socket.accept()
        if os.fork() == 0:
            try:
                die_with_parent()
                runner.handle([Connection(connection)])
            finally:
                os._exit(0)
        connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
