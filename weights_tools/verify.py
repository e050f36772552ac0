"""Compares a checkpoint with expected arrays or another; as `keras-vit verify`.

    python weights_tools/verify.py ViT-B_16.npz model.safetensors

`--help` lists the options.
"""

import sys
from pathlib import Path

# The package of this clone, installed or not.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from keras_vit.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["verify", *sys.argv[1:]]))
