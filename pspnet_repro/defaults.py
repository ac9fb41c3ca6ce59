"""Choices and numbers that the commands' help shows: nothing here is slow to import."""

from pathlib import Path

# Factors of the base size in a multi-scale test (the authors' evaluation scripts).
MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
PROTOCOLS = ("caffe", "semseg")  # how photographs are tested: presets of evaluation.Protocol
PRECISIONS = ("float32", "tf32", "bfloat16")
BATCH_SIZE = 4  # windows a pass of the network
MAX_SIDE = 2 ** 15  # pixels of a crop
TIMEOUT_SECONDS = 600.0  # how long a process waits for another that does not answer
PADDINGS = ("end", "centre")
FREEZE_BN = ("backbone", "all")
VARIANCES = ("biased", "unbiased", "torch")
TABLES = ("1", "2", "3", "4", "fidelity")
VGG16 = "vgg16"  # what --backbone calls the backbone of the other systems
PROFILES = ("mini", "camvid", "camvid-281", "camvid-329", "paper")
# Where the package lies: in a checkout, which has the sources of the operators, or installed.
ROOT = Path(__file__).resolve().parents[1]
IN_CHECKOUT = (ROOT / "csrc").is_dir()
