"""test_build_flags.py - what the compiler is told: the user's flags and build type, ours where there are none, hardening where it works, and
always the two flags that the bits depend on."""
import json
import os
import re
import subprocess
import tempfile
import unittest

SOURCE, CMAKE = os.environ["SOURCE"], os.environ["CMAKE"]


def configure(*args, cflags=None):
    """The words with which gemm.c is compiled and what cmake printed; None and the error where it refuses."""
    with tempfile.TemporaryDirectory(prefix="crossfeed-flags-") as build:
        env = {k: v for k, v in os.environ.items() if k != "CFLAGS"}
        if cflags:
            env["CFLAGS"] = cflags
        p = subprocess.run([CMAKE, "-S", SOURCE, "-B", build, "-G", "Ninja", "-DBUILD_TESTING=OFF", *args], env=env, capture_output=True,
                           text=True)
        if p.returncode:
            return None, p.stderr
        with open(build + "/compile_commands.json") as f:
            commands = [c["command"].split() for c in json.load(f) if c["file"].endswith("proto/base/gemm.c")]
        return commands[0], p.stdout


class Flags(unittest.TestCase):
    def words(self, *args, **more):
        words, said = configure(*args, **more)
        self.assertIsNotNone(words, said)
        for word in ("-fno-math-errno", "-ffp-contract=off"):
            self.assertIn(word, words)
        return [word for word in words if re.match(r"-(O|g|D(NDEBUG|_FORTIFY)|fstack|fPIE|march|fsanitize)", word)]

    def test_default(self):
        self.assertEqual(self.words(), ["-O3", "-g", "-fstack-protector-strong", "-fPIE", "-D_FORTIFY_SOURCE=3"])

    def test_users_flags(self):
        self.assertEqual(self.words("-DCROSSFEED_HARDENING=OFF", cflags="-Os -march=x86-64-v2"), ["-Os", "-march=x86-64-v2"])
        self.assertEqual(self.words("-DCROSSFEED_HARDENING=OFF", cflags="-march=x86-64-v2"), ["-march=x86-64-v2", "-O3", "-g"])
        self.assertEqual(self.words("-DCROSSFEED_HARDENING=OFF", "-DCMAKE_C_FLAGS_RELWITHDEBINFO=-O1"), ["-O1"])

    def test_users_build_type(self):
        self.assertEqual(self.words("-DCMAKE_BUILD_TYPE=Release"),
                         ["-O3", "-DNDEBUG", "-fstack-protector-strong", "-fPIE", "-D_FORTIFY_SOURCE=3"])
        self.assertEqual(self.words("-DCMAKE_BUILD_TYPE=Debug"), ["-g", "-fstack-protector-strong", "-fPIE"])

    def test_no_fortify(self):
        """Where nothing is optimised, or a sanitizer is to see the error, or the user has said it."""
        self.assertNotIn("-D_FORTIFY_SOURCE=3", self.words("-DCROSSFEED_SANITIZE=address"))
        self.assertNotIn("-D_FORTIFY_SOURCE=3", self.words("-DCMAKE_BUILD_TYPE=None", cflags="-O2 -O0"))
        self.assertEqual(self.words(cflags="-O2 -D_FORTIFY_SOURCE=2"), ["-O2", "-D_FORTIFY_SOURCE=2", "-fstack-protector-strong", "-fPIE"])

    def test_missing(self):
        """What is ON and not found is an error that says what to do; AUTO goes without."""
        missing = ["-DDNNL_LIBRARY=OFF", "-DCMAKE_DISABLE_FIND_PACKAGE_Python3=ON"]
        words, said = configure(*missing)
        self.assertIsNone(words)
        said = " ".join(said.split())
        self.assertIn("actgen --compute bf16 needs oneDNN, which is not found.", said)
        self.assertIn("-DCROSSFEED_ONEDNN=OFF", said)
        words, said = configure(*missing, "-DCROSSFEED_ONEDNN=AUTO", "-DCROSSFEED_DOCS=AUTO")
        self.assertIsNotNone(words, said)
        self.assertIn("CROSSFEED_ONEDNN is off", said)
        self.assertIn("CROSSFEED_DOCS is off", said)


if __name__ == "__main__":
    unittest.main()
