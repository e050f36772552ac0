"""Learning rate schedules."""

from typing import Any

import keras
from keras import ops

from keras_vit import arguments


@keras.saving.register_keras_serializable(package="keras_vit")
class WarmupStepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a division by 10 after each of the given steps.

    Source: the code of BiT (arXiv 1912.11370), section 3.3.

    Args:
        base_learning_rate: float, learning rate after the warm-up.
        warmup_steps: int, steps in which the learning rate rises linearly from 0.
        decay_steps: steps after which the learning rate is divided by 10 once more.
        name: name of the schedule.

    Raises:
        ValueError: if `warmup_steps` is 0, or the steps are not in ascending order.

    Example:

    >>> WarmupStepDecay(0.003, warmup_steps=100, decay_steps=(200, 300, 400))(50)
    0.0015
    """

    def __init__(
        self,
        base_learning_rate: float,
        warmup_steps: int,
        decay_steps: tuple[int, ...],
        name: str = "warmup_step_decay",
    ) -> None:
        super().__init__()
        self.base_learning_rate = base_learning_rate
        self.warmup_steps = warmup_steps
        self.decay_steps = tuple(decay_steps)
        self.name = name
        steps = (0, warmup_steps, *self.decay_steps)
        if list(steps) != sorted(set(steps)):
            raise ValueError(
                "`warmup_steps` must be positive, and `decay_steps` must follow it in "
                f"ascending order. Received: warmup_steps={warmup_steps}, "
                f"decay_steps={self.decay_steps}"
            )

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rate = self.base_learning_rate * ops.minimum(1.0, step / self.warmup_steps)
        for decay_step in self.decay_steps:
            rate = rate * ops.where(step > decay_step, 0.1, 1.0)
        return rate

    def get_config(self) -> dict[str, Any]:
        return {
            "base_learning_rate": self.base_learning_rate,
            "warmup_steps": self.warmup_steps,
            "decay_steps": self.decay_steps,
            "name": self.name,
        }


@keras.saving.register_keras_serializable(package="keras_vit")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then linear decay.

    Source: the code of ViT, which was pre-trained with it (arXiv 2010.11929, Table 3).
    The cosine decay of its fine-tuning (Table 4) is Keras' own: `CosineDecay(0.0, steps -
    warmup_steps, warmup_target=base_learning_rate, warmup_steps=warmup_steps)`.

    Args:
        base_learning_rate: float, learning rate after the warm-up.
        steps: int, steps of the training including the warm-up. Later steps keep
            `end_learning_rate`.
        warmup_steps: int, steps in which the learning rate rises linearly from 0.
        end_learning_rate: float, learning rate after `steps`.
        name: name of the schedule.

    Raises:
        ValueError: if `warmup_steps` is not in [0, steps).

    Example:

    >>> WarmupLinearDecay(0.01, steps=110, warmup_steps=10, end_learning_rate=0.0)(60)
    0.005
    """

    def __init__(
        self,
        base_learning_rate: float,
        steps: int,
        warmup_steps: int,
        end_learning_rate: float = 1e-5,
        name: str = "warmup_linear_decay",
    ) -> None:
        super().__init__()
        if not 0 <= warmup_steps < steps:
            raise ValueError(
                "`warmup_steps` must be at least 0 and less than `steps`, which include "
                f"the warm-up. Received: warmup_steps={warmup_steps}, steps={steps}"
            )
        self.base_learning_rate = base_learning_rate
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.end_learning_rate = end_learning_rate
        self.name = name

    def __call__(self, step):
        step = ops.cast(step, "float32")
        progress = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        left = 1.0 - ops.clip(progress, 0.0, 1.0)
        span = self.base_learning_rate - self.end_learning_rate
        rate = self.end_learning_rate + span * left
        if not self.warmup_steps:
            return rate
        return rate * ops.minimum(1.0, step / self.warmup_steps)

    def get_config(self) -> dict[str, Any]:
        return {
            "base_learning_rate": self.base_learning_rate,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "end_learning_rate": self.end_learning_rate,
            "name": self.name,
        }


@keras.saving.register_keras_serializable(package="keras_vit")
class PerUpdate(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that counts updates of the weights under gradient accumulation.

    In Keras 3.15 an optimizer with `gradient_accumulation_steps=k` counts k iterations
    per update, so that a schedule of 500 steps ends after 500 / k updates. This class
    calls the schedule with the number of the update.

    Args:
        schedule: a `LearningRateSchedule` whose steps are updates.
        gradient_accumulation_steps: int, the optimizer's argument of this name.

    Example:

    >>> schedule = PerUpdate(WarmupLinearDecay(0.01, 500, 100), 4)
    >>> keras.optimizers.SGD(schedule, gradient_accumulation_steps=4)
    """

    def __init__(
        self,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        gradient_accumulation_steps: int,
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.gradient_accumulation_steps = arguments.positive(
            gradient_accumulation_steps, "gradient_accumulation_steps"
        )

    def __call__(self, step):
        return self.schedule(ops.floor_divide(step, self.gradient_accumulation_steps))

    def get_config(self) -> dict[str, Any]:
        return {
            "schedule": keras.optimizers.schedules.serialize(self.schedule),
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PerUpdate":
        schedule = keras.optimizers.schedules.deserialize(config["schedule"])
        return cls(**{**config, "schedule": schedule})
