"""Data sets as list files, augmentation, the drawn scenes."""
