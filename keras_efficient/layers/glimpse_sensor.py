"""`GlimpseSensor`: a few small patches around a location, the only part of an image that is ever read."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_efficient.ops import context

Tensor = Any
Shape = Sequence[int | None]


@keras.saving.register_keras_serializable(package="keras_efficient")
class GlimpseSensor(keras.layers.Layer):
    """Square patches of growing width around a location, each brought to one size.

    With image height `H`, glimpse size `g`, scale factor `f` and location `l = (y, x)`, patch `k = 0, 1, ...` has

        width      w_k = g * f^k
        first row  r_k = clip(floor((y + 1) / 2 * H - w_k / 2 + 1 / 2), 0, H - w_k)

    and likewise its first column; it is average-pooled by `f^k` to `g x g`. Patches are concatenated along the
    channels, the finest first.

    **Locations** are in [-1, 1]: (-1, -1) is the upper left corner of the image, (1, 1) the lower right one, (0, 0) its
    centre, and pixel `i` of `H` lies at `(2 i + 1) / H - 1`. What is outside counts as the nearest edge, and a patch
    that would stick out is moved until it lies inside, each scale by itself. So only pixels in patches are read, at a
    cost that does not depend on the image's size. A patch wider than the image sees the image in the middle of zeros.

    A location that is not a number is refused in eager calls. Inside compiled functions and on a device, where nothing
    can be refused, it counts as the centre.

    No gradient flows through the layer. Images of whole numbers (uint8) are scaled by 1/255 behind the patches.

    >>> GlimpseSensor(8, num_scales=3)(images, locations).shape
    (32, 8, 8, 3)

    Args:
        size: Width and height `g` of a glimpse in pixels.
        num_scales: Number of patches.
        scale_factor: `f`, how much wider each patch is than the one before.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        images: `[B, H, W, C]`, floating point, or integers in [0, 255]; the same pixels as rows, `[B, H, W C]`, are
            taken by a layer that was built on `[B, H, W, C]`. In a file a patch of rows is copied line by line, a patch
            of single pixels takes several times as long.
        locations: `[B, 2]`, or `[B * M, 2]` for `M` glimpses of each image, those of one image in a row.

    Returns:
        `[B * M, g, g, num_scales * C]`.

    Reference: Mnih, Heess, Graves and Kavukcuoglu, "Recurrent Models of Visual Attention", NeurIPS 2014, section 3.1,
    where patches are padded instead of moved.
    """

    computes_in_float = True  # locations to a 256th would be pixels off in a large image

    def __init__(self, size: int, num_scales: int = 1, scale_factor: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = check_count("size", size)
        self.num_scales = check_count("num_scales", num_scales)
        self.scale_factor = check_count("scale_factor", scale_factor, 2)
        self.channels = 0

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each patch in pixels of the image."""
        return tuple(self.size * self.scale_factor**k for k in range(self.num_scales))

    def build(self, images_shape: Shape, locations_shape: Shape | None = None) -> None:
        check_images(images_shape)
        if locations_shape is not None and (len(locations_shape) != 2 or locations_shape[-1] != 2):
            raise ValueError(
                "Invalid shape for argument `locations`. Expected [batch, 2], each (y, x). "
                f"Received: {tuple(locations_shape)}"
            )
        self.channels = int(images_shape[-1] or 0)

    def call(self, images: Tensor, locations: Tensor) -> Tensor:
        _check_channels(images.shape, self.channels)
        images, locations = ops.stop_gradient(images), inside_image(locations)
        if images.shape[0] == 1 and locations.shape[0] == 1 and context.is_skipping():
            patches = _sliced(images, locations, self.widths, self.channels)
        else:
            patches = _gathered(as_pixels(images, self.channels), locations, self.widths)
        patches = [self.as_float(patch) for patch in patches]
        for k in range(1, self.num_scales):
            patches[k] = pooled(patches[k], self.scale_factor**k)
        return left_in_float(patches[0] if len(patches) == 1 else ops.concatenate(patches, axis=-1))

    def as_float(self, patch: Tensor) -> Tensor:
        """Pixels as the layer computes with them, whole numbers scaled by 1/255."""
        if "float" in keras.backend.standardize_dtype(patch.dtype):
            return ops.cast(patch, self.compute_dtype)
        return ops.cast(ops.cast(patch, "float32") * (1 / 255), self.compute_dtype)

    def compute_output_shape(self, images_shape: Shape, locations_shape: Shape) -> tuple[int | None, ...]:
        return (locations_shape[0], self.size, self.size, self.num_scales * int(images_shape[-1] or 0))

    def compute_output_spec(self, images: Any, locations: Any) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(images.shape, locations.shape), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "size": self.size,
            "num_scales": self.num_scales,
            "scale_factor": self.scale_factor,
        }


def pixels(locations: Any, image_shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Locations `[..., 2]` in [-1, 1] as pixels (row, column) of an image `(H, W, ...)`, whose first has centre 0."""
    array = np.asarray(locations, "float64")
    return (np.clip(array, -1, 1) + 1) / 2 * np.asarray(image_shape[:2], "float64") - 0.5


def inside_image(locations: Tensor) -> Tensor:
    """Float32 locations in [-1, 1], without a gradient, the centre where they are not a number.

    Raises:
        ValueError: Outside of compiled functions, if one is not a number.
    """
    _refuse_nan(locations)
    locations = ops.stop_gradient(ops.cast(locations, "float32"))
    return ops.clip(ops.where(locations == locations, locations, ops.zeros_like(locations)), -1.0, 1.0)


def _corners(locations: Tensor, sizes: NDArray[np.float32], widths: NDArray[np.float32]) -> Tensor:
    """Where patches of these widths begin in images of these sizes, int32; the arrays broadcast with the locations."""
    found = ops.floor((locations + 1.0) * (sizes / 2) + (0.5 - widths / 2))
    return ops.cast(ops.maximum(ops.minimum(found, sizes - widths), 0.0), "int32")


def _gathered(images: Tensor, locations: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """Patches `[N, width, width, C]` of a batch for each width; index `[n, i, j]` counts pixels of all images."""
    batch, count = ops.shape(images)[0], ops.shape(locations)[0]
    image = ops.arange(count, dtype="int32")[:, None] // (count // batch)
    patches = []
    for width in widths:
        padded = _at_least(images, width)
        height, length, channels = (int(size) for size in padded.shape[1:])
        corners = _corners(locations, np.array([height, length], "float32"), np.array([width], "float32"))
        span = ops.arange(width, dtype="int32")
        rows, columns = image * height + corners[:, :1] + span, corners[:, 1:] + span
        index = rows[:, :, None] * length + columns[:, None, :]
        patches.append(ops.take(ops.reshape(padded, (-1, channels)), index, axis=0))
    return patches


def _sliced(images: Tensor, locations: Tensor, widths: Sequence[int], channels: int) -> list[Tensor]:
    """The patches `[1, width, width, C]` of one image: one SLICE each in a file, which touches no other pixel.

    Where they all begin is computed at once, `[K, 4]` with zeros for batch and channels (`[K, 3]` for rows), since in a
    file each little operator costs about as much as cutting a patch.
    """
    rows = len(images.shape) == 3
    padded = [_at_least(images, width, channels) for width in widths]
    behind = [] if rows else [0]
    sizes = np.array([[0, *image_size(image.shape, channels), *behind] for image in padded], "float32")
    spans = np.array([[0, width, width, *behind] for width in widths], "float32")
    starts = _corners(ops.pad(locations, [[0, 0], [1, len(behind)]]), sizes, spans)
    if not rows:
        return [
            ops.slice(image, starts[k], (1, width, width, channels))
            for k, (image, width) in enumerate(zip(padded, widths, strict=True))
        ]
    if channels > 1:
        starts = starts * np.array([[1, 1, channels]], "int32")
    return [
        ops.reshape(ops.slice(image, starts[k], (1, width, width * channels)), (1, width, width, channels))
        for k, (image, width) in enumerate(zip(padded, widths, strict=True))
    ]


def as_pixels(images: Tensor, channels: int) -> Tensor:
    """`[N, H, W, C]` of images in that form, or in rows `[N, H, W C]`."""
    if len(images.shape) == 4:
        return images
    return ops.reshape(images, (-1, *image_size(images.shape, channels), channels))


def image_size(shape: Shape, channels: int) -> tuple[int, int]:
    """Height and width of images `[N, H, W, C]` or `[N, H, W C]`."""
    height, length = int(shape[1] or 0), int(shape[2] or 0)
    return height, length if len(shape) == 4 else length // channels


def _at_least(images: Tensor, width: int, channels: int | None = None) -> Tensor:
    """Images with zeros around where they are smaller than a patch."""
    channels = int(images.shape[-1]) if channels is None else channels
    missing = [max(width - size, 0) for size in image_size(images.shape, channels)]
    if not any(missing):
        return images
    (above, below), (left, right) = ((size // 2, size - size // 2) for size in missing)
    if len(images.shape) == 3:
        return ops.pad(images, [[0, 0], [above, below], [left * channels, right * channels]])
    return ops.pad(images, [[0, 0], [above, below], [left, right], [0, 0]])


def pooled(images: Tensor, factor: int) -> Tensor:
    """Means of squares of `factor x factor` pixels."""
    window = (factor, factor)  # as strides, too: without them Keras 3.15 fails on JAX
    return ops.average_pool(images, window, strides=window, data_format="channels_last")


def left_in_float(tensor: Tensor) -> Tensor:
    """The tensor; in int8 files the border at which 8 bits begin.

    Through slices and poolings the converter hands the 8 bits of whoever reads them back to what is sliced, and would
    quantise the whole image to look at a patch of it. No scale passes a product, and the next number after 1 is the
    factor that it does not fold away.
    """
    return tensor * (1.0 + 2.0**-23) if context.is_skipping() else tensor


def _refuse_nan(locations: Tensor) -> None:
    try:
        values = ops.convert_to_numpy(locations)
    except Exception:  # being traced: there are no values yet, and each backend says so in an error of its own
        return
    if (values != values).any():
        raise ValueError("Invalid value for argument `locations`. Expected numbers in [-1, 1]. Received: NaN")


def _check_channels(shape: Shape, channels: int) -> None:
    in_rows = len(shape) == 3 and shape[2] is not None and int(shape[2]) % channels == 0
    if not in_rows and (len(shape) != 4 or shape[-1] != channels):
        raise ValueError(
            f"Invalid shape for argument `images`. Expected [batch, height, width, {channels}], or rows "
            f"[batch, height, width * {channels}]. Received: {tuple(shape)}"
        )


def check_images(shape: Shape) -> None:
    """Raises a `ValueError` of one sentence unless `shape` is that of images of a known size."""
    if len(shape) != 4 or any(size is None for size in shape[1:]):
        raise ValueError(
            "Invalid shape for argument `images`. Expected [batch, height, width, channels] with known height, width "
            f"and channels. Received: {tuple(shape)}"
        )


def check_count(name: str, value: Any, lowest: int = 1) -> int:
    """`value` as an integer of at least `lowest`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected an integer of at least {lowest}. Received: {value!r}"
        )
    return value
