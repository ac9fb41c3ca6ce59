"""python -m pspnet_repro evaluate"""

import dataclasses
import json
import sys

import numpy as np
import torch
from tqdm import tqdm

from pspnet_repro import checkpoint, distributed
from pspnet_repro.commands.arguments import (add_names, add_protocol, classes_of, filled,
                                             load_network, network_for_testing, path, protocol_of,
                                             take_weights)
from pspnet_repro.data.datasets import LAYOUTS, open_data
from pspnet_repro.errors import UsageError, UserError, printable
from pspnet_repro.evaluation.evaluate import evaluate
from pspnet_repro.evaluation.record import CountsFile
from pspnet_repro.figures import confusion_figure
from pspnet_repro.train import weights_digest
from pspnet_repro.visualize import write_png


def add(commands):
    parser = commands.add_parser(
        "evaluate", help="mean IoU and pixel accuracy of trained weights on a data set",
        description="Tests weights as the authors' scripts do. An interrupted test goes on where "
                    "it stopped; processes of torchrun share the images. A split without labels "
                    "gives predictions alone, in the form that the benchmark's server takes.")
    parser.add_argument("--weights", required=True, nargs="+", type=path, metavar="FILE",
                        help="weights of a training or of python -m prototxt_import convert; or "
                             "NET.prototxt W.caffemodel")
    parser.add_argument("--data", required=True, type=filled,
                        help=f"NAME=DIR with NAME of {', '.join(LAYOUTS)}; or a folder with "
                             "val.txt and perhaps classes.txt; or a list file")
    parser.add_argument("--split", default="val", help="default: %(default)s")
    parser.add_argument("--zero-is-void", action="store_true",
                        help="labels of list files are 0 = void, k + 1 = class k")
    add_names(parser)
    parser.add_argument("--output", type=path, metavar="DIR",
                        help="folder of the results; default: beside the weights, named by data "
                             "and split")
    parser.add_argument("--save-predictions", action="store_true",
                        help="also of a split with labels")
    add_protocol(parser)
    parser.set_defaults(run=run)


def run(args):
    """0, or 1 where images could not be used."""
    torch.set_num_threads(args.threads)
    weights, rest = take_weights(args.weights)
    if rest:
        raise UsageError(f"--weights names more than weights: {' '.join(map(str, rest))}")
    if args.output is not None and args.output.exists() and not args.output.is_dir():
        raise UsageError(f"--output must be a folder, got the file {args.output}")
    net = load_network(weights, args.device)
    data = open_data(args.data, args.zero_is_void)
    pairs = data.pairs(args.split)
    classes = classes_of(args, net.classes, data)
    protocol = protocol_of(args, net, data.layout)
    scales = "-multi-scale" if args.multi_scale else ""
    output = args.output or weights[-1].parent / f"evaluation-{data.name}-{args.split}{scales}"
    predictions = (output / "predictions" if args.save_predictions or pairs[0].label is None
                   else None)
    about = {"weights_sha256": weights_digest(net), "data": data.name, "split": args.split,
             "list_sha256": data.digest(args.split), "zero_is_void": args.zero_is_void,
             "protocol": dataclasses.asdict(protocol), "predictions": predictions is not None}
    net = network_for_testing(args, net)
    with distributed.join() as processes, CountsFile(output, about, net.classes,
                                                     len(pairs), processes) as record:
        matrix, failed = _test(args, net, data, pairs, protocol, predictions, record, processes)
    if not processes.first:
        return 1 if failed else 0
    if failed == len(pairs):
        raise UserError(f"none of the {failed} images could be used")
    if pairs[0].label is not None:
        _write_results(matrix, classes, about, len(pairs), failed, output)
    else:
        print(f"{len(pairs) - failed} predictions are in {predictions}")
    if failed:
        print(f"{failed} of {len(pairs)} images could not be used", file=sys.stderr)
    return 1 if failed else 0


def _test(args, net, data, pairs, protocol, predictions, record, processes):
    """(ConfusionMatrix, number of images that could not be used), of all processes."""
    written = np.frombuffer(data.written, np.uint8)
    failed = 0

    def save_prediction(_, pair, predicted):
        write_png(predictions / data.submission(pair, args.split), written[predicted])

    def report(error):
        nonlocal failed
        failed += 1
        tqdm.write(f"error: {printable(str(error))}", file=sys.stderr)

    matrix = evaluate(
        net, pairs, classes=net.classes, protocol=protocol, batch_size=args.batch_size,
        record=record, on_error=report, processes=processes,
        on_prediction=save_prediction if predictions is not None else None)
    return matrix, sum(int(count) for (count,) in processes.gather_numbers([failed]))


def _write_results(matrix, classes, about, images, failed, output):
    """Write result.json and confusion.png and print the figures."""
    figures = {"mean_iou": matrix.mean_iou, "pixel_accuracy": matrix.pixel_accuracy,
               "classes": classes.names, "iou": matrix.iou.tolist(),
               "confusion": matrix.counts.tolist(), "images": images - failed,
               "failed": failed, **about}
    checkpoint.write_bytes(output / "result.json", json.dumps(figures, indent=1))
    confusion_figure(matrix, classes.names, output / "confusion.png")
    width = max(map(len, classes.names))
    for k, (name, iou) in enumerate(zip(classes.names, matrix.iou)):
        print(f"class {k:3d}  {name:{width}}  IoU {100 * iou:6.2f}")
    print(f"mean IoU {100 * matrix.mean_iou:.2f}  pixel accuracy "
          f"{100 * matrix.pixel_accuracy:.2f}")
    print(f"written to {output}: result.json, confusion.png")
