"""test_deploy.py - tools/deploy: the units are ones that systemd takes, the scripts ones that bash takes, and what a service manager
starts goes on where it was, or begins anew if nothing had been saved."""
import glob
import os
import shutil
import subprocess
import unittest

import harness

DEPLOY = os.path.join(os.path.dirname(__file__), "../../tools/deploy")
TRAINER = ["--threads", "1", "--dict-size", "64", "--batch-size", "64", "--buffer-mult", "16", "--num-tokens", "1e9",
           "--model-batch-size", "4", "--scale-rows", "500", "--log-every", "1", "--save-every", "200"]
SYNTHETIC = ["--source", "synthetic", "--n-seq", "256", "--seq-len", "32"]


class Deploy(harness.ProgramTest):
    @unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd-analyze here")
    def test_units(self):
        """In a root of their own, where the programs they name are."""
        bin, units = self.path("root/usr/local/bin"), self.path("root/etc/systemd/system")
        os.makedirs(bin)
        os.makedirs(units)
        for program in ("crossfeed-trainer", "actgen"):
            with open(os.path.join(bin, program), "w") as f:
                f.write("#!/bin/sh\n")
            os.chmod(f.name, 0o755)
        shutil.copytree("/usr/lib/systemd/system", self.path("root/usr/lib/systemd/system"), symlinks=True)
        for unit in glob.glob(DEPLOY + "/*.service"):
            shutil.copy(unit, units)
        for unit in ("crossfeed-trainer.service", "crossfeed-producer@1.service"):
            p = subprocess.run(["systemd-analyze", "verify", "--man=no", "--root=" + self.path("root"), unit],
                               capture_output=True, text=True)
            said = [line for line in p.stderr.splitlines() if "crossfeed" in line]
            self.assertEqual(said, [])
        bad = os.path.join(units, "crossfeed-bad.service")
        with open(os.path.join(units, "crossfeed-trainer.service")) as f, open(bad, "w") as g:
            g.write(f.read().replace("Restart=on-failure", "Restart=sometimes"))
        p = subprocess.run(["systemd-analyze", "verify", "--man=no", "--root=" + self.path("root"), "crossfeed-bad.service"],
                           capture_output=True, text=True)
        self.assertIn("sometimes", p.stderr)  # it does look at the lines

    def test_the_trainer_fails_on_collapse(self):
        with open(DEPLOY + "/crossfeed-trainer.service") as f:
            start, = (line for line in f if line.startswith("ExecStart="))
        self.assertIn(" --fail-on-collapse $FLAGS", start)  # FLAGS have the last word

    def test_scripts(self):
        scripts = glob.glob(DEPLOY + "/*.sbatch") + [DEPLOY + "/crossfeed-trainer"]
        self.assertGreaterEqual(len(scripts), 3)
        for script in scripts:
            subprocess.run(["bash", "-n", script], check=True)

    def service(self):
        return self.start(DEPLOY + "/crossfeed-trainer", [self.path("out"), "--listen", self.endpoint(), *TRAINER], "service")

    def test_starts_and_resumes(self):
        producer = self.producer(SYNTHETIC)
        first = self.service()
        self.until_step(5, first, producer)
        first.kill()
        self.assertEqual(harness.checkpoints(self.path("out")), [])
        second = self.service()
        self.until(lambda: harness.checkpoints(self.path("out")), "a checkpoint", second, producer)
        self.assertNotIn("resuming", second.stderr)
        second.kill()
        third = self.service()
        self.until(lambda: "resuming from" in third.stderr, "resuming", third, producer)
        third.kill(15)
        self.succeed(third, producer)


if __name__ == "__main__":
    harness.main()
