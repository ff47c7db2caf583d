#!/usr/bin/python3
"""Writes the seeds of tests/corpus: valid inputs of each fuzz target, from tests/data and from PROTOCOL.md.

    tests/fuzz/make_seeds.py FOLDER     writes FOLDER/TARGET/seed_*

What fuzzing found lies beside them and stays. Debian's Python, python3-msgpack.
"""
import gzip
import json
import lzma
import os
import struct
import sys

import msgpack

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OUT = sys.argv[1]


def seed(target, name, data):
    folder = os.path.join(OUT, target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "seed_" + name), "wb") as f:
        f.write(data)


def data(*names):
    with open(os.path.join(TESTS, "data", *names), "rb") as f:
        return f.read()


def safetensors(tensors, metadata=None):
    """tensors: {name: (dtype, shape, bytes)}"""
    header, body = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def floats(n):
    return struct.pack("<%df" % n, *[i % 5 / 4 for i in range(n)])


# ---- messages ----

def frame(kind, **fields):
    return msgpack.packb(dict(type=kind, **fields), use_single_float=True)


HELLO = dict(version=1, software="crossfeed 0.1.0", producer="h\u00f6st-7",
             sites=["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"], d_model=3, seq_len=5, rows_per_seq=4,
             n_seq=15, vocab_size=0, tokens="70cc", models=["aaaa"], dtypes=["bf16", "fp32"], scale=None)
MESSAGES = {
    "hello": frame("HELLO", **HELLO),
    "hello_scaled": frame("HELLO", **dict(HELLO, scale=[1.0, 2.0], vocab_size=50257, models=[])),
    "hello_2": frame("HELLO", version=2, other=1),
    "welcome": frame("WELCOME", run="0" * 32, dtype="bf16", scale=None, block_seqs=4, credit=2, heartbeat_ms=1000,
                     timeout_ms=10000),
    "welcome_scaled": frame("WELCOME", run="0" * 32, dtype="fp32", scale=[1.0, 0.5], block_seqs=2, credit=2,
                            heartbeat_ms=1000, timeout_ms=10000),
    "reject": frame("REJECT", reason="d_model 768, run has 1024"),
    "lease": frame("LEASE", lease=2**63, block=65536, first=255, count=128, scaled=True),
    "batch": frame("BATCH", lease=127, block=2**32 - 1, chunk=0, chunks=3, rows=3, checksum=2**60,
                   origins=struct.pack("<9I", *range(9))),
    "error": frame("ERROR", lease=1, code="source", text="sequence 3: site 1: NaN"),
    "ping": frame("PING", token=2**33, computing=0.75, sending=0.0),
    "pong": frame("PONG", token=1),
    "bye": frame("BYE", reason=""),
    "bye_ack": frame("BYE_ACK"),
    "end": frame("END", ok=True, reason="200000 steps done"),
}
for name, raw in MESSAGES.items():
    seed("message", name, raw)


def raw_event(message, who=0):
    return bytes([who << 6]) + struct.pack("<H", len(message)) + message


# ---- the trainer's side (fuzz_ingest.c) ----

RAW, HELLO_E, ANSWER, ERROR, PING, BYE, RECONNECT, RUBBISH, LOST, JUMP, TURN, STALE = range(12)


def ev(kind, *arguments, who=0):
    return bytes([who << 6 | kind, *arguments])


answers = ev(ANSWER, 0) + ev(TURN)
for name, kind in {"bf16": 0, "f32": 1, "given": 2, "no_eval": 4, "long": 8, "long_f32": 9, "expected": 16}.items():
    seed("ingest", "one_" + name, bytes([kind]) + ev(HELLO_E, 0) + ev(TURN) + 40 * answers)
two = ev(HELLO_E, 0) + ev(HELLO_E, 0, who=1) + ev(TURN)
seed("ingest", "two", bytes([0]) + two + 25 * (answers + ev(ANSWER, 0, who=1)))
seed("ingest", "scaled", bytes([4]) + ev(HELLO_E, 4) + ev(TURN) + 30 * answers)
for how in range(128, 142):
    seed("ingest", "bad_%d" % how, bytes([2]) + two + 3 * (ev(ANSWER, how) + ev(TURN)) + ev(HELLO_E, 0) + 12 * answers)
seed("ingest", "masked", bytes([2]) + ev(HELLO_E, 0) + 30 * (ev(ANSWER, 132) + ev(TURN)))
seed("ingest", "all_masked", bytes([6]) + ev(HELLO_E, 0) + ev(TURN) + 20 * (ev(ANSWER, 131) + ev(TURN)))
for code in range(4):
    seed("ingest", "error_%d" % code, bytes([2]) + two + 4 * (ev(ERROR, code) + ev(TURN)) + ev(ERROR, code, who=1)
         + ev(JUMP, 60) + ev(TURN) + 10 * answers)
seed("ingest", "faults", bytes([0]) + two + ev(PING) + answers + ev(RECONNECT, who=1) + ev(PING, who=1)
     + ev(HELLO_E, 0, who=1) + ev(LOST) + ev(TURN) + ev(RECONNECT) + ev(HELLO_E, 0) + ev(JUMP, 60) + ev(TURN)
     + ev(RUBBISH, 0) + ev(HELLO_E, 0) + ev(RUBBISH, 1, who=2) + ev(STALE, 1) + ev(BYE) + ev(HELLO_E, 0) + 6 * answers)
for how in (1, 2, 8, 16, 32, 128):
    seed("ingest", "hello_%d" % how, bytes([0]) + ev(HELLO_E, how) + ev(HELLO_E, 0, who=1) + ev(HELLO_E, how, who=2)
         + 4 * ev(ANSWER, 0, who=1))
seed("ingest", "raw", bytes([0]) + b"".join(raw_event(m) + (struct.pack("<H", 4) + b"abcd" if n == "batch" else b"")
                                          for n, m in MESSAGES.items()) + 4 * answers)

# ---- the producer's side (fuzz_serve.c) ----

RAW, WELCOME, LEASE, PING, ERROR, REJECT, END, BYE_ACK, JUMP, WAIT, STOP, LOST, TURN, DISCONNECTED = range(14)
for name, kind, raw in (("bf16", 0, 1), ("f32", 1, 1), ("scaled", 2, 1), ("long", 4, 1), ("keeps", 8, 1)):
    seed("serve", "one_" + name, bytes([kind]) + ev(WELCOME, 1) + 3 * (ev(LEASE, 0, 3) + ev(LEASE, 2, 3) + ev(WAIT)
                                                                     + ev(WAIT)) + ev(END, 1))
seed("serve", "raw_rows", bytes([0]) + ev(WELCOME, 0) + ev(LEASE, 0, 2) + ev(WAIT) + ev(WELCOME, 1) + ev(LEASE, 2, 3)
     + ev(WAIT) + ev(END, 0))
seed("serve", "cannot", bytes([8]) + ev(WELCOME, 1) + ev(LEASE, 5, 1) + ev(WAIT) + ev(LEASE, 6, 1) + ev(WAIT)
     + ev(LEASE, 0, 0x10) + ev(LEASE, 0, 0x20) + ev(LEASE, 0, 0x40) + ev(LEASE, 3, 1) + ev(WAIT) + ev(BYE_ACK))
for how in range(1, 9):
    seed("serve", "welcome_%d" % how, bytes([0]) + ev(WELCOME, how << 4 | 1) + ev(LEASE, 0, 1) + ev(WAIT))
seed("serve", "welcome_changes", bytes([0]) + ev(WELCOME, 1) + ev(LEASE, 0, 3) + ev(WELCOME, 0x51) + ev(WAIT)
     + ev(WELCOME, 0x31) + ev(LEASE, 0, 3) + ev(WAIT))
seed("serve", "again", bytes([0]) + ev(WELCOME, 1) + ev(LEASE, 0, 3) + ev(ERROR, 1) + ev(WELCOME, 1) + ev(LEASE, 0, 3)
     + ev(JUMP, 60) + ev(TURN) + ev(WELCOME, 1) + ev(LOST) + ev(LEASE, 0, 3) + ev(WAIT) + ev(PING))
seed("serve", "disconnected", bytes([0]) + ev(WELCOME, 1) + ev(LEASE, 0, 3) + ev(DISCONNECTED) + ev(TURN)
     + ev(WELCOME, 1) + ev(LEASE, 2, 3) + ev(WAIT) + ev(STOP) + ev(DISCONNECTED) + ev(TURN) + ev(BYE_ACK))
seed("serve", "before_welcome", bytes([0]) + ev(LEASE, 0, 3) + ev(JUMP, 200) + ev(TURN) + ev(ERROR, 0) + ev(REJECT))
seed("serve", "gives_up", bytes([0]) + 5 * (ev(JUMP, 255) + ev(TURN)))
seed("serve", "stopped", bytes([0]) + ev(WELCOME, 1) + ev(LEASE, 0, 3) + ev(STOP) + ev(TURN) + ev(BYE_ACK))
seed("serve", "raw", bytes([0]) + b"".join(raw_event(MESSAGES[n]) for n in (
    "welcome_scaled", "lease", "ping", "pong", "hello", "batch", "error", "bye", "bye_ack", "end")))

# ---- files ----

# The pair of RFC 26.
SECRET, PUBLIC = b"JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6", b"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
seed("keys", "pair", b"# of the trainer\nsecret " + SECRET + b"\npublic " + PUBLIC + b" trainer\n")
seed("keys", "secret", b"secret " + SECRET + b"\r\n")
seed("keys", "public", PUBLIC)
seed("keys", "list", b"public " + PUBLIC + b" one\n\n" + b"Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID two\n")
seed("keys", "wrong_pair", b"secret " + SECRET + b"\npublic Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID\n")

for name in os.listdir(os.path.join(TESTS, "data", "npy")):
    seed("npy", name, data("npy", name))


def npy(descr, shape, body):
    text = ("{'descr': '%s', 'fortran_order': False, 'shape': %s, }" % (descr, shape)).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


seed("npy", "lengths.npy", npy("<i4", "(3,)", struct.pack("<3i", 1, 8, 16)))
seed("npy", "stacked.npy", npy("<f2", "(4, 2, 3)", 24 * b"\x00\x3c"))
seed("npy", "tokens.npy", npy("<u2", "(2, 5)", struct.pack("<10H", *range(10))))
seed("npy", "version2.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 60)
     + b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2), }\n" + b"\x00\x01\x02\x03")

every = {"a": ("F32", [2, 3], floats(6)), "b": ("BF16", [2, 3], 6 * b"\x80\x3f"), "c": ("F16", [2, 3], 6 * b"\x00\x3c")}
others = dict(every, d=("F64", [1], 8 * b"\0"), e=("I64", [2], 16 * b"\1"), f=("I32", [], 4 * b"\0"),
              g=("U8", [0, 7], b""), h=("BOOL", [1], b"\1"), i=("F8_E4M3", [4], 4 * b"\0"))
seed("safetensors", "rows", safetensors(every))
seed("safetensors", "three", safetensors({"a": ("F32", [2, 2, 3], floats(12)), "b": ("F32", [2, 2, 3], floats(12))}))
seed("safetensors", "all", safetensors(others, {"step": "3", "software": "x"}))
seed("safetensors", "empty", safetensors({}))

config = data("gpt2", "unscaled", "config.json")
seed("gpt2", "unscaled", config)
seed("gpt2", "sharded", data("gpt2", "sharded", "config.json") + b"\0"
     + data("gpt2", "sharded", "model.safetensors.index.json"))
seed("gpt2", "odd_heads", data("gpt2", "odd_heads", "config.json"))
seed("gpt2", "untied", config.rstrip()[:-1].rstrip() + b', "tie_word_embeddings": false}')
seed("gpt2", "n_ctx", config.replace(b"n_positions", b"n_ctx").replace(b'"relu"', b'"gelu_new"'))

bytes_to_unicode = [b if 0x21 <= b <= 0x7e or 0xa1 <= b <= 0xac or b >= 0xae else None for b in range(256)]
n = 0
for b in range(256):
    if bytes_to_unicode[b] is None:
        bytes_to_unicode[b], n = 0x100 + n, n + 1
alphabet = [chr(c) for c in bytes_to_unicode]
letters = sorted("abcdehlot") + ["\u0120"]
vocab = {t: i for i, t in enumerate(letters + ["he", "ll", "hell", "hello", "\u0120t", "\u0120the", "the", "<|endoftext|>"])}
merges = ["h e", "l l", "he ll", "hell o", "\u0120 t"]


def tokenizer(vocab=vocab, merges=merges, added=(), pre={}, model={}):
    return json.dumps(dict(
        version="1.0", normalizer=None, added_tokens=list(added), decoder={"type": "ByteLevel"},
        pre_tokenizer=dict({"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}, **pre),
        model=dict({"type": "BPE", "vocab": vocab, "merges": merges, "unk_token": None}, **model)),
        ensure_ascii=False).encode()


text = b"\0hello the tea <|endoftext|>  hell\xc3\xa9\xff lot"
end_of_text = {"id": vocab["<|endoftext|>"], "content": "<|endoftext|>", "special": True, "normalized": False}
strip = {"id": len(vocab), "content": "<s>", "lstrip": True, "rstrip": True, "normalized": True}
seed("tokenizer", "plain", tokenizer(added=[end_of_text]) + text)
seed("tokenizer", "pairs", tokenizer(merges=[m.split(" ") for m in merges]) + text)
seed("tokenizer", "strip", tokenizer(added=[end_of_text, strip]) + text + b" <s> he<s>ll")
seed("tokenizer", "prefix", tokenizer(pre={"add_prefix_space": True}) + text)
seed("tokenizer", "whole", tokenizer(pre={"use_regex": False}, model={"unk_token": "o"}) + text)
seed("tokenizer", "gpt2", b"\0" + json.dumps(vocab).encode() + b"\0#version: 0.2\n" + "\n".join(merges).encode() + b"\n"
     + text)
config = {"add_prefix_space": False, "pad_token": "<p>", "image_token": {"__type": "AddedToken", "content": "<i>", "lstrip": True}}
beside = b"\0ab<p> <i>a<|endoftext|> <x>b"
seed("tokenizer", "folder", b"\1" + json.dumps(config).encode() + b'\0{"eos_token": "<e>", "additional_special_tokens": ["<x>"]}'
     b'\0{"<p>": 4}' + beside)
seed("tokenizer", "decoder", b"\1" + json.dumps({**config, "added_tokens_decoder": {"4": strip | {"content": "<p>"}}}).encode()
     + b"\0{}\0{}" + beside)

golden = json.loads(data("tokenizer", "golden.json"))
texts = []


def find_texts(x):
    if isinstance(x, str):
        texts.append(x.encode("utf-8", "surrogatepass"))
    for y in x.values() if isinstance(x, dict) else x if isinstance(x, list) else ():
        find_texts(y)


find_texts(golden)
texts = sorted({t for t in texts if 8 <= len(t) <= 400}, key=lambda t: (-len(t), t))
for i, t in enumerate(texts[::max(1, len(texts) // 12)]):
    seed("text", "%02d" % i, bytes([i]) + t)

seed("documents", "lines", b"\0one\r\ntwo\n\nthree")
seed("documents", "json", b"\1" + b'{"text": "one\\u0000 \\u00e9", "n": [1, 2.5e3, null]}\n \r\n{"n": true, "text": "\xff"}\n')
seed("documents", "no_field", b"\1" + b'{"text": "one"}\n{"texts": "two"}')
seed("documents", "whole", b"\2one\ntwo")
packed = b'{"text": "one"}\n' * 9
seed("documents", "gzip", b"\1" + gzip.compress(packed, mtime=0) + gzip.compress(packed, mtime=0))
seed("documents", "xz", b"\1" + lzma.compress(packed) + bytes(4) + lzma.compress(packed))
seed("documents", "zstd", b"\1\x28\xb5\x2f\xfd\x20" + bytes([len(packed)]) + struct.pack("<I", len(packed) << 3 | 1)[:3] + packed)

manifest = {
    "format": "crossfeed-recording", "version": 1, "software": "crossfeed", "dtype": "bf16", "scale": [0.5, 2.0],
    "stream": {"sites": HELLO["sites"], "d_model": 3, "seq_len": 4, "rows_per_seq": 3, "n_seq": 5, "vocab_size": 100,
               "tokens": "70cc", "models": ["aaaa"]},
    "shard_seqs": 2, "n_shards": 3, "shards": {"0": "0" * 32, "1": "1" * 32}}
shard = safetensors({"acts": ("BF16", [6, 2, 3], 72 * b"\x3f"), "tokens": ("I32", [6], 24 * b"\1"),
                     "positions": ("I32", [6], 24 * b"\2"), "sequence": ("I64", [6], 48 * b"\0"),
                     "chunk_checksums": ("I64", [1], 8 * b"\7")})
seed("manifest", "made", json.dumps(manifest).encode())
seed("manifest", "shard", json.dumps(manifest).encode() + b"\0" + shard)
seed("manifest", "f32", json.dumps(dict(manifest, dtype="fp32")).encode())
seed("manifest", "large", json.dumps(dict(manifest, shard_seqs=4000000000)).encode())

n_inputs, d_sae = 6, 4
n_params = 2 * n_inputs * d_sae + d_sae + n_inputs


def state(position="2", step="1", rows="4", window="0"):
    return safetensors({"adam_m": ("F32", [n_params], floats(n_params)), "adam_v": ("F32", [n_params], floats(n_params)),
                        "rows_since_fired": ("I64", [d_sae], 8 * d_sae * b"\0")},
                       {"step": step, "rows": rows, "window": window, "position": position, "software": "x"})


seed("checkpoint", "state", b"\0" + state())
seed("checkpoint", "state_late", b"\0" + state(position="12", window="7"))
seed("checkpoint", "weights", b"\1" + safetensors({
    "W_enc": ("F32", [2, 3, 4], floats(24)), "W_dec": ("F32", [4, 2, 3], floats(24)), "b_enc": ("F32", [4], floats(4)),
    "b_dec": ("F32", [2, 3], floats(6)), "scale": ("F32", [2], floats(2))}))
seed("checkpoint", "truth", b"\1" + safetensors({"kind": ("I32", [3], struct.pack("<3i", 0, 1, 2)),
                                                 "directions": ("F32", [3, 2, 3], floats(18))}))
cfg = {"seed": 49, "batch_size": 8, "buffer_mult": 4, "num_tokens": 1000, "dict_size": 4, "model_batch_size": 2, "lr": 2e-5,
       "l1_coeff": 2.0, "beta1": 0.9, "beta2": 0.999, "dec_init_norm": 0.005, "eps": 1e-8, "max_grad_norm": 1.0,
       "lr_warmup": 0.05, "lr_decay": 0.2, "l1_warmup": 0.05, "eval_blocks": 1, "scale_rows": 16384, "dead_rows": 1000000,
       "dtype": "bf16", "scale": "", "log_every": 100, "eval_every": 1000, "save_every": 10000, "keep": 3,
       "lookahead_blocks": 4, "credit": 2, "heartbeat_ms": 1000, "timeout_ms": 10000, "threads": 0, "run": "0" * 32,
       "run_scale": [1.0, 2.0], "stream": manifest["stream"]}
seed("checkpoint", "cfg", b"\2" + json.dumps(cfg, indent=1).encode())
