"""PSPNet as its authors' program computes, trains and tests it."""

from pspnet_repro.pspnet import PSPNet

__all__ = ["PSPNet"]
