"""pspnet train"""

from pspnet_repro.commands import options
from pspnet_repro.commands.config_file import add_config
from pspnet_repro.commands.data_options import add_data
from pspnet_repro.commands.options import add_switch, path, pixels, positive, processes, whole
from pspnet_repro.commands.parser import Commands
from pspnet_repro.defaults import FREEZE_BN, PADDINGS, PRECISIONS, TIMEOUT_SECONDS
from pspnet_repro.model.settings import BLOCKS, NetworkSettings

AUGMENTATIONS = ("all", "mirror-resize", "none")


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "train", help="train a PSPNet, or resume a training",
        description="Trains as the paper does (5.1). The same command resumes an interrupted "
                    "training; processes of torchrun share each batch. Of Cityscapes and VOC 2012 "
                    "the paper's crop, steps and augmentation are the defaults; of other data "
                    "ADE20K's are.",
        examples=("pspnet train --data DIR --output RUN --classes 11 --crop-size 185",
                  "torchrun --nproc-per-node 4 -m pspnet_repro train --data ade20k=DIR "
                  "--output RUN --device cuda"))
    add_config(parser)
    add_data(parser)
    parser.add_argument("--split", default="train", metavar="NAME",
                        help="such as train_aug of voc2012")
    parser.add_argument("-o", "--output", required=True, type=path, help="folder of the training")
    parser.add_argument("--classes", type=whole(1, 254),
                        help="number of classes; default: the benchmark's or that of classes.txt")
    _add_network(parser)
    add = parser.add_argument_group("schedule").add_argument
    add("--crop-size", type=pixels, help="side of the crops; default: the benchmark's, or 473")
    add("--batch-size", type=whole(1, 4096), default=16, help="images a pass, over all processes")
    add("--iter-size", type=positive, default=1, help="passes a step")
    add("--max-iter", type=positive, help="steps; default: the benchmark's, or 150000")
    add("--base-lr", type=float, default=0.01, help="first learning rate")
    add("--aux-weight", type=float, default=0.4, help="of the auxiliary loss")
    add("--guidance", choices=("eighth", "full"), default="eighth",
        help="size of the labels that the loss sees")
    add("--augmentation", choices=AUGMENTATIONS,
        help="beside random crops; all: mirror, resize, rotation, blur; default: "
             "the benchmark's, or all")
    add("--padding", choices=PADDINGS,
        help="border of images smaller than the crop: end (right and bottom, as the original and "
             "its test) or centre (as the authors' later program); default: end")
    add("--seed", type=whole(0, 2 ** 63 - 1), default=0, help="of everything random")
    tuning = parser.add_argument_group(
        "fine-tuning", "What is frozen stays as --initial-weights has it. By default nothing is.")
    tuning.add_argument("--freeze-bn", choices=FREEZE_BN,
                        help="fix running values, slope and bias of batch normalization, for small "
                             "batches: in the backbone, or in all parts, which then must not start "
                             "afresh")
    add_switch(tuning, "--freeze-backbone",
               help="fix the backbone, running values of its batch normalization included: a step "
                    "takes less time and memory")
    _add_validation(parser)
    parser.add_argument("--precision", choices=PRECISIONS, default="float32",
                        help="of convolutions and products; tf32: on GPUs alone; bfloat16: "
                             "weights, batch normalization and loss stay float32")
    parser.add_argument("--threads", type=processes, default=2, help="threads of the computation")
    parser.add_argument("--workers", type=whole(0, 1024),
                        help="processes that read images; default: the cores that do not compute, "
                             "at most 8")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu",
                        help="cuda: one GPU a process")
    add_switch(parser, "--cuda-graph",
               help="forward and backward pass as one CUDA graph, for which a GPU does not wait; "
                    "one process")
    parser.add_argument("--timeout", type=positive, default=round(TIMEOUT_SECONDS),
                        metavar="SECONDS",
                        help="time to wait for a process that does not answer (torchrun); "
                             "default: %(default)s")
    parser.set_defaults(work="pspnet_repro.commands.work.train")


def _add_network(parser):
    """Arguments of PSPNet under their names; --no-NAME turns one off."""
    net = parser.add_argument_group(
        "network", "With --initial-weights the defaults are the file's; another structure than the "
                   "file's is refused.")

    def add(name, words, shown=None, **how):
        net.add_argument(f"--{name.replace('_', '-')}", **how,
                         choices=NetworkSettings.choices(name) or None,
                         help=f"{words}; default: {shown or getattr(NetworkSettings, name)}")

    *depths, last = BLOCKS
    add("depth", f"{', '.join(map(str, depths))} or {last}", type=int)
    add("bins", "numbers separated by commas, or none for no pyramid",
        ",".join(map(str, NetworkSettings.bins)), type=options.numbers)
    add("pool", "pooling of the bins")
    add_switch(net, "--no-reduce", help="no reduction after pooling")
    add_switch(net, "--no-aux", help="no auxiliary branch")
    add("stem", "first layers: three 3x3 convolutions or one 7x7")
    add("stem_width", "channels of the stem", type=positive)
    add("width", "factor of the stages' channels", f"{NetworkSettings.width:g}", type=float)
    add("blocks", "four numbers separated by commas, for miniature networks", "the depth's",
        type=options.numbers)
    add("stride_in", "convolution with the stride", "as released for the depth")
    net.add_argument("--initial-weights", type=options.weights, metavar="WEIGHTS",
                     help="start from a PSPNet or a backbone: a file of a training or of convert, "
                          "or NET.prototxt,W.caffemodel; default: random")
    net.add_argument("--solverstate", type=path, metavar="FILE",
                     help="resume a training of Caffe's program: steps and momentum of its "
                          "solverstate, weights of the caffemodel that it names; with "
                          "--initial-weights NET.prototxt,W.caffemodel those")
    add("variance", "kind of variance in BN")
    add("arithmetic", '"original": the bits of the original\'s CPU program, several times slower; '
                      "needs --variance biased", default=NetworkSettings.arithmetic)


def _add_validation(parser):
    tests = parser.add_argument_group(
        "validation and log", "Tests along the way write validation.jsonl and keep the network of "
                              "the highest mean IoU as best.pt. They change no bit of weights.pt, "
                              "and may be others when a training resumes.")
    add = tests.add_argument
    add("--val-interval", type=whole(0, 2 ** 31 - 1), metavar="STEPS",
        help="test after every so many steps and after the last; default: 0, never")
    add("--val-split", metavar="NAME", help="split that is tested; default: val")
    add("--val-data", type=options.filled, metavar="DATA",
        help="data that are tested, as --data: a list file, a folder with lists, or NAME=DIR; "
             "their labels mean the same as the training's; default: those of --data")
    add("--val-windows", choices=("centre", "sliding"), default="centre",
        help="centre: one window in the middle of each image, at scale 1 and "
             "without its mirror image, which is quick and not the paper's figure; "
             "sliding: the whole test of pspnet evaluate")
    add("--base-size", type=pixels,
        help="long side, less 1, to which images are resized when they are tested, "
             "here and by predict and evaluate; default: the benchmark's, or 512")
    add("--log-interval", type=whole(0, 10 ** 6), default=60, metavar="SECONDS",
        help="between two lines of progress in log.txt; 0: a line per step; default: %(default)s")
    add_switch(tests, "--tensorboard",
               help="write losses, rate and figures into OUTPUT/tensorboard too; needs the package "
                    "tensorboard")
