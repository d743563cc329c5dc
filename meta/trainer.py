"""The outer loop of meta-training: draw, differentiate, step, validate, save."""

from __future__ import annotations

import copy
import json
import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from denograd.denoisers import WienerDenoiser, save_denoiser
from denograd.meta.checkpoint import Progress, differences, read_checkpoint, write_checkpoint
from denograd.meta.combine import Combined, combine, usual_norm
from denograd.meta.config import MetaTrainingError, TrainerConfig
from denograd.meta.episode import Episode, EpisodeDistribution, draw_episode
from denograd.meta.estimators import MetaLoss
from denograd.meta.family import TaskFamily
from denograd.meta.processes import Processes, ProcessLost
from denograd.meta.validation import MetaValidation, Score

Listener = Callable[[Progress, dict[str, float]], None]
Log = Callable[[str, float], None]


class MetaTrainer:
    """Meta-train a `WienerDenoiser`, saving so that a kill loses less than a minute.

    A run with ``steps`` that is killed at any moment and resumed ends with the same weights
    as one that was never stopped, bit for bit. Started by `torchrun`, the processes share
    each batch of tasks and hold the same weights; the first writes the files.

    Args:
        family: where tasks come from.
        distribution: what episodes are drawn from.
        config: how to train.
        out: folder for checkpoints, logs and the best weights.
        loss: the meta-loss.
        validation: picks the weights to keep; None keeps the last.
        card: what the card of the saved denoiser says of its training.
        start_from: a denoiser whose weights to begin with.
        device: what to compute on.
        processes: those that train together; default: this one alone.

    Attributes:
        progress: where it stands.
        began_at: meta-steps that were done before, where it was resumed.

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
        device: torch.device | str = "cpu",
        processes: Processes | None = None,
    ) -> None:
        if config.steps is None and config.minutes is None:
            raise MetaTrainingError("meta-training: give steps or minutes, or it would never end")
        self.processes = processes or Processes()
        if self.processes.world > distribution.tasks:
            raise MetaTrainingError(
                f"{self.processes.world} processes for {distribution.tasks} tasks in a meta-step; "
                "start fewer processes or draw more tasks"
            )
        self.family, self.distribution, self.config = family, distribution, config
        self.out, self.loss, self.validation = out, loss or MetaLoss(), validation
        self.card, self.device = card or {}, torch.device(device)
        self.estimator, self.engine = config.make_estimator(), config.make_engine()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.denoiser = WienerDenoiser(
                config.hidden, config.pooled, config.disabled, config.within_batch
            )
        if start_from is not None:
            self.denoiser.load_state_dict(start_from.state_dict())
        self.denoiser.to(self.device)
        self.average = copy.deepcopy(self.denoiser)
        self.optimizer = torch.optim.Adam(self.denoiser.parameters(), lr=config.learning_rate)
        self.progress = Progress()
        self.began_at = 0
        self._signalled = self._stop = False
        self._began = time.monotonic()

    @property
    def checkpoint(self) -> Path:
        """The file that a killed run goes on from."""
        return self.out / "checkpoint.safetensors"

    def run(self, *, resume: bool = False, listener: Listener | None = None) -> Progress:
        """Train until steps or minutes are used up, or until interrupted.

        Args:
            resume: go on from the checkpoint in the folder.
            listener: called after every meta-step with the progress and its figures, in
                the first process only.

        Returns:
            where it ended; the weights are in ``out``.

        Raises:
            MetaTrainingError: the folder is in use or cannot be resumed, or another
                process was lost; then a checkpoint of all finished meta-steps is left.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.out / "lock")
        if self.processes.leads:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise MetaTrainingError(
                    f"{self.out} is in use by another run of meta-training; wait for it or choose "
                    "another --out"
                ) from None
        try:
            try:
                self._open(resume)
            except ProcessLost as error:
                raise MetaTrainingError(f"a process of this run did not start: {error}") from error
            previous = {
                s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)
            }
            try:
                with self._log() as log:
                    self._loop(log, listener if self.processes.leads else None)
            except ProcessLost as error:
                self.save()
                raise MetaTrainingError(
                    f"a process of this run was lost ({error}); the first "
                    f"{self.progress.step} meta-steps are in {self.checkpoint}, and --resume goes "
                    "on from there"
                ) from error
            finally:
                for number, handler in previous.items():
                    signal.signal(number, handler)
        finally:
            lock.release()
        return self.progress

    @contextmanager
    def _log(self) -> Iterator[Log]:
        """What writes scalars into the TensorBoard log; nothing but in the first process."""
        if not self.processes.leads:
            yield lambda name, value: None
            return
        # What a killed run logged after its last checkpoint is run again, and logged again.
        begin = self.progress.step + 1
        with SummaryWriter(str(self.out / "tensorboard"), purge_step=begin) as writer:
            yield lambda name, value: writer.add_scalar(name, value, self.progress.step)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            raise KeyboardInterrupt
        # All processes stop after the same meta-step: the next sum tells them.
        self._signalled = True

    def _describe(self) -> dict[str, Any]:
        # A longer run may go on from a shorter one, and its command says so.
        described = {
            "config": {**asdict(self.config), "steps": None, "minutes": None},
            "distribution": asdict(self.distribution),
            "loss": asdict(self.loss),
            "card": {k: v for k, v in self.card.items() if k not in ("command", "task")},
            "data": self.family.fingerprint(),
            "validation": self.validation.fingerprint() if self.validation else None,
        }
        return dict(json.loads(json.dumps(described)))

    def _open(self, resume: bool) -> None:
        path, described = self.out / "config.json", self._describe()
        if not resume:
            if self.checkpoint.exists():
                raise MetaTrainingError(
                    f"{self.out} already holds a run; add --resume to go on with it, or choose "
                    "another --out"
                )
            if self.processes.leads:
                path.write_text(json.dumps(described, indent=1))
            # From here on the folder can be resumed, however soon the run is killed.
            self.processes.sum(torch.zeros(1))
            self.save()
            return
        if not self.checkpoint.exists():
            raise MetaTrainingError(f"{self.out} holds no checkpoint to resume; leave out --resume")
        try:
            before = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise MetaTrainingError(
                f"{path} cannot be read ({error}); without it nothing tells whether the options "
                "are the same, so start anew in another --out"
            ) from error
        different = differences(before, described)
        if different:
            raise MetaTrainingError(
                f"{self.out} was started otherwise: {', '.join(different)}; resume with the "
                "options and the version that it was started with (see its config.json), or "
                "choose another --out"
            )
        self.progress = read_checkpoint(
            self.checkpoint, self.denoiser, self.average, self.optimizer
        )
        self.began_at = self.progress.step

    def _done(self) -> bool:
        config, progress = self.config, self.progress
        if self.processes.world == 1:
            self._stop |= self._signalled
        return (
            self._stop
            or self.stopped_early()
            or (config.steps is not None and progress.step >= config.steps)
            or (config.minutes is not None and progress.elapsed >= 60 * config.minutes)
        )

    def stopped_early(self) -> bool:
        """Whether meta-validation found nothing better for as long as the patience lasts."""
        history, patience = self.progress.history, self.config.patience
        if patience is None or not history:
            return False
        ratios = [r["ratio"] if math.isfinite(r["ratio"]) else math.inf for r in history]
        return len(ratios) - 1 - ratios.index(min(ratios)) >= patience

    def fraction(self) -> float:
        """Share of the run that is done, by steps or by time."""
        config, progress = self.config, self.progress
        by_steps = progress.step / config.steps if config.steps else 0.0
        by_time = progress.elapsed / (60 * config.minutes) if config.minutes else 0.0
        return min(max(by_steps, by_time), 1.0)

    def _loop(self, log: Log, listener: Listener | None) -> None:
        self._began = time.monotonic() - self.progress.elapsed
        saved = time.monotonic()
        while not self._done():
            if self._validation_due(self.config.validate_every):
                self.save()
                self._validate(log)
                self.save()
                continue
            figures = self.meta_step()
            for name, value in figures.items():
                log(f"train/{name}", value)
            if listener:
                listener(self.progress, figures)
            if time.monotonic() - saved > self.config.save_seconds:
                self.save()
                saved = time.monotonic()
        self.save()
        if not self._stop and self._validation_due(1):
            self._validate(log)
            self.save()

    @property
    def interrupted(self) -> bool:
        """Whether a signal ended the run before its time."""
        return self._stop

    def draw(self) -> tuple[Episode, list[int]]:
        """The episode of the next meta-step, and where its unroll is cut."""
        config, step = self.config, self.progress.step
        shortest = self.distribution.steps[0]
        longest = config.curriculum.longest(self.distribution.steps, self.fraction())
        distribution = replace(self.distribution, steps=(shortest, longest))
        try:
            episode = draw_episode([config.seed, step], self.family, distribution)
        except ValueError as error:
            self.save()
            raise MetaTrainingError(f"meta-step {step}: {error}") from error
        rng = np.random.default_rng([config.seed, step, 1])
        return episode, config.truncation.cuts(rng, episode.steps)

    def meta_step(self) -> dict[str, float]:
        """Draw an episode, take its meta-gradient and step; the figures of the step."""
        config, progress = self.config, self.progress
        begin = time.monotonic()
        episode, cuts = self.draw()
        mine = self.processes.share(len(episode))
        tasks = self.estimator(
            self.denoiser,
            episode.take(mine).to(self.device),
            self.loss,
            cuts=cuts,
            engine=self.engine,
            seed=config.seed * 1_000_003 + progress.step,
        )
        part = combine(
            tasks,
            self._usual_norm(tasks.norms(), mine, len(episode)),
            explosion=config.explosion,
            clip=config.clip,
        )
        total = self._sum(part, mine, len(episode))
        norm = self._apply(total)
        # Tasks that exploded do not move what is usual, or in the end they would be.
        calm = total.norms[total.kept]
        usual = usual_norm(calm if len(calm) else total.norms)
        if usual > 0:
            progress.norms = [*progress.norms[-99:], usual]
        kept = int(total.kept.sum())
        progress.left_out += len(episode) - kept
        progress.tasks += len(episode)
        progress.step += 1
        seconds = time.monotonic() - begin
        return {
            "meta_loss": float(total.loss) / max(kept, 1),
            "final_loss": float(total.final) / max(kept, 1),
            "gradient_norm": norm,
            "task_norm": progress.norms[-1] if progress.norms else math.nan,
            "left_out": float(progress.left_out),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "inner_steps": float(episode.steps),
            "task_steps_per_second": len(episode) * episode.steps / seconds,
        }

    def _usual_norm(self, norms: Tensor, mine: slice, count: int) -> float:
        """The median over the last meta-steps, or in the first few that of all tasks now."""
        if len(self.progress.norms) >= 10:
            return statistics.median(self.progress.norms)
        everyone = norms.new_zeros(count)
        everyone[mine] = norms
        return usual_norm(self.processes.sum(everyone))

    def _sum(self, part: Combined, mine: slice, count: int) -> Combined:
        """Add up the parts of all processes, and agree on the time and on stopping."""
        norms = part.norms.new_zeros(2, count)
        norms[0, mine], norms[1, mine] = part.norms, part.kept.to(norms.dtype)
        elapsed = time.monotonic() - self._began if self.processes.leads else 0.0
        shapes = {name: g.shape for name, g in part.gradients.items()}
        own = torch.tensor([elapsed, float(self._signalled)])
        packed = torch.cat(
            [
                *(x.flatten().double() for x in part.gradients.values()),
                torch.stack([part.loss, part.final]).double(),
                norms.flatten().double(),
                own.to(self.device).double(),
            ]
        )
        total = self.processes.sum(packed)
        sizes = [*(math.prod(s) for s in shapes.values()), 2, count, count, 2]
        *gradients, losses, norms, kept, (elapsed_now, stop) = total.split(sizes)
        self.progress.elapsed, self._stop = float(elapsed_now), bool(stop > 0)
        return Combined(
            {k: g.reshape(s) for (k, s), g in zip(shapes.items(), gradients, strict=True)},
            norms,
            kept > 0,
            losses[0],
            losses[1],
        )

    def _apply(self, total: Combined) -> float:
        """Step with the mean gradient of the tasks that were kept; its norm."""
        count = int(total.kept.sum())
        if count == 0:
            return math.nan
        for name, parameter in self.denoiser.named_parameters():
            parameter.grad = (total.gradients[name] / count).to(parameter.dtype)
        norm = torch.stack([g.norm() for g in total.gradients.values()]).norm() / count
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._rate()
        self.optimizer.step()
        self._update_average()
        return float(norm)

    def _rate(self) -> float:
        warm = min(1.0, (self.progress.step + 1) / self.config.warm_up)
        return warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * self.fraction())))

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.average, (1 + self.progress.step) / (10 + self.progress.step))
        pairs = zip(self.average.parameters(), self.denoiser.parameters(), strict=True)
        for mean, now in pairs:
            mean.lerp_(now, 1 - decay)

    def _validation_due(self, every: int) -> bool:
        progress = self.progress
        validated = progress.history[-1]["step"] if progress.history else 0
        due = progress.step > validated and progress.step % every == 0
        return self.validation is not None and due

    def _validate(self, log: Log) -> None:
        progress = self.progress
        if self.validation is None:
            return
        score = self.validation.score(self.average, processes=self.processes)
        record = {"step": progress.step, "elapsed": progress.elapsed, **asdict(score)}
        progress.history.append(record)
        for name in ("ratio", "wins", "worst"):
            log(f"validation/{name}", record[name])
        for kind in ("by_model", "by_rows"):
            for name, value in record[kind].items():
                log(f"validation/{kind}/{name}", value)
        better = math.isfinite(score.ratio) and (
            progress.best is None or score.ratio < progress.best
        )
        if better:
            progress.best = score.ratio
        if self.processes.leads:
            (self.out / "history.json").write_text(json.dumps(progress.history, indent=1))
            if better:
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
        """Write the checkpoint, all of it in one file, so that no half of it is ever read.

        Only the first process of several writes.
        """
        if not self.processes.leads:
            return
        write_checkpoint(
            self.checkpoint, self.progress, self.denoiser, self.average, self.optimizer
        )
        if self.progress.best is None:
            # Nothing has picked weights yet, so the last are the ones to use.
            self._export(None)
