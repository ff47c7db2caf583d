"""test_overwrite.py - no program writes over one of its inputs, nor, without --force, over a file of another kind.

Each refusal comes at the start, names the file and leaves it as it was.
"""
import os
import shutil
import subprocess
import sys
import unittest

import harness

XCTOK, XCKEYS = os.environ.get("XCTOK"), os.environ.get("XCKEYS", "xckeys")
SOMETHING = b"what somebody wants to keep\n"
SYNTHETIC = ["--source", "synthetic", "--d-model", "4", "--n-sites", "2", "--latents", "8", "--active", "2", "--n-seq", "4", "--seq-len", "8",
             "--threads", "1"]
OTHER_KIND, INPUT = "not overwritten without --force: it exists and", "not overwritten: it is an input"


class Overwrite(harness.ProgramTest):
    def put(self, name, data=SOMETHING):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
        return path

    def get(self, path):
        with open(path, "rb") as f:
            return f.read()

    def run_it(self, program, args, status=0, **more):
        done = subprocess.run([program, *args], capture_output=True, timeout=harness.LIMIT, **more)
        self.assertEqual(done.returncode, status, done.stderr.decode())
        return done.stderr.decode()

    def refuses(self, path, message, program, args, status=1, **more):
        before = self.get(path)
        said = self.run_it(program, args, status, **more)
        self.assertIn(message, said)
        self.assertIn(os.path.basename(path), said)
        self.assertEqual(self.get(path), before)

    def test_actgen(self):
        truth = self.put("truth.safetensors")
        args = [*SYNTHETIC, "--eval-blocks", "0", "--record", self.path("new"), "--truth", truth]
        self.refuses(truth, OTHER_KIND, harness.ACTGEN, args)
        self.run_it(harness.ACTGEN, [*args, "--force"])
        self.assertIn("directions", harness.read_safetensors(truth)[0])
        self.run_it(harness.ACTGEN, [*SYNTHETIC, "--eval-blocks", "0", "--record", self.path("again"), "--truth", truth])  # of its own kind

        shard = self.put("other/shard_00000000.safetensors")
        args = [*SYNTHETIC, "--eval-blocks", "0", "--record", self.path("other")]
        self.refuses(shard, OTHER_KIND, harness.ACTGEN, args)
        self.assertEqual(os.listdir(self.path("other")), ["shard_00000000.safetensors"])
        self.run_it(harness.ACTGEN, [*args, "--force"])
        self.assertIn("acts", harness.read_safetensors(shard)[0])

        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (8, 4), }".ljust(117) + b"\n"
        shard = self.put("in/shard_00000000.safetensors", b"\x93NUMPY\1\0\x76\0" + header + b"\0\0\x80\x3f" * 32)
        self.refuses(shard, INPUT, harness.ACTGEN, ["--source", "npy", "--input", shard, "--record", self.path("in"), "--force", "--eval-blocks", "0"])

    def test_xctrain(self):
        for name in ("crosscoder.safetensors", "cfg.json", "status.json", "summary.json"):
            with self.subTest(name):
                self.refuses(self.put(f"{name}.run/{name}"), OTHER_KIND, harness.XCTRAIN, ["--out", self.path(f"{name}.run")])
        rows = self.put("rows")
        self.refuses(rows, "it exists and is not the provenance of a run", harness.XCTRAIN,
                     ["--out", self.path("new"), "--provenance", rows])
        weights = self.put("init/crosscoder.safetensors")
        self.refuses(weights, INPUT, harness.XCTRAIN, ["--out", self.path("init"), "--init", weights, "--force"])
        self.assertIn("--resume and --force exclude", self.run_it(harness.XCTRAIN, ["--out", "x", "--resume", "--force"], status=2))

        trainer = self.trainer(["--provenance", rows, "--force", "--batch-size", "4", "--buffer-mult", "8", "--dict-size", "8", "--num-tokens",
                                "40", "--model-batch-size", "1", "--scale-rows", "8", "--eval-blocks", "0"])
        self.succeed(self.producer(SYNTHETIC[:-2]), trainer)
        self.assertEqual(len(harness.provenance(rows)), 40)
        self.put("rows", SOMETHING)
        self.refuses(rows, OTHER_KIND, harness.XCTRAIN, ["--out", self.path("out"), "--resume", "--provenance", rows])

    @unittest.skipUnless(XCTOK, "xctok is not built")
    def test_xctok(self):
        text, tokenizer = self.put("text", b"a text that is long enough for a sequence of eight tokens"), f"{harness.DEMO}/base"
        args = ["--tokenizer", tokenizer, "--seq-len", "8", text, "--out"]
        self.refuses(text, INPUT, XCTOK, [*args, text, "--force"])
        os.link(text, self.path("link"))
        self.refuses(self.path("link"), INPUT, XCTOK, [*args, self.path("link"), "--force"])
        with open(text, "rb") as f:
            self.refuses(text, INPUT, XCTOK, ["--tokenizer", tokenizer, "--seq-len", "8", "--out", text], stdin=f)
        shutil.copytree(tokenizer, self.path("tokenizer"))
        self.refuses(self.path("tokenizer", "config.json"), INPUT, XCTOK, ["--tokenizer", self.path("tokenizer"), "--seq-len", "8", "--out",
                                                                          self.path("tokenizer", "config.json"), text])

        out = self.put("out.npy")
        self.refuses(out, OTHER_KIND, XCTOK, [*args, out])
        self.run_it(XCTOK, [*args, out, "--force"])
        self.run_it(XCTOK, [*args, out])
        lengths = self.put("out.lengths.npy")
        for more in ([], ["--per-document"]):  # written, or removed as it is not of the new tensor
            self.refuses(lengths, OTHER_KIND, XCTOK, [*args, out, *more])
        self.run_it(XCTOK, [*args, out, "--force"])
        self.assertFalse(os.path.exists(lengths))

    def test_make_demo(self):
        """The Python tools ask the same of tools/overwrite.py."""
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools/demo/make_demo.py")
        self.refuses(self.put("demo/tokens.npy"), "not overwritten without --force: it exists", sys.executable,
                     [program, "--out", self.path("demo")], status=2)

    def test_xckeys(self):
        for end in ("secret", "public"):
            self.refuses(self.put(f"{end}/key.{end}"), "not overwritten", XCKEYS, ["make", self.path(end, "key")])
            self.assertEqual(os.listdir(self.path(end)), [f"key.{end}"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
