"""Recognition of files that are not what their name says: compressed, placeholders, web pages, empty."""

from pathlib import Path

HEAD_BYTES = 512
_MAGIC = {
    b"\x1f\x8b": "it is compressed with gzip: unpack it (gunzip)",
    b"PK\x03\x04": "it is a ZIP archive: unpack it",
    b"PK\x05\x06": "it is an empty ZIP archive",
    b"BZh": "it is compressed with bzip2: unpack it (bunzip2)",
    b"\xfd7zXZ\x00": "it is compressed with xz: unpack it (unxz)",
    b"\x28\xb5\x2f\xfd": "it is compressed with Zstandard: unpack it (unzstd)",
    b"7z\xbc\xaf\x27\x1c": "it is a 7-Zip archive: unpack it",
    b"version https://git-lfs": "it is a Git LFS pointer, the file was not fetched: run `git lfs pull` in its "
    "repository",
}
_WEB_PAGE = (b"<!doctype html", b"<html", b"<head", b"<body")


def foreign_kind(head: bytes, is_zip: bool = False) -> str:
    """Return what a file is instead of what its name says, with a remedy; empty where unknown.

    `head`: its first HEAD_BYTES, all of a shorter file. `is_zip`: a ZIP archive is expected.
    """
    if not head.strip() and len(head) < HEAD_BYTES:
        return "it is empty: fetch or write it again"
    if head and not head.strip(b"\0"):
        return "its beginning is all zeros, as an interrupted copy leaves it: fetch it again"
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return "" if is_zip and magic.startswith(b"PK") else kind
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_WEB_PAGE) or (text.startswith((b"<?xml", b"<!--")) and b"<html" in text):
        return "it is a web page, as an error of a download leaves it: fetch it again"
    return ""


def foreign_file(path: str | Path, is_zip: bool = False) -> str:
    """Return `foreign_kind` of a regular file, or nothing for another one or one that cannot be read."""
    path = Path(path)
    if not path.is_file():
        return ""
    try:
        with open(path, "rb") as file:
            return foreign_kind(file.read(HEAD_BYTES), is_zip)
    except OSError:
        return ""
