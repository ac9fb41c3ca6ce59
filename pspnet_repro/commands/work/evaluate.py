"""Mean IoU and pixel accuracy of weights on a data set."""

import contextlib
import json
import sys
from argparse import Namespace

import numpy as np
from tqdm import tqdm

from pspnet_repro import distributed
from pspnet_repro.commands.work import testing
from pspnet_repro.commands.work.data import check_apart, data_of
from pspnet_repro.data.images import png_bytes, read_image
from pspnet_repro.errors import UsageError, UserError, printable
from pspnet_repro.evaluation.evaluate import evaluate
from pspnet_repro.evaluation.figures import confusion_png
from pspnet_repro.evaluation.record import RESULT, CountsFile, claim_results
from pspnet_repro.outputs import Outputs
from pspnet_repro.training.loop import weights_digest
from pspnet_repro.words import counted


def run(args: Namespace) -> int:
    """Test; 0, or 1 where images could not be used."""
    weights, more = testing.split_weights(args.weights)
    if more:
        raise UsageError(f"--weights names more than weights: {' '.join(map(str, more))}")
    files = testing.read_networks(args, weights)
    data = data_of(args)
    pairs = data.pairs(args.split)
    digests = [weights_digest(file.net) for file in files]
    predictor = testing.tested(args, files, data.recipe if data.layout else None)
    data.check_classes(len(predictor.names))
    classes = testing.classes_of(args, predictor, data)
    output = args.output or testing.files_of(weights[:1])[-1].parent / (
        f"evaluation-{data.name}-{args.split}{'-multi-scale' * args.multi_scale}")
    check_apart(output, data)
    predictions = (output / "predictions" if args.save_predictions or pairs[0].label is None
                   else None)
    paths = {} if predictions is None else _prediction_paths(data, pairs, args.split, predictions)
    outputs = Outputs(output)
    about = {"weights_sha256": digests[0] if len(digests) == 1 else digests,
             "data": data.name, "split": args.split, "list_sha256": data.digest(args.split),
             "zero_is_void": args.zero_is_void, "predictions": predictions is not None,
             "protocol": predictor.protocol.facts(), "precision": args.precision,
             "fused": not args.no_fusion}
    with distributed.join(command="evaluate") as processes:
        processes.on_first(lambda: claim_results(
            outputs, output, {*paths.values(), *_figures(output)},
            [*testing.files_of(weights),
             *(path for pair in pairs for path in (pair.image, pair.label) if path)]))
        measured = None
        if processes.first:
            testing.say_protocol(predictor.protocol)
            measured = testing.agreement(args, weights, predictor, _images(pairs))
        with CountsFile(output, about, len(predictor.names), len(pairs), processes,
                        measured) as record:
            matrix, failed = _test(args, predictor, data, pairs, paths, outputs, record, processes)
    if not processes.first:
        return 1 if failed else 0
    if failed == len(pairs):
        raise UserError("the image could not be used" if failed == 1 else
                        f"none of the {failed} images could be used")
    if pairs[0].label is not None:
        if not matrix.counts.any():
            raise UserError(f"{data.name}, {args.split}: no pixel of the "
                            f"{counted(len(pairs) - failed, 'image')} is labelled, so no accuracy "
                            "is defined; `pspnet check-data` says which values the label "
                            "files hold")
        _write_results(matrix, classes, {
            **about, "protocol_name": predictor.protocol.name, "agreement": measured}, len(pairs),
            failed, output, outputs)
    else:
        print(f"{counted(len(pairs) - failed, 'prediction is', 'predictions are')} in "
              f"{predictions}")
    if failed:
        print(f"{failed} of {counted(len(pairs), 'image')} could not be used", file=sys.stderr)
    return 1 if failed else 0


def _images(pairs):
    """The images that can be read, RGB; of the others the test will say why not."""
    for pair in pairs:
        with contextlib.suppress(UserError):
            yield read_image(pair.image)[:, :, ::-1]


def _figures(output):
    return output / RESULT, output / "confusion.png"


def _prediction_paths(data, pairs, split, folder):
    """{image: path of its prediction}. Raises UserError where two images would share one."""
    paths, images = {}, {}
    for pair in pairs:
        paths[pair.image] = folder / data.submission(pair, split)
        other = images.setdefault(paths[pair.image], pair.image)
        if other != pair.image:
            raise UserError(f"{other} and {pair.image} would have one prediction, "
                            f"{paths[pair.image]}: rename one, or test them from two lists")
    return paths


def _test(args, predictor, data, pairs, paths, outputs, record, processes):
    """(ConfusionMatrix, number of images that could not be used), of all processes."""
    written = np.frombuffer(data.written, np.uint8)
    failed = 0

    def save_prediction(_, pair, predicted):
        outputs.write({paths[pair.image]: png_bytes(written[predicted])})

    def report(error):
        nonlocal failed
        failed += 1
        tqdm.write(f"error: {printable(str(error))}", file=sys.stderr)

    matrix = evaluate(
        predictor, pairs, classes=len(predictor.names), protocol=predictor.protocol,
        batch_size=args.batch_size, record=record, on_error=report, processes=processes,
        on_prediction=save_prediction if paths else None)
    return matrix, sum(int(count) for (count,) in processes.gather_numbers([failed]))


def _write_results(matrix, classes, about, images, failed, output, outputs):
    """Write result.json and confusion.png and print the figures."""
    labelled = matrix.counts.sum(1)
    absent = [name for name, pixels in zip(classes.names, labelled) if not pixels]
    figures = {**matrix.figures, "classes": classes.names, "iou": matrix.iou.tolist(),
               "confusion": matrix.counts.tolist(), "images": images - failed,
               "failed": failed, "labelled_pixels": int(labelled.sum()),
               "classes_without_labels": absent, **about}
    outputs.write(dict(zip(_figures(output), (json.dumps(figures, indent=1),
                                              confusion_png(matrix, classes.names)))))
    width = max(map(len, classes.names))
    for k, (name, iou) in enumerate(zip(classes.names, matrix.iou)):
        print(f"class {k:3d}  {name:{width}}  IoU {100 * iou:6.2f}")
    print(f"{counted(labelled.sum(), 'labelled pixel')} of {counted(images - failed, 'image')} "
          "counted")
    if absent:
        print(f"classes that never occur in the labels and count as IoU 0: {len(absent)} of "
              f"{len(classes.names)}, {', '.join(absent[:10])}{' ...' * (len(absent) > 10)}")
    print(f"mean IoU {100 * matrix.mean_iou:.2f}  pixel accuracy {100 * matrix.pixel_accuracy:.2f}")
    print(f"mean class accuracy {100 * matrix.mean_accuracy:.2f}  frequency-weighted IoU "
          f"{100 * matrix.frequency_weighted_iou:.2f}  score {100 * matrix.score:.2f} = (mean "
          "IoU + pixel accuracy) / 2")
    print(f"written to {output}: {RESULT}, confusion.png")
