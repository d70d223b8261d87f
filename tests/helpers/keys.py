"""Key pairs that sign bundles."""

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519


def write_keys(folder, name="key", public="public", key=None, password=None):
    """Write NAME.pem and PUBLIC.pem of a key pair, a new Ed25519 one by default; return the path of the former."""
    key = key or ed25519.Ed25519PrivateKey.generate()
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    open_part = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{public}.pem").write_bytes(open_part)
    (folder / f"{name}.pem").write_bytes(key.private_bytes(pem, pkcs8, locked))
    return folder / f"{name}.pem"
