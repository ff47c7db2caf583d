"""test_recording_python.py - recordings and caches are plain files for Python: numpy and the safetensors package are all it takes.

A recording's shards are opened with safetensors as they are (bf16, which numpy lacks, by its bits), and hold what the manifest, the
token tensor and the package's own checks say; a cache written with numpy or with safetensors trains a run. numpy is Debian's;
safetensors is installed from PyPI into a virtual environment in the build folder; where that cannot be done the test says so
and is skipped (exit status 77).
"""
import glob
import json
import os
import subprocess
import sys

SKIPPED = 77
PACKAGE = "safetensors==0.8.0"
HERE = os.path.dirname(os.path.abspath(__file__))


def enter_venv():
    """Continues in a Python that has the package, and Debian's numpy."""
    venv = os.environ.get("VENV", "venv-safetensors")
    python = f"{venv}/bin/python"
    if not os.path.exists(python) or subprocess.run([python, "-c", "import safetensors"], capture_output=True).returncode:
        for command in (["/usr/bin/python3", "-m", "venv", "--clear", "--system-site-packages", venv],
                        [python, "-m", "pip", "install", "-q", "--no-deps", PACKAGE]):
            made = subprocess.run(command, capture_output=True, text=True)
            if made.returncode:
                print(f"skipped: cannot install {PACKAGE} from PyPI into {venv}: {(made.stderr or made.stdout)[-500:]}")
                sys.exit(SKIPPED)
    if os.environ.get("IN_VENV"):
        print("skipped: no numpy (Debian's python3-numpy)")
        sys.exit(SKIPPED)
    os.execve(python, [python, *sys.argv], dict(os.environ, IN_VENV="1"))


try:
    import numpy as np
    import safetensors
    from safetensors.numpy import load_file, save_file
except ImportError:
    enter_venv()

sys.path[:0] = [os.path.join(HERE, "../e2e")]
import harness  # noqa: E402

N_SEQ, ROWS = 40, 127
TRAINER = ["--batch-size", "64", "--num-tokens", str(64 * 60), "--buffer-mult", "16", "--dict-size", "64", "--lr", "1e-3",
           "--model-batch-size", "4", "--scale-rows", "600", "--eval-blocks", "2", "--eval-every", "60", "--log-every", "10",
           "--save-every", "10000"]


class Recording(harness.ProgramTest):
    def record(self, *more):
        """A recording of the demo pair on its first sequences; returns the folder and the tokens."""
        tokens = np.load(f"{harness.DEMO}/tokens.npy", mmap_mode="r")[:N_SEQ]
        np.save(self.path("tokens.npy"), tokens)
        folder = self.path(f"recording{self.n_started}")
        self.succeed(self.start(harness.ACTGEN, ["--threads", "1", "--model", f"{harness.DEMO}/base", "--model", f"{harness.DEMO}/chat",
                                                 "--tokens", self.path("tokens.npy"), "--sites", "blocks.[24].hook_resid_post",
                                                 "--record", folder, "--shard-seqs", "16", *more], "record"))
        return folder, tokens

    def shards(self, folder):
        paths = sorted(glob.glob(f"{folder}/shard_*.safetensors"))
        self.assertEqual(len(paths), 3)
        return paths

    def origins_are(self, shards, tokens):
        position = np.concatenate([s["positions"] for s in shards])
        sequence = np.concatenate([s["sequence"] for s in shards])
        np.testing.assert_array_equal(sequence, np.repeat(np.arange(N_SEQ), ROWS))
        np.testing.assert_array_equal(position, np.tile(np.arange(1, ROWS + 1), N_SEQ))
        np.testing.assert_array_equal(np.concatenate([s["tokens"] for s in shards]), tokens[sequence, position])

    def test_fp32(self):
        folder, tokens = self.record("--dtype", "fp32", "--eval-blocks", "0")
        shards = [load_file(path) for path in self.shards(folder)]
        acts = np.concatenate([s["acts"] for s in shards])
        self.assertEqual((acts.dtype, acts.shape), (np.float32, (N_SEQ * ROWS, 4, 128)))
        self.origins_are(shards, tokens)
        norms = np.linalg.norm(acts.astype(np.float64), axis=2).mean(axis=0)  # the scale was measured over these rows
        np.testing.assert_allclose(norms, np.sqrt(128), rtol=1e-5)

    def test_bf16(self):
        """bf16 as the package hands over its bytes; they are the fp32 recording's, rounded to nearest, ties to even."""
        folder, tokens = self.record("--dtype", "fp32")
        with open(f"{folder}/manifest.json") as f:
            scale = ",".join(map(repr, json.load(f)["scale"]))
        exact = np.concatenate([load_file(path)["acts"] for path in self.shards(folder)])
        folder, tokens = self.record("--scale", scale)
        shards = []
        for path in self.shards(folder):
            with open(path, "rb") as f:
                tensors = {name: (t["dtype"], tuple(t["shape"]), t["data"]) for name, t in safetensors.deserialize(f.read())}
            self.assertEqual(tensors["acts"][0], "BF16")
            self.assertEqual([tensors[name][0] for name in ("tokens", "positions", "sequence")], ["I32", "I32", "I64"])
            kinds = {"BF16": "<u2", "I32": "<i4", "I64": "<i8"}
            shards.append({name: np.frombuffer(data, kinds[dtype]).reshape(shape) for name, (dtype, shape, data) in tensors.items()})
        self.origins_are(shards, tokens)
        bits = exact.view(np.uint32)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        np.testing.assert_array_equal(np.concatenate([s["acts"] for s in shards]), rounded)


class Cache(harness.ProgramTest):
    """Caches as somebody else would write them."""

    def setUp(self):
        super().setUp()
        random = np.random.default_rng(1)
        features = random.standard_normal((24, 2, 32)).astype(np.float32)
        active = (random.random((12000, 24)) < 0.1) * random.random((12000, 24))
        self.acts = np.einsum("rf,fsd->rsd", active.astype(np.float32), features) * np.float32([3, 0.2])[:, None]

    def run_of(self, out, *source):
        trainer = self.trainer(TRAINER, out, self.endpoint(out))
        producer = self.producer(source, self.endpoint(out))
        self.succeed(trainer, producer)
        weights = load_file(self.path(out, "crosscoder.safetensors"))
        fvu = [line["eval_fvu"] for line in harness.metrics(self.path(out)) if "eval_fvu" in line]
        self.assertTrue(np.isfinite(fvu[-1]))
        return weights

    def test_npy(self):
        """One array; the scale that the trainer measures is numpy's over the rows it measured."""
        np.save(self.path("acts.npy"), self.acts)
        weights = self.run_of("npy", "--source", "npy", "--input", self.path("acts.npy"), "--seq-len", "50")
        expected = np.sqrt(32) / np.linalg.norm(self.acts.astype(np.float64), axis=2).mean(axis=0)
        np.testing.assert_allclose(weights["scale"], expected, rtol=0.1)  # over 600 rows of the 12000
        self.assertEqual(weights["W_dec"].shape, (64, 2, 32))

    def test_the_same_in_other_layouts(self):
        """One array a site, and safetensors: the same values, the same result."""
        np.save(self.path("acts.npy"), self.acts)
        seq = ["--seq-len", "50"]
        weights = self.run_of("one", "--source", "npy", "--input", self.path("acts.npy"), *seq)
        for i in range(2):
            np.save(self.path(f"site{i}.npy"), np.ascontiguousarray(self.acts[:, i]))
        save_file({f"hook.{i}": np.ascontiguousarray(self.acts[:, i]).reshape(240, 50, 32) for i in range(2)}, self.path("acts.safetensors"))
        others = [self.run_of("sites", "--source", "npy", "--input", self.path("site0.npy"), "--input", self.path("site1.npy"), *seq),
                  self.run_of("tensors", "--source", "safetensors", "--input", self.path("acts.safetensors"))]
        for other in others:
            for name in weights:
                np.testing.assert_array_equal(other[name], weights[name], err_msg=name)

    def test_bf16_in_16_bit_integers(self):
        bits = (np.ascontiguousarray(self.acts).view(np.uint32) >> 16).astype(np.uint16)  # cut: what matters is that it is bf16
        np.save(self.path("exact.npy"), (bits.astype(np.uint32) << 16).view(np.float32))
        np.save(self.path("unsigned.npy"), bits)
        np.save(self.path("signed.npy"), bits.view(np.int16))
        weights = [self.run_of(name, "--source", "npy", "--input", self.path(f"{name}.npy"), "--seq-len", "50", *dtype)
                   for name, *dtype in (["exact"], ["unsigned", "--npy-dtype", "bf16"], ["signed", "--npy-dtype", "bf16"])]
        for other in weights[1:]:
            np.testing.assert_array_equal(other["W_dec"], weights[0]["W_dec"])

    def test_rows_that_are_not_finite(self):
        """The run ends with the row and the site named."""
        self.acts[7003, 1, 5] = np.nan
        np.save(self.path("acts.npy"), self.acts)
        trainer = self.trainer([*TRAINER, "--num-tokens", "11000", "--buffer-mult", "180"])
        producer = self.producer(["--source", "npy", "--input", self.path("acts.npy"), "--seq-len", "50"])
        self.assertEqual(trainer.wait(), 1, trainer.stderr)
        self.assertIn("row 7003, site.1: value 5 is nan, must be finite", trainer.stderr)
        self.assertEqual(producer.wait(), 1)


if __name__ == "__main__":
    harness.main()
