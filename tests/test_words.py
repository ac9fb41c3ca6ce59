"""English for messages."""

from pspnet_repro.words import counted


def test_numbers_come_with_the_right_words():
    assert [counted(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert counted(3, "class") == "3 classes" and counted(1, "class") == "1 class"
    assert counted(1, "image is", "images are") == "1 image is"
    assert counted(2, "image is", "images are") == "2 images are"
