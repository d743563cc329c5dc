"""Pictures of what a denoiser learned, and of what it did in a run.

Each function returns a matplotlib figure, drawn without a window; ``figure=`` draws into one
of yours. Those that show a run take the recording of an optimizer
(``DenoGrad(..., record=k).recording``), or several under their names; those that show how
coefficients come about take what `denograd.inspection.sensitivity` found.

Example:
    >>> import denograd.plot
    >>> from denograd.inspection import by_model, reference_runs
    >>> runs = reference_runs("default", ["iris"], ["soft_tree"], rows=32, steps=8)
    >>> figure = denograd.plot.phase(by_model(runs))
    >>> [axes.get_title(loc="left") for axes in figure.axes][:2]
    ['gradient_gain', 'fast_filter']
"""

from denograd.plot.dependence import dependence
from denograd.plot.energy import energy
from denograd.plot.layers import layers
from denograd.plot.phase import phase
from denograd.plot.sensitivity import sensitivity

__all__ = ["dependence", "energy", "layers", "phase", "sensitivity"]
