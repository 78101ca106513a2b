"""Low-rank pairs of convolutions: shapes of the Kronecker structure with F2 = C1 = 1.

LRDKT (Lin, Ji, Chen, Tao, Luo, *Holistic CNN Compression via Low-Rank Decomposition with Knowledge Transfer*, TPAMI
2019) turns a convolution into two, kh x 1 to K channels and 1 x kw to the outputs, by one SVD of the kernel rearranged
to (C kh) x (F kw); and a fully connected layer into two. The channel SVD keeps the whole window in the first of two
convolutions, kh x kw and 1x1 (Zhang, Zou, He, Sun, *Accelerating Very Deep Convolutional Networks*, TPAMI 2016). Fitted
to calibration data, the channel SVD has the least error of the outputs that any structure of its rank can have.
"""

from __future__ import annotations

from collections.abc import Iterator

from .kronecker import KroneckerShape
from .structure import KernelShape


def vertical_horizontal(kernel_shape: KernelShape, groups: int = 1) -> Iterator[KroneckerShape]:
    """Columns kh x 1 into K channels, then 1 x kw; for a kernel without a window the two factors of its matrix."""
    f, c, h, w = kernel_shape
    shape = KroneckerShape((f // groups, 1), (1, c), (1, h), (w, 1), groups)
    if shape.max_rank > 1:
        yield shape


def channel(kernel_shape: KernelShape, groups: int = 1) -> Iterator[KroneckerShape]:
    """Windows kh x kw into K channels, then 1x1."""
    f, c, h, w = kernel_shape
    shape = KroneckerShape((f // groups, 1), (1, c), (1, h), (1, w), groups)
    if shape.max_rank > 1:
        yield shape
