"""test_difference.py - a crosscoder of the difference of two models is the same one, whoever takes the difference.

On the demo pair, '1-0:blocks.[24].hook_resid_post': from one live producer and from three; from a recording of the difference; from
a recording of both models in fp32 with scale 1 and from safetensors of both, which replaying producers subtract: bit-identical
crosscoder.safetensors. A recording of both in bf16 gives the same up to its rounding, and cannot serve a run beside a live
producer. Some of its sites, picked, give what a live producer of these sites gives.
"""
import os
import shutil
import signal
import subprocess
import tempfile
import time

import harness
import test_recording as recording
from test_recording import N_SEQ, ROWS

PAIR = "blocks.[24].hook_resid_post"
SITES = "1-0:" + PAIR
NAMES = ["1-0:blocks.2.hook_resid_post", "1-0:blocks.4.hook_resid_post"]
TRAINER = ["--batch-size", "128", "--num-tokens", 128 * 100, "--buffer-mult", "32", "--dict-size", "128", "--lr", "3e-3", "--l1-coeff", "0.5",
           "--model-batch-size", "4", "--eval-blocks", "2", "--eval-every", "100", "--log-every", "10", "--save-every", "10000",
           "--heartbeat-ms", "200", "--timeout-ms", "10000"]


class Difference(harness.ProgramTest):
    @classmethod
    def setUpClass(cls):
        cls.shared = tempfile.mkdtemp(prefix="crossfeed-e2e-")
        cls.addClassCleanup(shutil.rmtree, cls.shared, ignore_errors=True)
        recording.first_sequences(f"{cls.shared}/tokens.npy")
        cls.models = ["--model", f"{harness.DEMO}/base", "--model", f"{harness.DEMO}/chat", "--tokens", f"{cls.shared}/tokens.npy"]
        cls.live = [*cls.models, "--sites", SITES]
        cls.recorded = cls.record("difference", "--sites", SITES, "--scale-rows", "2000")
        cls.scale = recording.scale_of(cls.recorded)
        cls.expected, cls.fvu = None, None

    @classmethod
    def record(cls, name, *flags):
        folder = f"{cls.shared}/{name}"
        if not os.path.exists(folder):
            subprocess.run([harness.ACTGEN, "--threads", "1", *cls.models, "--record", folder, *flags], check=True, capture_output=True,
                           timeout=harness.LIMIT)
        return folder

    @classmethod
    def raw_pair(cls):
        return cls.record("raw", "--sites", PAIR, "--dtype", "fp32", "--scale", "1,1,1,1")

    @classmethod
    def rounded_pair(cls):
        return cls.record("rounded", "--sites", PAIR, "--scale-rows", "2000")

    @staticmethod
    def replay(folder, *flags):
        return ["--source", "recording", "--input", folder, *flags]

    def run_with(self, *producers_args, out="out", scale=None):
        """A whole run of these producers; returns the hash of its weights. The run is short, so all of them come to a trainer that is
        held until they are there; should one miss the run all the same, it is run again."""
        for attempt in range(5):
            folder, endpoint = f"{out}{attempt}", self.endpoint(f"{out}{attempt}")
            trainer = self.trainer([*map(str, TRAINER), "--scale", scale or self.scale], folder, endpoint)
            self.until(lambda: "listening at" in trainer.stderr, "listening", trainer)
            trainer.kill(signal.SIGSTOP)
            producers = [self.producer(args, endpoint, f"producer{i}") for i, args in enumerate(producers_args)]
            for p in producers:
                self.until(lambda: "connecting to" in p.stderr, "connecting", p)
            time.sleep(0.1)
            trainer.kill(signal.SIGCONT)
            self.succeed(trainer)
            late = [p for i, p in enumerate(producers) if f"producer producer{i} joins" not in trainer.stderr]
            self.succeed(*[p for p in producers if p not in late])
            for p in late:
                p.kill()
            if not late:
                os.rename(self.path(folder), self.path(out))
                return harness.sha256(self.path(out, "crosscoder.safetensors"))
        self.fail(f"a producer missed {attempt + 1} runs:\n{late[0].stderr}")

    def last_fvu(self, out):
        return [line["eval_fvu"] for line in harness.metrics(self.path(out)) if "eval_fvu" in line][-1]

    def check(self, *producers_args):
        """The weights are those of one live producer."""
        if Difference.expected is None:
            Difference.expected = self.run_with(self.live, out="live")
            self.assertEqual(harness.read_json(self.path("live", "cfg.json"))["stream"]["sites"], NAMES)
            Difference.fvu = self.last_fvu("live")
            lines = harness.metrics(self.path("live"))
            self.assertLess(Difference.fvu, 0.7 * lines[0]["fvu"], "it did not learn")
        self.assertEqual(self.run_with(*producers_args), Difference.expected)

    def test_three_live(self):
        self.check(*[self.live] * 3)

    def test_recorded(self):
        self.assertEqual(recording.manifest(self.recorded)["stream"]["sites"], NAMES)
        self.check(self.replay(self.recorded))
        shutil.rmtree(self.path("out"))
        self.check(*[self.replay(self.recorded)] * 2, self.live)

    def test_of_a_recorded_pair(self):
        self.check(*[self.replay(self.raw_pair(), "--sites", SITES)] * 2, self.live)

    def test_of_imported_tensors(self):
        raw = self.raw_pair()
        stream = recording.manifest(raw)["stream"]
        width, header, data = 4 * stream["d_model"], {}, b""
        whole = b"".join(recording.acts(raw))
        for i, name in enumerate(stream["sites"]):
            column = b"".join(whole[at:at + width] for at in range(i * width, len(whole), 4 * width))
            header[name] = {"dtype": "F32", "shape": [N_SEQ, ROWS, stream["d_model"]], "data_offsets": [len(data), len(data) + len(column)]}
            data += column
        harness.write_safetensors(self.path("acts.safetensors"), header, data)
        self.check(["--source", "safetensors", "--input", self.path("acts.safetensors"), "--sites", SITES])

    def test_of_rounded_rows(self):
        """Nearly the same run, but another one: not beside a live producer."""
        self.check(self.live)
        args = self.replay(self.rounded_pair(), "--sites", SITES)
        self.assertNotEqual(self.run_with(args, out="rounded"), Difference.expected)
        self.assertAlmostEqual(self.last_fvu("rounded"), Difference.fvu, delta=0.02)
        trainer = self.trainer([*map(str, TRAINER), "--scale", self.scale, "--num-tokens", "1e7"], "both")
        first = self.producer(self.live)
        self.until(lambda: "joins" in trainer.stderr, "joining", trainer, first)
        second = self.producer([*args, "--give-up-after", "1"])
        self.assertEqual(second.wait(), 1)
        self.assertRegex(second.stderr, "rows recorded in bf16: each element of both was off")
        self.assertRegex(second.stderr, "error: .*model 0 has fingerprint .*, run has")
        trainer.kill(signal.SIGTERM)
        self.succeed(trainer, first)

    def test_picked(self):
        """Whole sites of a recording are those of a live producer, and may serve one run with it."""
        sites = "0:blocks.2.*post,1:blocks.4.*post"
        live, replay = [*self.models, "--sites", sites], self.replay(self.rounded_pair(), "--sites", sites)
        scale = recording.scale_of(self.rounded_pair()).split(",")
        scale = f"{scale[0]},{scale[3]}"
        expected = self.run_with(live, out="live", scale=scale)
        self.assertEqual(self.run_with(replay, live, out="replay", scale=scale), expected)
        self.assertEqual(harness.read_json(self.path("replay", "cfg.json"))["stream"]["sites"],
                         ["0:blocks.2.hook_resid_post", "1:blocks.4.hook_resid_post"])

    def test_refused(self):
        for args, message in (
                ([*self.models[:2], *self.models[4:], "--sites", SITES], "'1-0:blocks.*': model 1 less model 0, but there is 1 model"),
                ([*self.models, "--sites", "2-0:" + PAIR], "'2-0:.*': model 2 less model 0, but there are 2 models"),
                (self.replay(self.recorded, "--sites", "0-1:" + PAIR), "model 0 less model 1, but there is 1 model"),
                (self.replay(self.recorded, "--sites", "blocks.3.*"), "'blocks.3.*' matches no site; names go from 1-0:blocks.2"),
                (["--source", "synthetic", "--sites", "1-0:*"], "model 1 less model 0, but there is 1 model")):
            p = self.producer(args)
            self.assertEqual(p.wait(), 1, p.stderr)
            lines = p.stderr.splitlines()
            self.assertEqual(len(lines), 1, p.stderr)
            self.assertRegex(lines[0], message)


if __name__ == "__main__":
    harness.main()
