"""The cost of a model: parameters, multiply-accumulates, memory."""
