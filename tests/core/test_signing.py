"""Signatures: made by a key, checked by its other half, and worth nothing once the manifest is another."""

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
)

from distill_core.errors import BundleError, ConfigError, VerificationError
from distill_core.signing import (
    fingerprint,
    read_private_key,
    read_public_key,
    sign,
    signature_problem,
)
from distill_core.verification import verify
from flows.checking import verify_bundle
from tests.core.bundle_script import check_alone
from tests.core.signing_keys import PUBLIC, write_keys


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path)


@pytest.fixture
def signed(bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> Path:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    sign(copy, read_private_key(keys[0]))
    return copy


def test_a_signed_bundle_is_right_by_every_check(signed, keys):
    assert signature_problem(signed, read_public_key(keys[1])) is None
    assert verify(signed).passed
    assert "is right" in check_alone(signed, 0, "--public-key", str(keys[1]))
    check_alone(signed, 0)


def test_the_signature_is_the_one_of_the_specification(tmp_path, keys):
    (tmp_path / "manifest.json").write_bytes(b"")
    key = read_private_key(keys[0])
    sign(tmp_path, key)
    signature = base64.b64decode((tmp_path / "manifest.json.sig").read_bytes())
    assert signature.hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065")
    assert key.public_key().public_bytes_raw().hex() == PUBLIC


def test_the_same_key_signs_with_the_same_bytes(signed, keys):
    before = (signed / "manifest.json.sig").read_bytes()
    sign(signed, read_private_key(keys[0]))
    assert (signed / "manifest.json.sig").read_bytes() == before


def _edit_manifest(bundle: Path, keys: tuple[Path, Path]) -> None:
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace("sentiment", "sentimenT", 1))


def _break_manifest(bundle: Path, keys: tuple[Path, Path]) -> None:
    (bundle / "manifest.json").write_text("{")


def _sign_with_another_key(bundle: Path, keys: tuple[Path, Path]) -> None:
    sign(bundle, Ed25519PrivateKey.generate())


def _spoil(bundle: Path, keys: tuple[Path, Path]) -> None:
    (bundle / "manifest.json.sig").write_text("not base64!")


def _remove(bundle: Path, keys: tuple[Path, Path]) -> None:
    (bundle / "manifest.json.sig").unlink()


@pytest.mark.parametrize(
    "harm", [_edit_manifest, _break_manifest, _sign_with_another_key, _spoil, _remove]
)
def test_what_the_key_did_not_sign_is_told(signed, keys, harm):
    harm(signed, keys)
    problem = signature_problem(signed, read_public_key(keys[1]))
    assert problem is not None and problem.startswith("manifest.json.sig: ")
    assert "manifest.json.sig: " in check_alone(signed, 1, "--public-key", str(keys[1]))


def test_openssls_keys_are_read(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here")
    private, public = tmp_path / "a.pem", tmp_path / "b.pem"
    make = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(private)]
    subprocess.run(make, check=True, capture_output=True)
    give = ["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)]
    subprocess.run(give, check=True, capture_output=True)
    key = read_private_key(private)
    assert fingerprint(key.public_key()) == fingerprint(read_public_key(public))


def test_other_files_are_no_keys(keys, tmp_path):
    (tmp_path / "text.pem").write_text("no key")
    private, public = keys
    for read, path in (
        (read_private_key, tmp_path / "text.pem"),
        (read_private_key, public),
        (read_public_key, private),
        (read_public_key, tmp_path / "none.pem"),
    ):
        with pytest.raises(ConfigError, match=str(path)) as caught:
            read(path)
        assert "PRIVATE" not in str(caught.value)


def test_the_script_says_where_it_cannot_check_a_signature(signed, keys):
    printed = check_alone(signed, 1, "--public-key", str(keys[1]), without="cryptography")
    assert "manifest.json.sig: was not checked, since cryptography is not installed" in printed
    check_alone(signed, 0, without="cryptography")


@pytest.mark.parametrize("key", ["none.pem", "text.pem"])
def test_a_key_that_cannot_be_read_is_wrong_input_to_the_script(signed, key, tmp_path):
    (tmp_path / "text.pem").write_text("no key")
    check_alone(signed, 2, "--public-key", str(tmp_path / key))


def test_a_key_of_another_kind_is_wrong_input_to_the_script(signed, tmp_path):
    other = X25519PrivateKey.generate().public_key()
    (tmp_path / "other.pem").write_bytes(
        other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    check_alone(signed, 2, "--public-key", str(tmp_path / "other.pem"))


def test_a_manifest_that_is_broken_and_not_signed_so_is_no_bundle_of_the_key(signed, keys):
    _break_manifest(signed, keys)
    with pytest.raises(VerificationError, match=r"manifest\.json\.sig: .*changed since"):
        verify_bundle(signed, everywhere=False, public_key=keys[1])
    with pytest.raises(BundleError, match="is not JSON"):
        verify_bundle(signed, everywhere=False)
