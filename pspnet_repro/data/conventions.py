"""What every part that reads data agrees on."""

import numpy as np

IGNORE_INDEX = 255  # the label of pixels that count neither in training nor in a test
MEAN_BGR = np.array([103.939, 116.779, 123.68], np.float32)
