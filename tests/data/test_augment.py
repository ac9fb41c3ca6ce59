"""Training augmentation: where each pixel and its label go."""

import cv2
import numpy as np
import pytest

from pspnet_repro.data.augment import NO_AUGMENTATION, Augmentation, augment
from pspnet_repro.data.conventions import MEAN_BGR

OFF = {"scales": None, "rotation": 0.0, "blur": False, "mirror": False}


class Draws:
    """Stands for the generator: numbers in the order in which `augment` uses them."""

    def __init__(self, scale=0.5, turn=0.9, angle=0.5, blur=0.9, mirror=0.9, top=0.0, left=0.0):
        self.numbers = scale, turn, angle, blur, mirror, top, left

    def random(self, count):
        assert count == len(self.numbers)
        return np.array(self.numbers)


def _patches(side):
    """A label map of 4x4 patches of the values 0, 3 and 9, and an image of 20 times the label."""
    label = np.random.default_rng(0).choice(np.array([0, 3, 9], np.uint8), (4, 4))
    label = np.kron(label, np.ones((side // 4, side // 4), np.uint8))
    return np.repeat(20 * label[:, :, None], 3, 2), label


def _inside(label):
    """Where the 5x5 pixels around one have one label."""
    square, wide = np.ones((5, 5), np.uint8), np.pad(label, 1, constant_values=254)
    return (cv2.erode(wide, square) == cv2.dilate(wide, square))[1:-1, 1:-1]


def _check_agreement(crop, label):
    """No label is blended, and inside patches the image shows what the label says."""
    assert set(np.unique(label)) <= {0, 3, 9, 255}
    inside = _inside(label)
    assert inside[label != 255].mean() > 0.3
    colours = np.where(label[..., None] == 255, MEAN_BGR, 20.0 * label[..., None]) - MEAN_BGR
    np.testing.assert_allclose(crop.transpose(1, 2, 0)[inside], colours[inside], atol=1e-3)


def test_no_augmentation_is_a_crop():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (50, 70, 3), np.uint8)
    label = rng.integers(0, 4, (50, 70), np.uint8)
    crop, crop_label = augment(image, label, 33, NO_AUGMENTATION, rng)
    places = [(y, x) for y in range(18) for x in range(38)
              if np.array_equal(label[y:y + 33, x:x + 33], crop_label)]
    assert len(places) == 1
    y, x = places[0]
    assert np.array_equal(crop.transpose(1, 2, 0),
                          image[y:y + 33, x:x + 33].astype(np.float32) - MEAN_BGR)


@pytest.mark.parametrize("padding, mirror, top, left", [
    ("end", 0.9, 0, 0), ("end", 0.1, 0, 2), ("centre", 0.9, 2, 1), ("centre", 0.1, 2, 1)])
def test_small_images_are_padded_with_mean_and_255(padding, mirror, top, left):
    """Right and bottom, or on all sides; a mirrored crop has its padding mirrored."""
    only = Augmentation(**OFF | {"mirror": True, "padding": padding})
    image = np.arange(35, dtype=np.uint8).reshape(5, 7)
    crop, label = augment(np.repeat(image[:, :, None], 3, 2), image, 9, only,
                          Draws(mirror=mirror, top=0.99, left=0.99))
    wanted = np.full((9, 9), 255)
    wanted[top:top + 5, left:left + 7] = image[:, ::-1] if mirror < 0.5 else image
    assert np.array_equal(label, wanted)
    assert not crop[:, label == 255].any()
    assert np.array_equal(crop[0][label != 255] + MEAN_BGR[0], label[label != 255])


def test_padding_is_one_of_two():
    with pytest.raises(ValueError, match="padding must be one of end, centre, got 'left'"):
        Augmentation(padding="left")


def test_a_crop_is_taken_before_it_is_mirrored():
    image = np.arange(20 * 12, dtype=np.uint8).reshape(12, 20)
    _, label = augment(np.repeat(image[:, :, None], 3, 2), image, 9,
                       Augmentation(**OFF | {"mirror": True}), Draws(mirror=0.1, top=0.5, left=0.3))
    assert np.array_equal(label, image[2:11, 3:12][:, ::-1])


@pytest.mark.parametrize("draw", [0.0, 0.1234, 0.36, 0.77, 0.9999])
def test_resize_samples_at_steps_of_one_over_the_factor(draw):
    """However the size rounds: OpenCV's rule for fx and fy, nearest and bilinear."""
    factor = 0.5 + 1.5 * draw
    label = np.random.default_rng(1).integers(0, 200, (37, 53), np.uint8)
    crop, got = augment(np.repeat(label[:, :, None], 3, 2), label, 121,
                        Augmentation(**OFF | {"scales": (0.5, 2.0)}), Draws(scale=draw))
    sizes = [round(side * factor) for side in label.shape]
    rows, columns = (np.floor(np.arange(size) * (1 / factor)).clip(max=side - 1).astype(int)
                     for size, side in zip(sizes, label.shape))
    assert np.array_equal(got[:sizes[0], :sizes[1]], label[np.ix_(rows, columns)])
    assert (got[sizes[0]:] == 255).all() and (got[:, sizes[1]:] == 255).all()
    (y0, y1, wy), (x0, x1, wx) = (_linear(size, side, factor)
                                  for size, side in zip(sizes, label.shape))
    values = label.astype(np.float64)
    rows = (1 - wy)[:, None] * values[y0] + wy[:, None] * values[y1]
    wanted = (1 - wx) * rows[:, x0] + wx * rows[:, x1]
    np.testing.assert_allclose(crop[0, :sizes[0], :sizes[1]] + MEAN_BGR[0], wanted, atol=2e-3)


def _linear(size, side, factor):
    """Source pixels and weight of the second of a bilinear resize with half-pixel centres."""
    at = ((np.arange(size) + 0.5) / factor - 0.5).clip(0, side - 1)
    first = np.floor(at).astype(int)
    return first, np.minimum(first + 1, side - 1), at - first


def test_one_pixel_can_be_halved():
    _, label = augment(np.full((1, 4, 3), 7, np.uint8), np.full((1, 4), 7, np.uint8), 9,
                       Augmentation(**OFF | {"scales": (0.4, 0.4)}), Draws())
    assert (label[0, :2] == 7).all() and (label != 255).sum() == 2


def test_mirror_turns_image_and_label_together():
    image = np.arange(9 * 9, dtype=np.uint8).reshape(9, 9)
    settings = Augmentation(scales=None, rotation=0, blur=False, mirror=True)
    seen = set()
    for seed in range(20):
        crop, label = augment(np.repeat(image[:, :, None], 3, 2), image, 9, settings,
                              np.random.default_rng(seed))
        assert np.array_equal(crop[0] + MEAN_BGR[0], label.astype(np.float32))
        seen.add(label[0, 0].item())
    assert seen == {0, 8}


@pytest.mark.parametrize("draw, factor", [(0.0, 0.5), (0.5, 1.25), (0.999999, 2.0)])
def test_resize_covers_its_range_and_blends_no_labels(draw, factor):
    image, label = _patches(96)
    crop, label = augment(image[:80], label[:80], 201, Augmentation(**OFF | {"scales": (0.5, 2.0)}),
                          Draws(scale=draw))
    rows, columns = np.nonzero(label != 255)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (80 * factor, 96 * factor)
    _check_agreement(crop, label)


@pytest.mark.parametrize("angle, degrees", [(0.0, -10.0), (0.25, -5.0), (1.0, 10.0)])
def test_rotation_turns_image_and_label_about_the_centre(angle, degrees):
    only = Augmentation(**OFF | {"rotation": 10.0})
    image, label = _patches(96)
    crop, label = augment(image, label, 96, only, Draws(turn=0.49, angle=angle))
    assert (label == 255).sum() > 100 * abs(degrees) / 5
    _check_agreement(crop, label)
    # A line through the centre: counterclockwise angles raise its right end, against the rows.
    line = np.zeros((121, 121), np.uint8)
    line[59:62] = 1
    _, line = augment(np.zeros((121, 121, 3), np.uint8), line, 121, only,
                      Draws(turn=0.49, angle=angle))
    rows, columns = np.nonzero(line == 1)
    slope, offset = np.polyfit(columns - 60.0, rows - 60.0, 1)
    assert np.degrees(np.arctan(-slope)) == pytest.approx(degrees, abs=0.3)
    assert abs(offset) < 0.7


def test_blur_is_a_gaussian_of_5_pixels_after_the_rotation():
    only = Augmentation(**OFF | {"blur": True})
    image = np.zeros((11, 11, 3), np.uint8)
    image[5, 5] = 200
    crop, _ = augment(image, np.zeros((11, 11), np.uint8), 11, only, Draws(blur=0.49))
    taps = np.array([1, 4, 6, 4, 1]) / 16  # OpenCV's own for 5 pixels
    wanted = np.zeros((11, 11))
    wanted[3:8, 3:8] = 200 * np.outer(taps, taps)
    np.testing.assert_allclose(crop[0] + MEAN_BGR[0], wanted, atol=1e-3)
    # It reaches two pixels beyond the rotated image's edge, where the rotation leaves the mean.
    both = Augmentation(**OFF | {"rotation": 10.0, "blur": True})
    crop, label = augment(np.zeros((60, 60, 3), np.uint8), np.zeros((60, 60), np.uint8), 60, both,
                          Draws(turn=0.0, angle=1.0, blur=0.49))
    beyond = cv2.dilate((label == 0).astype(np.uint8), np.ones((3, 3), np.uint8)) == 0
    assert (np.abs(crop[0][beyond]) > 1).sum() > 10


@pytest.mark.parametrize("field, value", [("rotation", 10.0), ("blur", True), ("mirror", True)])
def test_each_kind_happens_to_half_of_the_images(field, value):
    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    label = np.zeros((60, 60), np.uint8)
    some = Augmentation(**OFF | {field: value})
    changed = sum(not np.array_equal(
        augment(image, label, 60, some, np.random.default_rng(s))[0],
        augment(image, label, 60, NO_AUGMENTATION, np.random.default_rng(s))[0])
        for s in range(200))
    assert 70 <= changed <= 130  # half of 200, within four deviations


def _whole(image, label, crop_size, augmentation, rng):
    """The crop of an image that was resized, turned and blurred as a whole."""
    scale, turn, angle, blur, mirror, top, left = rng.random(7)
    factor = 0.5 + 1.5 * scale
    image = cv2.resize(image.astype(np.float32), None, fx=factor, fy=factor)
    label = cv2.resize(label, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    h, w = label.shape
    if turn < 0.5:
        matrix = cv2.getRotationMatrix2D((w / 2, h / 2),
                                         (2 * angle - 1) * augmentation.rotation, 1.0)
        image = cv2.warpAffine(image, matrix, (w, h), borderValue=MEAN_BGR.tolist())
        label = cv2.warpAffine(label, matrix, (w, h), flags=cv2.INTER_NEAREST, borderValue=255)
    if blur < 0.5:
        image = cv2.GaussianBlur(image, (5, 5), 0)
    below, right = max(crop_size - h, 0), max(crop_size - w, 0)
    image = np.pad(image - MEAN_BGR, ((0, below), (0, right), (0, 0)))
    label = np.pad(label, ((0, below), (0, right)), constant_values=255)
    y, x = int(top * (max(h - crop_size, 0) + 1)), int(left * (max(w - crop_size, 0) + 1))
    crop = (slice(y, y + crop_size), slice(x, x + crop_size))
    step = -1 if mirror < 0.5 else 1
    return image[crop][:, ::step].transpose(2, 0, 1), label[crop][:, ::step]


@pytest.mark.skipif(cv2.__version__ < "5", reason="OpenCV 4 places turned pixels by 32nds of one")
@pytest.mark.parametrize("size, rotation", [((128, 170), 10.0), ((90, 200), 90.0), ((3, 150), 10.0),
                                            ((200, 41), 10.0)])
def test_a_crop_is_that_of_the_whole_image(size, rotation):
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (size[0] // 3 + 1, size[1] // 3 + 1, 3), np.uint8),
                       size[::-1])
    label = rng.integers(0, 150, size, np.uint8)
    for seed in range(24):
        crops, wanted = (make(image, label, 89, Augmentation(rotation=rotation),
                              np.random.default_rng(seed)) for make in (augment, _whole))
        # Grey levels: OpenCV rounds the last few columns of a whole image in another order.
        np.testing.assert_allclose(crops[0], wanted[0], rtol=0, atol=0.01)
        assert np.array_equal(crops[1], wanted[1])
