"""make_golden.py - makes this folder's files with the `tokenizers` package (0.23.3): python make_golden.py

small/tokenizer.json   byte-level BPE of 420 tokens and added ones of every kind that xctok supports
prefix.json            the same with add_prefix_space, merges as "a b" and no model type, as older files have
gpt2/                  the same model as vocab.json + merges.txt
golden.json            [{"tokenizer": path, "text": hex of the bytes, "ids": [...], "decoded": text, "skipped": text}, ...]
                       ids of the text read as UTF-8 with errors="replace"; decoded again with and without special tokens
"""
import json
import os

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

here = os.path.dirname(os.path.abspath(__file__))
os.chdir(here)
EOT = "<|endoftext|>"
text = open("../../../tools/demo/sample.txt").read()
text += "\n".join(f"don't we've I'll he'd they're {n} {n * 37} \t\t    x = f({n}); // {n:08b}" for n in range(300))
text += " Ελληνικά Русский язык हिन्दी 日本語 한국어 " * 50

tok = Tokenizer(models.BPE())
tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
tok.decoder = decoders.ByteLevel()
tok.train_from_iterator([text], trainers.BpeTrainer(
    vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[EOT], show_progress=False))
os.makedirs("gpt2", exist_ok=True)
tok.model.save("gpt2")
tok.add_special_tokens(["<|im_start|>", "<|im|>", AddedToken("<left>", lstrip=True), AddedToken("<right>", rstrip=True)])
tok.add_tokens(["<|im_start|>user", "two words", "é世", AddedToken("t<|", normalized=True), "aaa", "aaaaa",
                AddedToken("<both>", lstrip=True, rstrip=True)])
os.makedirs("small", exist_ok=True)
tok.save("small/tokenizer.json", pretty=False)

old = json.loads(tok.to_str())
old["pre_tokenizer"]["add_prefix_space"] = True
del old["model"]["type"]
old["model"]["merges"] = [" ".join(m) for m in old["model"]["merges"]]
with open("prefix.json", "w") as f:
    json.dump(old, f, ensure_ascii=False)

gpt2 = Tokenizer(models.BPE.from_file("gpt2/vocab.json", "gpt2/merges.txt"))
gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
gpt2.decoder = decoders.ByteLevel()
gpt2.add_special_tokens([EOT])

tokenizers = {"small": tok, "prefix.json": Tokenizer.from_file("prefix.json"), "gpt2": gpt2,
              "../../../tools/demo/base": Tokenizer.from_file("../../../tools/demo/base/tokenizer.json")}
texts = [
    "", " ", "\n", "Hello, world!", "Hello  world   !\n\n\n  x\r\ny \t z  ", "don't we'VE I'll he'd they're 'sit ''tis 's",
    "1234 ١٢٣ Ⅷ ½ 12ab34 a1b2", "Ελληνικά Русский עברית العربية हिन्दी 日本語。한국어 ไทย", "👩\u200d👩\u200d👧 é e\u0301 ﬁ ß",
    "a\u00a0b\u2003c\u3000d\u0085e\u180ef\u200bg\u2028h  \u3000 i", "x\0y\x01\x7f\x1b[0m", "\ufeffBOM",
    "a" * 100, " " * 50 + "x" + " " * 50, "ab" * 60, "=-=-" * 20, "'" * 9,
    EOT, f"a{EOT}b {EOT} c{EOT}{EOT}\n{EOT}", "<|endoftext", "<|<|endoftext|>|>",
    "<|im_start|>user\nhi<|im|><|im_start|> use", "a  <left>  b  <right>  c<left><right>  <left>  <both>  x <both>",
    "two words two  words twowords", "aaaaaaaa aaaa", "cat<|im|> t<|x t<|endoftext|>", "é世界 é 世é世",
    "\u1c89\u1c8a \ua7cb\U000323af 2\U0001e4f5 .\U0002ebf0",  # newer than Unicode 14
]
broken = [b"\xff", b"a\x80\xbfb", b"\xe2\x82", b"\xe2\x82x", b"\xf0\x9f\x98", b"\xf0\x9f\x98\x41\xf0\x9f", b"\xc0\xaf\xe0\x80\xaf",
          b"\xed\xa0\x80\xed\xbf\xbf", b"\xf4\x90\x80\x80 \xf8\x88\x80\x80\x80", b"ok \xc3\xa9 \xc3 \xe9\xff\xfe<|endoftext|>\xf1\x80\x80\xe1\x80\xc2"]
golden = []
for name, t in tokenizers.items():
    for raw in [s.encode() for s in texts] + broken:
        ids = t.encode(raw.decode("utf-8", "replace"), add_special_tokens=False).ids
        golden.append({"tokenizer": name, "text": raw.hex(), "ids": ids, "decoded": t.decode(ids, skip_special_tokens=False),
                       "skipped": t.decode(ids, skip_special_tokens=True)})
with open("golden.json", "w") as f:
    f.write("[" + ",\n".join(json.dumps(g, ensure_ascii=True) for g in golden) + "]\n")
print(len(golden), "cases")
