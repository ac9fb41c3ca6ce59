"""Arguments of the pooling and interpolation layers of the golden files."""

import re


def _field(prototxt, name, default):
    found = re.search(rf"\b{name}: (-?\d+)", prototxt)
    return int(found.group(1)) if found else default


def _pair(prototxt, name, default):
    both = _field(prototxt, {"kernel": "kernel_size"}.get(name, name), default)
    return [_field(prototxt, f"{name}_{axis}", both) for axis in "hw"]


def pool_arguments(arrays):
    """(kernel_size, stride, padding, mode) of a Pooling layer."""
    prototxt = str(arrays["prototxt"])
    kernel = _pair(prototxt, "kernel", None)
    if "global_pooling: true" in prototxt:
        kernel = list(arrays["bottom_x"].shape[2:])
    mode = "max" if "pool: MAX" in prototxt else "ave"
    return kernel, _pair(prototxt, "stride", 1), _pair(prototxt, "pad", 0), mode


def bin_arguments(path):
    """(bins, mode) of a golden file that pools into bins."""
    mode, bins = re.fullmatch(r"pool_(AVE|MAX)_\d+_bin(\d)", path.stem).groups()
    return int(bins), mode.lower()


def interp_arguments(arrays):
    """(out_size, pad_begin, pad_end) of an Interp layer."""
    prototxt = str(arrays["prototxt"])
    return (list(arrays["top_y"].shape[2:]), _field(prototxt, "pad_beg", 0),
            _field(prototxt, "pad_end", 0))
