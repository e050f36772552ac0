"""The sizes that papers name, and how many parameters a model has."""

# Ti, S and So400m: DeiT (arXiv 2012.12877) and arXiv 2305.13035; B, L, H: ViT (arXiv
# 2010.11929), table 1; g and G: *Scaling Vision Transformers* (arXiv 2106.04560); M:
# DeiT-3 (arXiv 2204.07118); gopt: SigLIP 2's g-opt (arXiv 2502.14786, sizes of
# BigVision's code); giant: DINOv2's ViT-g (arXiv 2304.07193), whose MLPs are SwiGLU.
SIZES = {
    name: {
        "hidden_dim": hidden_dim,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "mlp_dim": mlp_dim,
    }
    for name, num_layers, hidden_dim, mlp_dim, num_heads in [
        ("Ti", 12, 192, 768, 3),
        ("S", 12, 384, 1536, 6),
        ("M", 12, 512, 2048, 8),
        ("B", 12, 768, 3072, 12),
        ("L", 24, 1024, 4096, 16),
        ("So400m", 27, 1152, 4304, 16),
        ("H", 32, 1280, 5120, 16),
        ("g", 40, 1408, 6144, 16),
        ("gopt", 40, 1536, 6144, 16),
        ("giant", 40, 1536, 4096, 24),
        ("G", 48, 1664, 8192, 16),
    ]
}


def count_parameters(
    image_size: int | tuple[int, int],
    patch_size: int,
    hidden_dim: int,
    num_layers: int,
    num_heads: int,
    mlp_dim: int,
    *,
    classes: int = 0,
    pooling: str | None = "token",
    class_token: bool | None = None,
    num_registers: int = 0,
    num_prefix_positions: int | None = None,
    representation_size: int | None = None,
    position: str = "learned",
    pre_norm: bool = False,
    patch_bias: bool | None = None,
    mlp: str = "gelu",
    qkv_bias: bool = True,
    qk_norm: bool = False,
    layer_scale: float | None = None,
    **others,
) -> int:
    """Number of parameters of a `VisionTransformer` of images with three channels.

    It takes the model's arguments; `others` do not change the number.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    grid = (height // patch_size) * (width // patch_size)
    class_token = pooling in ("token", None) if class_token is None else class_token
    own = class_token if num_prefix_positions is None else num_prefix_positions
    patch_bias = not pre_norm if patch_bias is None else patch_bias

    norm = 2 * hidden_dim
    attention = (3 * (hidden_dim + qkv_bias) + hidden_dim + 1) * hidden_dim
    attention += 4 * (hidden_dim // num_heads) * qk_norm
    block = 2 * norm + attention + _mlp(hidden_dim, mlp_dim, gated=mlp == "swiglu")
    block += 2 * hidden_dim * (layer_scale is not None)
    probe = hidden_dim + 4 * (hidden_dim + 1) * hidden_dim + norm
    probe += _mlp(hidden_dim, mlp_dim)
    features = representation_size or hidden_dim

    return (
        (3 * patch_size**2 + patch_bias) * hidden_dim
        + (class_token + num_registers) * hidden_dim
        + (grid + own) * hidden_dim * (position == "learned")
        + norm * pre_norm
        + num_layers * block
        + norm  # the last one
        + probe * (pooling == "map")
        + (hidden_dim + 1) * features * bool(representation_size)
        + (features + 1) * classes
    )


def _mlp(hidden_dim, mlp_dim, gated=False):
    return (hidden_dim + 1) * mlp_dim * (1 + gated) + (mlp_dim + 1) * hidden_dim
