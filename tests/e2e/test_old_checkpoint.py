"""test_old_checkpoint.py - a checkpoint that an older xctrain wrote goes on as if nothing had happened since.

tests/data/old_checkpoint is step 70 of 200 of a run of commit a20e286 (relu, before activations and losses were chosen by flags),
and the weights that the same commit's programs ended with when they resumed it. Made with FLAGS and SOURCE below. The bits depend on
the processor, so weights are compared by the norm of the difference: one unit in the last place of every weight at step 70 moves
the end by 2e-7 of its norm, the last 60 steps moved it by 0.15.
"""
import json
import math
import os
import shutil
import struct

import harness

DATA = os.path.join(os.path.dirname(__file__), "../data/old_checkpoint")
STEP = os.path.join("checkpoints", "step_0000000070")
SOURCE = ["--source", "synthetic", "--d-model", "16", "--n-sites", "2", "--latents", "32", "--n-seq", "256", "--seq-len", "32", "--seed", "7"]
FLAGS = ["--batch-size", "64", "--num-tokens", "12800", "--buffer-mult", "16", "--dict-size", "48", "--model-batch-size", "2",
         "--eval-blocks", "2", "--scale-rows", "500", "--lr", "2e-3", "--l1-coeff", "0.5", "--beta1", "0.8", "--dec-init-norm", "0.1",
         "--lr-warmup", "0.1", "--dead-rows", "1000", "--seed", "3", "--log-every", "10", "--eval-every", "50", "--save-every", "70",
         "--keep", "9"]
NEWER = ["wait_timeout", "audit", "audit_tolerance"]  # keys that came after the first checkpoints; they change no result
SINCE = {"center": False, "b_dec_init": "zero", "init_tied_models": False, "scale_mode": "mean-norm", "scale_target": 1,
         "log_threshold_init": 0.1, "fail_on_collapse": False}  # keys that came after that commit, and what it did
TOLERANCE = 1e-5


def tensors(path):
    header, data = harness.read_safetensors(path)
    return {name: struct.unpack(f"<{(t['data_offsets'][1] - t['data_offsets'][0]) // 4}f", data[slice(*t["data_offsets"])])
            for name, t in header.items() if name != "__metadata__"}


def distance(a, b):
    return math.dist(a, b) / math.hypot(*b)


class OldCheckpoint(harness.ProgramTest):
    def copy(self, lacks=()):
        """The old run's folder as self.path("out"); its configuration without those keys."""
        os.makedirs(self.path("out", "checkpoints"))
        shutil.copytree(os.path.join(DATA, STEP), self.path("out", STEP))
        path = self.path("out", STEP, "cfg.json")
        cfg = harness.read_json(path)
        for key in lacks:
            del cfg[key]
        with open(path, "w") as f:
            json.dump(cfg, f)

    def check_end(self):
        got, expected = tensors(self.path("out", "crosscoder.safetensors")), tensors(os.path.join(DATA, "end.safetensors"))
        start = tensors(self.path("out", STEP, "crosscoder.safetensors"))
        self.assertEqual(got.keys(), expected.keys())
        for name in expected:
            self.assertLess(distance(got[name], expected[name]), TOLERANCE, name)
            if name != "scale":
                self.assertGreater(distance(start[name], expected[name]), 0.1, name)
        self.assertEqual(harness.summary(self.path("out"))["steps"], 200)

    def resume(self, *flags):
        trainer, producer = self.trainer(["--resume", *flags]), self.producer(SOURCE)
        self.succeed(trainer, producer)
        self.assertIn("step 70 of 200; it has no manifest, so that it cannot be verified", trainer.stderr)
        self.assertFalse(harness.summary(self.path("out"))["checkpoints"]["verified"])

    def test_goes_on(self):
        self.copy()
        self.resume()
        self.check_end()
        cfg = harness.read_json(self.path("out", "cfg.json"))
        self.assertEqual({key: cfg[key] for key in SINCE}, SINCE)
        # It measured no median norm and counted no clipped steps: the one stays unknown, the others count from here on.
        self.assertNotIn("median_norm", cfg)
        lines = [line for line in harness.metrics(self.path("out")) if line["step"] > 70 and "fvu" in line]
        self.assertEqual({line["fvu_typical"] for line in lines}, {None})
        self.assertTrue(all(line["fvu_token"] > 0 and 0 <= line["clipped"] <= 1 for line in lines))
        self.assertIsNone(harness.summary(self.path("out"))["fvu_typical"])

    def test_flags_said_again(self):
        self.copy()
        self.resume(*FLAGS)
        self.check_end()

    def test_keys_that_it_lacks(self):
        self.copy(NEWER)
        self.resume("--audit", "0.5")
        self.check_end()
        cfg = harness.read_json(self.path("out", "cfg.json"))
        self.assertEqual([cfg[key] for key in NEWER], [0, 0.5, 0.02])

    def test_a_scale_that_no_producer_would_take(self):
        """It is refused by file, index and value before anybody is waited for. In a newer checkpoint the checksum would say so."""
        self.copy()
        path = self.path("out", STEP, "cfg.json")
        cfg = harness.read_json(path)
        good = cfg["run_scale"]
        for bad, text in (([good[0], -1], "run_scale[1] is -1, must be positive"), ([0, good[1]], "run_scale[0] is 0, must be positive"),
                          ([1e300, 1], "run_scale[0] is 1e+300, must be positive and finite"), ([1e-300, 1], "run_scale[0] is 1e-300"),
                          ([None, 1], "run_scale[0] is not a number"), ([1, "1"], "run_scale[1] is not a number"),
                          ([1], "run_scale has 1 values, must be 2"), ([1, 1, 1], "run_scale has 3 values"), (None, "run_scale has 0 values")):
            with open(path, "w") as f:
                json.dump({**cfg, "run_scale": bad}, f)
            trainer = self.trainer(["--resume"])
            self.assertEqual(trainer.wait(), 1)
            self.assertIn(f"{path}: {text}", trainer.stderr)
        for bad, text in (([1, -1], "median_norm[1] is -1, must be 0 or more"), ([1], "median_norm has 1 values, must be 2"),
                          (["1", 1], "median_norm[0] is not a number")):
            with open(path, "w") as f:
                json.dump({**cfg, "median_norm": bad}, f)
            trainer = self.trainer(["--resume"])
            self.assertEqual(trainer.wait(), 1)
            self.assertIn(f"{path}: {text}", trainer.stderr)

    def test_a_key_that_every_run_has(self):
        self.copy(["beta2"])
        trainer = self.trainer(["--resume"])
        self.assertEqual(trainer.wait(), 1)
        self.assertIn("key beta2 is missing", trainer.stderr)


if __name__ == "__main__":
    harness.main()
