"""Prototxts of a small network and its solver, for the tests of systems."""

DATA = """layer { name: "data" type: "Python" top: "data" top: "label"
  python_param { module: "any" layer: "Any" } }
"""
CONV = """layer { name: "conv1_1" type: "Convolution" bottom: "data" top: "conv1_1"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
"""
SCORE = """layer { name: "score" type: "Convolution" bottom: "conv1_1" top: "score"
  convolution_param { num_output: 12 kernel_size: 1 weight_filler { type: "xavier" } } }
"""
LOSS = """layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss"
  loss_param { ignore_label: 0 } }
"""
ACCURACY = """layer { name: "acc" type: "AnothersAccuracy" bottom: "score" bottom: "label"
  top: "acc" }
"""
NET = DATA + CONV + SCORE + LOSS + ACCURACY
SOLVER = """net: "elsewhere.prototxt" base_lr: 1e-4 lr_policy: "fixed" max_iter: 9 momentum: 0.9
snapshot_prefix: "there" type: "Adam" solver_mode: GPU
"""
