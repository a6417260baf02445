"""Run folders: killed at any moment, written by one process at a time, of one version."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from nnsteer.errors import UserError
from nnsteer.folder import FORMAT, Folder, check_folder, config_of, open_folder

ROWS = [{"key": str(i), "text": "ä€𝄞" * i} for i in range(4)]
HOLD = """
import sys
from pathlib import Path
from nnsteer.folder import open_folder
held = open_folder(Path(sys.argv[1]), {}, {})
print("in", flush=True)
input()
"""


def raw(rows):
    """Lines that hold characters of several bytes."""
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def contents(path):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.iterdir()}


def test_a_line_torn_at_any_byte_is_no_row_and_is_cut_by_the_next_append(tmp_path):
    folder, whole = Folder(tmp_path), raw(ROWS)
    for cut in range(len(raw(ROWS[:-1])), len(whole)):
        (tmp_path / "rows.jsonl").write_bytes(whole[:cut])
        before = contents(tmp_path)
        assert folder.read_lines("rows.jsonl") == ROWS[:-1]
        assert contents(tmp_path) == before  # reading changes nothing
        folder.append("rows.jsonl", ROWS[-1:])
        assert folder.read_lines("rows.jsonl") == ROWS
        assert (tmp_path / "rows.jsonl").read_bytes().startswith(raw(ROWS[:-1]))


def test_a_file_that_is_one_torn_line_has_no_rows(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"key": "\xc3')
    assert Folder(tmp_path).read_lines("rows.jsonl") == []
    Folder(tmp_path).append("rows.jsonl", ROWS)
    assert Folder(tmp_path).read_lines("rows.jsonl") == ROWS


@pytest.mark.parametrize("bad", [b'{"key": "1"', b"\xff\xfe", b"[1]", b"", b"null"])
def test_a_line_that_is_no_row_is_named_and_nothing_is_overwritten(tmp_path, bad):
    (tmp_path / "rows.jsonl").write_bytes(raw(ROWS[:1]) + bad + b"\n" + raw(ROWS[1:]))
    before = contents(tmp_path)
    with pytest.raises(
        UserError, match=r"rows\.jsonl, line 2: not a row of a run; mend or remove the line"
    ):
        Folder(tmp_path).read_lines("rows.jsonl")
    assert contents(tmp_path) == before


def test_kill_9_in_the_middle_of_appends_loses_no_row_that_was_appended(tmp_path):
    """Rows so large that a kill often comes within one."""
    folder, rng, known = Folder(tmp_path), random.Random(0), 0
    for _ in range(20):
        child = os.fork()
        if not child:
            os.fsync = lambda _: None  # or most of the time goes there
            n, text = len(folder.read_lines("rows.jsonl")), "x" * 3_000_000
            while True:
                folder.append("rows.jsonl", [{"n": n, "text": text}])
                n += 1
        time.sleep(rng.uniform(0.01, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        path = tmp_path / "rows.jsonl"
        now = [row["n"] for row in folder.read_lines("rows.jsonl")]
        assert now == list(range(len(now))) and len(now) >= known
        known = len(now)
        if known > 20:
            path.unlink()
            known = 0


def test_of_rows_with_the_same_key_the_first_counts(tmp_path):
    folder = Folder(tmp_path)
    folder.append("rows.jsonl", [{"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2}])
    assert folder.read_lines("rows.jsonl", ("a",)) == [{"a": 1, "b": 1}, {"a": 2, "b": 1}]
    assert (
        len(folder.read_lines("rows.jsonl", ("a", "b")))
        == len(folder.read_lines("rows.jsonl"))
        == 3
    )


def test_a_file_of_the_users_is_not_taken_for_a_temporary_one(tmp_path):
    (tmp_path / "a.json.partial").write_text("mine")
    Folder(tmp_path).write_json("a.json", {})
    assert (tmp_path / "a.json.partial").read_text() == "mine"
    assert {p.name for p in tmp_path.iterdir()} == {"a.json", "a.json.partial"}


def test_writing_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    Folder(tmp_path).write_text("a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        Folder(tmp_path).write_text("a.txt", "new \ud800")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] and (
        tmp_path / "a.txt"
    ).read_text() == "old"


def test_a_second_process_is_told_in_one_line_and_touches_nothing(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "in\n"
        before = contents(tmp_path / "run")
        for refused in (check_folder, lambda path, settings: open_folder(path, settings, {})):
            with pytest.raises(
                UserError, match=r"another process is writing there; wait for it, or give another"
            ):
                refused(tmp_path / "run", {})
        check_folder(tmp_path / "run", {}, writes=False)
        assert contents(tmp_path / "run") == before
        other.kill()
    check_folder(tmp_path / "run", {})  # a killed process's lock goes with it
    open_folder(tmp_path / "run", {}, {})


def test_one_process_opens_a_folder_again_also_after_an_error(tmp_path):
    def fails():
        held = open_folder(tmp_path / "run", {}, {})
        raise ValueError(held)

    with pytest.raises(ValueError) as kept:  # the traceback keeps the first folder alive
        fails()
    check_folder(tmp_path / "run", {})
    folder = open_folder(tmp_path / "run", {}, {})
    del kept
    assert folder.lock.is_locked


def test_a_folder_is_free_again_when_nothing_refers_to_it(tmp_path):
    open_folder(tmp_path / "run", {}, {})
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    assert (
        subprocess.run(command, input="\n", capture_output=True, text=True, check=True).stdout
        == "in\n"
    )


def test_what_a_kill_left_before_config_json_does_not_count(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".config.json.0011223344556677.partial").write_text('{"for')
    assert config_of(open_folder(tmp_path, {"a": 1}, {}, "refusal").path) | {"versions": {}, "command": []} == {
        "format": FORMAT, "recipe": "refusal", "settings": {"a": 1}, "versions": {}, "command": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"settings": {}},
            "holds a run of an earlier version of nnsteer, which this one can't read; "
            "give a folder that is new",
        ),
        ({"settings": {}, "format": FORMAT}, "holds a run of an earlier version"),
        (
            {"settings": {}, "recipe": "study", "format": FORMAT + 1},
            "holds a run of a later version",
        ),
        (
            {"settings": {}, "recipe": "refusal", "format": FORMAT},
            r"another run \(of refusal, not study\)",
        ),
        ({"settings": {"a": 1}, "recipe": "study", "format": FORMAT}, r"another run \(a differ\)"),
        ({"settings": []}, "holds files that are not a run"),
        ({"architectures": []}, "holds files that are not a run"),
        ([], "holds files that are not a run"),
    ],
)
def test_a_folder_that_is_not_this_runs_is_refused_and_stays_as_it_is(tmp_path, config, said):
    (tmp_path / "config.json").write_text(json.dumps(config))
    before = contents(tmp_path)
    for refused in (check_folder, lambda path, settings: open_folder(path, settings, {})):
        with pytest.raises(UserError, match=said) as error:
            refused(tmp_path, {})
        assert "\n" not in str(error.value)
    assert contents(tmp_path) == before
