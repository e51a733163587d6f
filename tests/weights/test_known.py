"""Public files are known by their digest; a name alone proves nothing, and a wrong digest is an error."""

from __future__ import annotations

import re

import pytest

from ramflow.errors import UserError
from ramflow.weights.attest import read_attestation
from ramflow.weights.families import MICROSOFT, RAM, RAM_PLUS, TAG2TEXT
from ramflow.weights.known import KNOWN, KnownFile, identify

RELEASE = next(file for file in KNOWN if file.name == "ram_plus_swin_large_14m.pth")
OTHER = "ab" * 32


def test_the_table_is_sound():
    digests = [file.sha256 for file in KNOWN if file.sha256]
    assert len(set(digests)) == len(digests)
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
    families = {MICROSOFT.name, RAM.name, RAM_PLUS.name, TAG2TEXT.name, "hugging face", "embeddings"}
    assert {file.family for file in KNOWN} == families
    assert RELEASE.bytes == 3_010_210_801


def test_a_digest_names_the_file_whatever_it_is_called():
    found = identify("renamed.pth", 1, f"sha256:{RELEASE.sha256}")
    assert found.file is RELEASE
    assert found.proved
    assert found.describe()["name"] == RELEASE.name


def test_a_name_without_a_public_digest_proves_nothing():
    found = identify("swin_large_patch4_window7_224_22k.pth", 1, OTHER)
    assert found.file.encoder == "swin_large_patch4_window7_224"
    assert not found.proved


@pytest.mark.parametrize("name", ["my_weights.pth", "pytorch_model.bin", "model.safetensors"])
def test_other_files_are_not_known(name):
    assert identify(name, 1, OTHER) is None


def test_a_known_name_with_another_digest_is_an_error():
    message = (
        r"has 5 bytes and sha256 abababababab\.\.\., the public file of this name has 3,010,210,801 bytes and "
        r"497c178836ba\.\.\.: damaged or another file.*verify\.sha256=abab"
    )
    with pytest.raises(UserError, match=message):
        identify(RELEASE.name, 5, OTHER)
    assert identify(RELEASE.name, 5, OTHER, pinned=OTHER) is None


def test_either_of_two_uploads_of_a_name_is_known():
    uploads = [file for file in KNOWN if file.name == "tag2text_swin_14m.pth"]
    assert [identify(file.name, 1, file.sha256).file for file in uploads] == uploads
    with pytest.raises(UserError, match=r"4ce96f0ce98f\.\.\. or 9ac35ee5e3fe"):
        identify(uploads[0].name, 1, OTHER)


@pytest.mark.parametrize("pinned", [OTHER, OTHER.upper(), f"sha256:{OTHER}"])
def test_a_pin_holds(pinned):
    assert identify("my_weights.pth", 1, f"sha256:{OTHER}", pinned) is None
    with pytest.raises(UserError, match=f"its sha256 is {'cd' * 32}, not the expected {OTHER}"):
        identify("my_weights.pth", 1, "cd" * 32, pinned)


def test_verify_names_the_file_and_obeys_the_pin(state, save, verify, tmp_path, monkeypatch, capsys):
    path = save(state)
    verify(path)
    digest = read_attestation(tmp_path / "out").source["sha256"].removeprefix("sha256:")
    assert read_attestation(tmp_path / "out").source["known"] is None
    verify(path, sha256=digest)
    with pytest.raises(UserError, match="not the expected"):
        verify(path, sha256=OTHER)
    ours = KnownFile("tiny.safetensors", "example.org", "timm", "tiny", None, digest)
    monkeypatch.setattr("ramflow.weights.known.KNOWN", (ours,))
    capsys.readouterr()
    verdict = verify(path)
    known = {"name": "tiny.safetensors", "origin": "example.org", "remark": "", "proved": True}
    assert read_attestation(tmp_path / "out").source["known"] == known
    said = "weights.safetensors is timm, safetensors; tiny.safetensors of example.org, proved by its sha256"
    assert said in verdict.checks[0].message
    assert "tiny.safetensors of example.org, proved by its sha256" in capsys.readouterr().err


def test_a_damaged_public_file_is_said_to_be_so_before_it_is_read(verify, tmp_path):
    (tmp_path / RELEASE.name).write_bytes(b"half")
    with pytest.raises(UserError, match="damaged or another file"):
        verify(tmp_path / RELEASE.name)
