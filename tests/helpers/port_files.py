"""Files of the ports: seeded weights of the golden files, as their programs name and save them."""

import json

import numpy as np
import torch


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
