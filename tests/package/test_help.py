"""test_help.py - man pages and shell completions have every flag of --help, and nothing else; and they are what man and bash take."""
import os
import re
import shutil
import subprocess
import tempfile
import unittest

BUILD = os.environ["BUILD"]
MADE = BUILD + "/tools/package"
PROGRAMS = ("actgen", "xctrain", "xckeys", "xcverify", "xctok", "actcat")


def flags_of(program):
    """Flag -> what --help says of its value, None without one; a value that may be left out is in brackets."""
    said = subprocess.run([f"{BUILD}/{program}", "--help"], capture_output=True, text=True, check=True).stdout
    return {m[1]: m[2] or m[3] for m in re.finditer(r"^ {2,6}(?:-\S, )?(--[\w-]+)(?:=(\S+)|(\[=\S+\]))?", said, re.M)}


def read(*names):
    with open(os.path.join(MADE, *names)) as f:
        return f.read()


class Bash:
    """What bash offers after a command line, with the completions of a program and nothing else loaded."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder

    def offers(self, *words):
        script = f"""compopt() {{ :; }}
source {MADE}/bash/{self.program}
COMP_WORDS=({self.program} "$@"); COMP_CWORD=$#
$(complete -p {self.program} | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
printf '%s\\n' "${{COMPREPLY[@]}}" """
        p = subprocess.run(["bash", "--norc", "-c", script, "bash", *words], cwd=self.folder, capture_output=True, text=True)
        assert p.returncode == 0 and not p.stderr, p.stderr
        return set(p.stdout.split())


class Help(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="crossfeed-help-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        os.mkdir(self.folder + "/models")
        open(self.folder + "/tokens.npy", "w").close()

    def test_bash(self):
        for program in PROGRAMS:
            flags = flags_of(program)
            self.assertGreaterEqual(len(flags), 3)
            self.assertEqual(Bash(program, self.folder).offers("--"), {flag + ("=" if value and value[0] != "[" else "") for flag, value in flags.items()})

    def test_bash_values(self):
        bash = Bash("actgen", self.folder)
        self.assertEqual(bash.offers("--model", ""), {"models"})
        self.assertEqual(bash.offers("--model", "="), {"models"})  # the shell cuts at '='
        self.assertEqual(bash.offers("--tokens", "=", "to"), {"tokens.npy"})
        self.assertEqual(bash.offers("--compute", "="), {"fp32", "bf16"})  # --help says --compute=fp32|bf16
        self.assertEqual(bash.offers("--threads", ""), set())
        self.assertEqual(bash.offers("--tok"), {"--tokens="})
        self.assertEqual(Bash("actcat", self.folder).offers(""), {"models", "tokens.npy"})

    def test_zsh(self):
        for program in PROGRAMS:
            text = read("zsh", "_" + program)
            self.assertTrue(text.startswith(f"#compdef {program}\n"))
            self.assertEqual({m[1]: m[2] for m in re.finditer(r"^    '\*(--[\w-]+)(=?)\[", text, re.M)},
                             {flag: "=" if value else "" for flag, value in flags_of(program).items()})
            if shutil.which("zsh"):
                subprocess.run(["zsh", "-n", f"{MADE}/zsh/_{program}"], check=True)

    def test_man(self):
        for program in PROGRAMS:
            text = read("man", program + ".1")
            shown = {m[1].replace("\\", "") for m in re.finditer(r"^\.TP\n(?:\\fB\\-\S+\\fR, )?\\fB(\\-\\-\S+?)\\fR", text, re.M)}
            self.assertEqual(shown, set(flags_of(program)))
            for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "FILES", "EXAMPLES", "SEE ALSO"):
                self.assertIn(f"\n.SH {section}\n", text)

    @unittest.skipUnless(shutil.which("groff"), "no groff here")
    def test_man_is_sound(self):
        by_hand = os.path.join(os.path.dirname(__file__), "../../tools/package/man/crossfeed-trainer.1")
        for page in [f"{MADE}/man/{p}.1" for p in PROGRAMS] + [by_hand]:
            p = subprocess.run(["groff", "-man", "-ww", "-Tutf8", page], capture_output=True, text=True)
            self.assertEqual((p.returncode, p.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
