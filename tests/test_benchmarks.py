from __future__ import annotations

import json

import pytest
import torch

from benchmarks.measure import Measured, paired, rate, rows, table
from benchmarks.run import Config, main


def test_subjects_take_turns_there_and_back_after_one_to_warm_up():
    called: list[str] = []

    def subject(name, value):
        return lambda: called.append(name) or value

    got = paired(
        "w",
        "m",
        "s",
        {"floor": subject("a", 2.0), "ours": subject("b", 3.0), "a peer": None},
        rounds=2,
    )
    assert "".join(called) == "baabba"
    assert got.values == {"floor": [2.0, 2.0], "ours": [3.0, 3.0], "a peer": []}
    assert got.floor == "floor"


def test_a_row_has_the_median_of_each_rounds_ratio_and_a_missing_peer_is_null():
    found = rows(
        Measured(
            "w",
            "m",
            "s",
            {"floor": [1.0, 2.0, 4.0], "ours": [3.0, 2.0, 8.0], "a peer": []},
            "floor",
        )
    )
    assert [row["ratio_to_floor"] for row in found] == [1.0, 2.0, None]
    assert found[1] == {
        "work": "w", "model": "m", "subject": "ours", "median": 3.0, "min": 2.0, "max": 8.0, "ratio_to_floor": 2.0, "unit": "s",
    }  # fmt: skip
    assert found[2]["median"] is found[2]["min"] is found[2]["max"] is None
    lines = table(found).splitlines()
    assert lines[3] == "| w | m | ours | 3 | 2 | 8 | 2 | s |"
    assert "| a peer | missing |" in lines[4]


def test_a_rate_is_an_amount_a_second():
    assert rate(12.0, lambda: 3.0)() == 4.0


def test_the_command_prints_tables_and_writes_rows(tmp_path, capsys):
    main(
        Config(
            works=("search", "early-stop"),
            models=("organism",),
            quick=True,
            threads=torch.get_num_threads(),
            json=tmp_path / "rows.jsonl",
        )
    )
    found = json.loads((tmp_path / "rows.jsonl").read_text())
    assert all(
        set(row) == {"work", "model", "subject", "median", "min", "max", "ratio_to_floor", "unit"}
        for row in found
    )
    assert {row["model"] for row in found} == {"organism"} and len(
        {row["work"] for row in found}
    ) >= 2
    assert all(
        row["min"] <= row["median"] <= row["max"] for row in found if row["median"] is not None
    )
    out = capsys.readouterr().out
    assert "threads" in out and "transformers" in out and "| ratio to floor |" in out


def test_an_unknown_work_is_named():
    with pytest.raises(SystemExit, match="fast: no such work or model; there are extraction"):
        main(Config(works=("fast",)))
