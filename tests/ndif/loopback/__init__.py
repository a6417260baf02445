"""A loopback NDIF: a test instrument that speaks the wire protocol of nnsight 0.8's client, for one
model in a local folder.

    python -m loopback --model FOLDER [--mode sandbox|trusted|strict] [--key KEY]     (from tests/ndif)

It prints `{"url": ..., "model_key": ...}` when it listens, and stops when its standard input ends.
Besides NDIF's own routes it has

    PUT /faults      [{"kind": "pass", "count": 2}, {"kind": "429"}, ...]     what is to go wrong, in this order (faults.py)
    GET /log         the jobs: payload digest, bytes up and down, states and their times, executions
    GET /calls       every HTTP call: method, path, status, bytes up
    DELETE /faults, DELETE /log
"""
