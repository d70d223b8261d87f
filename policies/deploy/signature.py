"""Sign and verify bundles with Ed25519: the bytes of contract.json, which holds all other hashes.

contract.sig   64 bytes, as `openssl pkeyutl -sign -rawin` writes them
"""

from pathlib import Path
from typing import Any

from dexgrasp.utils.text import install_command

SIGNATURE = "contract.sig"


class SignatureError(ValueError):
    """Error of a key or a signature; the message names the file."""


def sign(content: bytes, key_file: str | Path) -> bytes:
    """Return the signature of `content` by the private key in a PEM file. Raises SignatureError."""
    return _private_key(Path(key_file)).sign(content)


def check_private_key(key_file: str | Path) -> None:
    """Raise SignatureError unless the file holds a private key that can sign."""
    _private_key(Path(key_file))


def verify(content: bytes, signature_file: Path, public_key_file: str | Path) -> None:
    """Raise SignatureError unless the owner of the public key has signed `content`."""
    key, stated = _public_key(Path(public_key_file)), _read(signature_file, "the bundle is not signed")
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(stated, content)
    except InvalidSignature:
        raise SignatureError(
            f"{signature_file} is no signature of the contract by the key {public_key_file}: "
            "the bundle was changed, or somebody else signed it"
        ) from None


def _private_key(file: Path) -> Any:
    ed25519, serialization = _library()
    try:
        key = serialization.load_pem_private_key(_read(file, "no private key"), password=None)
    except SignatureError:
        raise
    except (ValueError, TypeError) as error:  # TypeError: a password is needed
        raise SignatureError(f"{file} holds no private key in PEM form without password") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise SignatureError(f"{file} must hold an Ed25519 key: openssl genpkey -algorithm ed25519 -out {file.name}")
    return key


def _public_key(file: Path) -> Any:
    ed25519, serialization = _library()
    try:
        key = serialization.load_pem_public_key(_read(file, "no public key"))
    except SignatureError:
        raise
    except ValueError as error:
        raise SignatureError(f"{file} holds no public key in PEM form") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise SignatureError(f"{file} must hold an Ed25519 public key: openssl pkey -in KEY -pubout -out {file.name}")
    return key


def _read(file: Path, otherwise: str) -> bytes:
    if not file.is_file():
        raise SignatureError(f"{otherwise}: there is no file {file}")
    try:
        with open(file, "rb") as opened:
            return opened.read(1 << 16)
    except OSError as error:
        raise SignatureError(f"{otherwise}: {file} cannot be read ({error.strerror})") from error


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise ImportError(f"signatures need cryptography: {install_command('sign')} ({error})") from error
    return ed25519, serialization
