"""How much memory a test may need: refused before any work, by the name of the setting."""

from pspnet_repro.evaluation.protocol import Protocol
from pspnet_repro.model.settings import EXPANSION, BackboneSettings
from pspnet_repro.words import gib

MAX_BYTES = 2 ** 32  # of the maps of a window and its mirror image, and of a canvas
MAX_IMAGE_BYTES = 2 ** 30  # of a resized photograph


def window_bytes(settings: BackboneSettings, side: int) -> int:
    """Bytes of a window of `side` x `side` pixels and its mirror image, in float32, beside what the
    network's largest layer reads and writes."""
    floats, stride = [3.0, 3 * settings.stem_width / 4], 4  # a pixel, layer by layer
    for width, step in zip(settings.widths, settings.strides):
        stride *= step
        floats.append((2 * EXPANSION + 1) * width / stride ** 2)
    return round(2 * side ** 2 * 4 * (3 + max(floats)))


def wrong_sizes(settings: BackboneSettings, protocol: Protocol) -> dict[str, str]:
    """{"crop_size" or "base_size": what is wrong with it} of a test that needs too much memory.

    Photographs are taken to be squares, which need most.
    """
    wrong = {}
    longest = max(protocol.scaled_size(1, 1, scale)[0] for scale in protocol.scales)
    needs = window_bytes(settings, longest if protocol.whole_image else protocol.crop_size)
    if needs > MAX_BYTES:
        name = "base_size" if protocol.whole_image else "crop_size"
        wrong[name] = f"one window needs {gib(needs)} of maps, and at most {gib(MAX_BYTES)} may be"
    canvas, image = 4 * settings.classes * longest ** 2, 3 * longest ** 2
    if canvas > MAX_BYTES or image > MAX_IMAGE_BYTES:
        needs, limit = ((canvas, MAX_BYTES) if canvas > MAX_BYTES else (image, MAX_IMAGE_BYTES))
        wrong["base_size"] = (f"a square photograph of {longest} pixels a side and "
                              f"{settings.classes} classes needs {gib(needs)}, and at most "
                              f"{gib(limit)} may be")
    return wrong
