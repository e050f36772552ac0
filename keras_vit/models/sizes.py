"""The sizes that papers name."""

# Ti, S and So400m: DeiT (arXiv 2012.12877) and arXiv 2305.13035; B, L, H: ViT (arXiv
# 2010.11929), table 1; g and G: *Scaling Vision Transformers* (arXiv 2106.04560).
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
        ("B", 12, 768, 3072, 12),
        ("L", 24, 1024, 4096, 16),
        ("So400m", 27, 1152, 4304, 16),
        ("H", 32, 1280, 5120, 16),
        ("g", 40, 1408, 6144, 16),
        ("G", 48, 1664, 8192, 16),
    ]
}
