"""test_package.py - the .deb that `cpack -G DEB` makes of the build: its programs run, its dependencies are the libraries that they
load. Skipped without dpkg-shlibdeps."""
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD, CPACK = os.environ["BUILD"], os.environ["CPACK"]
PROGRAMS = ("actgen", "xctrain", "xckeys", "xcverify", "xctok", "actcat")


def output(*args):
    return subprocess.run(args, capture_output=True, text=True, check=True).stdout


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="crossfeed-package-")
        cls.addClassCleanup(cls.folder.cleanup)
        p = subprocess.run([CPACK, "-G", "DEB", "-B", cls.folder.name, "--config", BUILD + "/CPackConfig.cmake"], capture_output=True,
                           text=True)
        if p.returncode:
            raise AssertionError(p.stdout + p.stderr)
        (cls.deb,) = glob.glob(cls.folder.name + "/crossfeed_*.deb")
        cls.root = cls.folder.name + "/root"
        output("dpkg-deb", "-x", cls.deb, cls.root)

    def test_programs(self):
        for name in PROGRAMS:
            said = output(f"{self.root}/usr/bin/{name}", "--version")
            self.assertEqual(said, f"{name} {output('dpkg-deb', '-f', self.deb, 'Version')}")

    def test_dependencies(self):
        """Each library that a program names itself comes with a package that is named."""
        depends = {d.split()[0] for d in output("dpkg-deb", "-f", self.deb, "Depends").split(", ")}
        needed = {line.split("[")[1].rstrip("]") for name in PROGRAMS
                  for line in output("readelf", "-d", f"{self.root}/usr/bin/{name}").splitlines() if "(NEEDED)" in line}
        self.assertGreater(len(needed), 5)
        place = output("dpkg-architecture", "-qDEB_HOST_MULTIARCH").strip()
        # libblis4 stands for its variants, whose library is found through an alternative.
        owners = {"libblis.so.4": "libblis4"}
        for library in sorted(needed - set(owners)):
            owners[library] = output("dpkg-query", "-S", f"*/{place}/{library}").split(":")[0]
        self.assertEqual({owner for owner in owners.values() if owner not in depends}, set())

    def test_files(self):
        for name in PROGRAMS + ("crossfeed-trainer",):
            self.assertTrue(os.path.exists(f"{self.root}/usr/share/man/man1/{name}.1.gz"), name)
        for name in PROGRAMS:
            self.assertTrue(os.path.exists(f"{self.root}/usr/share/bash-completion/completions/{name}"), name)
            self.assertTrue(os.path.exists(f"{self.root}/usr/share/zsh/vendor-completions/_{name}"), name)
        for name in ("copyright", "changelog.gz", "README.md", "PROTOCOL.md"):
            self.assertTrue(os.path.exists(f"{self.root}/usr/share/doc/crossfeed/{name}"), name)
        with open(self.root + "/usr/lib/systemd/system/crossfeed-trainer.service") as f:
            self.assertIn("\nExecStart=/usr/bin/crossfeed-trainer ", f.read())
        for mode in output("dpkg-deb", "-c", self.deb).splitlines():
            self.assertRegex(mode, r"^(drwxr-xr-x|-rwxr-xr-x|-rw-r--r--) root/root ")


if __name__ == "__main__":
    if not shutil.which("dpkg-shlibdeps"):
        print("no dpkg-shlibdeps here (Debian's dpkg-dev): the package is not tested")
        sys.exit(77)
    unittest.main()
