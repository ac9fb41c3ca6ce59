"""What every part that reads data agrees on."""

import numpy as np

from pspnet_repro.model import settings

IGNORE_INDEX = 255  # the label of pixels that count neither in training nor in a test
MEAN_BGR = np.array(settings.MEAN_BGR, np.float32)
