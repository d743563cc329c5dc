"""What the metrics refuse, with the argument's name and the remedy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from denograd.data.errors import listing


def kind_of(x: Any) -> Callable[[NDArray[np.float64]], Any]:
    """What turns changed rows back into what ``x`` is: a tensor or an array."""
    if isinstance(x, torch.Tensor):
        return lambda rows: torch.from_numpy(rows).to(x.dtype)
    given = np.asarray(x).dtype
    return lambda rows: rows.astype(given) if np.issubdtype(given, np.floating) else rows


def as_numbers(
    name: str,
    value: Any,
    remedy: str = "leave those rows out, or find out why the explanation is not finite",
) -> NDArray[np.float64]:
    """An array of finite numbers, or a `ValueError` that names the argument and the remedy."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: it does not hold numbers ({error})") from error
    bad = ~np.isfinite(array)
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0]) if array.ndim else ()
        raise ValueError(
            f"{name}: {int(bad.sum())} of {array.size} values are NaN or infinite, the first at "
            f"{place}; {remedy}"
        )
    return array


def as_attributions(name: str, value: Any) -> NDArray[np.float64]:
    """Attributions as ``(rows, features)``; what stands behind the rows, an image, is flattened."""
    array = as_numbers(name, value)
    if array.ndim < 2 or array.size == 0:
        raise ValueError(
            f"{name}: it has shape {array.shape}; it must be (rows, features) with at least one "
            "of each"
        )
    return array.reshape(len(array), -1)


def as_mask(mask: Any, attributions: Any) -> NDArray[np.bool_]:
    """A mask of the features that matter as ``(rows, features)``.

    Args:
        mask: boolean, of the attributions' own shape, or of one row's.
        attributions: before they were flattened; if their features have names, those of the mask
            are put in their order.
    """
    shape, names = shape_of(attributions), names_in(attributions)
    if names is not None:
        mask = in_order_of(names, "mask: it", mask)
    if isinstance(mask, torch.Tensor):
        mask = mask.detach().cpu().numpy()
    array = np.asarray(mask)
    if array.shape not in (shape, shape[1:]):
        raise ValueError(
            f"mask: it has shape {array.shape}, and the attributions {shape}; it must have that "
            f"shape, or {shape[1:]} for all rows"
        )
    if array.dtype != np.bool_:
        if not np.isin(array, (0, 1)).all():
            raise ValueError("mask: it must be boolean, True for the features that matter")
        array = array.astype(bool)
    flat: NDArray[np.bool_] = np.broadcast_to(array, shape).reshape(shape[0], -1)
    empty = np.flatnonzero(~flat.any(axis=1))
    if len(empty):
        raise ValueError(
            f"mask: row {int(empty[0])} has no feature that matters; leave such rows out"
        )
    return flat


def class_numbers(what: str, given: NDArray[Any], known: Sequence[Any]) -> NDArray[np.int64]:
    """Labels as numbers of classes, of the same shape.

    Args:
        what: beginning of the message of a `ValueError`, if a label is no class.
        given: labels.
        known: the label of each class.
    """
    places = {label: number for number, label in enumerate(known)}
    strange = [label for label in given.reshape(-1).tolist() if label not in places]
    if strange:
        shown = ", ".join(map(repr, known[:8])) + (", ..." if len(known) > 8 else "")
        raise ValueError(f"{what} holds {strange[0]!r}, which is no class; classes are {shown}")
    numbers = [places[label] for label in given.reshape(-1).tolist()]
    return np.array(numbers, dtype=np.int64).reshape(given.shape)


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of an array or a tensor."""
    return tuple(value.shape) if hasattr(value, "shape") else np.shape(value)


def in_order_of(names: pd.Index[Any], what: str, value: Any) -> Any:
    """A Series or DataFrame with its features in the order of ``names``; anything else as it is.

    Features that were given no names, which pandas then numbers, stay where they are.

    Args:
        names: of the features, in order.
        what: beginning of the message of a `ValueError`, if the features are others.
        value: numbers by feature: the index of a Series, the columns of a DataFrame.

    Example:
        >>> in_order_of(pd.Index(["a", "b"]), "it", pd.Series({"b": 1, "a": 2})).to_list()
        [2, 1]
    """
    own = names_in(value)
    if own is None or own.equals(names):
        return value
    if not (own.is_unique and names.is_unique and set(own) == set(names)):
        if own.equals(pd.RangeIndex(len(own))) or names.equals(pd.RangeIndex(len(names))):
            return value
        raise ValueError(
            f"{what} names the features {listing(own, limit=8)}, where they are "
            f"{listing(names, limit=8)}; give the same ones, in any order"
        )
    return value.loc[list(names)] if isinstance(value, pd.Series) else value[list(names)]


def names_in(value: Any) -> pd.Index[Any] | None:
    """The features' names, if what tells of them is pandas'."""
    if isinstance(value, pd.DataFrame):
        return value.columns
    return value.index if isinstance(value, pd.Series) else None


def same_order(name: str, fits: Any) -> Any:
    """Explanations of fits, those with names in the order of the first one."""
    names = names_in(fits[0]) if isinstance(fits, list | tuple) and fits else None
    if names is None:
        return fits
    return [in_order_of(names, f"{name}: fit {i}", fit) for i, fit in enumerate(fits)]


def as_seeds(name: str, value: Any) -> NDArray[np.float64]:
    """Explanations of several fits, ``(seeds, ..., features)``, two of each at least."""
    array = as_numbers(name, same_order(name, value))
    if array.ndim < 2:
        raise ValueError(
            f"{name}: it has shape {array.shape}; it must be (seeds, ..., features), a fit in each "
            "place of the first dimension"
        )
    if len(array) < 2:
        raise ValueError(
            f"{name}: it holds {len(array)} fit; consistency needs at least 2, and 10 or more to "
            "say something. Fit with other seeds as well"
        )
    if array.size == 0:
        raise ValueError(f"{name}: it has shape {array.shape}, so it holds no numbers")
    return array


def check_k(k: object, n_features: int) -> int:
    """The number of top features, or a `ValueError` if there are not so many."""
    number_like = isinstance(k, (int, np.integer)) and not isinstance(k, bool)
    if not number_like or not 1 <= int(k) <= n_features:  # type: ignore[call-overload]
        raise ValueError(f"k={k!r}; it must be a whole number from 1 to the {n_features} features")
    return int(k)  # type: ignore[call-overload, no-any-return]


def check_positive(name: str, value: object) -> float:
    """A finite number above 0."""
    number_like = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number_like or not 0 < float(value) < math.inf:  # type: ignore[arg-type]
        raise ValueError(f"{name}={value!r}; it must be a finite number above 0")
    return float(value)  # type: ignore[arg-type]


def check_count(name: str, value: object, least: int = 1) -> int:
    """A whole number of at least ``least``."""
    number_like = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not number_like or int(value) < least:  # type: ignore[call-overload]
        raise ValueError(f"{name}={value!r}; it must be a whole number of at least {least}")
    return int(value)  # type: ignore[call-overload, no-any-return]


def shares(attributions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Magnitudes as shares of their row's sum; those of a row of zeros are equal."""
    size = np.abs(attributions)
    # Divided by the largest first, so that neither tiny nor huge rows overflow the sum.
    largest = size.max(axis=-1, keepdims=True)
    scaled = np.divide(size, largest, out=np.ones_like(size), where=largest > 0)
    divided: NDArray[np.float64] = scaled / scaled.sum(axis=-1, keepdims=True)
    return divided
