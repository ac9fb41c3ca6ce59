"""Split layers of a written net, by Caffe's rules for names and loss weights."""

from google.protobuf import text_format

from prototxt_import.format.caffe_pb2 import NetParameter
from prototxt_import.splits import with_splits

NET = """
input: "x" input: "t"
layer { name: "a" type: "ReLU" bottom: "x" top: "a" }
layer { name: "b" type: "Eltwise" bottom: "x" bottom: "a" top: "b" }
layer { name: "b/relu" type: "ReLU" bottom: "b" top: "b" }
layer { name: "l" type: "Power" bottom: "b" top: "l" loss_weight: 2 }
layer { name: "s" type: "Slice" bottom: "l" top: "p" top: "q" }
layer { name: "c" type: "Concat" bottom: "q" bottom: "b" bottom: "q" bottom: "x" top: "c" }
"""
SPLIT = """
layer { name: "x_input_0_split" type: "Split" bottom: "x" top: "x_input_0_split_0"
        top: "x_input_0_split_1" top: "x_input_0_split_2" }
layer { name: "a" type: "ReLU" bottom: "x_input_0_split_0" top: "a" }
layer { name: "b" type: "Eltwise" bottom: "x_input_0_split_1" bottom: "a" top: "b" }
layer { name: "b/relu" type: "ReLU" bottom: "b" top: "b" }
layer { name: "b_b/relu_0_split" type: "Split" bottom: "b" top: "b_b/relu_0_split_0"
        top: "b_b/relu_0_split_1" }
layer { name: "l" type: "Power" bottom: "b_b/relu_0_split_0" top: "l" }
layer { name: "l_l_0_split" type: "Split" bottom: "l" top: "l_l_0_split_0" top: "l_l_0_split_1"
        loss_weight: 2 loss_weight: 0 }
layer { name: "s" type: "Slice" bottom: "l_l_0_split_1" top: "p" top: "q" }
layer { name: "q_s_1_split" type: "Split" bottom: "q" top: "q_s_1_split_0" top: "q_s_1_split_1" }
layer { name: "c" type: "Concat" bottom: "q_s_1_split_0" bottom: "b_b/relu_0_split_1"
        bottom: "q_s_1_split_1" bottom: "x_input_0_split_2" top: "c" }
"""


def test_blobs_that_several_read_are_split():
    net, wanted = (text_format.Parse(text, NetParameter()) for text in (NET, SPLIT))
    assert with_splits(net.input, net.layer) == list(wanted.layer)
