"""test_checkpoints.py - what a run saves: which checkpoint it goes on from, into which folder it writes, and what a disk without room costs it.

Damage itself, of every file in every way, is tests/faults/corruption.py's and test_checkpoint.c's.
"""
import json
import os
import resource
import shutil
import signal
import subprocess
import time

import harness

XCVERIFY = os.environ.get("XCVERIFY", "xcverify")
STEPS, SAVE_EVERY = 1000, 100
TRAINER = ["--batch-size", "64", "--num-tokens", str(64 * STEPS), "--buffer-mult", "16", "--dict-size", "128", "--model-batch-size", "2",
           "--eval-blocks", "1", "--scale-rows", "300", "--log-every", "1", "--save-every", str(SAVE_EVERY), "--keep", "19"]
PRODUCER = ["--source", "synthetic", "--d-model", "16", "--n-sites", "2", "--latents", "32", "--n-seq", "256"]


class Checkpoints(harness.ProgramTest):
    expected = None  # the weights of the undisturbed run

    def step_path(self, step, *names, out="out"):
        return self.path(out, "checkpoints", f"step_{step:010d}", *names)

    def names(self, out="out"):
        return sorted(os.listdir(self.path(out, "checkpoints")))

    def stopped(self, *args, step=SAVE_EVERY + 2, out="out"):
        """A run and its producer, the trainer stopped (SIGSTOP) after that step, and not while it saves."""
        trainer = super().trainer([*TRAINER, *args], out=out)
        producer = self.producer(PRODUCER)
        self.until_step(step, trainer, producer, out=out)
        while True:
            trainer.kill(signal.SIGSTOP)
            self.until(lambda: self.state(trainer) == "T", "its stop", trainer)
            at = harness.last_step(self.path(out))
            self.assertLess(at, STEPS - SAVE_EVERY, "too late")
            if at % SAVE_EVERY:  # a save follows the line of its step
                return trainer, producer
            trainer.kill(signal.SIGCONT)
            time.sleep(0.001)

    def state(self, program):
        with open(f"/proc/{program.pid}/stat", encoding="utf-8") as f:
            return f.read().rsplit(")", 1)[1].split()[0]

    def killed(self):
        """A run that was killed when it had three checkpoints, or four."""
        for program in self.stopped(step=3 * SAVE_EVERY + 2):
            program.kill()
        return harness.checkpoints(self.path("out"))

    def resume(self, *args, out="out"):
        trainer, producer = self.trainer(["--resume", *args], out=out), self.producer(PRODUCER)
        self.succeed(trainer, producer)
        self.check(out)
        return trainer

    def check(self, out="out"):
        """The run has the undisturbed one's weights, and all that it left is sound."""
        if Checkpoints.expected is None:
            self.train(TRAINER, PRODUCER, out="undisturbed")
            Checkpoints.expected = harness.sha256(self.path("undisturbed", "crosscoder.safetensors"))
        self.assertEqual(harness.sha256(self.path(out, "crosscoder.safetensors")), Checkpoints.expected)
        self.assertEqual(self.verify(out)[0], 0)

    def verify(self, *names):
        p = self.start(XCVERIFY, [self.path(*names)], "xcverify")
        return p.wait(), p.stdout + p.stderr

    def told(self, out="out"):
        """What summary.json says, and status.json as well."""
        told = harness.summary(self.path(out))["checkpoints"]
        self.assertEqual(harness.read_json(self.path(out, "status.json"))["checkpoints"], told)
        return told

    def fails(self, trainer, *texts):
        self.assertEqual(trainer.wait(), 1, trainer.stderr)
        errors = [line for line in trainer.stderr.splitlines() if "error: " in line]
        self.assertEqual(len(errors), 1, trainer.stderr)
        for text in texts:
            self.assertIn(text, errors[0])


class Resuming(Checkpoints):
    def test_asked_for_and_ignored(self):
        """--resume-from a step; and a checkpoint of another run in the folder."""
        self.killed()
        self.fails(self.trainer(["--resume-from", "30"]), "no checkpoint of step 30; those that there are: 100, 200, 300")
        self.train([*TRAINER, "--seed", "2"], PRODUCER, out="other")
        shutil.copytree(self.step_path(STEPS, out="other"), self.step_path(STEPS))
        trainer, producer = self.trainer(["--resume-from", "200"]), self.producer(PRODUCER)
        self.succeed(trainer, producer)
        self.assertIn("later_step_0000000300", self.names())
        self.assertIn(f"other_step_{STEPS:010d}", self.names())  # made way, and is not lost
        self.assertEqual(self.told()["resumed_from"], 200)
        self.check()

    def test_ignored(self):
        self.killed()
        self.train([*TRAINER, "--seed", "2"], PRODUCER, out="other")
        shutil.copytree(self.step_path(STEPS, out="other"), self.step_path(STEPS))
        trainer = self.trainer(["--resume"])
        self.until(lambda: "it is ignored" in trainer.stderr, "a line on it", trainer)
        trainer.kill()
        ids = [harness.read_json(self.path(out, "run.json"))["run"] for out in ("other", "out")]
        self.assertIn(f"step_{STEPS:010d} is of run {ids[0]}, this folder's is {ids[1]}; it is ignored", trainer.stderr)
        os.remove(self.path("out", "run.json"))  # of an older run, that does not say; it is the newest one's then
        shutil.rmtree(self.step_path(STEPS))
        self.resume()
        self.assertEqual(harness.read_json(self.path("out", "run.json"))["run"], ids[1])

    def test_every_key(self):
        """A changed value of any key, wherever it is written down, is found."""
        self.killed()
        shutil.copytree(self.path("out"), self.path("copy"))
        for name in "cfg.json", "manifest.json":
            path = self.step_path(300, name)
            with open(path, encoding="utf-8") as f:
                text = f.read()
            for key in json.loads(text):
                value = json.loads(text)
                value[key] = "1" if value[key] != "1" else "2"
                with open(path, "w", encoding="utf-8") as f:
                    f.write(json.dumps(value, indent=2) + "\n")
                status, said = self.verify("out", "checkpoints", "step_0000000300")
                self.assertEqual(status, 1, f"{name}: {key}: {said}")
                self.assertIn("DAMAGED", said)
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        self.assertEqual(self.verify("out")[0], 0)

    def test_all_damaged(self):
        """There is nothing to go on from: that is said, and nothing is touched."""
        for step in self.killed():
            os.truncate(self.step_path(step, "state.safetensors"), 1000)
        before = self.names()
        self.fails(self.trainer(["--resume"]), "of its", "checkpoints is sound", "state.safetensors: 1000 bytes, should have")
        self.fails(self.trainer(["--resume-from", "200"]), "step_0000000200/state.safetensors: 1000 bytes")
        self.assertEqual(self.names(), before)


class Folder(Checkpoints):
    def test_renamed_and_back(self):
        trainer, producer = self.stopped()
        os.rename(self.path("out"), self.path("away"))
        trainer.kill(signal.SIGCONT)
        self.until(lambda: "cannot save" in trainer.stderr, "a save that fails", trainer, producer)
        self.assertIn("out: the run's folder is gone", trainer.stderr)
        self.assertFalse(os.path.exists(self.path("out")))
        os.rename(self.path("away"), self.path("out"))
        self.succeed(trainer, producer)
        self.assertGreater(self.told()["failed_saves"], 0)
        self.assertIn("saves failed and were tried again", trainer.stdout)
        self.check()

    def test_replaced(self):
        """Another run has begun in a folder of this name: not a file of ours gets into it."""
        trainer, producer = self.stopped("--save-retries", "1")
        os.rename(self.path("out"), self.path("away"))
        shutil.copytree(self.path("away"), self.path("out"))
        before = {name: os.stat(os.path.join(at, name)).st_mtime_ns for at, _, names in os.walk(self.path("out")) for name in names}
        trainer.kill(signal.SIGCONT)
        self.fails(trainer, "out: another folder has taken the place of the run's")
        self.assertEqual({name: os.stat(os.path.join(at, name)).st_mtime_ns for at, _, names in os.walk(self.path("out")) for name in names},
                         before)
        self.assertEqual(harness.read_json(self.path("away", "status.json"))["phase"], "failed")  # its own goes with it

    def test_says_another_run(self):
        """run.json: of another run it is not saved over; removed, it is written again."""
        trainer, producer = self.stopped("--save-retries", "1")
        shutil.copy(self.path("out", "run.json"), self.path("ours"))
        os.remove(self.path("out", "run.json"))
        trainer.kill(signal.SIGCONT)
        self.until(lambda: "run.json was removed or damaged: it is written again" in trainer.stderr, "a line", trainer, producer)
        trainer.kill()
        producer.kill()
        with open(self.path("ours"), encoding="utf-8") as f, open(self.path("out", "run.json"), encoding="utf-8") as g:
            self.assertEqual(f.read(), g.read())
        other, other_producer = self.stopped("--save-retries", "0", out="other")
        shutil.copy(self.path("ours"), self.path("other", "run.json"))
        other.kill(signal.SIGCONT)
        self.fails(other, "other: is the folder of run", "now, was of")
        other_producer.wait()

    def test_removed(self):
        trainer, producer = self.stopped("--save-retries", "0")
        shutil.rmtree(self.path("out"))
        trainer.kill(signal.SIGCONT)
        self.fails(trainer, "out: the run's folder is gone")
        self.assertFalse(os.path.exists(self.path("out")))


class Room(Checkpoints):
    def disk(self, size):
        os.mkdir(self.path("disk"))
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", self.path("disk")], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("may not mount a tmpfs")
        self.addCleanup(subprocess.run, ["umount", "-l", self.path("disk")])

    def fill(self):
        """Takes all room but 40 KB, too little for a checkpoint."""
        free = os.statvfs(self.path("disk"))
        with open(self.path("disk", "ballast"), "wb") as f:
            f.write(bytes(free.f_bavail * free.f_frsize - 40960))

    def test_known_at_the_start(self):
        self.disk("320k")
        trainer, producer = self.trainer(TRAINER, out="disk/out"), self.producer(PRODUCER)
        self.fails(trainer, "disk/out: 10 checkpoints of 0.1 MB (--keep 19 and one being written)", "do not fit: 0.3 MB are free")
        self.assertEqual(producer.wait(), 1)
        self.assertFalse(os.path.exists(self.path("disk", "out", "checkpoints")))

    def test_full_and_emptied(self):
        """The run goes on until there is room again, and loses nothing but time."""
        self.disk("2m")
        trainer, producer = self.stopped(out="disk/out")
        self.fill()
        trainer.kill(signal.SIGCONT)
        self.until(lambda: "(1 of 10 retries done)" in trainer.stderr, "a retry that fails", trainer, producer)
        self.assertRegex(trainer.stderr, r"step \d+: cannot save: .*/checkpoints: a checkpoint takes 0.1 MB, 0.0 MB are free; it is tried again")
        os.remove(self.path("disk", "ballast"))
        self.succeed(trainer, producer)
        told = self.told("disk/out")
        self.assertGreaterEqual(told["failed_saves"], 2)
        self.assertIsNone(told["failure"])
        self.assertEqual([line["step"] for line in harness.metrics(self.path("disk", "out")) if "loss" in line], list(range(1, STEPS + 1)))
        self.check("disk/out")

    def test_full_for_good(self):
        """The retries are spent; on a larger disk the run goes on from what it had."""
        self.disk("2m")
        trainer, producer = self.stopped("--save-retries", "1", out="disk/out")
        self.fill()
        trainer.kill(signal.SIGCONT)
        self.fails(trainer, "a checkpoint takes 0.1 MB, 0.0 MB are free")
        self.assertEqual(producer.wait(), 1)
        self.assertFalse([name for _, _, names in os.walk(self.path("disk", "out")) for name in names if "tmp" in name])
        os.remove(self.path("disk", "ballast"))
        shutil.copytree(self.path("disk", "out"), self.path("out"))
        self.resume()

    def test_limit_of_a_file(self):
        """Beyond RLIMIT_FSIZE a write fails as on a full disk: no signal ends the program, and no temporary stays."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
        resource.setrlimit(resource.RLIMIT_FSIZE, (32768, limits[1]))  # of programs started from here on
        trainer, producer = self.trainer([*TRAINER, "--save-retries", "0", "--log-every", "1000"]), self.producer(PRODUCER)
        self.fails(trainer, "File too large")
        producer.wait()
        self.assertEqual(self.names(), [])
        self.assertFalse([name for name in os.listdir(self.path("out")) if "tmp" in name])


if __name__ == "__main__":
    harness.main()
