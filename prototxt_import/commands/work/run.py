"""pspnet run: an image through a network, and a comparison with the original."""

import io
from argparse import Namespace

import numpy as np
import torch

from prototxt_import.commands.work.blob_limits import check_blobs
from prototxt_import.commands.work.places import check_places
from prototxt_import.commands.work.recorded import compare, read_recorded
from prototxt_import.net import load_net
from pspnet_repro.data.images import read_image
from pspnet_repro.errors import UsageError, UserError, check_printed
from pspnet_repro.evaluation.imresize import imresize
from pspnet_repro.outputs import Outputs


def run(args: Namespace) -> None:
    if args.output is None and args.compare is None:
        raise UsageError("needs --output, --compare or both")
    if args.blobs and args.output is None:
        raise UsageError("--blobs needs --output")
    check_places("run", args.prototxt, args.caffemodel)
    outputs = Outputs()
    if args.output is not None:
        outputs.claim([args.output], [path for path in (args.prototxt, args.caffemodel, args.image,
                                                        args.compare) if path is not None])
    arrays = None if args.compare is None else read_recorded(args.compare)
    net = load_net(args.prototxt, args.caffemodel, arithmetic=args.arithmetic)
    name, shape = _image_input(net)
    if net.steps is not None:
        # Before the image is resized.
        check_blobs(net)
    image = _input(args, shape, arrays)
    net.prepare(**{name: image})
    check_blobs(net)
    with torch.inference_mode():
        tops = net(**{name: image})
    if args.output is not None:
        names = args.blobs.split(",") if args.blobs else list(tops)
        unknown = [blob for blob in names if blob not in net.blobs]
        if unknown:
            raise UsageError(f"--blobs: {', '.join(unknown)} not in {args.prototxt}, whose last "
                             f"are {', '.join(list(net.blobs)[-5:])}")
        buffer = io.BytesIO()
        np.savez(buffer, **{blob: net.blobs[blob].numpy() for blob in names})
        outputs.write({args.output: buffer.getvalue()})
        for blob in names:
            print(f"{blob}  {'x'.join(map(str, net.blobs[blob].shape))}")
        print(args.output)
    if arrays is not None:
        print(compare(net, arrays, args.tolerance, args.compare))
    if args.output is None:
        check_printed()


def _image_input(net):
    # The channels of a database are open.
    images = [(name, shape) for name, shape in net.partial_shapes.items()
              if shape is not None and len(shape) == 4 and shape[1] in (3, None)
              and None not in shape[2:]]
    if not images:
        raise UserError(f"{net.path}: has no input of images with 3 channels and a size: write one "
                        "as an Input layer with a shape")
    return images[0]


def _input(args, shape, arrays):
    """The (N, 3, H, W) input: the picture, or what the compared file holds."""
    if args.image is not None:
        image = read_image(args.image)
        if image.shape[:2] != shape[2:]:
            image = imresize(image, shape[2:])
    elif arrays is None:
        raise UsageError("needs an image")
    elif "data" in arrays:
        return arrays["data"].astype(np.float32)
    elif "image_bgr" in arrays:
        image = arrays["image_bgr"]
    else:
        raise UserError(f"{args.compare}: holds no data and no image_bgr: name an image")
    return (image.astype(np.float32) - np.float32(args.mean)).transpose(2, 0, 1)[None]
