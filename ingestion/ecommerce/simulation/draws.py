"""What every part of the simulation draws with: the types of arrays and generators, and two distributions.

Not here: what is drawn. Each module draws its own things from the one generator it is given, in a fixed order.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Rng: TypeAlias = np.random.Generator


def lognormal(rng: Rng, median: Array, sigma: float) -> Array:
    """One draw per median; `sigma` is the standard deviation of the logarithm."""
    return np.asarray(median * np.exp(sigma * rng.standard_normal(len(median))))


def beta(rng: Rng, mean: Array, concentration: float) -> Array:
    """One draw in [0, 1] per mean; the larger the concentration, the nearer the mean."""
    return rng.beta(mean * concentration, (1 - mean) * concentration)
