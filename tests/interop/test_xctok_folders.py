"""test_xctok_folders.py - xctok on tokenizer folders of every layout, against transformers' own GPT2Tokenizer.

A layout is what lies beside vocab.json and merges.txt, or beside tokenizer.json. Each gives transformers' ids on a text with all of
their tokens, or is refused by name. transformers comes from PyPI as in test_xctok.py.
"""
import json
import os
import subprocess
import tempfile
import unittest

from test_xctok import DEMO, EOT, XCTOK, enter_venv, npy

try:
    import transformers
except ImportError:
    enter_venv()


def token(content, **flags):
    return {"content": content, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True, **flags}


def typed(content, **flags):
    """As tokenizer_config.json had it before added_tokens_decoder."""
    t = token(content, __type="AddedToken", **flags)
    del t["special"]
    return t


def config(**keys):
    return {"tokenizer_config.json": keys}


N = 2048  # the ids of the demo's vocabulary; the next one
MAP = "special_tokens_map.json"
READ = {
    "nothing": {},
    "added_tokens": {"added_tokens.json": {"<y>": N + 2, "<|im_start|>": N, "<x>": N + 1}},
    "added_tokens of the vocabulary": {"added_tokens.json": {"!": 0, EOT: N - 1}},
    "names": {MAP: {"bos_token": EOT, "eos_token": "<e>", "pad_token": "<p>", "additional_special_tokens": ["<x>", "<y>"]}},
    "names as objects": {MAP: {"bos_token": token(EOT, normalized=True), "eos_token": token("<e>", lstrip=True), "unk_token": EOT,
                               "mask_token": token("<m>", rstrip=True)}},
    "names of added_tokens": {"added_tokens.json": {"<x>": N, "<y>": N + 1},
                              MAP: {"additional_special_tokens": ["<y>"], "pad_token": token("<x>", lstrip=True)}},
    "one name, three tokens": {MAP: {"bos_token": token("<x>", normalized=True), "cls_token": "<x>", "sep_token": token("<x>", lstrip=True)}},
    "names in the configuration": config(pad_token="<p>", bos_token="<x>", add_prefix_space=True),
    "name as a typed object": config(pad_token=typed("<p>", rstrip=True)),
    "both name the end of text": {**config(pad_token="<p>", eos_token="<e>"), MAP: {"eos_token": "<y>"}},
    "decoder": config(added_tokens_decoder={str(N): token("<x>"), str(N - 1): token(EOT), str(N + 1): token("<y>", special=False, normalized=True,
                                                                                                      lstrip=True)}),
    "decoder before the others": {**config(added_tokens_decoder={str(N): token("<x>")}, pad_token="<x>", eos_token="<e>"),
                                  "added_tokens.json": {"<y>": N + 1}, MAP: {"pad_token": "<p>", "eos_token": "<m>"}},
    "decoder without flags": config(added_tokens_decoder={str(N): {"content": "<x>"}}),
    "no names": config(bos_token=None, eos_token=None, unk_token=None),
    "additional in the configuration": config(additional_special_tokens=["<x>", "<y>"]),
    "extra in the configuration": config(extra_special_tokens=["<x>", "<y>"]),
    "names of a model's own": config(extra_special_tokens={"image_token": "<x>"}, audio_token="<y>"),
    "both have additional ones": {**config(additional_special_tokens=["<x>"]), MAP: {"additional_special_tokens": ["<y>"]}},
    "a model's own name in the map": {MAP: {"image_token": "<x>", "note": "<y>"}},
    "one token within another": {"added_tokens.json": {"<x>": N, "<x><y>": N + 1}, MAP: {"pad_token": "<x>"}},
    "a name for a word": {**config(pad_token="<p>", mask_token="the"), "added_tokens.json": {"<p>": N}},
    "Phi's class": {**config(tokenizer_class="GPT2TokenizerFast"), "config.json": {"model_type": "phi"}},
}
REFUSED = {
    "'<x>' has id 2049, by its place it is 2048": {"added_tokens.json": {"<x>": N + 1}},
    "'!' has id 2048, by its place it is 0": {"added_tokens.json": {"!": N}},
    "'<x>' has id 2055, by its place it is 2048": config(added_tokens_decoder={"2055": token("<x>")}),
    "'<x>': single_word is not supported": config(added_tokens_decoder={str(N): token("<x>", single_word=True)}),
    "pad_token is neither a text nor an added token": config(pad_token=token("<p>")),
    "split_special_tokens is not supported": config(split_special_tokens=True),
    "tokenizer_class Qwen2Tokenizer": config(tokenizer_class="Qwen2Tokenizer"),
    "model_type clip": {"config.json": {"model_type": "clip"}},
    "added_tokens_decoder 'x' is not an id and its token": config(added_tokens_decoder={"x": token("<x>")}),
    "'<x>' has no id": {"added_tokens.json": {"<x>": "2048"}},
}
# Beside tokenizer.json, which has <x> at N, not stripping.
BESIDE = {
    "nothing": {},
    "names": config(pad_token="<p>", eos_token="<x>"),
    "decoder": config(added_tokens_decoder={str(N): token("<x>", lstrip=True), str(N + 1): token("<y>")}),
    "added_tokens": {"added_tokens.json": {"<x>": N, "<y>": N + 1}, MAP: {"mask_token": "<m>"}},
}
BESIDE_REFUSED = {
    "two ids of added token '<x>': 2048 and 2049": {"added_tokens.json": {"<x>": N + 1}},
    "add_prefix_space is true in tokenizer_config.json and false in tokenizer.json": config(add_prefix_space=True),
}
TEXT = f"the  <x>  a <y> b{EOT} <|im_start|> x <x><y> <y> <p> <m>  ! <e> the<x>"


class Folders(unittest.TestCase):
    def folder(self, files, tokenizer_json=False):
        where = tempfile.TemporaryDirectory()
        self.addCleanup(where.cleanup)
        with open(f"{DEMO}/base/tokenizer.json", encoding="utf-8") as f:
            tokenizer = json.load(f)
        model = tokenizer["model"]
        self.assertEqual(len(model["vocab"]), N)
        if tokenizer_json:
            tokenizer["added_tokens"].append({"id": N, **token("<x>")})
            files = {**files, "tokenizer.json": tokenizer}
        else:
            with open(f"{where.name}/merges.txt", "w", encoding="utf-8") as f:
                f.write("#version: 0.2\n" + "".join(" ".join(m if isinstance(m, list) else [m]) + "\n" for m in model["merges"]))
            files = {**files, "vocab.json": model["vocab"]}
        for name, content in files.items():
            with open(f"{where.name}/{name}", "w", encoding="utf-8") as f:
                json.dump(content, f)
        return where.name

    def xctok(self, folder, status=0):
        done = subprocess.run([XCTOK, "--tokenizer", folder, "--no-bos", "--seq-len", "1", "--eos", "!", "--out", f"{folder}/ids.npy"],
                              input=TEXT.encode(), capture_output=True)
        self.assertEqual(done.returncode, status, done.stderr.decode())
        return done.stderr.decode() if status else npy(f"{folder}/ids.npy")[1]

    def same(self, layouts, open_with, tokenizer_json):
        for name, files in layouts.items():
            with self.subTest(name):
                folder = self.folder(files, tokenizer_json)
                expected = open_with(folder)(TEXT, add_special_tokens=False)["input_ids"]
                self.assertEqual(self.xctok(folder), expected)

    def test_read(self):
        self.same(READ, transformers.GPT2Tokenizer.from_pretrained, False)

    def test_beside_tokenizer_json(self):
        self.same(BESIDE, transformers.PreTrainedTokenizerFast.from_pretrained, True)

    def test_refused(self):
        for layouts, tokenizer_json in ((REFUSED, False), (BESIDE_REFUSED, True)):
            for message, files in layouts.items():
                with self.subTest(message):
                    self.assertIn(message, self.xctok(self.folder(files, tokenizer_json), status=1))

    def test_other_tokenizers(self):
        for name in ("tokenizer.model", "vocab.txt", "vocab.json"):
            with tempfile.TemporaryDirectory() as folder:
                open(f"{folder}/{name}", "w").close()
                self.assertIn(f"only {name} there, which is not read without", self.xctok(folder, status=1))


if __name__ == "__main__":
    unittest.main(verbosity=2)
