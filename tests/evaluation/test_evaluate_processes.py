"""A test that several processes share."""


import numpy as np
import pytest
import torch
from helpers.networks import MODEL

from pspnet_repro import PSPNet, distributed
from pspnet_repro.data.images import png_bytes
from pspnet_repro.data.pairs import read_list
from pspnet_repro.evaluation import Protocol
from pspnet_repro.evaluation.evaluate import evaluate
from pspnet_repro.files import write_bytes

pytestmark = pytest.mark.dist


def _test_part(rank, data, folder):
    torch.manual_seed(0)
    net = PSPNet(**{**MODEL, "dropout": 0.0, "variance": "biased"}).eval()
    pairs = read_list(data / "train.txt")[:5]
    with distributed.join() as processes:
        # Batches of one: in larger ones images would meet others than in a single process.
        matrix = evaluate(net, pairs, classes=4, protocol=Protocol(71, 57), batch_size=1,
                          on_prediction=lambda number, pair, predicted: write_bytes(
                              folder / f"{number}.png", png_bytes(predicted)),
                          progress=False, processes=processes)
    return matrix.counts.tolist()


def test_evaluation_over_processes_gives_the_same_figures(two, squares, tmp_path):
    ranks = two.run(_test_part, squares, tmp_path / "two")
    wanted = _test_part(0, squares, tmp_path / "one")
    assert ranks == [wanted, wanted] and np.sum(wanted) == 5 * 72 * 72
    names = [sorted(p.name for p in (tmp_path / n).iterdir()) for n in ("two", "one")]
    assert names[0] == names[1] and len(names[0]) == 5
