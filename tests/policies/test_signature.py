"""Signed bundles: who signed loads, anybody else is refused, and openssl reads and writes the same signature."""

import json
import re
import shutil
import subprocess

import pytest

pytest.importorskip("cryptography", reason="needs the extra `sign`")

from cryptography.hazmat.primitives.asymmetric import ec

from dexgrasp import assets
from dexgrasp.policies.deploy.bundle import BundleError, contract_sha256, read_contract, sha256, sign_bundle
from dexgrasp.policies.deploy.policy import Policy
from dexgrasp.policies.deploy.signature import SignatureError
from tests.helpers.keys import write_keys


@pytest.fixture
def signed(tmp_path):
    """A signed copy of a shipped bundle; beside it the keys of its author and of somebody else."""
    folder = shutil.copytree(assets.path("policies/allegro/student/bundle"), tmp_path / "bundle")
    for name in ("author", "other"):
        write_keys(tmp_path, name, f"{name}_public")
    sign_bundle(folder, tmp_path / "author.pem")
    return folder


def test_a_signed_bundle_loads_with_the_key_of_its_author(signed):
    policy = Policy.load(signed, public_key=signed.parent / "author_public.pem")
    assert policy.contract == read_contract(signed, str(signed.parent / "author_public.pem"))
    Policy.load(signed)  # without a key signatures are not looked at


def test_another_key_and_a_missing_signature_are_refused(signed):
    with pytest.raises(
        BundleError, match=r"contract\.sig is no signature of the contract by the key .*other_public\.pem"
    ):
        Policy.load(signed, public_key=signed.parent / "other_public.pem")
    (signed / "contract.sig").unlink()
    with pytest.raises(BundleError, match=r"the bundle is not signed: there is no file .*contract\.sig"):
        Policy.load(signed, public_key=signed.parent / "author_public.pem")


@pytest.mark.parametrize("signature", [b"", b"x" * 63, b"x" * 64, b"x" * 65, b"x" * 100_000])
def test_what_is_no_signature_is_refused(signed, signature):
    (signed / "contract.sig").write_bytes(signature)
    with pytest.raises(BundleError, match="is no signature of the contract"):
        Policy.load(signed, public_key=signed.parent / "author_public.pem")


@pytest.mark.parametrize("name", ["policy.onnx", "golden.npz", "contract.json"])
def test_a_changed_file_is_refused_also_with_all_hashes_made_anew(signed, name):
    public = signed.parent / "author_public.pem"
    contract = json.loads((signed / "contract.json").read_text())
    if name == "contract.json":
        contract["hand"]["speed_limit_rad_s"][0] = 6.0
    else:
        content = bytearray((signed / name).read_bytes())
        content[len(content) // 2] ^= 1
        (signed / name).write_bytes(content)
        with pytest.raises(BundleError, match=rf"{name}: its SHA-256"):
            Policy.load(signed, public_key=public)
        contract["files"][name] = sha256(bytes(content))
    contract["sha256"] = contract_sha256(contract)
    (signed / "contract.json").write_text(json.dumps(contract))
    with pytest.raises(BundleError, match="is no signature of the contract"):
        Policy.load(signed, public_key=public)


def test_files_that_are_no_keys_are_refused_by_name(signed):
    folder = signed.parent
    write_keys(folder, "curve", "curve_public", ec.generate_private_key(ec.SECP256R1()))
    write_keys(folder, "locked", "locked_public", password=b"secret")
    (folder / "text.pem").write_text("no key")
    for file, reason in (
        ("nowhere.pem", "there is no file"),
        ("text.pem", "holds no private key"),
        ("locked.pem", "holds no private key in PEM form without password"),
        ("curve.pem", "must hold an Ed25519 key"),
        ("author_public.pem", "holds no private key"),
    ):
        with pytest.raises(SignatureError, match=f"{re.escape(file)}.*{reason}|{reason}.*{re.escape(file)}"):
            sign_bundle(signed, folder / file)
    for file, reason in (
        ("nowhere.pem", "there is no file"),
        ("text.pem", "holds no public key"),
        ("curve_public.pem", "must hold an Ed25519 public key"),
        ("author.pem", "holds no public key"),
    ):
        with pytest.raises(BundleError, match=f"{re.escape(file)}.*{reason}|{reason}.*{re.escape(file)}"):
            Policy.load(signed, public_key=folder / file)


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_openssl_makes_the_keys_signs_and_verifies(signed):
    folder = signed.parent

    def openssl(words):
        subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)

    openssl("genpkey -algorithm ed25519 -out key.pem")
    openssl("pkey -in key.pem -pubout -out public.pem")
    openssl("pkeyutl -sign -rawin -inkey key.pem -in bundle/contract.json -out bundle/contract.sig")
    read_contract(signed, folder / "public.pem")
    sign_bundle(signed, folder / "key.pem")
    openssl("pkeyutl -verify -pubin -inkey public.pem -rawin -in bundle/contract.json -sigfile bundle/contract.sig")
