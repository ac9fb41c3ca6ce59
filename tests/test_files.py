"""Files that are written whole, whoever else writes them."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from helpers.paths import ROOT

from pspnet_repro.errors import UserError
from pspnet_repro.files import lock_folder, write_bytes, write_together
from pspnet_repro.weights import plain_file

# Writes half of the file F, says so, and waits for its input to end.
HALF = """
import sys
sys.path.insert(0, sys.argv[1])
from pspnet_repro.files import write_bytes

def write(file):
    file.write(b"half")
    file.flush()
    print("half", flush=True)
    sys.stdin.read()
    file.write(b", whole")

write_bytes(sys.argv[2], write)
"""


def start_half(path):
    """A process that has written half of the file, and waits."""
    process = subprocess.Popen([sys.executable, "-c", HALF, str(ROOT), str(path)],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "half\n"
    return process


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_writer_amid_another_leaves_whole_files(tmp_path):
    path = tmp_path / "F"

    def outer(file):
        file.write(b"outer, half")
        file.flush()
        write_bytes(path, b"inner")
        assert path.read_bytes() == b"inner"
        file.write(b", whole")

    write_bytes(path, outer)
    assert path.read_bytes() == b"outer, half, whole" and names(tmp_path) == ["F"]


def test_a_writer_stopped_at_its_fsync_does_not_take_anothers_half(tmp_path, monkeypatch):
    """Two threads: the first one's fsync lasts until the second is half-way."""
    path, at_fsync, half_way, placed = tmp_path / "F", *(threading.Event() for _ in range(3))
    fsync = os.fsync

    def slow_fsync(number):
        if threading.current_thread() is first:
            at_fsync.set()
            assert half_way.wait(60)
        fsync(number)

    def write_second(file):
        file.write(b"second")
        file.flush()
        half_way.set()
        assert placed.wait(60)
        file.write(b", whole")

    def run_first():
        write_bytes(path, b"first, whole")
        placed.set()

    first = threading.Thread(target=run_first)
    monkeypatch.setattr(os, "fsync", slow_fsync)
    first.start()
    assert at_fsync.wait(60)
    second = threading.Thread(target=write_bytes, args=(path, write_second))
    second.start()
    first.join()
    assert path.read_bytes() == b"first, whole"
    second.join()
    assert path.read_bytes() == b"second, whole" and names(tmp_path) == ["F"]


def test_processes_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "F"
    other = start_half(path)
    write_bytes(path, b"ours")  # leaves the other's file alone: its process lives
    assert path.read_bytes() == b"ours" and len(names(tmp_path)) == 2
    other.communicate("")
    assert other.returncode == 0
    assert path.read_bytes() == b"half, whole" and names(tmp_path) == ["F"]


def test_temporary_files_of_killed_processes_are_removed(tmp_path):
    killed, living = start_half(tmp_path / "F"), start_half(tmp_path / "G")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(names(tmp_path)) == 2 and all(name.startswith(".pspnet-") for name in
                                             names(tmp_path))
    for name in (".F.part", ".pspnet-mine.part"):
        (tmp_path / name).write_text("somebody's")
    write_bytes(tmp_path / "H", b"h")
    living.communicate("")
    assert names(tmp_path) == [".F.part", ".pspnet-mine.part", "G", "H"]
    assert (tmp_path / "G").read_bytes() == b"half, whole"


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_mode_of_any_new_file(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "F", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "F").stat().st_mode & 0o777 == mode


def test_names_as_long_as_a_file_system_takes_are_written(tmp_path):
    write_bytes(tmp_path / ("n" * 255), b"x")
    assert names(tmp_path) == ["n" * 255]


@pytest.mark.parametrize("failing", range(3))
def test_files_written_together_are_all_there_or_none(tmp_path, failing):
    def fail(_):
        raise OSError(28, "No space left on device")

    contents = {tmp_path / name: name for name in "abc"}
    contents[tmp_path / "abc"[failing]] = fail
    with pytest.raises(UserError, match=f"{'abc'[failing]}: cannot be written: .*No space left"):
        write_together(contents)
    assert names(tmp_path) == []


def test_a_lock_does_not_empty_a_file_of_its_name(tmp_path):
    (tmp_path / ".lock").write_text("somebody's")
    lock_folder(tmp_path).close()
    assert (tmp_path / ".lock").read_text() == "somebody's"


def test_checkpoint_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "state.pt"
    plain_file.save(path, {"a": 1})

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="state.pt: cannot be written: .*No space left"):
        write_bytes(path, fail)
    assert plain_file.load(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_write_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        plain_file.save(tmp_path / "file" / "x.pt", {})
