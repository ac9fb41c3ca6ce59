"""Testing as the authors' scripts do it."""

from pspnet_repro.evaluation.imresize import imresize
from pspnet_repro.evaluation.metrics import ConfusionMatrix
from pspnet_repro.evaluation.sliding import predict_probabilities

__all__ = ["ConfusionMatrix", "imresize", "predict_probabilities"]
