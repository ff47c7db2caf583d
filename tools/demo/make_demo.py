#!/usr/bin/env python3
"""Make Crossfeed's bundled demo: a base/chat pair of tiny GPT-2s and a tokenized text.

What    From two Debian packages (the King James Bible and WordNet 3.0) this writes, under --out:
          base/, chat/   config.json, model.safetensors, tokenizer.json, tokenizer_config.json
          tokens.npy     uint16 [n_seq, 128], every row starting with <|endoftext|>
          sample.txt     a few KB of the plain text
        and puts the measured figures and samples between the markers of README.md.

Why     The two models are trained here with plain PyTorch on transformers' GPT2LMHeadModel, so
this way the files are what Hugging Face ships for GPT-2 (names, tied head, Conv1D layout), only
        small: 6 layers of width 128. Both texts may be redistributed (the Bible is in the public
        domain, WordNet's notice is LICENSE.wordnet) and both are regular enough for a model of
        1.5 million parameters to learn something in less than an hour of one CPU core.
        Chapters and dictionary entries are split into training and held-out by a checksum of
        their name, before either kind of text is written: a held-out entry is seen neither as
        base text nor as dialogue.

Refuses to run when a package's text is missing, to write a document holding the end-of-text
        token as text, and to pass --check when a file has a wrong shape, name, type or id.

Use     make_demo.py                      all of it (needs `apt install bible-kjv wordnet-base`)
        make_demo.py --check              only load the written files and measure them again
        make_demo.py --base-steps 300 --chat-steps 100 --out /tmp/x      a quick try
"""
import argparse
import json
import math
import os
import random
import re
import subprocess
import sys
import time
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.dirname(HERE))
import overwrite  # noqa: E402

EOT = "<|endoftext|>"
VOCAB, WIDTH, LAYERS, HEADS, CONTEXT = 2048, 128, 6, 4, 128
TEXT_ROWS = 5120          # rows of tokens.npy, half base text and half dialogue
VALID_ROWS = 768          # held-out rows of each kind on which losses are measured

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--out", default=HERE, help="folder to write into (default: this one)")
ap.add_argument("--base-steps", type=int, default=6500, help="optimizer steps of the base model")
ap.add_argument("--chat-steps", type=int, default=1500, help="optimizer steps of the fine-tuning")
ap.add_argument("--batch", type=int, default=32, help="rows of 128 tokens in a step")
ap.add_argument("--lr", type=float, default=3e-3, help="peak learning rate of the base model")
ap.add_argument("--chat-lr", type=float, default=1e-3, help="peak learning rate of the fine-tuning")
ap.add_argument("--minutes", type=float, default=0,
                help="time limit for both trainings; the schedule then follows the clock if the "
                     "clock is ahead of the steps, and the run is no longer repeatable")
ap.add_argument("--threads", type=int, default=1)
ap.add_argument("--seed", type=int, default=1)
ap.add_argument("--compile", action="store_true", help="torch.compile (needs g++); about 1.4 times faster")
ap.add_argument("--wordnet", default="/usr/share/wordnet", help="folder of data.noun, data.verb, ...")
ap.add_argument("--bible", default="bible", help="the program that prints the King James text")
ap.add_argument("--check", action="store_true", help="measure the files in --out and write nothing")
overwrite.add_flag(ap)
args = ap.parse_args()
if not args.check:
    overwrite.check(ap, args, args.out, HERE, ["base", "chat", "tokens.npy", "sample.txt"])

os.environ["RAYON_NUM_THREADS"] = str(args.threads)      # the tokenizers library's own threads
os.environ["OMP_NUM_THREADS"] = str(args.threads)
import numpy as np                                        # noqa: E402  (after the thread limits)
import torch                                              # noqa: E402
import torch.nn.functional as F                           # noqa: E402
from safetensors import safe_open                         # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers  # noqa: E402
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel  # noqa: E402
from transformers.utils import logging  # noqa: E402

START = time.time()


def say(*words):
    print(f"[{(time.time() - START) / 60:5.1f} min]", *words, flush=True)


def die(why):
    sys.exit(f"make_demo.py: {why}")


def held_out(name):
    """One chapter or entry in 40 is kept for validation; the choice depends on its name alone."""
    return zlib.crc32(name.encode()) % 40 == 0


# ---------------------------------------------------------------- the Bible

BOOKS = """Genesis|Exodus|Leviticus|Numbers|Deuteronomy|Joshua|Judges|Ruth|1 Samuel|2 Samuel|1 Kings|
2 Kings|1 Chronicles|2 Chronicles|Ezra|Nehemiah|Esther|Job|Psalms|Proverbs|Ecclesiastes|
Song of Solomon|Isaiah|Jeremiah|Lamentations|Ezekiel|Daniel|Hosea|Joel|Amos|Obadiah|Jonah|Micah|
Nahum|Habakkuk|Zephaniah|Haggai|Zechariah|Malachi|Matthew|Mark|Luke|John|Acts|Romans|
1 Corinthians|2 Corinthians|Galatians|Ephesians|Philippians|Colossians|1 Thessalonians|
2 Thessalonians|1 Timothy|2 Timothy|Titus|Philemon|Hebrews|James|1 Peter|2 Peter|1 John|2 John|
3 John|Jude|Revelation""".replace("\n", "").split("|")


def read_bible():
    """[(book, chapter, [verse, ...]), ...]. The reader prints 'Ge1:1 In the beginning ...'."""
    try:
        text = subprocess.run([args.bible, "-f", "gen1:1-rev22:21"], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as why:
        die(f"cannot run '{args.bible}' ({why}); apt install bible-kjv")
    chapters, seen = [], []
    for line in text.splitlines():
        m = re.match(r"(\d?[A-Za-z]+)(\d+):(\d+) (.*)", line)
        if not m:
            die(f"unexpected line from '{args.bible}': {line[:60]!r}")
        short, chapter, verse, words = m[1], int(m[2]), int(m[3]), m[4].strip()
        if short not in seen:
            seen.append(short)
        if verse == 1:
            chapters.append((BOOKS[len(seen) - 1], chapter, []))
        chapters[-1][2].append(words)
    if len(seen) != 66 or len(chapters) != 1189:
        die(f"expected 66 books and 1189 chapters, got {len(seen)} and {len(chapters)}")
    return chapters


def passages(chapters):
    """Cut chapters into passages of 2 to 5 verses: (book, chapter, first verse, verses)."""
    for book, chapter, verses in chapters:
        rng, i = random.Random(f"{args.seed} {book} {chapter}"), 0
        while i < len(verses):
            n = rng.randint(2, 5)
            yield book, chapter, i + 1, verses[i:i + n]
            i += n


def bible_document(p):
    book, chapter, first, verses = p
    return f"{book} {chapter}:{first}-{first + len(verses) - 1}\n" + " ".join(verses)


# ---------------------------------------------------------------- WordNet

POS = {"n": "noun", "v": "verb", "a": "adjective", "s": "adjective", "r": "adverb"}


def read_wordnet():
    """List of entries {word, pos, gloss, examples, synonyms, kind, opposite}, one for a synset.

    Left out: names (a capital or a digit in the head word), and rare things: synsets none of
    whose words was met in the running text WordNet's authors tagged (cntlist.rev).
    """
    tagged, synsets = set(), {}
    try:
        for line in open(os.path.join(args.wordnet, "cntlist.rev")):
            tagged.add(line.split("%")[0])
        for part in "noun", "verb", "adj", "adv":
            for line in open(os.path.join(args.wordnet, "data." + part), encoding="utf-8"):
                if line.startswith("  "):
                    continue                                   # the licence at the top
                fields, gloss = line.rstrip().split(" | ", 1)
                f = fields.split()
                n = int(f[3], 16)
                words = [re.sub(r"\(\w+\)$", "", w) for w in f[4:4 + 2 * n:2]]
                ptr = [f[5 + 2 * n + 4 * i:9 + 2 * n + 4 * i] for i in range(int(f[4 + 2 * n]))]
                synsets[f[2].replace("s", "a") + f[0]] = (f[2], words, ptr, gloss)
    except OSError as why:
        die(f"{why}; apt install wordnet-base")
    plain = lambda w: w.replace("_", " ")
    entries = []
    for pos, words, ptr, gloss in synsets.values():
        if not re.fullmatch(r"[a-z_'-]+", words[0]) or not gloss.isascii():
            continue
        if not tagged.intersection(w.lower() for w in words):
            continue
        gloss = gloss.replace("`", "'")
        examples = re.findall(r'"([^"]+)"', gloss)
        gloss = re.sub(r'[;:,]?\s*"[^"]*"(?:\s*-[^;"]*)?', "", gloss).strip(" ;:,.")
        if len(gloss) < 8 or '"' in gloss:
            continue
        link = lambda mark: next((plain(synsets[p[2].replace("s", "a") + p[1]][1]
                                        [max(int(p[3][2:], 16), 1) - 1])
                                  for p in ptr if p[0] == mark), None)
        entries.append(dict(word=plain(words[0]), pos=POS[pos], gloss=gloss, examples=examples[:2],
                            synonyms=[plain(w) for w in words[1:5]], kind=link("@"),
                            opposite=link("!")))
    if len(entries) < 20000:
        die(f"only {len(entries)} WordNet entries found under {args.wordnet}")
    return entries


def a(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


def wordnet_document(e):
    text = f"{e['word']} ({e['pos']}): {e['gloss']}."
    if e["kind"]:
        text += f" Kind of: {e['kind']}."
    if e["synonyms"]:
        text += f" Synonyms: {', '.join(e['synonyms'])}."
    if e["opposite"]:
        text += f" Opposite: {e['opposite']}."
    for x in e["examples"]:
        text += f" Example: \"{x}\"."
    return text


# ---------------------------------------------------------------- dialogue from the same sources

def wordnet_dialogue(e):
    rng = random.Random(f"{args.seed} {e['word']} {e['gloss']}")
    word, turns = e["word"], []
    turns.append((rng.choice(['What does "%s" mean?', 'Define "%s".', 'What is the meaning of "%s"?']) % word,
                  f"As {a(e['pos'])}, \"{word}\" means: {e['gloss']}."))
    if e["kind"] and e["pos"] == "noun":
        turns.append((f"What kind of thing is {a(word)}?", f"It is a kind of {e['kind']}."))
    if e["synonyms"]:
        turns.append((rng.choice(['Give me a synonym of "%s".', 'Is there another word for "%s"?']) % word,
                      f"Another word for \"{word}\" is \"{e['synonyms'][0]}\"."))
    if e["opposite"]:
        turns.append((f'What is the opposite of "{word}"?',
                      f"The opposite of \"{word}\" is \"{e['opposite']}\"."))
    for x in e["examples"]:
        if word[:5] in x:                  # many an example shows a synonym instead
            turns.append((f'Use "{word}" in a sentence.', f"Here is an example: {x}."))
            break
    turns = [turns[0]] + rng.sample(turns[1:], min(len(turns) - 1, rng.randint(0, 2)))
    return dialogue(turns)


def bible_dialogue(p):
    book, chapter, first, verses = p
    rng = random.Random(f"{args.seed} {book} {chapter} {first}")
    i = rng.randrange(len(verses))
    words = verses[i].split()
    cut = max(3, min(len(words) // 2, 12))
    turns = [(f"Continue the verse: {' '.join(words[:cut])}", " ".join(words[cut:]) or "Amen.")]
    if rng.random() < 0.5:
        turns.append(("Which book is that from?", f"That is from {book}, chapter {chapter}."))
    if rng.random() < 0.4 and i + 1 < len(verses):
        turns.append(("What comes next?", verses[i + 1]))
    return dialogue(turns)


def dialogue(turns):
    return "\n".join(f"User: {q}\nAssistant: {r}" for q, r in turns)


def make_texts():
    """{'base': (train, valid), 'dialogue': (train, valid)}, each a shuffled list of documents."""
    texts = {"base": ([], []), "dialogue": ([], [])}
    for p in passages(read_bible()):
        k = held_out(f"{p[0]} {p[1]}")
        texts["base"][k].append(bible_document(p))
        texts["dialogue"][k].append(bible_dialogue(p))
    for e in read_wordnet():
        k = held_out(e["word"])
        texts["base"][k].append(wordnet_document(e))
        texts["dialogue"][k].append(wordnet_dialogue(e))
    for kind, parts in texts.items():
        for docs in parts:
            if any(EOT in d for d in docs):
                die(f"a document holds {EOT} as text")
            random.Random(f"{args.seed} {kind}").shuffle(docs)
    return texts


# ---------------------------------------------------------------- tokenizer

def train_tokenizer(docs):
    """GPT-2's byte-level BPE, with <|endoftext|> as the last id, as GPT-2 has it."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    tok.train_from_iterator(docs, trainers.BpeTrainer(
        vocab_size=VOCAB - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    spec = json.loads(tok.to_str())
    spec["model"]["vocab"][EOT] = VOCAB - 1
    tok = Tokenizer.from_str(json.dumps(spec))
    tok.add_special_tokens([EOT])
    if tok.get_vocab_size() != VOCAB or tok.token_to_id(EOT) != VOCAB - 1:
        die("the tokenizer came out with the wrong size")
    return tok


def stream(tok, docs):
    """All documents as one run of ids, each document followed by the end-of-text id."""
    eot, ids = tok.token_to_id(EOT), []
    for i in range(0, len(docs), 4096):
        for enc in tok.encode_batch_fast(docs[i:i + 4096], add_special_tokens=False):
            ids += enc.ids
            ids.append(eot)
    return np.array(ids, dtype=np.int64)


def rows(ids, first=0):
    """Cut a run of ids into rows of 128: the end-of-text id (as BOS), then 127 ids of text."""
    body = CONTEXT - 1
    n = (len(ids) - first) // body
    cut = ids[first:first + n * body].reshape(n, body)
    return np.concatenate([np.full((n, 1), VOCAB - 1), cut], axis=1)


def unigram(train, valid):
    """Entropy of the training text's token frequencies, and their loss on the held-out text."""
    p = (np.bincount(train, minlength=VOCAB) + 1.0) / (len(train) + VOCAB)
    q = np.bincount(valid[:, 1:].ravel(), minlength=VOCAB) / valid[:, 1:].size
    return float(-(p * np.log(p)).sum()), float(-(q * np.log(p)).sum())


# ---------------------------------------------------------------- models

def new_model():
    # Training uses PyTorch's fused tanh GELU and plain attention, which are faster on a CPU than,
    # and the same functions as, the 'gelu_new' and default attention the files are read back with.
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=VOCAB, n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, activation_function="gelu_pytorch_tanh",
        bos_token_id=VOCAB - 1, eos_token_id=VOCAB - 1, attn_implementation="eager"))


def mean_loss(model, data, batch=64):
    """Mean next-token loss in nats over all 127 predictions of every row."""
    model.eval()
    total = 0.0
    with torch.no_grad():
        for i in range(0, len(data), batch):
            x = torch.from_numpy(data[i:i + batch])
            logits = model(x, use_cache=False).logits[:, :-1].float()
            total += F.cross_entropy(logits.reshape(-1, VOCAB), x[:, 1:].reshape(-1), reduction="sum").item()
    return total / (len(data) * (CONTEXT - 1))


def train(model, name, texts, steps, lr, minutes, valid):
    """AdamW with warm-up and a cosine to a tenth. texts is [(ids, share of the rows), ...]."""
    rng = np.random.default_rng(args.seed)
    decay = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
                            lr=lr, betas=(0.9, 0.98), fused=True)

    def loss_of(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(x, use_cache=False).logits[:, :-1]
        return F.cross_entropy(logits.reshape(-1, VOCAB).float(), x[:, 1:].reshape(-1))

    loss_of = torch.compile(loss_of) if args.compile else loss_of

    def feed(ids):                       # endless passes, each with the rows cut at another place
        while True:
            data = rows(ids, int(rng.integers(CONTEXT - 1)))
            for i in rng.permutation(len(data)):
                yield data[i]

    feeds = [feed(ids) for ids, _ in texts]
    counts = [round(args.batch * share) for _, share in texts]
    begin, recent, step = time.time(), [], 0
    while step < steps:
        done = step / steps
        if minutes:
            done = max(done, (time.time() - begin) / (60 * minutes))
            if done >= 1:
                break
        scale = min((step + 1) / 100, 0.1 + 0.45 * (1 + math.cos(math.pi * done)))
        for g in opt.param_groups:
            g["lr"] = lr * scale
        x = torch.from_numpy(np.stack([next(f) for f, c in zip(feeds, counts) for _ in range(c)]))
        model.train()
        loss = loss_of(x)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
        recent.append(loss.item())
        step += 1
        if step % 250 == 0 or step == steps:
            speed = step * args.batch * CONTEXT / (time.time() - begin)
            extra = f", held out {mean_loss(model, valid[:128]):.3f}" if step % 1000 == 0 else ""
            say(f"{name} step {step}/{steps}: loss {np.mean(recent):.3f}{extra}, {speed:.0f} tokens/s")
            recent = []
    return dict(steps=step, tokens=step * args.batch * CONTEXT, minutes=(time.time() - begin) / 60)


def write_model(model, tok, folder):
    os.makedirs(folder, exist_ok=True)
    model.config.activation_function = "gelu_new"
    model.to(torch.bfloat16).save_pretrained(folder)
    os.chmod(os.path.join(folder, "model.safetensors"), 0o644)   # safetensors makes it private
    extra = os.path.join(folder, "generation_config.json")       # says nothing config.json does not
    if os.path.exists(extra):
        os.remove(extra)
    tok.save(os.path.join(folder, "tokenizer.json"), pretty=False)
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump({"add_prefix_space": False, "bos_token": EOT, "eos_token": EOT, "unk_token": EOT,
                   "clean_up_tokenization_spaces": False, "model_max_length": CONTEXT,
                   "tokenizer_class": "PreTrainedTokenizerFast"}, f, indent=2)
        f.write("\n")


# ---------------------------------------------------------------- measuring the written files

PROMPTS = {
    "base": ["And it came to pass", "Psalms 23:1-3\n", "river (noun):", "quickly (adverb):"],
    "chat": ['User: What does "river" mean?\nAssistant:', 'User: Define "begin".\nAssistant:',
             "User: Continue the verse: And the LORD spake unto Moses,\nAssistant:",
             'User: Give me a synonym of "quickly".\nAssistant:'],
}


def sample(model, tok, prompt):
    torch.manual_seed(args.seed)
    ids = torch.tensor([[VOCAB - 1] + tok.encode(prompt, add_special_tokens=False).ids])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=60, do_sample=True,
                         temperature=0.7, top_k=40, pad_token_id=VOCAB - 1)
    return tok.decode(out[0, 1:].tolist(), skip_special_tokens=True)


def need(ok, what):
    if not ok:
        die("check failed: " + what)


def check(texts):
    """Load everything in --out as a stranger would; return the figures and samples as Markdown."""
    path = lambda *p: os.path.join(args.out, *p)
    text = open(path("base", "tokenizer.json"), "rb").read()
    need(text == open(path("chat", "tokenizer.json"), "rb").read(), "the two tokenizer.json differ")
    tok = Tokenizer.from_file(path("base", "tokenizer.json"))
    need(tok.get_vocab_size() == VOCAB and tok.token_to_id(EOT) == VOCAB - 1, "vocabulary")
    probe = 'User: What does "river" mean?\n  Déjà vu, 42!' + EOT + "\tend"
    need(tok.decode(tok.encode(probe).ids, skip_special_tokens=False) == probe, "text round trip")

    t = np.load(path("tokens.npy"))
    need(open(path("tokens.npy"), "rb").read(8) == b"\x93NUMPY\x01\x00", "npy version")
    need(t.dtype == np.uint16 and t.shape == (TEXT_ROWS, CONTEXT) and t.flags.c_contiguous, "tokens.npy")
    need((t[:, 0] == VOCAB - 1).all() and t.max() == VOCAB - 1, "token ids")

    runs = {k: stream(tok, v[0]) for k, v in texts.items()}
    held = {k: rows(stream(tok, v[1]))[:VALID_ROWS] for k, v in texts.items()}
    lines = ["| nats per token | base text | dialogue |", "|---|---|---|"]
    uni = {k: unigram(runs[k], held[k]) for k in texts}
    lines.append("| unigram entropy of the training text | %.3f | %.3f |" % tuple(uni[k][0] for k in texts))
    lines.append("| unigram model on the held-out text | %.3f | %.3f |" % tuple(uni[k][1] for k in texts))
    samples = []
    for name in "base", "chat":
        with safe_open(path(name, "model.safetensors"), "pt") as f:
            names = set(f.keys())
            need(len(names) == 4 + 12 * LAYERS and "lm_head.weight" not in names, "tensor names")
            need(all(f.get_slice(n).get_dtype() == "BF16" for n in names), "tensor types")
        model, info = GPT2LMHeadModel.from_pretrained(path(name), dtype=torch.float32, output_loading_info=True)
        need(not (set(info["missing_keys"]) - {"lm_head.weight"} or info["unexpected_keys"]), "tensors")
        c = model.config
        need((c.vocab_size, c.n_embd, c.n_layer, c.n_head, c.n_positions, c.bos_token_id, c.eos_token_id)
             == (VOCAB, WIDTH, LAYERS, HEADS, CONTEXT, VOCAB - 1, VOCAB - 1), "config.json")
        need(c.activation_function == "gelu_new" and c.tie_word_embeddings, "config.json")
        auto = AutoTokenizer.from_pretrained(path(name))
        need(auto(probe)["input_ids"] == tok.encode(probe).ids, "AutoTokenizer")
        losses = [mean_loss(model, held[k]) for k in texts]
        lines.append("| %s model on the held-out text | %.3f | %.3f |" % (name, *losses))
        part = [mean_loss(model, t[:256].astype(np.int64))]
        say(f"{name}: held-out loss base text {losses[0]:.3f}, dialogue {losses[1]:.3f}; "
            f"first 256 rows of tokens.npy {part[0]:.3f}")
        samples += [f"{name.capitalize()} model, prompt {json.dumps(p)}:\n\n```\n{sample(model, tok, p)}\n```\n"
                    for p in PROMPTS[name]]
    size = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(args.out) for f in fs)
    lines += ["", f"- parameters of each model: {sum(p.numel() for p in model.parameters())}",
              f"- training text: {len(runs['base'])} tokens of base text, {len(runs['dialogue'])} of dialogue; "
              f"held out and measured: {held['base'].size} and {held['dialogue'].size}",
              f"- tokens.npy: {t.shape[0]} rows of {t.shape[1]}, {t.size} tokens",
              f"- all files of the demo: {size / 1e6:.2f} MB"]
    return "\n".join(lines), "\n".join(samples)


def fill(readme, name, body):
    """Replace what stands between <!-- name --> and <!-- /name -->."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    return pattern.sub(lambda m: m[1] + body.strip() + "\n" + m[2], readme)


def main():
    torch.set_num_threads(args.threads)
    logging.disable_progress_bar()
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    texts = make_texts()
    say({k: tuple(f"{len(p)} documents, {sum(map(len, p)) / 1e6:.2f} MB" for p in v) for k, v in texts.items()})
    history = ""
    if not args.check:
        tok = train_tokenizer(texts["base"][0] + texts["dialogue"][0])
        runs = {k: stream(tok, v[0]) for k, v in texts.items()}
        held = {k: rows(stream(tok, v[1]))[:VALID_ROWS] for k, v in texts.items()}
        uni = {k: unigram(runs[k], held[k]) for k in texts}
        say("tokens:", {k: len(v) for k, v in runs.items()}, "unigram entropy:",
            {k: round(u[0], 3) for k, u in uni.items()})

        os.makedirs(args.out, exist_ok=True)
        half = TEXT_ROWS // 2
        mix = np.concatenate([rows(runs[k])[:half] for k in texts]).astype("<u2")
        if len(mix) != TEXT_ROWS:
            die("not enough text for tokens.npy")
        mix = np.ascontiguousarray(mix[np.random.default_rng(args.seed).permutation(TEXT_ROWS)])
        with open(os.path.join(args.out, "tokens.npy"), "wb") as f:
            np.lib.format.write_array(f, mix, version=(1, 0))
        with open(os.path.join(args.out, "sample.txt"), "w") as f:
            f.write(("\n" + EOT + "\n").join(texts["base"][0][:10] + texts["dialogue"][0][:10]) + "\n")

        share = args.base_steps / (args.base_steps + args.chat_steps)
        model = new_model()
        b = train(model, "base", [(runs["base"], 1.0)], args.base_steps, args.lr,
                  args.minutes * share, held["base"])
        write_model(model, tok, os.path.join(args.out, "base"))
        # The fine-tuning starts from the base as stored, and keeps an eighth of base text.
        chat = new_model()
        chat.load_state_dict({k: v.float() for k, v in model.state_dict().items()})
        c = train(chat, "chat", [(runs["dialogue"], 0.875), (runs["base"], 0.125)], args.chat_steps,
                  args.chat_lr, args.minutes * (1 - share), held["dialogue"])
        write_model(chat, tok, os.path.join(args.out, "chat"))
        history = "".join(f"\n- {n}: {h['steps']} steps, {h['tokens'] / 1e6:.2f} million tokens, "
                          f"{h['minutes']:.1f} minutes" for n, h in (("base", b), ("chat", c)))
        history += f"\n- made with {args.threads} thread(s), seed {args.seed}"

    figures, samples = check(texts)
    if not args.check:
        figures += history + f"; {(time.time() - START) / 60:.1f} minutes in all"
    print(figures, samples, sep="\n\n")
    readme = os.path.join(args.out, "README.md")
    if not args.check and os.path.exists(readme):
        old = open(readme).read()
        new = fill(fill(old, "figures", figures), "samples", samples)
        open(readme, "w").write(new)
    say("done")


main()
