"""Label maps and pictures of photographs."""

import itertools
import sys
from argparse import Namespace
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
from tqdm import tqdm

from pspnet_repro.commands.work import testing
from pspnet_repro.data.images import png_bytes, read_photograph
from pspnet_repro.errors import UsageError, UserError, first_line, printable
from pspnet_repro.evaluation.pictures import colourize, overlay
from pspnet_repro.evaluation.viewer import ViewerImage, write_viewer
from pspnet_repro.outputs import Outputs
from pspnet_repro.words import counted


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Files of the command line, folders replaced by the files in them; hidden ones and those that
    this program made are left out. Raises UserError for a folder without files."""
    files = []
    for given in paths:
        if not given.is_dir():
            files.append(given)
            continue
        try:
            inside = sorted(p for p in given.iterdir() if p.is_file() and p.name[0] != ".")
        except OSError as error:
            raise UserError(f"{given}: cannot be read: {first_line(error)}") from error
        results = Outputs(given)
        photographs = [file for file in inside if not results.made(file)]
        if not photographs:
            raise UserError(f"{given}: holds no files" + " but this program's" * bool(inside))
        files += photographs
    return files


def output_names(files: Sequence[Path]) -> list[str]:
    """A name for each file: its stem; its whole name where stems meet; where those meet too, with
    its number before."""
    def counts():
        # Some file systems do not tell "a" from "A".
        return Counter(name.casefold() for name in names)

    names = [file.stem for file in files]
    for longer in (lambda k: files[k].name, lambda k: f"{k:05d}-{files[k].name}"):
        count = counts()
        names = [name if count[name.casefold()] == 1 else longer(k) for k, name in enumerate(names)]
    # A number can meet the name of a file that looks numbered.
    return names if max(counts().values()) == 1 else [
        f"{k:05d}-{file.name}" for k, file in enumerate(files)]


def run(args: Namespace) -> int:
    """Predict; 0, or 1 where files were no images."""
    weights, more = testing.split_weights(args.weights)
    images = [*more, *args.images]
    if not images:
        raise UsageError("name an image or a folder of images")
    if args.compare_with is not None and not args.html:
        raise UsageError("--compare-with shows a second network in the page: add --html")
    compared = [] if args.compare_with is None else [args.compare_with]
    networks = _network_names(weights, compared)
    predictor = testing.tested(args, testing.read_networks(args, weights))
    classes = testing.classes_of(args, predictor)
    others = [_second(args, predictor) for _ in compared]
    files = image_files(images)
    names = output_names(files)
    outputs, page = Outputs(args.output), args.output / "index.html"
    outputs.claim([path for name in names for path in _pictures(args.output, name)]
                  + [page] * args.html, [*files, *testing.files_of(weights + compared)])
    testing.say_protocol(predictor.protocol)
    failed = []
    photographs = _photographs(dict(zip(names, files)), failed)
    first = list(itertools.islice(photographs, 1))
    testing.agreement(args, weights, predictor, [image for _, _, image in first])
    predictions = _predict(args, predictor, itertools.chain(first, photographs), len(files),
                           classes, outputs, failed)
    if args.html:
        note = write_viewer(
            page, f"{counted(len(files), 'photograph')}, {' and '.join(networks)}", classes,
            _viewer_images(predictions, networks, others, args.batch_size), networks,
            write=lambda path, fill: outputs.write({path: fill}))
        print(f"the page is {page}" + f"; {note}" * bool(note))
    for _ in predictions:
        continue
    used = len(files) - len(failed)
    if used:
        print(f"{3 * used} pictures of {counted(used, 'photograph')} are in {args.output}")
    if failed:
        shown = ", ".join(printable(str(file), 200) for file in failed[:20])
        print(f"{len(failed)} of {counted(len(files), 'file')} could not be used: {shown}"
              + f" and {len(failed) - 20} more" * (len(failed) > 20), file=sys.stderr)
    return 1 if failed else 0


def _network_names(*networks):
    """A name for each of lists of weights: the stems of their files; where these are the same,
    with folders before them. Raises UsageError where they are the same files."""
    for name in (lambda path: path.stem, lambda path: f"{path.parent.name}/{path.stem}", str):
        names = [" + ".join(map(name, testing.files_of(each))) for each in networks if each]
        if len(set(names)) == len(names):
            return names
    raise UsageError(f"--compare-with must name other weights than --weights, got {names[0]}")


def _second(args, predictor):
    """The Predictor of --compare-with."""
    (file,) = testing.read_networks(args, [args.compare_with])
    file.check_classes(len(predictor.names))
    return testing.tested(args, [file])


def _viewer_images(predictions, networks, others, batch_size):
    """A ViewerImage of each of (file, Prediction), with what other Predictors say of it."""
    for file, first in predictions:
        each = [first, *(next(other.many([first.image], batch_size)) for other in others)]
        yield ViewerImage(file.name, first.image,
                          {name: one.labels for name, one in zip(networks, each)},
                          confidence={name: one.confidence for name, one in zip(networks, each)})


def _photographs(files, failed):
    """(name, file, RGB image) of each of {name: file}; the list `failed` gets those that cannot be
    used."""
    for name, file in files.items():
        try:
            photograph = read_photograph(file, upright=True)
        except UserError as error:
            failed.append(file)
            tqdm.write(f"error: {printable(str(error))}", file=sys.stderr)
            continue
        if photograph.had_alpha:
            tqdm.write(f"{file}: its transparency is dropped", file=sys.stderr)
        # In place: a large photograph must not be kept twice.
        yield name, file, cv2.cvtColor(photograph.image, cv2.COLOR_BGR2RGB, photograph.image)


def _predict(args, predictor, photographs, count, classes, outputs, failed):
    """Write what the networks say of `photographs`, as _photographs gives them.

    Args:
        count: of the photographs and those that cannot be used.
    Yields:
        (file, Prediction) for each.
    """
    reading = deque()

    def images():
        for name, file, image in photographs:
            reading.append((name, file))
            yield image

    with tqdm(total=count, desc="predict", unit="image") as bar:
        for read, prediction in enumerate(predictor.many(images(), args.batch_size), 1):
            name, file = reading.popleft()
            image, label = prediction.image, prediction.labels
            try:
                # Each is made when it is written: of a large photograph one takes 400 MB.
                outputs.write(dict(zip(_pictures(args.output, name), (
                    lambda file: file.write(png_bytes(label)),
                    lambda file: file.write(png_bytes(colourize(label, classes.palette_rgb))),
                    lambda file: file.write(png_bytes(overlay(image, label, classes)))))))
            except UserError as error:
                failed.append(file)
                tqdm.write(f"error: {printable(str(error))}", file=sys.stderr)
            else:
                yield file, prediction
            bar.update(min(read + len(failed), count) - bar.n)
        bar.update(count - bar.n)


def _pictures(folder, name):
    return [folder / f"{name}.{kind}.png" for kind in ("label", "colour", "overlay")]
