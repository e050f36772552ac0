"""Cost of a model, computed from its config: parameters, multiply-accumulates, memory."""

from keras_vit.cost.inference import Cost, cost

__all__ = ["Cost", "cost"]
