"""python -m pspnet_repro predict"""

import sys
from collections import Counter, deque
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from pspnet_repro.commands.arguments import (add_names, add_protocol, classes_of, load_network,
                                             network_for_testing, path, protocol_of,
                                             take_weights)
from pspnet_repro.data.lists import has_alpha, read_image
from pspnet_repro.errors import UsageError, UserError, printable
from pspnet_repro.evaluation import predict_stream
from pspnet_repro.visualize import colourize, overlay, write_png


def add(commands):
    parser = commands.add_parser(
        "predict", help="label maps and pictures of photographs",
        description="Writes for each image NAME.label.png (class indices), NAME.colour.png and "
                    "NAME.overlay.png with a legend of the classes present. Photographs are "
                    "turned upright as their EXIF orientation says.")
    parser.add_argument("--weights", required=True, nargs="+", type=path, metavar="FILE",
                        help="weights of a training or of python -m prototxt_import convert; or "
                             "NET.prototxt W.caffemodel")
    parser.add_argument("images", nargs="*", type=path, metavar="IMAGE|DIR",
                        help="image files, and folders of them")
    parser.add_argument("-o", "--output", required=True, type=path, metavar="DIR",
                        help="folder of the results")
    add_names(parser)
    add_protocol(parser)
    parser.set_defaults(run=run)


def image_files(paths):
    """Files of the command line, folders replaced by the files in them, hidden ones left out.

    Raises:
        UserError: a folder is empty or cannot be read.
    """
    files = []
    for given in paths:
        if not given.is_dir():
            files.append(given)
            continue
        try:
            inside = sorted(p for p in given.iterdir() if p.is_file() and p.name[0] != ".")
        except OSError as error:
            raise UserError(f"{given}: cannot be read: {error}") from error
        if not inside:
            raise UserError(f"{given}: holds no files")
        files += inside
    return files


def output_names(files):
    """A name for each file: its stem, or its whole name where stems meet, or a number before."""
    for name in (lambda k: files[k].stem, lambda k: files[k].name,
                 lambda k: f"{k:05d}-{files[k].name}"):
        names = [name(k) for k in range(len(files))]
        if max(Counter(names).values()) == 1:
            return names
    return names


def run(args):
    """0, or 1 where files were no images."""
    torch.set_num_threads(args.threads)
    weights, rest = take_weights(args.weights)
    images = [*rest, *args.images]
    if not images:
        raise UsageError("name an image or a folder of images")
    if args.output.exists() and not args.output.is_dir():
        raise UsageError(f"--output must be a folder, got the file {args.output}")
    net = network_for_testing(args, load_network(weights, args.device))
    classes = classes_of(args, net.classes)
    protocol = protocol_of(args, net)
    files = image_files(images)
    names = output_names(files)
    reading = deque()
    failed = 0

    with tqdm(total=len(files), desc="predict", unit="image") as bar:
        def photographs():
            nonlocal failed
            for file, name in zip(files, names):
                try:
                    image = read_image(file, upright=True)
                    if has_alpha(file):
                        tqdm.write(f"{file}: its transparency is dropped", file=sys.stderr)
                except UserError as error:
                    failed += 1
                    tqdm.write(f"error: {printable(str(error))}", file=sys.stderr)
                    bar.update()
                    continue
                image = np.ascontiguousarray(image[:, :, ::-1])
                reading.append((name, image))
                yield image

        for probabilities in predict_stream(net, photographs(), classes=net.classes,
                                            protocol=protocol, batch_size=args.batch_size):
            name, image = reading.popleft()
            label = probabilities.argmax(0).cpu().numpy().astype(np.uint8)
            _write_pictures(Path(args.output), name, image, label, classes)
            bar.update()
    if failed:
        print(f"{failed} of {len(files)} files could not be used", file=sys.stderr)
    return 1 if failed else 0


def _write_pictures(folder, name, image, label, classes):
    write_png(folder / f"{name}.label.png", label)
    write_png(folder / f"{name}.colour.png", colourize(label, classes.palette_rgb))
    write_png(folder / f"{name}.overlay.png", overlay(image, label, classes))
