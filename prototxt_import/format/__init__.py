"""Caffe's files: prototxts and caffemodels, read and written."""
