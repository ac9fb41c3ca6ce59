"""--config: what a settings file says, what it may not say, and what comes before it."""

import json

import pytest
from helpers.commands import SMALL, run
from helpers.trainings import assert_same_run

from pspnet_repro import PSPNet
from pspnet_repro.__main__ import build_parser
from pspnet_repro.weights import model_file

NET = ("--classes", 4, *SMALL, "--crop-size", 57)


def _parse(file, text, *words):
    file.write_text(text, encoding="utf-8")
    return build_parser().parse_args(["train", "--config", str(file), *map(str, words)])


@pytest.fixture
def file(tmp_path):
    return tmp_path / "c.toml"


def test_a_file_gives_every_kind_of_option(file):
    args = _parse(file, """
# a comment
data = "ade20k=DIR"
output = "run"
max-iter = 2000
base_lr = 1
width = 0.5
bins = [1, 2]
blocks = "1,1,1,1"
no-aux = true
freeze_backbone = false
guidance = "full"
ignore = [0, 254]
initial_weights = "w.pt"
val_interval = 500
""")
    assert (args.data, str(args.output), args.max_iter, args.base_lr) == (
        "ade20k=DIR", "run", 2000, 1.0)
    assert type(args.base_lr) is float and args.width == 0.5
    assert (args.bins, args.blocks, args.no_aux, args.freeze_backbone) == (
        (1, 2), (1, 1, 1, 1), True, False)
    assert (args.guidance, args.ignore, str(args.initial_weights), args.val_interval) == (
        "full", (0, 254), "w.pt", 500)
    assert args.batch_size == 16 and args.seed == 0  # defaults


def test_the_command_line_comes_first(file):
    text = 'data = "d"\noutput = "run"\nmax_iter = 7\nno_aux = true\nbins = []\nzero_is_void = true'
    for words in (["--max-iter", 9, "--no-aux", "false", "--bins", "1,3", "--output", "o"],
                  ["--no-aux=false", "--output=o", "--bins=1,3", "--max-iter=9"]):
        args = _parse(file, text, *words)
        assert (args.max_iter, args.no_aux, args.bins, str(args.output)) == (9, False, (1, 3), "o")
        assert args.data == "d" and args.zero_is_void
        # Before --config as well.
        args = build_parser().parse_args(["train", *map(str, words), f"--config={file}"])
        assert (args.max_iter, args.no_aux, args.bins) == (9, False, (1, 3))
    assert _parse(file, text).bins == ()


def test_a_required_option_is_still_required(file, capsys):
    with pytest.raises(SystemExit):
        _parse(file, 'data = "d"\n')
    assert "the following arguments are required: -o/--output" in capsys.readouterr().err


@pytest.mark.parametrize("text, said", [
    ("max_itr = 3", "max_itr is no option of train, `pspnet train --help` lists them; did you mean "
                    "max_iter?"),
    ("config = 'x'", "config is no option of train"),
    ("help = true", "help is no option of train"),
    ("max_iter = 3\nmax-iter = 3", "max_iter and max-iter are the same option: leave one out"),
    ("max_iter = 2.5", "max_iter = 2.5: '2.5' is no whole number"),
    ("max_iter = 0", "max_iter = 0: must be 1 to 2147483647, got 0"),
    ("max_iter = '3'", 'max_iter = "3": must be a number, without quotes'),
    ("max_iter = true", "max_iter = true: 'true' is no whole number"),
    ("max_iter = [3]", "max_iter = [3]: must be a number, without quotes"),
    ("base_lr = 'high'", 'base_lr = "high": must be of type float'),
    ("base_lr = '0.1'", 'base_lr = "0.1": must be a number, without quotes'),
    ("depth = 50.0", "depth = 50.0: must be of type int"),
    ("no_aux = 1", "no_aux = 1: must be true or false, got '1'"),
    ("no_aux = 'true'", 'no_aux = "true": must be true or false'),
    ("bins = 3", "bins = 3: must be a list of whole numbers, such as [1, 2]"),
    ("bins = [1.5]", "bins = [1.5]: must be a number, text in quotes, true or false, or a list "),
    ("bins = ['1']", 'bins = ["1"]: must be a number, text in quotes'),
    ("ignore = [256]", "ignore = [256]: must be label values 0 to 255"),
    ("output = 3", "output = 3: must be text in quotes"),
    ("output = true", "output = true: must be text in quotes"),
    ("output = ''", 'output = "": must not be empty'),
    ("guidance = 'half'", 'guidance = "half": must be one of eighth, full'),
    ("guidance = ['full']", 'guidance = ["full"]: must be a number, text in quotes'),
    ('"a\\nb" = 3', r"a\nb is no option of train"),
    ("[net]\nmax_iter = 3", "net is no option of train"),
    ('{"model": {"reduce": "no"}, "max_iter": 1, "list_sha256": ""}',
     'no_reduce = "no": must be true or false, got'),
    ('{"model": {"aux": 0}, "max_iter": 1, "list_sha256": ""}',
     "no_aux = 0: must be true or false, got '0'"),
    ("[seed]\nx = 3", 'seed = {"x": 3}: must be a number, text in quotes'),
    ("seed = 1979-05-27", 'seed = "1979-05-27": must be a number, text in quotes')])
def test_what_a_file_may_not_say(file, tmp_path, capfd, text, said):
    file.write_text(text)
    code, _, error = run(capfd, "train", "--config", file, "--data", "d", "--output",
                         tmp_path / "run")
    assert code == 2 and error.startswith(f"error: {file}: {said}"), error
    assert error.count("\n") == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("content, said", [
    (None, "no such file; --config takes TOML with lines such as "),
    (b"max_iter = \xff", "cannot be read as a "),
    (b"max_iter 3", "not a settings file: "), (b"a = 1\na = 2", "not a settings file: "),
    (b"{}", "not settings.json of a training: lacks model, list_sha256 or max_iter"),
    (b'{"max_iter": 3}', "not settings.json of a training"), (b'{"max_', "not a settings file: "),
    (b'{"model": [], "max_iter": 1, "list_sha256": ""}', "not settings.json of a training"),
    (b'{"model": {}, "max_iter": 1, "list_sha256": "", "augmentation": []}',
     "not settings.json of a training: augmentation must be a dictionary, got []"),
    ("max_iter = 3".encode("utf-16"), "cannot be read as a settings file: 'utf-8' codec can't")])
def test_files_that_are_no_settings(file, tmp_path, capfd, content, said):
    if content is not None:
        file.write_bytes(content)
    code, _, error = run(capfd, "train", "--config", file, "--data", "d", "--output",
                         tmp_path / "run")
    assert code == 1 and error.startswith(f"error: {file}: {said}") and error.count("\n") == 1


def _train(capfd, *words):
    code, _, error = run(capfd, "train", "--threads", 1, *words)
    assert code == 0, error
    return error


@pytest.mark.parametrize("words", [
    (), ("--no-aux", "--bins", "none", "--guidance", "full", "--augmentation", "none",
         "--iter-size", 2, "--variance", "biased", "--seed", 3),
    ("--no-reduce", "--pool", "max", "--augmentation", "mirror-resize", "--padding", "centre",
     "--arithmetic", "original", "--variance", "biased")], ids=["plain", "baseline", "original"])
def test_settings_of_a_training_repeat_it(squares, tmp_path, capfd, words):
    one, two = tmp_path / "one", tmp_path / "two"
    _train(capfd, "--data", squares, "--output", one, *NET, "--batch-size", 2, "--max-iter", 2,
           *words)
    assert "note:" not in _train(capfd, "--config", one / "settings.json", "--data", squares,
                                 "--output", two)
    for name in ("weights.pt", "settings.json", "losses.jsonl"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_settings_of_a_fine_tuning_repeat_it(squares, tmp_path, capfd):
    start, one, two = (tmp_path / name for name in ("start.pt", "one", "two"))
    net = PSPNet(7, width=0.125, stem="classic", stem_width=8, blocks=(1, 1, 1, 1),
                 dilations=(1, 1, 1, 1), strides=(1, 2, 1, 1), head_width=5, stride_in="3x3")
    for buffer in net.buffers():  # as after a training, so that they may be frozen
        buffer.uniform_(0.5, 1)
    model_file.save_model(start, net)
    words = ("--data", squares, "--initial-weights", start)
    _train(capfd, *words, "--output", one, "--classes", 4, "--crop-size", 57, "--batch-size", 2,
           "--max-iter", 2, "--freeze-backbone")
    assert "note:" not in _train(capfd, "--config", one / "settings.json", *words, "--output", two)
    assert_same_run(one / "weights.pt", two / "weights.pt")
    first, second = (json.loads((folder / "settings.json").read_text()) for folder in (one, two))
    assert first == second
    code, _, error = run(capfd, "train", "--config", one / "settings.json", "--data", squares,
                         "--output", tmp_path / "three")
    assert code == 2 and "started from weights with SHA-256 " in error
    assert "name their file with --initial-weights" in error


def _settings(data, asked, tmp_path, capfd, change):
    """Path of the settings of a training that nobody ran, changed."""
    _train(capfd, "--data", data, "--output", tmp_path / "one", *NET, "--max-iter", 1)
    path = tmp_path / "settings.json"
    content = asked[-1].to_json()
    change(content)
    path.write_text(json.dumps(content))
    return path


def test_settings_that_no_option_gives_are_refused(squares, asked, tmp_path, capfd):
    for change, said in (
            (lambda content: content.update(power=0.8), "power = 0.8, for which train has no "
                                                        "option: here it is 0.9; write the"),
            (lambda content: content.update(surprise=1), "surprise = 1, for which"),
            (lambda content: content["model"].update(dropout=0.5), "model.dropout = 0.5, for"),
            (lambda content: content["augmentation"].update(rotation=3.0),
             "augmentation.rotation = 3.0, for which")):
        path = _settings(squares, asked, tmp_path, capfd, change)
        words = ("train", "--config", path, "--data", squares, "--output", tmp_path / "run")
        code, _, error = run(capfd, *words)
        assert code == 2 and error.startswith(f"error: {path}: {said}"), error
    # Another augmentation is a choice.
    assert run(capfd, *words, "--augmentation", "none")[0] == 0


def test_settings_for_other_images_say_so(squares, asked, tmp_path, capfd):
    path = _settings(squares, asked, tmp_path, capfd,
                     lambda content: content.update(list_sha256="0"))
    code, _, error = run(capfd, "train", "--config", path, "--data", squares, "--output",
                         tmp_path / "run", "--max-iter", 5)
    assert code == 0 and f"note: {path} is of a training on other images, or with" in error
    assert asked[-1].max_iter == 5 and asked[-1].crop_size == 57
