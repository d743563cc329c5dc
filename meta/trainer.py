"""The outer loop of meta-training: draw, differentiate, step, validate, save."""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from denograd.denoisers import WienerDenoiser, save_denoiser
from denograd.meta.episode import EpisodeDistribution, draw_episode
from denograd.meta.estimator import MetaLoss, truncated_backprop
from denograd.meta.family import TaskFamily
from denograd.meta.validation import MetaValidation, Score


class MetaTrainingError(RuntimeError):
    """Meta-training cannot start or go on; the message says what to do."""


@dataclass(frozen=True)
class TrainerConfig:
    """How to meta-train; with the task family, and with ``steps``, it decides every weight.

    With ``minutes`` the learning rate follows the clock, and no two runs are the same.

    Attributes:
        seed: of everything drawn.
        steps: meta-steps, or None to be stopped by ``minutes``.
        minutes: time, over all resumed runs, or None to be stopped by ``steps``.
        learning_rate: peak rate of the outer Adam; it warms up, then falls by a cosine to
            a tenth.
        warm_up: meta-steps of warm-up.
        window: shortest and longest truncation window, drawn for each meta-step.
        explosion: a meta-step whose gradient norm exceeds this many times the running
            median is left out and counted.
        clip: gradients are clipped to this many times the running median norm.
        average: decay of the running average of the weights that is validated and saved.
        validate_minutes: time between meta-validations.
        save_seconds: time between checkpoints.
        hidden: width of the denoiser's net.
        pooled: whether a layer sees the mean features of all.
        disabled: coefficients held at their neutral value.
    """

    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    learning_rate: float = 2e-3
    warm_up: int = 30
    window: tuple[int, int] = (60, 120)
    explosion: float = 8.0
    clip: float = 2.0
    average: float = 0.99
    validate_minutes: float = 10.0
    save_seconds: float = 30.0
    hidden: int = 32
    pooled: bool = True
    disabled: tuple[str, ...] = ()


@dataclass
class Progress:
    """Where an outer loop stands.

    Attributes:
        step: meta-steps done.
        elapsed: seconds of training, over all resumed runs.
        skipped: meta-steps left out for an exploding or non-finite gradient.
        norms: gradient norms of the last meta-steps.
        best: best meta-validation ratio so far, or None.
        history: one record for each meta-validation.
    """

    step: int = 0
    elapsed: float = 0.0
    skipped: int = 0
    norms: list[float] = field(default_factory=list)
    best: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


Listener = Callable[[Progress, dict[str, float]], None]


class MetaTrainer:
    """Meta-train a `WienerDenoiser`, saving so that a kill loses less than a minute.

    Args:
        family: where tasks come from.
        distribution: what episodes are drawn from.
        config: how to train.
        out: folder for checkpoints, logs and the best weights.
        loss: the meta-loss.
        validation: picks the weights to keep; None keeps the last.
        card: what the card of the saved denoiser says of its training.
        start_from: a denoiser whose weights to begin with.

    Raises:
        MetaTrainingError: the folder is in use, or holds another run.
    """

    def __init__(
        self,
        family: TaskFamily,
        distribution: EpisodeDistribution,
        config: TrainerConfig,
        out: Path,
        *,
        loss: MetaLoss | None = None,
        validation: MetaValidation | None = None,
        card: dict[str, Any] | None = None,
        start_from: WienerDenoiser | None = None,
    ) -> None:
        if config.steps is None and config.minutes is None:
            raise MetaTrainingError("meta-training: give steps or minutes, or it would never end")
        self.family, self.distribution, self.config = family, distribution, config
        self.out, self.loss, self.validation = out, loss or MetaLoss(), validation
        self.card = card or {}
        torch.manual_seed(config.seed)
        self.denoiser = WienerDenoiser(config.hidden, config.pooled, config.disabled)
        if start_from is not None:
            self.denoiser.load_state_dict(start_from.state_dict())
        self.average = WienerDenoiser(config.hidden, config.pooled, config.disabled)
        self.average.load_state_dict(self.denoiser.state_dict())
        self.optimizer = torch.optim.Adam(self.denoiser.parameters(), lr=config.learning_rate)
        self.progress = Progress()
        self._stop = False

    @property
    def checkpoint(self) -> Path:
        """The file that a killed run goes on from."""
        return self.out / "checkpoint.safetensors"

    def run(self, *, resume: bool = False, listener: Listener | None = None) -> Progress:
        """Train until steps or minutes are used up, or until interrupted.

        Args:
            resume: go on from the checkpoint in the folder.
            listener: called after every meta-step with the progress and its figures.

        Returns:
            where it ended; the weights are in ``out``.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.out / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise MetaTrainingError(
                f"{self.out} is in use by another run of meta-training; wait for it or choose "
                "another --out"
            ) from None
        with lock:
            self._open(resume)
            previous = {
                s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)
            }
            try:
                with SummaryWriter(str(self.out / "tensorboard")) as writer:
                    self._loop(writer, listener)
            finally:
                for number, handler in previous.items():
                    signal.signal(number, handler)
        return self.progress

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stop:
            raise KeyboardInterrupt
        self._stop = True

    def _describe(self) -> dict[str, Any]:
        described = {
            "config": asdict(self.config),
            "distribution": asdict(self.distribution),
            "loss": asdict(self.loss),
            "card": self.card,
        }
        # A longer run may go on from a shorter one, and its command says so.
        described["config"].update(steps=None, minutes=None)
        described["card"] = {k: v for k, v in self.card.items() if k != "command"}
        return dict(json.loads(json.dumps(described)))

    def _open(self, resume: bool) -> None:
        path, described = self.out / "config.json", self._describe()
        if not resume:
            if self.checkpoint.exists():
                raise MetaTrainingError(
                    f"{self.out} already holds a run; add --resume to go on with it, or choose "
                    "another --out"
                )
            path.write_text(json.dumps(described, indent=1))
            # From here on the folder can be resumed, however soon the run is killed.
            self.save()
            return
        if not self.checkpoint.exists():
            raise MetaTrainingError(f"{self.out} holds no checkpoint to resume; leave out --resume")
        before = json.loads(path.read_text())
        different = [k for k in described if before.get(k) != described[k]]
        if different:
            raise MetaTrainingError(
                f"{self.out} was made with another {', '.join(different)}; resume with the "
                "options it was started with (see its config.json), or choose another --out"
            )
        self._load()

    def _done(self) -> bool:
        config, progress = self.config, self.progress
        return (
            self._stop
            or (config.steps is not None and progress.step >= config.steps)
            or (config.minutes is not None and progress.elapsed >= 60 * config.minutes)
        )

    def fraction(self) -> float:
        """Share of the run that is done, by steps or by time."""
        config, progress = self.config, self.progress
        by_steps = progress.step / config.steps if config.steps else 0.0
        by_time = progress.elapsed / (60 * config.minutes) if config.minutes else 0.0
        return min(max(by_steps, by_time), 1.0)

    def _loop(self, writer: SummaryWriter, listener: Listener | None) -> None:
        last, saved, validated = time.monotonic(), time.monotonic(), time.monotonic()
        while not self._done():
            figures = self.meta_step()
            now = time.monotonic()
            self.progress.elapsed += now - last
            last = now
            for name, value in figures.items():
                writer.add_scalar(f"train/{name}", value, self.progress.step)
            if listener:
                listener(self.progress, figures)
            if now - validated > 60 * self.config.validate_minutes and not self._stop:
                self.save()
                self._validate(writer)
                validated = time.monotonic()
                last = validated
            if time.monotonic() - saved > self.config.save_seconds:
                self.save()
                saved = time.monotonic()
        self.save()
        if not self._stop:
            self._validate(writer)
            self.save()

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended the run before its time."""
        return self._stop

    def meta_step(self) -> dict[str, float]:
        """Draw an episode, take its meta-gradient and step; the figures of the step."""
        config, progress = self.config, self.progress
        begin = time.monotonic()
        episode = draw_episode([config.seed, progress.step], self.family, self.distribution)
        low, high = config.window
        window = low + (config.seed * 7919 + progress.step * 104729) % (high - low + 1)
        self.optimizer.zero_grad(set_to_none=True)
        result = truncated_backprop(self.denoiser, episode, self.loss, window=window)
        median = statistics.median(progress.norms) if progress.norms else result.norm
        skip = not math.isfinite(result.norm) or (
            len(progress.norms) >= 10 and result.norm > config.explosion * median
        )
        if skip:
            progress.skipped += 1
        else:
            progress.norms = [*progress.norms[-99:], result.norm]
            torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), config.clip * median)
            for group in self.optimizer.param_groups:
                group["lr"] = config.learning_rate * self._rate()
            self.optimizer.step()
            self._update_average()
        progress.step += 1
        seconds = time.monotonic() - begin
        return {
            "meta_loss": result.meta_loss,
            "final_loss": result.final_loss,
            "gradient_norm": result.norm,
            "skipped": float(progress.skipped),
            "inner_steps": float(episode.steps),
            "task_steps_per_second": len(episode.tasks) * episode.steps / seconds,
        }

    def _rate(self) -> float:
        warm = min(1.0, (self.progress.step + 1) / self.config.warm_up)
        return warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * self.fraction())))

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.average, (1 + self.progress.step) / (10 + self.progress.step))
        pairs = zip(self.average.parameters(), self.denoiser.parameters(), strict=True)
        for mean, now in pairs:
            mean.lerp_(now, 1 - decay)

    def _validate(self, writer: SummaryWriter) -> None:
        progress = self.progress
        if self.validation is None:
            return
        score = self.validation.score(self.average)
        record = {"step": progress.step, "elapsed": progress.elapsed, **asdict(score)}
        progress.history.append(record)
        for name in ("ratio", "wins", "worst"):
            writer.add_scalar(f"validation/{name}", record[name], progress.step)
        (self.out / "history.json").write_text(json.dumps(progress.history, indent=1))
        if progress.best is None or score.ratio < progress.best:
            progress.best = score.ratio
            self._export(score)

    def _export(self, score: Score | None) -> None:
        progress = self.progress
        card = {
            "training": {
                **self.card,
                "config": asdict(self.config),
                "distribution": asdict(self.distribution),
                "meta_loss": asdict(self.loss),
                "meta_steps": progress.step,
                "minutes": round(progress.elapsed / 60, 1),
            },
            "figures": {"meta_validation": asdict(score)} if score else {},
        }
        save_denoiser(self.average, self.out / "denoiser.safetensors", card)

    def save(self) -> None:
        """Write the checkpoint, all of it in one file, so that no half of it is ever read."""
        tensors = {f"denoiser.{k}": v for k, v in self.denoiser.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
        partial = self.checkpoint.with_suffix(".partial")
        metadata = {"progress": json.dumps(asdict(self.progress))}
        save_file({k: v.contiguous() for k, v in tensors.items()}, partial, metadata)
        os.replace(partial, self.checkpoint)
        if self.progress.best is None:
            # Nothing has picked weights yet, so the last are the ones to use.
            self._export(None)

    def _load(self) -> None:
        try:
            with safe_open(self.checkpoint, framework="pt") as file:
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
                metadata = file.metadata()
            self.progress = Progress(**json.loads(metadata["progress"]))
            self.denoiser.load_state_dict(_part(tensors, "denoiser."))
            self.average.load_state_dict(_part(tensors, "average."))
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise MetaTrainingError(
                f"{self.checkpoint} cannot be read ({error}); start anew in another --out"
            ) from error
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "adam.").items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
