"""The C library's float32 functions, whose last place is not always the correctly rounded one.

The original computes learning rates with them; numpy's and torch's differ now and then.
"""

import ctypes

_LIBRARY = ctypes.CDLL("libm.so.6")


def _float32(name, arguments):
    function = getattr(_LIBRARY, name)
    function.argtypes, function.restype = (ctypes.c_float,) * arguments, ctypes.c_float
    return function


powf = _float32("powf", 2)
expf = _float32("expf", 1)
