"""What features and coefficients are called in pictures and pages."""

from __future__ import annotations

FEATURES = {
    "log_fast_snr": "signal to noise, last ~10 gradients",
    "log_slow_snr": "signal to noise, last ~100 gradients",
    "log_gradient_snr": "signal to noise, this gradient",
    "log_fast_over_second": "agreement of the last ~10 gradients",
    "log_slow_over_second": "agreement of the last ~100 gradients",
    "log_noise_over_second": "noise, as a part of the gradient's energy",
    "log_second_over_peak": "energy of gradients, against its peak",
    "cos_gradient_fast": "this gradient agrees with the last ~10",
    "cos_fast_slow": "last ~10 gradients agree with the last ~100",
    "cos_gradient_parameter": "gradient points away from zero",
    "cos_gradient_displacement": "the last step went uphill",
    "cos_fast_displacement": "the last step went uphill, by the last ~10",
    "log_parameter": "size of the parameters",
    "log_displacement": "length of the last step",
    "log_displacement_over_parameter": "length of the last step, to the parameters'",
    "log_elements": "number of parameters of the layer",
    "is_matrix": "the layer is a matrix",
    "noise_known": "noise within the batch is known",
    "log_step": "steps done",
    "horizon_known": "length of the run is known",
    "phase": "part of the run that is over",
    "early_phase": "the very start of the run",
    "log_horizon": "length of the run",
    "rows_known": "number of rows is known",
    "log_rows": "number of training rows",
    "log_parameters_per_row": "parameters for each row",
    "log_epochs": "epochs done",
}

COEFFICIENTS = {
    "gradient_gain": "factor on the gradient",
    "fast_filter": "how much of the gradient the filter may take",
    "fast_kappa": "noise that the gradient's filter allows for",
    "add_fast": "mean of the last ~10 gradients, added",
    "add_slow": "mean of the last ~100 gradients, added",
    "update_gain": "factor on the base optimizer's step",
    "slow_filter": "how much of the step the filter may take",
    "slow_kappa": "noise that the step's filter allows for",
    "decay": "extra weight decay",
}


THEMES = {
    "noise against signal": (
        "log_fast_snr",
        "log_slow_snr",
        "log_gradient_snr",
        "log_noise_over_second",
        "noise_known",
    ),
    "whether gradients agree over steps": (
        "log_fast_over_second",
        "log_slow_over_second",
        "cos_gradient_fast",
        "cos_fast_slow",
    ),
    "the last step and where it led": (
        "cos_gradient_displacement",
        "cos_fast_displacement",
        "log_displacement",
        "log_displacement_over_parameter",
    ),
    "the layer and its parameters": (
        "cos_gradient_parameter",
        "log_parameter",
        "log_elements",
        "is_matrix",
    ),
    "how far training has come": (
        "log_second_over_peak",
        "log_step",
        "horizon_known",
        "phase",
        "early_phase",
        "log_horizon",
        "log_epochs",
    ),
    "rows of the training set": ("rows_known", "log_rows", "log_parameters_per_row"),
}
"""What features are about; whatever is not named here is about something else."""


def theme_of(feature: str) -> str:
    """What a feature is about.

    Example:
        >>> theme_of("log_fast_snr"), theme_of("of_something_new")
        ('noise against signal', 'something else')
    """
    found = (theme for theme, features in THEMES.items() if feature in features)
    return next(found, "something else")


def in_words(name: str) -> str:
    """What a feature or coefficient is, or its name where there are no words for it.

    Example:
        >>> in_words("update_gain"), in_words("log_of_something_new")
        ("factor on the base optimizer's step", 'log of something new')
    """
    return FEATURES.get(name) or COEFFICIENTS.get(name) or name.replace("_", " ")
