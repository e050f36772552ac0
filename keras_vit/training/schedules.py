"""Learning rates by the step."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_vit")
class WarmupStepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to a learning rate, and falls to a tenth of it after given steps.

    Source: the code of BiT (arXiv 1912.11370), section 3.3.

    Args:
        base_learning_rate: float, reached after the warm-up.
        warmup_steps: int, number of steps in which it rises from 0.
        decay_steps: the steps after which it is divided by 10, once more at each.

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
    ):
        super().__init__()
        self.base_learning_rate = base_learning_rate
        self.warmup_steps = warmup_steps
        self.decay_steps = tuple(decay_steps)
        self.name = name
        steps = (0, warmup_steps, *self.decay_steps)
        if list(steps) != sorted(set(steps)):
            raise ValueError(
                "`warmup_steps` must be positive, and `decay_steps` come after it in "
                f"order. Received: warmup_steps={warmup_steps}, "
                f"decay_steps={self.decay_steps}"
            )

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rate = self.base_learning_rate * ops.minimum(1.0, step / self.warmup_steps)
        for decay_step in self.decay_steps:
            rate = rate * ops.where(step > decay_step, 0.1, 1.0)
        return rate

    def get_config(self):
        return {
            "base_learning_rate": self.base_learning_rate,
            "warmup_steps": self.warmup_steps,
            "decay_steps": self.decay_steps,
            "name": self.name,
        }
