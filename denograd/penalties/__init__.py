"""Terms of the loss that `denograd.DenoGrad` adds during the backward pass.

With ``penalties=[...]`` the gradients after ``loss.backward()`` are those of ``loss + sum of
weight * penalty``, and the training loop stays as it is:

- A penalty joins each forward pass in which its modules are in training mode and gradients
  are enabled, and acts when ``backward`` of a loss comes by. A pass that is not
  differentiated leaves nothing behind but the penalty's ``value``.
- Every such pass adds its own penalty. If gradients are accumulated over several batches they
  are those of ``sum_i (loss_i + weight * penalty_i)``; if each loss is divided by the number
  of batches, divide the weight too. Two losses of one forward pass that go backward one after
  the other have one penalty together, as their sum has.
- `torch.autograd.grad` never sees penalties, so saliency maps and gradient penalties are
  those of the model; ``backward(create_graph=True)`` is an error.
- With a `torch.amp.GradScaler`, make the penalty with ``scaler=scaler``. A scaler that steps
  without it, or a step without the scaler, is an error.
- What noise capture measures includes the penalty: each row's part of its gradient.
- A penalty of a batch of one row is 0, and a feature that does not vary has no correlation.
  A penalty's gradient that is not finite is left out, and counted in ``dropped``.
- A module that had no part in a step is named by a warning, once.
- Penalties hold no state to be saved: ``state_dict`` knows nothing of them. Copies and
  pickles of the optimizer take them along, without their scaler.

`SaliencyDecor` is no such term but a whole loss, to be called in place of one's own.
"""

from denograd.penalties._base import Penalty, Scaler
from denograd.penalties._sites import Site
from denograd.penalties._watch import PenaltyWatch
from denograd.penalties.contributions import Concurvity, concurvity
from denograd.penalties.decorrelation import Decorrelation
from denograd.penalties.features import (
    FeatureDecorrelation,
    FeaturePenalty,
    correlation_penalty,
    covariance_penalty,
)
from denograd.penalties.heads import HeadDisagreement, head_agreement
from denograd.penalties.nodes import NodeDecorrelation, node_correlation
from denograd.penalties.saliency import input_saliency, least_salient, prediction_divergence
from denograd.penalties.saliency_decor import SaliencyDecor, SaliencyParts
from denograd.penalties.whitening import Whitening, whitening_distance

__all__ = [
    "Concurvity",
    "Decorrelation",
    "FeatureDecorrelation",
    "FeaturePenalty",
    "HeadDisagreement",
    "NodeDecorrelation",
    "Penalty",
    "PenaltyWatch",
    "SaliencyDecor",
    "SaliencyParts",
    "Scaler",
    "Site",
    "Whitening",
    "concurvity",
    "correlation_penalty",
    "covariance_penalty",
    "head_agreement",
    "input_saliency",
    "least_salient",
    "node_correlation",
    "prediction_divergence",
    "whitening_distance",
]
