"""Trainings on a GPU are channels last: another layout, the same steps and files."""

import pytest
import torch
from helpers.networks import MODEL
from helpers.trainings import train_settings

from pspnet_repro import PSPNet
from pspnet_repro.training.loop import average_backward
from pspnet_repro.training.solver import CaffeSGD, parameter_groups
from pspnet_repro.weights import model_file, plain_file


@pytest.mark.parametrize("head", ["factorized", "literal"])
def test_channels_last_takes_the_same_steps(squares, tmp_path, head):
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = PSPNet(**{**MODEL, "dropout": 0.0, "head": head}).double().train()
        model.to(memory_format=memory_format)
        solver = CaffeSGD(parameter_groups(model), 0.01)
        generator = torch.Generator().manual_seed(1)
        for _ in range(2):
            images = torch.randn((2, 3, 57, 57), generator=generator, dtype=torch.float64) * 60
            labels = torch.randint(0, 4, (2, 57, 57), generator=generator)
            average_backward(model, solver, [(images.contiguous(memory_format=memory_format),
                                              labels)], train_settings(squares))
            solver.step()
        model_file.save_model(tmp_path / "weights.pt", model.float())
        results.append(plain_file.load(tmp_path / "weights.pt")["weights"])
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, rtol=1e-6, atol=1e-7, msg=name)
