"""``ramflow train --profile``: some steps of the run, where their time goes, and nothing kept."""

from __future__ import annotations

from ramflow.train import ranks
from ramflow.train.arithmetic import expected
from ramflow.train.loop import Trainer
from ramflow.train.profiling import WARM_UP, StepProfile
from ramflow.train.samples import batches


def profile_steps(trainer: Trainer, steps: int) -> None:
    """Take ``steps`` steps, and a few before that are not counted; print the table on process 0."""
    engine, settings = trainer.engine, trainer.settings
    trainer.model.train()
    items = batches(trainer.samples, trainer.order, settings, 0, ranks.rank(), ranks.world())
    profile = StepProfile(trainer.device)
    engine.inner.profile = profile
    for number in range(min(steps + WARM_UP, trainer.total)):
        with profile.phase("data wait", host=True):
            batch = next(items)
        with profile.phase("copy"):
            batch = batch.to(trainer.device)
        engine.step(batch, number, 0.0, (float("inf"),) * 4, trainer.weights)
        profile.step_done(len(batch.samples))
    if ranks.rank() == 0:
        forecast = expected(trainer.model, trainer.teacher, settings, engine.micro_batch, ranks.world())
        print(profile.table(forecast), flush=True)
