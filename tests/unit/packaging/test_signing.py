"""Signed sets: the envelope, its key, and what a signature finds that hashes cannot."""

import base64
import json
import random
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from distillhub.errors import UsageError, VerificationError
from distillhub.packaging import keys, signing
from distillhub.packaging.provenance import SIGNATURE
from distillhub.packaging.stamping import stamp
from distillhub.packaging.verify import verify
from distillhub.records.manifest import MANIFEST
from tests.unit.packaging import corruption, sample

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
FILES = {"README.md": "a" * 64, "data/x.parquet": "b" * 64}
Content = dict[str, Any]


def statement(files: dict[str, str], **changed: object) -> Content:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {},
        "subject": [{"name": n, "digest": {"sha256": d}} for n, d in files.items()],
        **changed,
    }


def signed(content: object = None, key: ed25519.Ed25519PrivateKey = KEY) -> Content:
    payload = json.dumps(statement(FILES) if content is None else content).encode()
    found: Content = json.loads(signing.envelope(payload, key))
    return found


def changed(content: Content, **update: object) -> bytes:
    return json.dumps({**content, **update}).encode()


def faults(text: bytes, files: dict[str, str | None] | None = None) -> str:
    found = signing.check(text, KEY.public_key(), dict(FILES) if files is None else files)
    return "\n".join(map(str, found))


def sig(content: Content) -> Any:
    return content["signatures"][0]


GOOD: dict[str, bytes] = {
    "as we write it": signing.envelope(json.dumps(statement(FILES)).encode(), KEY),
    "the URL's alphabet": changed(
        signed(),
        payload=signed()["payload"].replace("+", "-").replace("/", "_"),
        signatures=[
            {**sig(signed()), "sig": sig(signed())["sig"].replace("+", "-").replace("/", "_")}
        ],
    ),
    "no key id": changed(signed(), signatures=[{"sig": sig(signed())["sig"]}]),
    "another signer as well": changed(signed(), signatures=[sig(signed(key=OTHER)), sig(signed())]),
    "more keys beside ours": changed(signed(), extension={"made": "by others"}),
}
FLIPPED = base64.b64encode(
    bytes(b ^ (i == 9) for i, b in enumerate(base64.b64decode(sig(signed())["sig"])))
).decode()
MORE = statement({**FILES, "more.txt": "c" * 64})
BAD: dict[str, tuple[bytes, str]] = {
    "wrong key": (changed(signed(key=OTHER)), r"signed by sha256:\w{64}, not by the key"),
    "bit of the signature": (
        changed(signed(), signatures=[{**sig(signed()), "sig": FLIPPED}]),
        "does not fit to the payload",
    ),
    "short signature": (
        changed(signed(), signatures=[{**sig(signed()), "sig": "AAAA"}]),
        "does not fit to the payload",
    ),
    "signature of an elliptic curve": (
        changed(
            signed(),
            signatures=[{"keyid": "p256", "sig": base64.b64encode(bytes(71)).decode()}],
        ),
        "signed by p256, not by the key",
    ),
    "signature of another payload": (
        changed(signed(), signatures=[sig(signed(MORE))]), "does not fit to the payload"
    ),
    "payload of another signature": (
        changed(signed(), payload=signed(MORE)["payload"]), "does not fit to the payload"
    ),
    "other payload type": (
        changed(signed(), payloadType="application/json"), "payloadType is 'application/json'"
    ),
    "no signature": (changed(signed(), signatures=[]), "holds no signature"),
    "signature without bytes": (changed(signed(), signatures=[{"keyid": "x"}]), "has no sig"),
    "signature that is a text": (changed(signed(), signatures=["x"]), "has no sig"),
    "signature that is not base64": (
        changed(signed(), signatures=[{"sig": "§§"}]), r"signatures\.0\.sig is not base64"
    ),
    "payload that is not base64": (changed(signed(), payload="%%%"), "payload is not base64"),
    "payload with a space": (
        changed(signed(), payload=" " + signed()["payload"]), "payload is not base64"
    ),
    "no payload": (b'{"payloadType": "x", "signatures": []}', "no DSSE envelope"),
    "payload that is a number": (changed(signed(), payload=7), "no DSSE envelope"),
    "empty file": (b"", "not JSON"),
    "truncated": (GOOD["as we write it"][:-40], "not JSON"),
    "no JSON": (b"-----BEGIN PGP SIGNATURE-----", "not JSON"),
    "no text": (b"\xff\xfe\x00", "not JSON"),
    "a list": (b"[]", "no DSSE envelope"),
    "nested beyond reason": (b"[" * 100_000, "recursion|not JSON"),
    "two payloads": (
        GOOD["as we write it"].replace(b"{", b'{"payload": "AAAA",', 1),
        "key 'payload' is there twice",
    ),
    "statement that is no JSON": (signing.envelope(b"hello", KEY), "not JSON"),
    "other statement": (changed(signed({"_type": "x"})), "not an in-toto statement"),
    "other predicate": (
        changed(signed(statement(FILES, predicateType="https://example.com"))),
        "predicateType is not",
    ),
    "subject without a digest": (
        changed(signed(statement({}, subject=[{"name": "README.md"}]))), "lacks a name or a sha256"
    ),
    "duplicated subject": (
        changed(signed(statement({}, subject=statement(FILES)["subject"] * 2))),
        "subject README.md is there twice",
    ),
    "missing subject": (
        changed(signed(statement({"README.md": "a" * 64}))), "data/x.parquet: added after signing"
    ),
    "subject too many": (changed(signed(MORE)), "more.txt: missing; its signed sha256 is c{64}"),
    "other digest": (
        changed(signed(statement(FILES | {"README.md": "0" * 64}))),
        "README.md: changed after signing: sha256 a{64}, signed is 0{64}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_envelope_has_no_fault(kind: str):
    assert faults(GOOD[kind]) == ""


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_envelope_is_named(kind: str):
    text, pattern = BAD[kind]

    assert re.search(pattern, faults(text))


def test_the_encoding_that_is_signed_is_that_of_the_standard():
    # The example of the DSSE protocol, v1.
    assert signing.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_a_payload_is_not_valid_under_another_type():
    payload = json.dumps(statement(FILES)).encode()
    raw = {**signed(), "signatures": [{"sig": base64.b64encode(KEY.sign(payload)).decode()}]}

    assert "not by the key" in faults(changed(raw))


def test_a_private_key_is_for_its_owner_alone_and_never_overwritten(tmp_path: Path):
    path = tmp_path / "me.key"

    name = keys.make_keys(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert name == keys.key_id(keys.read_private(path).public_key())
    assert name == keys.key_id(keys.read_public(tmp_path / "me.key.pub"))
    with pytest.raises(UsageError, match="never overwritten"):
        keys.make_keys(path)


def pem(key: Any, **options: Any) -> bytes:
    kind = options.get("encryption", serialization.NoEncryption())
    found: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, kind
    )
    return found


def public_pem(key: Any) -> bytes:
    found: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return found


CURVE = ec.derive_private_key(7, ec.SECP256R1())
SECRET = serialization.BestAvailableEncryption(b"word")
KEYS: dict[str, tuple[Callable[[Path], object], bytes | None, str]] = {
    "absent": (keys.read_public, None, "no such key"),
    "empty": (keys.read_public, b"", "no public key in PEM"),
    "truncated": (keys.read_public, public_pem(KEY)[:60], "no public key in PEM"),
    "private in place of public": (keys.read_public, pem(KEY), "is a private key"),
    "elliptic curve": (keys.read_public, public_pem(CURVE), "not Ed25519"),
    "to sign, elliptic curve": (keys.read_private, pem(CURVE), "not Ed25519"),
    "to sign, public": (keys.read_private, public_pem(KEY), "no private key in PEM"),
    "to sign, with a passphrase": (
        keys.read_private, pem(KEY, encryption=SECRET), "has a passphrase"
    ),
    "to sign, noise": (keys.read_private, bytes(range(256)), "no private key in PEM"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYS)
def test_a_file_that_is_no_key_of_ours_is_named(kind: str, tmp_path: Path):
    read, content, pattern = KEYS[kind]
    if content is not None:
        (tmp_path / "key").write_bytes(content)

    with pytest.raises(UsageError, match=pattern) as caught:
        read(tmp_path / "key")

    assert "BEGIN" not in str(caught.value)


def test_a_key_of_rsa_is_told_by_its_kind(tmp_path: Path):
    (tmp_path / "key").write_bytes(public_pem(rsa.generate_private_key(65537, 2048)))

    with pytest.raises(UsageError, match="kind RSA"):
        keys.read_public(tmp_path / "key")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed set."""
    folder = tmp_path_factory.mktemp("signed") / "set"
    sample.build(folder)
    signing.sign(folder, KEY)
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good, tmp_path / "set")
    return tmp_path / "set"


def test_a_signed_set_verifies_with_its_key_and_without(good: Path):
    assert signing.verify_signature(good, KEY.public_key()) == ()
    assert verify(good).faults == ()


def test_every_file_is_a_subject_and_the_predicate_is_that_of_the_build(good: Path):
    _, payload, _ = signing.opened((good / SIGNATURE).read_bytes())
    content = json.loads(payload)

    names = {p.relative_to(good).as_posix() for p in good.rglob("*") if p.is_file()}
    assert {one["name"] for one in content["subject"]} == names - {SIGNATURE}
    assert content["predicate"] == json.loads((good / "provenance.json").read_text())["predicate"]


def test_signing_twice_gives_the_same_bytes(folder: Path):
    before = (folder / SIGNATURE).read_bytes()

    signing.sign(folder, KEY)

    assert (folder / SIGNATURE).read_bytes() == before


def test_an_unsigned_set_is_a_fault(folder: Path):
    (folder / SIGNATURE).unlink()

    (fault,) = signing.verify_signature(folder, KEY.public_key())

    assert fault.what == "the set is not signed"


def test_a_link_is_no_file_of_a_signed_set(folder: Path):
    outside = folder.with_name("card.md")
    (folder / "README.md").rename(outside)
    (folder / "README.md").symlink_to(outside)

    (fault,) = signing.verify_signature(folder, KEY.public_key())

    assert (fault.where, fault.what) == ("README.md", "not a regular file")
    with pytest.raises(VerificationError, match="not a regular file"):
        signing.sign(folder, KEY)


def test_stamping_makes_a_signature_old_and_signing_again_makes_it_new(folder: Path):
    stamp(folder, version="1.0.1", repo_id="org/animals")

    assert {fault.where for fault in signing.verify_signature(folder, KEY.public_key())} == {
        "README.md", "croissant.json", "eval.json", MANIFEST,
    }  # fmt: skip
    signing.sign(folder, KEY)
    assert signing.verify_signature(folder, KEY.public_key()) == ()
    assert verify(folder).ok


@pytest.mark.parametrize(
    ("version", "repo", "what"), [("1.0", "org/x", "'1.0'"), ("1.0.0", "x", "'x'")]
)
def test_a_malformed_version_or_address_is_not_stamped(
    folder: Path, version: str, repo: str, what: str
):
    with pytest.raises(UsageError, match=what):
        stamp(folder, version=version, repo_id=repo)


ROWS = (corruption.change_pixel, corruption.change_label, corruption.change_soft,
        corruption.swap_rows, corruption.drop_row, corruption.double_row)  # fmt: skip
TEXTS = {
    corruption.card_figure: "README.md",
    corruption.report_figure: "eval.json",
    corruption.run_accuracy: "eval.json",
    corruption.results_cell: "evaluation/results.parquet",
    corruption.sheet_tile: "assets/contact_sheet.png",
    corruption.plot_pixel: "assets/arms.png",
    corruption.provenance_time: "provenance.json",
}


def recipe(folder: Path, chance: random.Random) -> str:
    path = folder / chance.choice(["recipe/resolved.yaml", "recipe/dm_animals_4.yaml"])
    path.write_text(path.read_text().replace("4", str(chance.randrange(5, 10))))
    return path.relative_to(folder).as_posix()


def added(folder: Path, chance: random.Random) -> str:
    name = chance.choice(["notes.txt", "data/notes.txt", "recipe/other.yaml", "load.py"])
    (folder / name).write_bytes(chance.randbytes(40))
    return name


def removed(folder: Path, chance: random.Random) -> str:
    name = chance.choice(["assets/arms.png", "recipe/dm_animals_4.yaml", "croissant.json"])
    (folder / name).unlink()
    return name


def renamed(folder: Path, chance: random.Random) -> str:
    (folder / "assets/arms.png").rename(folder / f"assets/arms{chance.randrange(100)}.png")
    return "assets/arms.png"


def spoiled(folder: Path, chance: random.Random, number: int) -> str:
    """Change something, make every unsigned hash anew, and say which file was changed."""
    envelope = (folder / SIGNATURE).read_bytes()
    (folder / SIGNATURE).unlink()
    if number < 42:
        ROWS[number % len(ROWS)](folder, chance)
        corruption.recompute_manifest(folder)
        if number % len(ROWS) < 3:
            corruption.remake_everything(folder)
        name = corruption.SHARD
    elif number < 84:
        spoil = list(TEXTS)[number % len(TEXTS)]
        spoil(folder, chance)
        corruption.recompute_manifest(folder)
        name = TEXTS[spoil]
    else:
        name = (recipe, added, removed, renamed)[number % 4](folder, chance)
        corruption.recompute_manifest(folder)
    if number % 10 == 9:  # the hashes inside the envelope as well
        content = json.loads(envelope)
        payload = json.loads(base64.b64decode(content["payload"]))
        payload["subject"] = [
            {"name": n, "digest": {"sha256": d}} for n, d in signing.file_digests(folder).items()
        ]
        content["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
        envelope, name = json.dumps(content).encode(), SIGNATURE
    (folder / SIGNATURE).write_bytes(envelope)
    return name


def test_100_corruptions_with_every_unsigned_hash_recomputed_are_found_and_named(
    good: Path, tmp_path: Path
):
    chance = random.Random(6)
    named, unsigned = 0, 0
    for number in range(100):
        folder = tmp_path / str(number)
        shutil.copytree(good, folder)
        name = spoiled(folder, chance, number)
        where = {fault.where for fault in signing.verify_signature(folder, KEY.public_key())}
        named += name in where
        unsigned += number % 25 == 0 and verify(folder).ok
        shutil.rmtree(folder)

    assert named == 100
    assert unsigned > 0, "hashes alone were to let some of them pass"
