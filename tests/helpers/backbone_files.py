"""Small classification ResNets in files of Caffe and torchvision, for the tests of convert."""

import numpy as np
import torch

from prototxt_import import write_caffemodel

WIDTHS, BLOCKS = (4, 6, 8, 10), (1, 2, 1, 1)


class Classifier:
    """The text and drawn weights of a small classification ResNet with BatchNorm and Scale."""

    def __init__(self, norm="eps: 1e-3", bias="true", scale="bias_term: true", deep=False,
                 stride_in="3x3"):
        self.random = np.random.default_rng(0)
        self.norm, self.bias, self.scale, self.stride_in = norm, bias, scale, stride_in
        self.text, self.weights, self.count = "", {}, 0
        self.add('name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 '
                 'dim: 97 dim: 97 } }')
        stem = (((6, 3, 2), (6, 3, 1), (12, 3, 1)) if deep else ((12, 7, 2),))
        top, channels = "data", 3
        for width, kernel, stride in stem:
            top, channels = self.unit(top, channels, width, kernel, stride), width
        self.add(f'name: "p" type: "Pooling" bottom: "{top}" top: "p" pooling_param {{ pool: MAX '
                 f'kernel_size: 3 stride: 2 pad: {int(deep)} }}')
        top = "p"
        for stage, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS)):
            for k in range(blocks):
                top = self.block(top, channels, width, 2 if stage and not k else 1, not k)
                channels = 4 * width
        self.features = top
        self.add(f'name: "q" type: "Pooling" bottom: "{top}" top: "q" pooling_param {{ pool: AVE '
                 'global_pooling: true }')
        self.add('name: "fc" type: "InnerProduct" bottom: "q" top: "fc" inner_product_param { '
                 'num_output: 5 }')
        self.weights["fc"] = ("InnerProduct", [self.draw(5, 40), self.draw(5)])

    def draw(self, *shape):
        return self.random.normal(0, 1, shape).astype(np.float32)

    def add(self, text):
        self.text += f"layer {{ {text} }}\n"

    def unit(self, bottom, channels, width, kernel, stride=1, relu=True):
        self.count += 1
        top = f"u{self.count}"
        self.add(f'name: "{top}" type: "Convolution" bottom: "{bottom}" top: "{top}" '
                 f'convolution_param {{ num_output: {width} kernel_h: {kernel} kernel_w: {kernel} '
                 f'pad: {kernel // 2} stride: {stride} bias_term: {self.bias} }}')
        blobs = [self.draw(width, channels, kernel, kernel) / kernel] + (
            [self.draw(width)] if self.bias == "true" else [])
        self.weights[top] = ("Convolution", blobs)
        self.add(f'name: "{top}n" type: "BatchNorm" bottom: "{top}" top: "{top}" batch_norm_param '
                 f'{{ use_global_stats: true {self.norm} }}')
        factor = np.float32(999.98)
        self.weights[f"{top}n"] = ("BatchNorm", [
            factor * self.draw(width), factor * (1 + self.draw(width) ** 2), np.array([factor])])
        if self.scale is not None:
            self.add(f'name: "{top}s" type: "Scale" bottom: "{top}" top: "{top}" scale_param {{ '
                     f'{self.scale} }}')
            self.weights[f"{top}s"] = ("Scale", [self.draw(width) for _ in range(
                2 if "bias_term: true" in self.scale else 1)])
        if relu:
            self.add(f'name: "{top}r" type: "ReLU" bottom: "{top}" top: "{top}"')
        return top

    def block(self, bottom, channels, width, stride, project):
        first, second = (stride, 1) if self.stride_in == "1x1" else (1, stride)
        top = self.unit(bottom, channels, width, 1, first)
        top = self.unit(top, width, width, 3, second)
        top = self.unit(top, width, 4 * width, 1, relu=False)
        if project:
            bottom = self.unit(bottom, channels, 4 * width, 1, stride, relu=False)
        self.add(f'name: "{top}e" type: "Eltwise" bottom: "{top}" bottom: "{bottom}" top: "{top}e"')
        self.add(f'name: "{top}o" type: "ReLU" bottom: "{top}e" top: "{top}o"')
        return f"{top}o"

    def write(self, folder):
        (folder / "net.prototxt").write_text(self.text)
        write_caffemodel(folder / "w.caffemodel", "classifier", self.weights)
        return folder / "net.prototxt", folder / "w.caffemodel"


def torch_state(deep=False, seed=0):
    """A state dict with torchvision's names, of a small ResNet with drawn weights."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def unit(conv, bn, out, channels, kernel):
        shape = (out, channels, kernel, kernel)
        state[f"{conv}.weight"] = torch.randn(shape, generator=generator) / kernel
        for name in ("weight", "bias", "running_mean"):
            state[f"{bn}.{name}"] = torch.randn(out, generator=generator)
        state[f"{bn}.running_var"] = torch.rand(out, generator=generator) + 0.5
        state[f"{bn}.num_batches_tracked"] = torch.tensor(7)

    stem = ((6, 3, 3), (6, 6, 3), (12, 6, 3)) if deep else ((12, 3, 7),)
    for k, (out, channels, kernel) in enumerate(stem):
        unit(f"conv{k + 1}", f"bn{k + 1}", out, channels, kernel)
    channels = 12
    for stage, (width, blocks) in enumerate(zip(WIDTHS, BLOCKS)):
        for k in range(blocks):
            name = f"layer{stage + 1}.{k}"
            unit(f"{name}.conv1", f"{name}.bn1", width, channels, 1)
            unit(f"{name}.conv2", f"{name}.bn2", width, width, 3)
            unit(f"{name}.conv3", f"{name}.bn3", 4 * width, width, 1)
            if k == 0:
                unit(f"{name}.downsample.0", f"{name}.downsample.1", 4 * width, channels, 1)
            channels = 4 * width
    state["fc.weight"], state["fc.bias"] = torch.zeros(5, channels), torch.zeros(5)
    return state
