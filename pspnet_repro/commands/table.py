"""pspnet table"""

import argparse
import re
from pathlib import Path

from pspnet_repro.commands.options import Weights, path, processes, weights, whole
from pspnet_repro.commands.parser import Commands, Parser
from pspnet_repro.defaults import PROFILES, PROTOCOLS, TABLES, VGG16
from pspnet_repro.model.settings import BLOCKS


def backbone(text: str) -> tuple[int | str, Weights]:
    """"50=FILE" -> (50, Path); "50=NET.prototxt,W.caffemodel" -> (50, (Path, Path)); "vgg16=FILE"
    -> ("vgg16", Path)."""
    name, _, file = text.partition("=")
    if name == VGG16 and file:
        return name, path(file)
    if name not in map(str, BLOCKS) or not file:
        raise argparse.ArgumentTypeError(
            f"must be DEPTH=FILE with DEPTH of {', '.join(map(str, BLOCKS))}, or {VGG16}=FILE, got "
            f"{text!r}")
    return int(name), weights(file)


def system(text: str) -> tuple[str, tuple[Path, ...]]:
    """"NAME=TRAIN.prototxt" or "NAME=TRAIN.prototxt,SOLVER.prototxt" -> (NAME, the Paths)."""
    name, _, files = text.partition("=")
    net, comma, solver = files.partition(".prototxt,")
    paths = (f"{net}.prototxt", solver) if comma else (files,)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or not all(paths):
        raise argparse.ArgumentTypeError(
            "must be NAME=TRAIN.prototxt or NAME=TRAIN.prototxt,SOLVER.prototxt, with a NAME of "
            f"letters, digits, dots and dashes, got {text!r}")
    return name, tuple(map(Path, paths))


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "table", help="train and test the rows of the paper's tables",
        description="Trains and tests the rows of the paper's tables and writes a report that sets "
                    "our figures beside the paper's. Rows that share a training share it. The same "
                    "command resumes. Alone it starts a process for each training; under torchrun "
                    "all processes work at one training.",
        examples=("pspnet table --table all --profile mini",
                  "pspnet table --table 1 --profile camvid --data CAMVID_DIR --backbone "
                  "50=R50.pt"))
    add = parser.add_argument
    add("--table", default="1", choices=(*TABLES, "all"),
        help="all: the paper's tables; fidelity: what each deviation from the "
             "authors' program costs")
    add("--profile", default="mini", choices=PROFILES,
        help="data, sizes and length of the trainings")
    add("--protocol", default="caffe", choices=PROTOCOLS,
        help="whose tests the rows of the paper's tables have: those of the authors' scripts, or "
             "of their later program; trainings are the same; default: %(default)s")
    add("--rows", default="all", metavar="ROW,ROW", help="rows to run")
    add("--data", type=path,
        help="folder of the data set, with train.txt and val.txt or as "
             "downloaded; mini draws its own")
    add("--seeds", type=whole(1, 1000), default=1,
        help="run each row N times, with the seeds 0 to N - 1")
    add("--backbone", type=backbone, action="append", default=[],
        metavar="DEPTH=WEIGHTS",
        help="initial weights of the networks of a depth, made by pspnet convert --backbone, or as "
             "NET.prototxt,W.caffemodel; once for each depth; vgg16=FILE: of the other systems, a "
             "caffemodel or torchvision's vgg16; default: random weights")
    add("--system", type=system, action="append", default=[],
        metavar="NAME=TRAIN.prototxt[,SOLVER.prototxt]",
        help="a further row of the table: a network of Caffe's, trained and tested as the others; "
             "may be given several times")
    add("--jobs", type=processes,
        help="trainings in parallel; default: the profile's, at most the cores")
    add("--workers", type=whole(0, 1024), default=0,
        help="processes that read images, for each training")
    add("--dry-run", action="store_true",
        help="only print the plan, with estimated time and memory")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: one GPU per process")
    add_folders(parser)
    add("-o", "--output", type=path, help="folder of the report; default: the profile's in --runs")
    parser.set_defaults(work="experiments.run_table")


def parser() -> Parser:
    """The parser of this command alone."""
    commands = Parser(prog="pspnet").add_subparsers(parser_class=Parser)
    add(commands)
    return commands.choices["table"]


def add_folders(parser: Parser) -> None:
    """Where the harness keeps its work: None is its own choice."""
    parser.add_argument("--runs", type=path,
                        help="folder of the runs; default: runs in a checkout's experiments, or "
                             "where there is none in this folder")
    parser.add_argument("--cache", type=path,
                        help="folder of the drawn scenes; default: cache in a checkout, or where "
                             "there is none in runs")
