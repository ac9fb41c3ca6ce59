"""What commands write: never an input, and never in place of somebody else's file."""

import json
import os
import threading

import pytest

from pspnet_repro.errors import UsageError, UserError
from pspnet_repro.outputs import LIST, FileList, Outputs

DIGEST = "0" * 64


def entry(name, digest=DIGEST):
    """The list with one entry, but for its end."""
    return "[\n" + json.dumps({"name": name, "sha256": digest})


def listed(folder):
    """The names in the list, which is valid JSON."""
    return [each["name"] for each in json.loads((folder / LIST).read_text())]


def test_a_file_is_replaced_only_as_this_program_made_it(tmp_path):
    path = tmp_path / "deep" / "er" / "a.png"
    for content in (b"first", b"second"):  # each by a call of its own
        outputs = Outputs(tmp_path)
        outputs.claim([path])
        outputs.write({path: content})
        assert path.read_bytes() == content
    assert listed(tmp_path) == ["deep/er/a.png"] * 2
    path.write_bytes(b"touched up")
    for refuse in (lambda: Outputs(tmp_path).claim([path]),
                   lambda: Outputs(tmp_path).write({path: b"third"})):
        with pytest.raises(UserError, match="a.png: was changed after this program wrote it; it is "
                                            "not overwritten: choose another --output"):
            refuse()
    assert path.read_bytes() == b"touched up"


def _folder(path):
    path.mkdir()


def _link_to_ours(path):
    Outputs().write({path.with_name("made"): b"x"})
    path.symlink_to("made")


@pytest.mark.parametrize("put", [
    lambda path: path.write_bytes(b"mine"), lambda path: path.write_bytes(b""), _folder,
    lambda path: path.symlink_to("nowhere"), _link_to_ours, os.mkfifo])
def test_what_somebody_else_put_there_is_refused_before_any_work(tmp_path, put):
    """A file, an empty one, a folder, links, a pipe: also where the list is of another name."""
    outputs, path = Outputs(tmp_path), tmp_path / "a"
    outputs.write({tmp_path / "b": b"ours"})
    put(path)
    before = os.lstat(path)
    for refuse in (lambda: outputs.claim([tmp_path / "b", path]),
                   lambda: outputs.write({path: b"new", tmp_path / "b": b"new"})):
        with pytest.raises(UserError, match="a: is there already, and this command did not make "):
            refuse()
    assert os.lstat(path) == before and (tmp_path / "b").read_bytes() == b"ours"


def test_a_file_that_came_after_the_claim_is_left(tmp_path):
    outputs, path = Outputs(tmp_path), tmp_path / "a"
    outputs.claim([path])
    path.write_text("mine")
    with pytest.raises(UserError, match="did not make it"):
        outputs.write({path: b"ours"})
    path.unlink()
    Outputs(tmp_path).write({path: b"of another call"})
    outputs.write({path: b"ours"})
    assert path.read_bytes() == b"ours"


@pytest.mark.parametrize("killed_at", ["replace", "fsync"])
def test_after_a_kill_the_same_command_may_write(tmp_path, monkeypatch, killed_at):
    """The list knows a file before it is there, and its last version as long as that is there."""
    path = tmp_path / "a"
    Outputs(tmp_path).write({path: b"first"})

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, killed_at, kill)
        Outputs(tmp_path).write({path: b"second"})
    assert path.read_bytes() == b"first"
    outputs = Outputs(tmp_path)
    outputs.claim([path])
    outputs.write({path: b"third"})
    assert path.read_bytes() == b"third"


def test_a_name_without_its_file_does_not_cover_another_file(tmp_path):
    """As after a kill between the list's line and the file, and a file of the user's since."""
    FileList(tmp_path).add({"a": DIGEST})
    Outputs(tmp_path).claim([tmp_path / "a"])
    (tmp_path / "a").write_text("mine")
    with pytest.raises(UserError, match="a: was changed after"):
        Outputs(tmp_path).claim([tmp_path / "a"])


def test_an_entry_that_a_kill_cut_off_is_dropped(tmp_path):
    """Whatever its last byte was, and a name with a brace."""
    Outputs(tmp_path).write({tmp_path / "a": b"ours"})
    whole = (tmp_path / LIST).read_bytes()
    Outputs(tmp_path).write({tmp_path / "b}.png": b"ours"})
    longer = (tmp_path / LIST).read_bytes()
    assert listed(tmp_path) == ["a", "b}.png"]
    for size in range(len(whole) - len("\n]\n"), len(longer)):
        (tmp_path / LIST).write_bytes(longer[:size])
        outputs = Outputs(tmp_path)
        outputs.claim([tmp_path / "a"])
        outputs.write({tmp_path / "c": b"ours"})
        (tmp_path / "c").unlink()
        is_whole = size > longer.rindex(b"}")
        assert listed(tmp_path) == ["a", *["b}.png"] * is_whole, "c"]
        assert outputs.made(tmp_path / "b}.png") == is_whole


@pytest.mark.parametrize("text, words", [
    (entry("../a"), "name must be a path inside the folder, got '../a'"),
    (entry("b/../../a"), "must be a path inside"), (entry("/etc/passwd"), "must be a path inside"),
    (entry(""), "must be a path inside"), (entry(7), "got '7'"), (entry("a\0"), "must be a path"),
    (entry("a", "f" * 63), "sha256 must be 64"), (entry("a", None), "sha256 must be 64"),
    ("[]\n", "line 1: no line of"), ("7\n", "no line of"), ("{}\n", "line 1: no line of"),
    ("[\n{}\n]\n", "'name'"), ("nonsense\n", "no line of"), ("mine", "no line of"),
    ("\xff\xfe\n", "no line of"), (entry("a") + "\nmine", "must be an entry or the list's end"),
    (entry("a") + ",\n" + "[" * 100000 + "}", "line 3: no line of")])
def test_a_damaged_or_hostile_list_is_refused(tmp_path, text, words):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / LIST).write_bytes(text.encode("latin-1"))
    (tmp_path / "a").write_text("mine")
    (folder / "a").write_text("mine")
    for act in (lambda: Outputs(folder).claim([folder / "a"]),
                lambda: Outputs(folder).write({folder / "b": b"x"})):
        with pytest.raises(UserError, match=words) as caught:
            act()
        assert str(folder / LIST) in str(caught.value) and "\n" not in str(caught.value)
    assert (folder / LIST).read_bytes() == text.encode("latin-1")
    assert sorted(path.name for path in folder.iterdir()) == [LIST, "a"]


@pytest.mark.parametrize("put", [
    _folder, os.mkfifo, lambda path: path.symlink_to("../mine"),
    lambda path: path.symlink_to("../nowhere")])
def test_a_list_that_is_no_file_is_refused(tmp_path, put):
    (tmp_path / "mine").touch()
    folder = tmp_path / "out"
    folder.mkdir()
    put(folder / LIST)
    with pytest.raises(UserError, match="pspnet-files.json: must be a file"):
        Outputs(folder).write({folder / "a": b"x"})
    assert not (tmp_path / "mine").read_bytes() and not (tmp_path / "nowhere").exists()


def test_several_writers_share_a_list(tmp_path):
    def write(writer):
        outputs = Outputs(tmp_path)
        for number in range(20):
            outputs.write({tmp_path / f"{writer}-{number}": b"x"})

    writers = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    paths = [tmp_path / f"{writer}-{number}" for writer in "abc" for number in range(20)]
    assert all(path.exists() for path in paths)
    Outputs(tmp_path).claim(paths)
    assert sorted(listed(tmp_path)) == sorted(path.name for path in paths)


def test_each_file_is_listed_beside_it_without_a_folder(tmp_path):
    paths = [tmp_path / "a" / "x", tmp_path / "b" / "y"]
    Outputs().write(dict.fromkeys(paths, b"x"))
    for path in paths:
        assert listed(path.parent) == [path.name]
    Outputs().claim(paths)


@pytest.mark.parametrize("name", ["in.png", "link.png", "hard.png", "d/../in.png", "up/in.png"])
def test_an_input_is_never_an_output(tmp_path, name):
    """Also where the list says that this program made it."""
    folder = tmp_path / "f"
    (folder / "d").mkdir(parents=True)
    Outputs(folder).write({folder / "in.png": b"ours"})
    (folder / "link.png").symlink_to("in.png")
    (folder / "hard.png").hardlink_to(folder / "in.png")
    (folder / "up").symlink_to(".")
    for output, read in ((folder / name, folder / "in.png"), (folder / "in.png", folder / name)):
        with pytest.raises(UsageError, match=f"{output.name} is also read: choose another"):
            Outputs(folder).claim([output], [read])
    Outputs(folder).claim([folder / "in.png"], [folder / "d", folder / "none.png"])


def test_a_file_where_a_folder_must_be_is_named(tmp_path):
    (tmp_path / "predictions").write_text("mine")
    with pytest.raises(UserError, match="predictions: must be a folder, as .*a.png goes there"):
        Outputs(tmp_path).claim([tmp_path / "predictions" / "a.png"])


def test_results_of_an_earlier_version_are_adopted_once(tmp_path):
    outputs, paths = Outputs(tmp_path), [tmp_path / "a", tmp_path / "b"]
    paths[0].write_text("of an earlier version")
    outputs.adopt(paths)
    paths[1].write_text("mine")
    Outputs(tmp_path).adopt(paths)
    Outputs(tmp_path).claim(paths[:1])
    with pytest.raises(UserError, match="b: is there already"):
        Outputs(tmp_path).claim(paths)
