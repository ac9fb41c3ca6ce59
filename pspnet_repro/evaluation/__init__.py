"""Testing as the authors' scripts do it."""

from pspnet_repro.evaluation.imresize import imresize
from pspnet_repro.evaluation.metrics import ConfusionMatrix
from pspnet_repro.evaluation.protocol import MULTI_SCALE, PRESETS, Protocol, preset
from pspnet_repro.evaluation.sliding import predict_probabilities, predict_stream

__all__ = ["MULTI_SCALE", "PRESETS", "ConfusionMatrix", "Protocol", "imresize",
           "predict_probabilities", "predict_stream", "preset"]
