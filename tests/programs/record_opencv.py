"""Records the blobs of whole networks with OpenCV 4's Caffe reader (OpenCV 5 has none).

    python -m venv CV && CV/bin/pip install "opencv-python-headless<5"
    PYTHONPATH=tests python -m helpers.opencv_nets FOLDER
    CV/bin/python tests/programs/record_opencv.py FOLDER tests/golden/opencv

The second command writes networks, weights and inputs. The third writes NAME.npz for each, with
entries as `pspnet run --compare` reads them. Layers compute one by one, without Winograd's
convolution. OpenCV knows a few layers by other names and computes the same: see _translate.
"""

import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np

SAMPLES = 100  # of a blob


def _translate(text):
    """Maxima go back to their places in MaxUnpool, whose windows are 2 x 2 in these networks; a BN
    that only scales and shifts is a Scale; OpenCV's Axpy multiplies the third bottom, Caffe's the
    second."""
    window = " ".join(f"pool_{name}_{way}: {value}" for name, value in
                      (("k", 2), ("stride", 2), ("pad", 0)) for way in "hw")
    text = re.sub(r'type: "(?:Upsample|Unpooling)"(.*?)(?:upsample|unpooling)_param \{.*?\}',
                  rf'type: "MaxUnpool"\1max_unpool_param {{ {window} }}', text)
    text = re.sub(r'(type: "Axpy" bottom: "\S+" bottom: )("\S+") bottom: ("\S+")',
                  r"\1\3 bottom: \2", text)
    text = text.replace('"DepthwiseConvolution"', '"Convolution"')
    text = re.sub(r'type: "ReLU"(.*) relu_param \{ relu6: true \}', r'type: "ReLU6"\1', text)
    text = re.sub(r'type: "ResizeBilinear"(.*) resize_\w+ \{.*height: (\d+).*width: (\d+).*?\}',
                  r'type: "Interp"\1 interp_param { height: \2 width: \3 }', text)
    # Fields that OpenCV's schema of a message lacks are read in a message that it lacks.
    text = re.sub(r"\w+_param (\{.*pad_l.*\})", lambda match: "sided_param " + match[1].replace(
        "false", "0").replace("AVE_EXC_PAD", "AVE ave_pool_padded_area: 0"), text)
    return re.sub(r'type: "BN"(.*) bn_param .*bn_mode: INFERENCE \}',
                  r'type: "Scale"\1 scale_param { bias_term: true }', text)


def record(stem):
    """{entry: array} of a network."""
    text = _translate(stem.with_suffix(".prototxt").read_text()).encode()
    net = cv2.dnn.readNetFromCaffe(np.frombuffer(text, np.uint8),
                                   np.fromfile(stem.with_suffix(".caffemodel"), np.uint8))
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.enableWinograd(False)
    net.enableFusion(False)
    arrays = {}
    for blob, layer in json.loads(stem.with_suffix(".json").read_text()).items():
        # Anew for each: a later layer may work in place.
        net.setInput(np.load(stem.with_suffix(".npy")), "data")
        values = net.forward(layer).reshape(-1)
        places = np.linspace(0, values.size - 1, min(SAMPLES, values.size)).astype(np.int64)
        arrays[f"sample/{blob}"] = values[places]
        arrays[f"mean_abs/{blob}"] = np.float32(np.abs(values).mean(dtype=np.float64))
    return arrays


def main(folder, target):
    for path in sorted(folder.glob("*.prototxt")):
        np.savez_compressed(target / f"{path.stem}.npz", origin=f"OpenCV {cv2.__version__}",
                            **record(path.with_suffix("")))
        print(path.stem)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
