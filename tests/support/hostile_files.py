# SPDX-License-Identifier: Apache-2.0
"""Files and directories made to harm whoever reads them."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from cintervene.intervention.file import KEY, _digest

ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\r\nlast"
DEEP = "[" * 100_000 + "]" * 100_000
NAN, INF = float("nan"), float("inf")
Case = tuple[str, bytes]


def interventions(whole: bytes) -> Iterator[Case]:
    """Variants of the file of an intervention."""
    yield from containers(whole)
    tensors, about = load(whole), _about(whole)
    for name, changed in _abouts(about):
        yield name, _stored(tensors, changed)
    for name, arrays in _arrays(tensors, about):
        yield name, _stored(arrays, about)
    for name, head in _heads(tensors, about):
        yield name, save(tensors, {KEY: head})


def containers(whole: bytes) -> Iterator[Case]:
    """Variants of a safetensors file that are none."""
    length = struct.unpack("<Q", whole[:8])[0]
    header, data = whole[8 : 8 + length], whole[8 + length :]
    yield "empty", b""
    yield "few bytes", b"\x01" * 7
    for claimed in (0, 1, length - 1, length + 1, 1 << 31, 1 << 62, (1 << 64) - 1):
        yield f"header of {claimed} bytes", struct.pack("<Q", claimed) + whole[8:]
    for name, text in (
        ("no JSON", b"x" * 64), ("no UTF-8", b'{"\xff\xfe": 1}'), ("list", b"[]"),
        ("number", b"1"), ("null", b"null"), ("deep", DEEP.encode()),
        ("deep value", b'{"a":' + DEEP.encode() + b"}"), ("nothing", b"{}"),
        ("spaces", b" " * 1000),
    ):  # fmt: skip
        yield f"header: {name}", struct.pack("<Q", len(text)) + text + data
    twice = header.rstrip()[:-1] + b"," + header.lstrip()[1:]
    yield "header: every name twice", struct.pack("<Q", len(twice)) + twice + data
    entries = json.loads(header)
    first = next(name for name in entries if name != "__metadata__")
    size = entries[first]["data_offsets"][1]
    for name, change in (
        ("ends beyond", {"data_offsets": [0, len(data) + 8]}),
        ("ends before it begins", {"data_offsets": [size, 0]}),
        ("negative", {"data_offsets": [-8, size]}),
        ("fractions", {"data_offsets": [0.5, size]}),
        ("texts", {"data_offsets": ["0", str(size)]}),
        ("one offset", {"data_offsets": [0]}),
        ("overflow", {"data_offsets": [0, 1 << 63]}),
        ("all of it", {"data_offsets": [0, len(data)]}),
        ("negative shape", {"shape": [-1, 3]}),
        ("product overflows", {"shape": [1 << 40, 1 << 40]}),
        ("huge shape", {"shape": [1 << 62, 0, 1 << 62]}),
        ("fraction of a shape", {"shape": [1.5, 2]}),
        ("other shape", {"shape": [1, 1]}),
        ("no type", {"dtype": "F33"}), ("type is a number", {"dtype": 3}),
        ("type is null", {"dtype": None}), ("narrow type", {"dtype": "F8_E4M3"}),
        ("truth values", {"dtype": "BOOL"}), ("wide type", {"dtype": "F64"}),
        ("escapes for a type", {"dtype": ESCAPES}),
    ):  # fmt: skip
        changed = {**entries, first: {**entries[first], **change}}
        yield f"tensor: {name}", _raw(changed, data)
    for name, metadata in (
        ("numbers", {KEY: 1}), ("list", ["x"]), ("text", "x"), ("null", None),
        ("another", {"format": "pt"}), ("escapes", {ESCAPES: ESCAPES}),
    ):  # fmt: skip
        yield f"metadata: {name}", _raw({**entries, "__metadata__": metadata}, data)
    named = {ESCAPES if name == first else name: one for name, one in entries.items()}
    yield "tensor: escapes for a name", _raw(named, data)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        yield f"cut at {share}", whole[: int(share * len(whole))]
    for place in (9, 8 + length // 2, 8 + length - 2, len(whole) - 1):
        flipped = bytearray(whole)
        flipped[place] ^= 0x5B
        yield f"byte {place} flipped", bytes(flipped)
    yield "more behind it", whole + bytes(64)
    yield "text", b"#!/bin/sh\n" + ESCAPES.encode()


def _abouts(about: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What a digest does not keep anybody from writing."""
    nested: Any = {}
    for _ in range(400):
        nested = {"from": nested}
    point = {"chosen": True, "kl": "x", "strength": 1.0}
    for name, values in {
        "edits": [None, [], {}, [1], [{}], [[]], "x", about["edits"] * 2],
        "model": [None, 1, [], {}],
        "options": [
            None, [], "x", 1, {"forbid": 1}, {"forbid": [1]}, {"method": []},
            {"method": {"a": 1}}, {"sum_of": 1}, {"sum_of": [1]}, {"sum_of": {}},
            {"from": 1}, nested, {"max_kl": "x"}, {"scaled_by": "x"},
        ],
        "metrics": [
            None, [], 1, {"sweep": 1}, {"sweep": [1]}, {"sweep": {}},
            {"sweep": [{"kl": [1]}]}, {"layers": 1}, {"layers": [1]},
            {"layers": [{"cost": {}}]}, {"seconds": 1}, {"seconds": {"a": "x"}},
            {"within_limits": "no"}, {"sweep": [point], "within_limits": False},
        ],
        "versions": [None, [], 1, {"cintervene": 1}],
    }.items():  # fmt: skip
        for at, value in enumerate(values):
            yield f"{name}: variant {at}", {**about, name: value}
    for name in about:
        yield f"{name}: missing", {n: v for n, v in about.items() if n != name}
    for name, values in {
        "name": [None, 1, "", [], ESCAPES, "x" * 100_000, "../../x", "a\x00b"],
        "layer": ["x", None, -1, 2**70, True, 1.5, []],
        "transposed": ["x", None, 1],
        "dtype": ["int8", None, [], ESCAPES],
        "base_sha256": [1, None, "", ESCAPES],
        "base_norm": [NAN, INF, "x", None, -1.0],
        "result_sha256": [1, [], "x"],
    }.items():
        for at, value in enumerate(values):
            first = {**about["edits"][0], name: value}
            rest = about["edits"][1:]
            yield f"edit, {name}: variant {at}", {**about, "edits": [first, *rest]}


def _arrays(tensors: Any, about: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    name = about["edits"][0]["name"]
    left, right = tensors[f"{name}.left"], tensors[f"{name}.right"]
    for what, values in {
        "left": [
            np.full_like(left, NAN), np.full_like(left, INF), left[0], left[None],
            left[:, :1], left.astype(np.int32), left.astype(bool), left[:0],
            left.astype(np.uint8),
        ],
        "right": [right.T.copy(), right[:, :1], right[0, 0], right[:1], right * NAN],
        "flips": [
            np.zeros(0, np.uint8), np.zeros((2, 2), np.uint8), np.zeros(3, np.float32),
        ],
    }.items():  # fmt: skip
        for at, value in enumerate(values):
            yield f"{what}: variant {at}", {**tensors, f"{name}.{what}": value}
    for what in ("left", "right"):
        rest = {n: v for n, v in tensors.items() if n != f"{name}.{what}"}
        yield f"{what}: missing", rest
    empty = {"left": np.zeros((1 << 40, 0), np.float32)}
    empty["right"] = np.zeros((0, 1 << 40), np.float32)
    nothing = {f"{name}.{what}": value for what, value in empty.items()}
    yield "rank 0 of a huge shape", {**tensors, **nothing}


def _heads(tensors: Any, about: dict[str, Any]) -> Iterator[tuple[str, str]]:
    text = json.dumps(about)
    whole = {"version": 1, "sha256": _digest(tensors, text), "about": text}
    for name, changed in {
        "later": {**whole, "version": 2}, "no version": {**whole, "version": None},
        "another digest": {**whole, "sha256": "0" * 64},
        "no digest": {**whole, "sha256": None}, "no text": {**whole, "about": None},
        "number": {**whole, "about": 1}, "no JSON": {**whole, "about": "x"},
    }.items():  # fmt: skip
        yield f"head: {name}", json.dumps(changed)
    for name, text in {
        "deep": DEEP, "list": "[]", "null": "null", "number": "1",
        "escapes": json.dumps(ESCAPES), "nothing": "",
        "twice": '{"version": 1, "version": 1, "sha256": "", "about": "{}"}',
    }.items():  # fmt: skip
        yield f"head: {name}", text
    for name, inner in {"deep": DEEP, "list": "[]", "null": "null"}.items():
        head = {"version": 1, "sha256": _digest(tensors, inner), "about": inner}
        yield f"about: {name}", json.dumps(head)


def _about(whole: bytes) -> dict[str, Any]:
    length = struct.unpack("<Q", whole[:8])[0]
    head = json.loads(json.loads(whole[8 : 8 + length])["__metadata__"][KEY])
    about: dict[str, Any] = json.loads(head["about"])
    return about


def _stored(tensors: Any, about: Any) -> bytes:
    """A file with a digest that is right."""
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    text = json.dumps(about)
    head = {"version": 1, "sha256": _digest(arrays, text), "about": text}
    return bytes(save(arrays, {KEY: json.dumps(head)}))


def _raw(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def ggufs(whole: bytes) -> Iterator[Case]:
    """Variants of a GGUF file: numbers that lie, and bytes that are wrong."""
    yield "empty", b""
    yield "magic alone", whole[:4]
    yield "another magic", b"GGML" + whole[4:]
    for version in (0, 1, 4, 99, 1 << 31):
        yield f"version {version}", whole[:4] + struct.pack("<I", version) + whole[8:]
    yield "big endian", whole[:4] + struct.pack(">I", 3) + whole[8:]
    counts = (0, 1, 1000, 1 << 31, 1 << 40, 1 << 62, (1 << 64) - 1)
    for place, what in ((8, "tensors"), (16, "fields")):
        for count in counts:
            lied = whole[:place] + struct.pack("<Q", count) + whole[place + 8 :]
            yield f"{count} {what}", lied
    # The numbers of tensors, which are zeros, may be any.
    end = len(whole.rstrip(b"\0"))
    yield from ((n, c) for n, c in _overwritten(whole, end) if c != whole)
    for at in range(1, 16):
        yield f"cut after {at}/16", whole[: at * len(whole) // 16]
    yield "escapes", whole.replace(b"llama", b"\x1b[2Ja")
    yield "no UTF-8", whole.replace(b"llama", b"\xff\xfe\xfd\xfc\xfb")
    yield "unknown architecture", whole.replace(b"llama", b"lxama")
    yield "text", ESCAPES.encode() * 100


def _overwritten(whole: bytes, end: int) -> Iterator[Case]:
    for place in range(24, end - 8, 4):
        for value in (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000):
            lied = whole[:place] + struct.pack("<I", value) + whole[place + 4 :]
            yield f"{value:x} at {place}", lied
    for place in range(24, end - 16, 16):
        yield f"zeros at {place}", whole[:place] + bytes(8) + whole[place + 8 :]


def directories(source: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Changes of a copy of a model's directory."""
    weights = (source / "model.safetensors").read_bytes()
    config = json.loads((source / "config.json").read_text("utf-8"))
    # What is harmless to a model: its metadata, and bits of a weight.
    chosen = [
        (name, content)
        for name, content in containers(weights)
        if not name.startswith(("metadata", "byte"))
    ]
    for name, content in chosen[::2]:
        yield f"weights: {name}", _writing("model.safetensors", content)
    for name, change in {
        "no type": {"model_type": None}, "escapes": {"model_type": ESCAPES},
        "custom code": {"model_type": "x", "auto_map": {"AutoConfig": "x.X"}},
        "negative": {"num_hidden_layers": -1}, "text": {"hidden_size": "x"},
        "huge": {"hidden_size": 1 << 40}, "many layers": {"num_hidden_layers": 1 << 40},
        "zero": {"num_attention_heads": 0}, "list": {"hidden_size": [1]},
        "null": {"vocab_size": None}, "type": {"torch_dtype": ESCAPES, "dtype": "x"},
        "words": {"vocab_size": 1 << 50}, "architecture": {"model_type": "bert"},
    }.items():  # fmt: skip
        text = json.dumps({**config, **change}).encode()
        yield f"config: {name}", _writing("config.json", text)
    for name, content in {
        "deep": DEEP.encode(), "list": b"[]", "null": b"null", "nothing": b"",
        "no UTF-8": b'{"\xff": 1}', "number": b"1e999", "text": b"x",
    }.items():  # fmt: skip
        yield f"config is {name}", _writing("config.json", content)
        yield f"tokenizer is {name}", _writing("tokenizer.json", content)
    for name, content in {
        "deep": DEEP, "list": "[]", "no map": "{}",
        "map is a list": '{"weight_map":[]}', "number": '{"weight_map":{"a":1}}',
        "out": '{"weight_map":{"a":"../x"}}',
        "missing": '{"weight_map":{"a":"x.safetensors"}}',
        "escapes": json.dumps({"weight_map": {"a": ESCAPES + ".safetensors"}}),
    }.items():  # fmt: skip
        yield f"index is {name}", _index(content.encode())
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        yield f"{name} is a pipe", _pipe(name)
        yield f"{name} is a link in a circle", _linked(name, name)
        yield f"{name} is a directory", _directory(name)
        yield f"{name} is missing", _missing(name)
    yield "socket", _socket
    yield "device", _linked("x.json", "/dev/zero")
    yield "link to nothing", _linked("x.json", "/nowhere")
    yield "link outside", _linked("x.json", "/etc/hostname")
    yield "directory in a circle", _linked("loop", ".")
    yield "directory outside", _linked("etc", "/etc")
    yield "mostly holes", _sparse


def _writing(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda place: void((place / name).write_bytes(content))


def _index(content: bytes) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        (place / "model.safetensors").rename(place / "shard.safetensors")
        (place / "model.safetensors.index.json").write_bytes(content)

    return change


def _pipe(name: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        (place / name).unlink()
        os.mkfifo(place / name)

    return change


def _linked(name: str, target: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        (place / name).unlink(missing_ok=True)
        (place / name).symlink_to(target)

    return change


def _directory(name: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        (place / name).unlink()
        (place / name).mkdir()

    return change


def _missing(name: str) -> Callable[[Path], None]:
    return lambda place: (place / name).unlink()


def _socket(place: Path) -> None:
    bound = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(place)
    bound.bind("s.json")
    os.chdir(here)
    bound.close()


def _sparse(place: Path) -> None:
    with (place / "x.json").open("wb") as stream:
        stream.truncate(1 << 40)


def texts() -> Iterator[tuple[str, str, bytes]]:
    """Contents of the other files that commands read: (kind, name, content)."""
    contents = {
        "empty": b"", "no UTF-8": b"\xff\xfe\x00", "escapes": ESCAPES.encode(),
        "deep": DEEP.encode(), "zeros": bytes(1000), "number": b"1", "null": b"null",
        "list": b"[1]", "object": b'{"a": {}}', "twice": b'{"a": 1, "a": 2}',
        "long line": b"x" * 1_000_000, "number of many digits": b"9" * 10_000,
        "quote": b'"', "infinite": b"1e999", "surrogate": b'"\\ud800"',
    }  # fmt: skip
    for kind in ("config", "report", "journal", "peers"):
        for name, content in contents.items():
            yield kind, name, content
    for name in ("empty", "no UTF-8", "escapes", "zeros"):
        yield "words", name, contents[name]
    # Any other text is a request as it stands.
    for name in ("empty", "no UTF-8", "zeros", "long line"):
        yield "behaviours", name, contents[name]
    peer = {"name": "x", "setting": "1", "kl": 0.1}
    wrongs = ({"name": 1}, {"kl": "x"}, {"kl": NAN}, {"refused": []})
    for at, wrong in enumerate(wrongs):
        yield "peers", f"wrong type {at}", json.dumps([{**peer, **wrong}]).encode()
    case = dict.fromkeys(("suite", "defence", "attack", "behaviour", "category"), "x")
    case |= dict.fromkeys(("prompt", "prefill", "answer"), "x")
    seconds = ("attack_seconds", "defence_seconds", "generation_seconds")
    case |= {"outcome": "refused", "number": 0, **dict.fromkeys(seconds, 1.0)}
    for at, changed in enumerate(
        ({"prompt": 1}, {"number": "x"}, {"outcome": "x"}, {"seconds": 1},
         {"attack_seconds": "x"}, {"suite": []}, {"answer": None})
    ):  # fmt: skip
        line = json.dumps({"case": {**case, **changed}})
        yield "journal", f"wrong case {at}", line.encode()
    yield "journal", "setting is a list", b'{"setting": [], "value": 1}'
    yield "journal", "setting without a value", b'{"setting": "x"}'
    yield "config", "deep table", b"a = " + b"[" * 50_000 + b"]" * 50_000
    yield "config", "wrong types", b"method = 1\nforbid = 3\n"
    yield "config", "unknown", b'method = "pcr"\n"\\u001b[2J" = 1\n'
    yield "config", "inline", b"method = " + b"{a=" * 30_000 + b"1" + b"}" * 30_000


def void(_: object) -> None:
    """Forget a result."""


def reports(digest: str) -> Iterator[Case]:
    """Reports of the right intervention with the wrong contents."""
    for at, parts in enumerate(
        (
            {"requests": 1}, {"requests": {"tokens": 1}}, {"requests": {"asked": 1}},
            {"verdicts": 1}, {"verdicts": [1]}, {"verdicts": [{}]},
            {"verdicts": [{"measured": {}}]}, {"measurement": 1, "verdicts": [{}]},
            {"requests": {"tokens": ESCAPES, "split": [], "asked": [1]}},
        )
    ):  # fmt: skip
        yield f"variant {at}", json.dumps({"digest": digest, **parts}).encode()
