"""Systems of other papers as Caffe's networks: their prototxts, and how the harness trains any."""
