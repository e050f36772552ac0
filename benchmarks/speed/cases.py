"""Cases to measure: models, sizes of images and batches, tasks."""

from dataclasses import dataclass, field

CLASSES = 1000
INFERENCE, TRAINING = "inference", "training"
TASKS = (INFERENCE, TRAINING)


@dataclass(frozen=True)
class Case:
    """One measurement of all contenders.

    Attributes:
        model: name of the architecture, such as `"ViTB16"`.
        task: `"inference"`, a batch in and its logits out as NumPy arrays, or
            `"training"`, a step of SGD with momentum on a batch.
        image_size: int, pixels.
        batch_size: int.
        architecture: its fields, for the peers.
    """

    model: str
    task: str
    image_size: int
    batch_size: int
    architecture: dict = field(repr=False)

    @classmethod
    def of(cls, model, task, image_size, batch_size):
        """Case with the fields of its architecture."""
        from keras_vit.models.sizes import architecture_fields

        return cls(model, task, image_size, batch_size, architecture_fields(model))

    @property
    def flops(self) -> int:
        """FLOPs of a whole forward pass, or of three for a training step: every token in
        every block, also where keras_vit computes fewer.
        """
        from keras_vit.cost import cost

        config = {
            **self.architecture,
            "image_size": self.image_size,
            "classes": CLASSES,
            "full_last_block": True,
        }
        macs = cost(config, batch_size=self.batch_size).multiply_accumulates
        return 2 * macs * (3 if self.task == TRAINING else 1)

    def __str__(self):
        return f"{self.model}, {self.image_size} px, {self.task}, batch {self.batch_size}"
