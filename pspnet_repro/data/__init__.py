"""Data sets as list files, augmentation, the embedded scenes."""
