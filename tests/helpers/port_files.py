"""Files of the ports: seeded weights of the golden files, as their programs name and save them."""

import json

import numpy as np
import torch
import torch.nn.functional as F


def golden_state(golden):
    """The state dict of a file of golden/ports."""
    random = np.random.RandomState(int(golden["seed"]))
    state = {}
    for name, shape in json.loads(str(golden["names"])):
        if f"stats/{name}" in golden:
            array = golden[f"stats/{name}"]
        elif name.endswith("num_batches_tracked"):
            array = np.zeros((), np.int64)
        else:
            array = drawn(random, name, shape)
        state[name] = torch.from_numpy(np.asarray(array))
    return state


def drawn(random, name, shape):
    """A parameter as the golden files draw it."""
    if len(shape) == 4:
        array = random.randn(*shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith("weight"):
        last = name.endswith(("bn3.weight", "increase.bn.weight"))
        array = random.uniform(0.5, 1.5, shape) * (0.2 if last else 1)
    else:
        array = random.randn(*shape) * 0.1
    return array.astype(np.float32)


RELATIONS = {"semseg": ("rgb", True, False, 1), "mmseg": ("rgb", False, True, 1),
             "kazuto": ("bgr", True, False, -1)}
BLOCKS_101 = (3, 4, 23, 3)


def port_names(port, blocks=BLOCKS_101, width=4, classes=5, aux=True, stem="deep"):
    """[(name, shape)] of a port's state dict, of any width, in float64's order of drawing."""
    names, layers = [], port_layers(port, blocks, stem)
    stem_width = width // 2 if port == "mmseg" else width
    last = stem_width if stem == "classic" else 2 * stem_width

    def conv(layer, *shape):
        names.append((f"{layer}.weight", shape))

    def unit(layer, out, channels, kernel):
        conv(layer[0], out, channels, kernel, kernel)
        names.extend((f"{layer[1]}.{kind}", (out,)) for kind in (
            "weight", "bias", "running_mean", "running_var"))
        names.append((f"{layer[1]}.num_batches_tracked", ()))

    shapes = [(stem_width, 3, 7)] if stem == "classic" else [
        (stem_width, 3, 3), (stem_width, stem_width, 3), (last, stem_width, 3)]
    for layer, shape in zip(layers["stem"], shapes):
        unit(layer, *shape)
    channels = last
    for stage, blocks_ in enumerate(layers["stages"]):
        inside = width * 2 ** stage
        for block in blocks_:
            unit(block["reduce"], inside, channels, 1)
            unit(block["spatial"], inside, inside, 3)
            unit(block["increase"], 4 * inside, inside, 1)
            if "project" in block:
                unit(block["project"], 4 * inside, channels, 1)
            channels = 4 * inside
    for level in layers["levels"]:
        unit(level, channels // 4, channels, 1)
    for branch, features in (("head", 2 * channels), *((("aux", channels // 2),) if aux else ())):
        unit(layers[branch], channels // 4 if branch == "head" else channels // 8, features, 3)
        score = layers[branch][2]
        conv(score, classes, channels // 4 if branch == "head" else channels // 8, 1, 1)
        names.append((f"{score}.bias", (classes,)))
    return names


def port_layers(port, blocks, stem="deep"):
    """Names of convolution and BN of every layer: stem, stages, levels, head, aux."""
    if port == "kazuto":
        def named(name):
            return f"{name}.conv", f"{name}.bn"
        return {
            "stem": [named(f"fcn.layer1.conv{k}") for k in (1, 2, 3)],
            "stages": [[{part: named(f"fcn.layer{s}.block{k + 1}.{theirs}") for part, theirs in (
                ("reduce", "reduce"), ("spatial", "conv3x3"), ("increase", "increase"),
                ("project", "proj")) if part != "project" or k == 0} for k in range(number)]
                for s, number in zip((2, 3, 4, 5), blocks)],
            "levels": [named(f"ppm.stages.s{k}.conv") for k in range(4)],
            "head": (*named("final.conv5_4"), "final.conv6"),
            "aux": (*named("aux.conv4_aux"), "aux.conv6_1")}
    first = {"semseg": "layer0.", "mmseg": "backbone.stem."}[port]
    prefix = "backbone." if port == "mmseg" else ""
    layers = {
        "stem": ([(f"{first}{k}", f"{first}{k + 1}") for k in (0, 3, 6)] if stem == "deep" else
                 [(f"{prefix}conv1", f"{prefix}bn1")]),
        "stages": [[{part: (f"{prefix}layer{s}.{k}.{conv}", f"{prefix}layer{s}.{k}.{bn}")
                     for part, conv, bn in (
                         ("reduce", "conv1", "bn1"), ("spatial", "conv2", "bn2"),
                         ("increase", "conv3", "bn3"), ("project", "downsample.0", "downsample.1"))
                     if part != "project" or k == 0} for k in range(number)]
                   for s, number in zip((1, 2, 3, 4), blocks)]}
    if port == "semseg":
        return layers | {"levels": [(f"ppm.features.{k}.1", f"ppm.features.{k}.2")
                                    for k in range(4)],
                         "head": ("cls.0", "cls.1", "cls.4"), "aux": ("aux.0", "aux.1", "aux.4")}
    unit = "{}.conv", "{}.bn"
    return layers | {
        "levels": [tuple(name.format(f"decode_head.psp_modules.{k}.1") for name in unit)
                   for k in range(4)],
        "head": (*(name.format("decode_head.bottleneck") for name in unit),
                 "decode_head.conv_seg"),
        "aux": (*(name.format("auxiliary_head.convs.0") for name in unit),
                "auxiliary_head.conv_seg")}


def port_state(port, seed=0, **shape):
    """A drawn state dict of a port, whose maps neither vanish nor explode."""
    random, state = np.random.RandomState(seed), {}
    for name, size in port_names(port, **shape):
        if name.endswith("running_var"):
            array = random.uniform(0.5, 2, size).astype(np.float32)
        elif name.endswith("num_batches_tracked"):
            array = np.int64(7)
        else:
            last = name.replace("3.weight", "bn3.weight") if "bn3" in name else name
            array = drawn(random, last, size)
        state[name] = torch.from_numpy(np.asarray(array))
    return state


def port_scores(port, state, image_rgb, blocks=BLOCKS_101, align_corners=None, stem="deep"):
    """What the port computes of an (H, W, 3) uint8 image, in float64, written out from its facts.

    Returns:
        (classes, H, W) scores; of kazuto at an eighth.
    """
    order, aligned, contract, levels_from = RELATIONS[port]
    aligned = aligned if align_corners is None else align_corners
    layers = port_layers(port, blocks, stem)
    state = {name: tensor.double() for name, tensor in state.items()}

    def unit(x, layer, stride=1, dilation=1, relu=True):
        weight = state[f"{layer[0]}.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2 * dilation, dilation)
        x = F.batch_norm(x, *(state[f"{layer[1]}.{kind}"] for kind in (
            "running_mean", "running_var", "weight", "bias")))
        return x.relu() if relu else x

    if order == "rgb":
        pixels = (image_rgb.astype(np.float64) - (123.675, 116.28, 103.53)) / (
            58.395, 57.12, 57.375)
    else:
        pixels = image_rgb[..., ::-1].astype(np.float64) - (103.939, 116.779, 123.68)
    x = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
    for k, layer in enumerate(layers["stem"]):
        x = unit(x, layer, 2 if k == 0 else 1)
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, (stride, dilation) in enumerate(((1, 1), (2, 1), (1, 2), (1, 4))):
        for k, block in enumerate(layers["stages"][stage]):
            own = max(dilation // 2, 1) if contract and k == 0 else dilation
            first = stride if k == 0 else 1
            y = unit(unit(x, block["reduce"]), block["spatial"], first, own)
            y = unit(y, block["increase"], relu=False)
            x = (y + (unit(x, block["project"], first, relu=False) if k == 0 else x)).relu()
    levels = [F.interpolate(unit(F.adaptive_avg_pool2d(x, bins), layer), x.shape[2:],
                            mode="bilinear", align_corners=aligned)
              for bins, layer in zip((1, 2, 3, 6)[::levels_from], layers["levels"])]
    conv, bn, score = layers["head"]
    x = unit(torch.cat([x, *levels], 1), (conv, bn))
    x = F.conv2d(x, state[f"{score}.weight"], state[f"{score}.bias"])
    if port == "kazuto":
        return x[0]
    return F.interpolate(x, image_rgb.shape[:2], mode="bilinear", align_corners=aligned)[0]
