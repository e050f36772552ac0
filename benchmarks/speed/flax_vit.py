"""A ViT of Flax' own layers, put together as the paper's code has it."""

import flax.linen as nn
import jax.numpy as jnp


class EncoderBlock(nn.Module):
    """Pre-LN block."""

    num_heads: int
    mlp_dim: int

    @nn.compact
    def __call__(self, tokens):
        """(batch, tokens, hidden_dim) to the same."""
        normal = nn.LayerNorm(epsilon=1e-6)(tokens)
        tokens += nn.MultiHeadDotProductAttention(self.num_heads)(normal, normal)
        hidden = nn.gelu(nn.Dense(self.mlp_dim)(nn.LayerNorm(epsilon=1e-6)(tokens)))
        return tokens + nn.Dense(tokens.shape[-1])(hidden)


class ViT(nn.Module):
    """Images to logits, of the class token."""

    patch_size: int
    hidden_dim: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    classes: int

    @nn.compact
    def __call__(self, images):
        """(batch, height, width, 3) to (batch, classes)."""
        patch = (self.patch_size, self.patch_size)
        tokens = nn.Conv(self.hidden_dim, patch, patch, "VALID")(images)
        tokens = tokens.reshape(len(images), -1, self.hidden_dim)
        token = self.param("class_token", nn.initializers.zeros, (1, 1, self.hidden_dim))
        token = jnp.tile(token, (len(images), 1, 1))
        tokens = jnp.concatenate([token, tokens], axis=1)
        shape = (1, *tokens.shape[1:])
        tokens += self.param("position", nn.initializers.normal(0.02), shape)
        for _ in range(self.num_layers):
            tokens = EncoderBlock(self.num_heads, self.mlp_dim)(tokens)
        return nn.Dense(self.classes)(nn.LayerNorm(epsilon=1e-6)(tokens)[:, 0])
