"""The network: its modules, its fused copy, its names in Caffe's files."""
