"""The CUDA kernels of a training step that have the bits of our operators on the CPU."""

import pytest
import torch
from helpers.cuda_kernels import DEVICES, kernels_of, same

CPU = torch.ops.pspnet


@pytest.fixture(scope="module", params=DEVICES)
def kernels(request):
    return kernels_of(request.param)


@pytest.mark.parametrize("dtype", [torch.float, torch.double], ids=str)
@pytest.mark.parametrize("counts", [None, [3, 0, 8]], ids=str)
def test_batch_norm_combine_kernel_has_the_bits_of_the_cpu(kernels, counts, dtype):
    generator = torch.Generator().manual_seed(0)
    gathered = torch.rand(len(counts or [0]), 601, generator=generator, dtype=torch.double)
    gathered = gathered if counts else gathered.to(dtype)
    elements = torch.tensor(counts).double() if counts else None
    means, sqdevs = gathered[:, 1:].split(300, 1)
    running = list(torch.rand(2, 300, generator=generator, dtype=dtype))
    arguments = (means, sqdevs, elements, 9, 1e-5, False, True, 0.1)
    actual = kernels.change("batch_norm_combine", arguments, running)
    wanted = [*CPU.batch_norm_combine(*arguments, *running), *running]
    for one, other in zip(actual, wanted, strict=True):
        assert same(one, other)


@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "shifted"])
@pytest.mark.parametrize("dtype", [torch.float, torch.double], ids=str)
def test_caffe_sgd_kernel_has_the_bits_of_the_cpu(kernels, dtype, offset):
    """More tensors than a launch takes, and larger ones than a block."""
    generator = torch.Generator().manual_seed(0)
    sizes = [*range(70), 4096, 9999]

    def tensors():
        return [torch.rand(size + offset, generator=generator, dtype=dtype)[offset:]
                for size in sizes]

    arguments, numbers = [tensors() for _ in range(3)], (0.5, 0.01, 0.9, 0.1)
    if offset == 0:
        arguments[1][-1] = torch.rand(2 * 9999, generator=generator, dtype=dtype)[::2]
    params, buffers = kernels.step("caffe_sgd", *arguments, numbers)
    CPU.caffe_sgd(*arguments, *numbers)
    for one, other in zip([*params, *buffers], [*arguments[0], *arguments[2]], strict=True):
        assert torch.equal(one, other)
