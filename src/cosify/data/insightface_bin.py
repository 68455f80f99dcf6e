"""Read the `.bin` files of insightface (lfw.bin, agedb_30.bin, cfp_fp.bin), which are pickles, without running them."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosify.data.encoded_pairs import EncodedPairs
from cosify.errors import InputError
from cosify.integrations import compat

_DTYPES = ("u1", "uint8", "b1", "bool", "i8", "i4", "int64", "int32")
_ARRAY_CLASS = object()  # stands for numpy.ndarray, which a pickle only passes on, and must not call


def read_insightface_bin(file: Path | str) -> EncodedPairs:
    """Return the pairs in a `.bin` file.

    The file is a pickle of two lists, of encoded pictures and of flags.  A pickle may name any function to be called;
    here it gets those that make arrays of bytes, each checked, and anything else is an error.

    Args:
        file: as insightface's data sets hold it, of Python 2 or 3.

    Raises:
        ValueError: if it names anything else, or is no such pair of lists.
        OSError: if it cannot be read.
    """
    stream = io.BytesIO(Path(file).read_bytes())
    try:
        content = _Unpickler(stream, encoding="bytes").load()
    except Exception as error:  # of any type, by what is wrong with the file
        raise InputError(
            f"{file} cannot be read ({type(error).__name__}: {error}), expected a .bin file of insightface; nothing of"
            " it was run"
        ) from error
    lists = isinstance(content, (list, tuple)) and all(isinstance(part, (list, tuple, np.ndarray)) for part in content)
    if not lists or len(content) != 2:
        raise InputError(f"{file} holds {type(content).__name__}, expected two lists: pictures, and flags of pairs")
    pictures, flags = (list(part) for part in content)
    if not flags or len(pictures) != 2 * len(flags):
        raise InputError(f"{file} holds {len(pictures)} pictures and {len(flags)} flags, expected two pictures a flag")
    same = [_flag(flag, number, file) for number, flag in enumerate(flags)]
    images = tuple(_picture(picture, number, file) for number, picture in enumerate(pictures))
    return EncodedPairs(images, np.array(same, dtype=bool))


class _Unpickler(compat.CarefulUnpickler):
    """Reads arrays of numbers and plain values."""

    def find_class(self, module: str, name: str) -> Any:
        """Return our own version of what the file names, if it is one of the few that an array needs."""
        found = _ALLOWED.get((module.replace(compat.NUMPY_CORE, "numpy.core"), name))
        if found is None:
            raise InputError(f"it names {module}.{name}, expected arrays of bytes alone")
        return found


def _dtype(text: Any, *_: Any) -> np.dtype[Any]:
    name = text.decode("ascii") if isinstance(text, bytes) else text
    if name.lstrip("|<") not in _DTYPES:
        raise InputError(f"it holds an array of {name}, expected bytes")
    return np.dtype(name, copy=True)  # what the file says of it next is said of this copy


def _empty_array(kind: Any, shape: Any, _: Any) -> NDArray[Any]:
    if kind is not _ARRAY_CLASS or tuple(shape) != (0,):
        raise InputError("it makes something else than an array, or one of a size that no data follow")
    return np.ndarray((0,), np.uint8)


def _from_buffer(data: Any, dtype: np.dtype[Any], shape: Any, _: Any) -> NDArray[Any]:
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _scalar(dtype: np.dtype[Any], data: Any) -> Any:
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype=dtype)[0]


def _encode(text: str, encoding: Any) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise InputError(f"it encodes text as {encoding!r}, expected latin1")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Callable[..., Any] | object] = {
    ("numpy", "ndarray"): _ARRAY_CLASS,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
}


def _flag(flag: Any, number: int, file: Path | str) -> bool:
    if isinstance(flag, (bool, int, np.bool_, np.integer)) and flag in (0, 1):
        return bool(flag)
    raise InputError(f"flag {number} of {file} is {flag!r}, expected true or false")


def _picture(picture: Any, number: int, file: Path | str) -> bytes:
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.size == max(picture.shape, default=0):
        return picture.tobytes()  # a row or a column of bytes, as OpenCV encodes
    raise InputError(f"picture {number} of {file} is {type(picture).__name__}, expected the bytes of a picture's file")
