"""test_memory.py - the trainer's peak memory is what the budget said before anything was allocated, within 10 %.

Synthetic rows in configurations in which parameters and window dominate: both, mostly window, mostly parameters. The window
is filled and refilled. The peak is the kernel's (wait4's ru_maxrss of the trainer), the budget is the line that the trainer
prints at start; it must be the sum of its parts, parameters and window must be the sizes worked out here, and summary.json
must have the same figures. A run killed and resumed keeps to the same budget: reading the checkpoint does not add to it.
"""
import re
import unittest

import harness

D_MODEL, N_SITES, BATCH, BLOCK_ROWS = 1024, 8, 128, 128
N_INPUTS = N_SITES * D_MODEL


@unittest.skipIf(harness.SANITIZED, "a sanitizer's memory is its own")
class Memory(harness.ProgramTest):
    def run_case(self, dict_size, window_batches, steps, dtype, killed=False, scale_rows=256, flags=(), least=0.9):
        arguments = ["--batch-size", BATCH, "--buffer-mult", window_batches, "--dict-size", dict_size, "--dtype", dtype,
                     "--num-tokens", steps * BATCH, "--model-batch-size", 2, "--eval-blocks", 1, "--scale-rows", scale_rows,
                     "--log-every", 1, "--save-every", steps // 2, "--keep", 1, *flags]
        arguments = [str(a) for a in arguments]
        n_blocks = 4 * window_batches * BATCH // BLOCK_ROWS + 1  # an epoch of four full windows, and the held-out block
        trainer = self.trainer(arguments)
        producer = self.producer(["--source", "synthetic", "--d-model", str(D_MODEL), "--n-sites", str(N_SITES), "--latents",
                                  "64", "--seq-len", str(BLOCK_ROWS // 2), "--n-seq", str(2 * n_blocks)])
        if killed:
            self.until(lambda: harness.checkpoints(self.path("out")), "a checkpoint", trainer, producer)
            trainer.kill()
            self.assertLess(harness.last_step(self.path("out")), steps)
            trainer = self.trainer([*arguments, "--resume"])
        self.succeed(trainer, producer)

        total, parts = re.search(r"memory budget: ([0-9.]+) MB = (.*)", trainer.stderr).groups()
        budget = 1e6 * float(total)
        parts = {name: 1e6 * float(size) for size, name in re.findall(r"([0-9.]+) ([a-z -]+[a-z])", parts)}
        self.assertAlmostEqual(sum(parts.values()), budget, delta=0.06e6 * len(parts))
        n_parameters = 2 * dict_size * N_INPUTS + dict_size + N_INPUTS
        self.assertAlmostEqual(parts["parameters"], 16 * n_parameters, delta=0.06e6)
        row_bytes = N_INPUTS * (2 if dtype == "bf16" else 4)
        window = window_batches * BATCH * row_bytes
        lookahead = (4 + 2) * BLOCK_ROWS * row_bytes  # two for second answers
        self.assertAlmostEqual(parts["window"], window + lookahead, delta=0.06e6)
        measured = parts.get("measured rows to begin with", 0)
        self.assertEqual(measured > 0, bool(flags))
        self.assertGreater(parts["parameters"] + parts["window"] + measured, 0.85 * budget, "other things dominate")

        summary = harness.summary(self.path("out"))
        self.assertAlmostEqual(summary["budget"], budget, delta=0.06e6)
        self.assertAlmostEqual(summary["peak_rss"] / trainer.peak_rss, 1, delta=0.01)
        self.assertGreater(summary["ledger"]["rows_this_session"], 1.5 * window / row_bytes, "the window was not refilled")
        ratio = trainer.peak_rss / budget
        print(f"budget {budget / 1e6:.1f} MB, peak {trainer.peak_rss / 1e6:.1f} MB, {100 * (ratio - 1):+.1f} % ", end="", flush=True)
        self.assertLess(ratio, 1.1, trainer.stderr)
        self.assertGreater(ratio, least, trainer.stderr)

    def test_both(self):
        self.run_case(dict_size=512, window_batches=40, steps=70, dtype="fp32")

    def test_window(self):
        self.run_case(dict_size=128, window_batches=120, steps=200, dtype="bf16")

    def test_parameters(self):
        self.run_case(dict_size=1280, window_batches=5, steps=10, dtype="bf16")

    def test_measured(self):
        """The rows that the median is computed over are freed before the window is full, or after: the peak is between."""
        self.run_case(dict_size=128, window_batches=120, steps=200, dtype="bf16", scale_rows=4096, least=0.6,
                      flags=["--center", "--b-dec-init", "geometric-median"])

    def test_resumed(self):
        self.run_case(dict_size=1280, window_batches=5, steps=40, dtype="bf16", killed=True)


if __name__ == "__main__":
    harness.main()
