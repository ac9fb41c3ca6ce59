"""Caffe's own order of sums, to the last bit."""
