"""The passes that every imported graph goes through, one idea a file.

``run_import_passes`` is the whole sequence. Each pass changes the model in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_ir.passes import common

from .check_finite import check_finite
from .check_shapes import check_shapes
from .drop_expand import drop_expand
from .dynamic_batch import BATCH, make_batch_dynamic
from .exact_nearest import make_nearest_exact
from .explicit_padding import make_padding_explicit
from .fold_batch_norm import fold_batch_norm
from .fold_batch_shapes import fold_batch_shapes
from .fold_constants import fold_constants
from .gemm_from_matmul import gemm_from_matmul
from .infer_shapes import infer_shapes
from .keep_batch import keep_batch
from .known_sizes import know_sizes
from .own_outputs import own_outputs
from .pixels_from_pools import pixels_from_pools
from .pool_windows import count_pool_windows
from .remove_dropout import remove_dropout
from .rows_as_images import rows_as_images
from .simplify import simplify
from .space_to_depth import space_to_depth
from .volumes_as_images import volumes_as_images

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "check_finite",
    "check_shapes",
    "count_pool_windows",
    "drop_expand",
    "fold_batch_norm",
    "fold_batch_shapes",
    "fold_constants",
    "gemm_from_matmul",
    "infer_shapes",
    "keep_batch",
    "know_sizes",
    "make_batch_dynamic",
    "make_nearest_exact",
    "make_padding_explicit",
    "own_outputs",
    "pixels_from_pools",
    "remove_dropout",
    "rows_as_images",
    "run_import_passes",
    "simplify",
    "space_to_depth",
    "volumes_as_images",
]


def run_import_passes(model: ir.Model, source: str, input_shape: tuple[int, ...] | None) -> None:
    """Turns an imported model into the graph of a hub, in place.

    ``source`` names the model in error messages; ``input_shape`` is [C, H, W] or None for the model's own. Raises
    ``UserError`` for values that are not finite, for a batch or an input that cannot be made to fit, and for nodes that
    do not fit together.
    """
    common.InlinePass()(model)
    common.RemoveInitializersFromInputsPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveUnusedNodesPass()(model)
    check_finite(model, source)
    sizes = make_batch_dynamic(model, source, input_shape)
    common.IdentityEliminationPass()(model)
    remove_dropout(model)
    make_padding_explicit(model)
    pixels_from_pools(model)
    count_pool_windows(model)
    fold_batch_norm(model)
    gemm_from_matmul(model)
    simplify(model)
    infer_shapes(model)
    drop_expand(model)
    space_to_depth(model)
    volumes_as_images(model)
    rows_as_images(model)
    common.NameFixPass()(model)
    infer_shapes(model)
    keep_batch(model)
    common.RemoveUnusedNodesPass()(model)
    know_sizes(model, [BATCH, *sizes])
    make_nearest_exact(model)
    own_outputs(model)
    check_shapes(model, source)
    check_finite(model, source)
