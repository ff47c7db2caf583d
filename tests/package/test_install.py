"""test_install.py - `cmake --install` after the target `programs` alone, as tools/quickstart.sh builds it, in a build without anything
optional: what is there, that it runs, what it says when it is asked for what it lacks, and how it is hardened."""
import os
import subprocess
import tempfile
import unittest

SOURCE, CMAKE = os.environ["SOURCE"], os.environ["CMAKE"]
DEMO = SOURCE + "/tools/demo"


def run(*args, **more):
    return subprocess.run(args, capture_output=True, text=True, **more)


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="crossfeed-install-")
        cls.addClassCleanup(cls.folder.cleanup)
        build, cls.root = cls.folder.name + "/build", cls.folder.name + "/root"
        for args in ([CMAKE, "-S", SOURCE, "-B", build, "-G", "Ninja", "-DBUILD_TESTING=OFF", "-DCROSSFEED_WERROR=ON",
                      *(f"-DCROSSFEED_{name}=OFF" for name in ("ONEDNN", "METRICS", "XCTOK")), "-DCMAKE_INSTALL_PREFIX=/opt/crossfeed"],
                     [CMAKE, "--build", build, "--target", "programs"], [CMAKE, "--install", build]):
            p = run(*args, env=dict(os.environ, DESTDIR=cls.root))
            if p.returncode:
                raise AssertionError(p.stdout + p.stderr)
        cls.prefix = cls.root + "/opt/crossfeed"

    def test_files(self):
        found = {os.path.relpath(os.path.join(folder, name), self.prefix) for folder, _, names in os.walk(self.prefix) for name in names}
        programs = {"actgen", "xctrain", "xckeys", "xcverify"}
        expected = {f"bin/{p}" for p in programs | {"crossfeed-trainer"}}
        expected |= {f"share/man/man1/{p}.1" for p in programs | {"crossfeed-trainer"}}
        expected |= {f"share/bash-completion/completions/{p}" for p in programs} | {f"share/zsh/site-functions/_{p}" for p in programs}
        expected |= {"lib/systemd/system/crossfeed-trainer.service", "lib/systemd/system/crossfeed-producer@.service",
                     "share/doc/crossfeed/README.md", "share/doc/crossfeed/PROTOCOL.md", "share/doc/crossfeed/slurm/slurm-trainer.sbatch",
                     "share/doc/crossfeed/slurm/slurm-producers.sbatch"}
        self.assertEqual(expected - found, set())
        self.assertEqual({f for f in found if f.startswith("bin/")}, {f for f in expected if f.startswith("bin/")})

    def test_programs(self):
        for name in ("actgen", "xctrain", "xckeys", "xcverify"):
            p = run(f"{self.prefix}/bin/{name}", "--version")
            self.assertEqual((p.returncode, p.stdout.split()[0]), (0, name))

    def test_units(self):
        """They start what was installed."""
        for unit, program in (("crossfeed-trainer", "crossfeed-trainer"), ("crossfeed-producer@", "actgen")):
            with open(f"{self.prefix}/lib/systemd/system/{unit}.service") as f:
                text = f.read()
            self.assertIn(f"\nExecStart=/opt/crossfeed/bin/{program} ", text)
            self.assertNotIn("/usr/local", text)

    def test_absent(self):
        """One line each, and status 1."""
        out = self.folder.name + "/out"
        p = run(f"{self.prefix}/bin/actgen", "--compute", "bf16", "--model", DEMO + "/base", "--tokens", DEMO + "/tokens.npy", "--record", out)
        self.assertEqual((p.returncode, p.stderr), (1, "actgen: error: bf16 products need oneDNN, and this program was built without it "
                                                       "(CROSSFEED_ONEDNN=OFF)\n"))
        p = run(f"{self.prefix}/bin/xctrain", "--out", out, "--metrics-listen", "127.0.0.1:0")
        self.assertEqual((p.returncode, p.stderr), (1, "xctrain: error: --metrics-listen 127.0.0.1:0: needs libmicrohttpd, and this program "
                                                       "was built without it (CROSSFEED_METRICS=OFF)\n"))

    def test_hardened(self):
        for name in ("actgen", "xctrain", "xckeys", "xcverify"):
            said = run("readelf", "-hdlW", f"{self.prefix}/bin/{name}").stdout
            for words in ("DYN (Position-Independent Executable file)", "GNU_RELRO", "BIND_NOW"):
                self.assertIn(words, said)
            symbols = run("readelf", "--dyn-syms", "-W", f"{self.prefix}/bin/{name}").stdout
            for words in ("__stack_chk_fail", "_chk@GLIBC"):
                self.assertIn(words, symbols)


if __name__ == "__main__":
    unittest.main()
