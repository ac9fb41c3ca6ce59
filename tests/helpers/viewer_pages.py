"""Pictures for tests of the viewer page."""

import numpy as np

from pspnet_repro.data.classes import known_classes
from pspnet_repro.evaluation.viewer import ViewerImage, write_viewer

NETWORKS = ["PSPNet50", "FCN"]
CLASSES = known_classes("camvid")
SIZE = (40, 64)
HOSTILE = ("</script><script>document.title='broken'</script>",
           "\" onload=\"document.title='broken'",
           "<!-- items -->&lt;'`", "line\nbreak\x00\x1b[31m", "a\u202egpj.exe", "\udcff.png",
           "a" * 300, "שלום.jpg", "<img src=http://example.org/x>")


def quarters(*labels):
    """Four labels: above left, above right, below left, below right."""
    rows, columns = SIZE[0] // 2, SIZE[1] // 2
    return np.kron(np.reshape(labels, (2, 2)), np.ones((rows, columns))).astype(np.uint8)


def viewer_image(name="street.jpg", **changes):
    fields = dict(image_rgb=np.full((*SIZE, 3), (10, 200, 90), np.uint8),
                  predictions={"PSPNet50": quarters(0, 1, 2, 3), "FCN": quarters(0, 1, 4, 8)},
                  truth=quarters(0, 1, 2, 255),
                  confidence={"PSPNet50": np.full(SIZE, 0.873), "FCN": np.full(SIZE, 0.5)},
                  iou={"PSPNet50": {"sky": 0.9126, "pole": float("nan")}})
    return ViewerImage(name, **(fields | changes))


def write_page(path, *images, **changes):
    arguments = dict(title="Streets", classes=CLASSES, networks=NETWORKS) | changes
    return write_viewer(path, images=images, **arguments)
