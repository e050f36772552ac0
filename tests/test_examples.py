"""The examples run as a user runs them, made small."""

import http.server
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import REFERENCE

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_digits(tmp_path):
    command = [sys.executable, EXAMPLES / "digits.py", "--seeds=1", "--epochs=1"]
    command += ["--shots=1", "--precision=mixed_bfloat16", f"--output={tmp_path}"]
    output = subprocess.run(command, capture_output=True, text=True)
    assert output.returncode == 0, output.stderr
    assert "fine-tuned    mean " in output.stdout
    assert "from scratch  mean " in output.stdout
    assert "step" in output.stdout  # Keras' progress bar
    for name in ("learning_curves.png", "predictions.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    model = keras.models.load_model(tmp_path / "finetuned.keras")
    assert model.input_shape == (None, 24, 24, 1)
    assert model.dtype_policy.name == "mixed_bfloat16"


@pytest.fixture
def flowers(tmp_path):
    """A directory of TFDS with a data set of the flowers' name: 3 of the 102 classes, in
    30 x 24 pixels."""
    import tensorflow_datasets as tfds

    colours = np.array([(250, 250, 240), (200, 20, 60), (90, 30, 160)])

    class OxfordFlowers102(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("2.1.1")

        def _info(self):
            features = {
                "image": tfds.features.Image(),
                "label": tfds.features.ClassLabel(num_classes=102),
                "file_name": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager):
            return {"train": self._examples(0, 24), "validation": self._examples(1, 6),
                    "test": self._examples(2, 12)}  # fmt: skip

        def _generate_examples(self):
            raise NotImplementedError

        def _examples(self, seed, number):
            rng = np.random.default_rng(seed)
            for k in range(number):
                image = np.clip(colours[k % 3] + rng.normal(0, 30, (24, 30, 3)), 0, 255)
                record = {"image": image.astype("uint8"), "label": k % 3}
                yield k, {**record, "file_name": f"{k}.jpg"}

    builder = OxfordFlowers102(data_dir=tmp_path)
    builder.download_and_prepare()
    return tmp_path


@pytest.fixture
def checkpoint_address():
    """The address of a small checkpoint of the original code, served on loopback."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=REFERENCE / "vit_token")

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/checkpoint.npz"
        server.shutdown()


# How the example is started on several devices, which are virtual ones of the CPU.
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
DEVICES = "--xla_force_host_platform_device_count=8"


def test_finetune_flowers(flowers, checkpoint_address, tmp_path):
    """On all devices: on JAX fully sharded, on torch by two processes."""
    backend = keras.backend.backend()
    script, output = EXAMPLES / "finetune_flowers.py", tmp_path / "flowers.keras"
    assert len(script.read_text().splitlines()) < 100
    launcher = TORCHRUN if backend == "torch" else ()
    command = [sys.executable, *launcher, script, f"--data_dir={flowers}"]
    command += [f"--output={output}"]
    command += [f"--strategy={'fully_sharded' if backend == 'jax' else 'auto'}"]
    command += [f"--weights={checkpoint_address}", "--resolution=48", "--batch_size=8"]
    command += ["--steps=20", "--learning_rate=0.1", "--precision=mixed_bfloat16"]
    command += [f"--resume={tmp_path / 'resume'}"]
    environment = {**os.environ, "KERAS_HOME": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    if backend == "jax":
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}"
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    accuracy = re.search(r"Accuracy on the test images: ([\d.]+) %", done.stdout)
    assert float(accuracy[1]) > 90, done.stdout
    again = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stderr
    last = done.stdout.splitlines()[-2:]
    assert again.stdout.splitlines()[-2:] == last  # goes on at the end, to the same
    model = keras.models.load_model(output)
    assert model.input_shape == (None, 48, 48, 3)
    assert model.output_shape == (None, 102)
    assert model.dtype_policy.name == "mixed_bfloat16"
