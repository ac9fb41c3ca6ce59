"""The switches of torch that round float32 to TF32."""

import torch


def switches():
    cudnn = torch.backends.cudnn
    return [torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision,
            cudnn.rnn.fp32_precision]
