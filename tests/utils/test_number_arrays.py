"""Numbers of callers and of .npz files: what counts as a number, and what a file may hold."""

import io
import math
import warnings
import zipfile

import numpy as np
import pytest

from dexgrasp.utils.number_arrays import finite_vector, number, number_array, parse_npz

MOST = 10_000


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def archive(*entries, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(file, "w", compression) as zipped:  # names twice
        for name, content in entries:
            zipped.writestr(name, content)
    return file.getvalue()


def npy(array, version=(1, 0), header=None, values=None):
    """Bytes of a .npy file; `header`: its text in place of the array's."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    content = file.getvalue()
    if header is not None:
        text = header.encode().ljust(118) + b"\n"
        content = content[:8] + len(text).to_bytes(2, "little") + text + array.tobytes()
    return content if values is None else content[: len(content) - array.nbytes] + values


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6, dtype=">i4").reshape(3, 2),
        np.arange(4, dtype=">f8"),
        np.array([True, False]),
        np.zeros((0, 3)),
        np.zeros((2, 0), np.float32),
        np.float32(1.5),
        np.arange(5, dtype=np.uint8),
    ],
)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_arrays_come_back_in_c_order_and_the_byte_order_of_the_machine(array, version):
    array = np.asarray(array)
    found = parse_npz(archive(("a.npy", npy(array, version)), ("b.npy", npy(array[:0] if array.ndim else array))), MOST)
    assert list(found) == ["a", "b"]
    np.testing.assert_array_equal(found["a"], array)
    assert found["a"].dtype == array.dtype.newbyteorder("=") and found["a"].dtype.isnative
    assert found["a"].shape == array.shape and found["a"].flags.c_contiguous and found["a"].flags.writeable
    np.testing.assert_array_equal(parse_npz(npz(a=array), MOST)["a"], array)


def described(text, **words):
    return archive(("a.npy", npy(np.arange(6.0), header=text, **words)))


GOOD = "{'descr': '<f8', 'fortran_order': False, 'shape': (6,), }"
REFUSED = {
    "no zip": (b"hello", "File is not a zip file"),
    "not an array": (archive(("a.txt", npy(np.ones(1)))), r"entry 'a\.txt' is no \.npy array"),
    "one of two is none": (archive(("a.npy", npy(np.ones(1))), ("b", b"")), r"entry 'b' is no \.npy array"),
    "twice": (archive(("a.npy", npy(np.ones(1))), ("a.npy", npy(np.ones(1)))), "an entry occurs twice"),
    "too large": (npz(a=np.zeros(1250)), r"its arrays take 10128 bytes, at most 10000 are read"),
    "packed small": (
        archive(("a.npy", npy(np.zeros(1250))), compression=zipfile.ZIP_DEFLATED),
        "its arrays take 10128 bytes, at most 10000",
    ),
    "too large together": (npz(a=np.zeros(620), b=np.zeros(620)), "its arrays take 10176 bytes, at most 10000"),
    "text": (npz(a=np.array("word")), "entry 'a.npy': expected numbers or truth values, got <U4"),
    "complex": (npz(a=np.array(1j)), "expected numbers or truth values, got complex128"),
    "dates": (npz(a=np.array("2020-01-01", "M8[D]")), r"expected numbers or truth values, got datetime64\[D\]"),
    "fields": (npz(a=np.zeros(2, "f8,i4")), "expected numbers or truth values"),
    "objects": (described(GOOD.replace("<f8", "|O")), "expected numbers or truth values, got object"),
    "array type": (described(GOOD.replace("'<f8'", "('<f8', (6,))").replace("(6,), }", "(1,), }")), "expected numbers"),
    "another version": (archive(("a.npy", b"\x93NUMPY\x04\x00v\x00" + b" " * 200)), r"version \(4, 0\) of the format"),
    "no magic": (archive(("a.npy", b"x" * 200)), r"entry 'a\.npy' is no \.npy array: the magic string is not correct"),
    "empty entry": (archive(("a.npy", b"")), r"entry 'a\.npy' is no \.npy array"),
    "negative side": (described(GOOD.replace("(6,)", "(-2, -3)")), r"48 bytes of values, .* of shape \(-2, -3\)"),
    "one negative side": (described(GOOD.replace("(6,)", "(-1, 6)")), r"of shape \(-1, 6\)"),
    "more than there is": (described(GOOD.replace("(6,)", "(10000000000,)")), r"48 bytes of values"),
    "less than there is": (described(GOOD.replace("(6,)", "(5,)")), r"48 bytes of values, its header states float64"),
    "shorter numbers": (described(GOOD.replace("<f8", "<f4")), r"its header states float32 of shape \(6,\)"),
    "cut off": (archive(("a.npy", npy(np.arange(6.0), values=b"\0" * 47))), "47 bytes of values"),
    "values of nothing": (described(GOOD.replace("(6,)", "(0,)")), r"48 bytes of values"),
    "nested": (described("[" * 90), r"entry 'a\.npy' is no \.npy array"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_everything_else_is_refused_in_one_line(case):
    content, reason = REFUSED[case]
    with pytest.raises(ValueError, match=reason) as caught:
        parse_npz(content, MOST)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert parse_npz(described(GOOD), MOST)["a"].tolist() == list(range(6))


def test_sizes_on_either_side_of_their_limits():
    content = npz(a=np.zeros(20))
    size = 20 * 8 + 128
    assert len(parse_npz(content, size)["a"]) == 20
    with pytest.raises(ValueError, match=f"at most {size - 1} are read"):
        parse_npz(content, size - 1)


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_a_header_on_either_side_of_its_limit(version):
    for length, is_read in ((1000, True), (1001, False)):
        text = GOOD.encode().ljust(length - 1) + b"\n"
        start = b"\x93NUMPY" + bytes(version) + length.to_bytes(2 if version == (1, 0) else 4, "little")
        content = archive(("a.npy", start + text + np.arange(6.0).tobytes()))
        if is_read:
            assert parse_npz(content, MOST)["a"].tolist() == list(range(6))
        else:
            with pytest.raises(ValueError, match=r"is no \.npy array"):
                parse_npz(content, MOST)


class Hostile:
    def __array__(self, *_, **__):
        raise RuntimeError("no")


def test_numbers_of_a_caller():
    for value in (1, 1.5, np.int8(3), np.float32(2), np.array(4), np.uint64(5)):
        assert number(value) == float(value) and type(number(value)) is float
    refused = (
        True,
        "1",
        b"1",
        None,
        [1],
        np.ones(1),
        1j,
        Hostile(),
        np.datetime64("2020"),
        [[1], [1, 2]],
        {},
        object(),
    )
    for value in (*refused, np.ma.masked, np.ma.array(1.0, mask=True)):
        assert math.isnan(number(value))
    taken = np.arange(3.0)
    copy = number_array(taken)
    copy[0] = 9.0
    assert taken[0] == 0.0
    assert number_array([True, False], "b").dtype == bool and number_array((1, 2)).dtype.kind == "i"
    for value, reason in (
        (["1"], r"expected numbers, got list of type <U1"),
        ([True], r"expected numbers, got list of type bool"),
        (Hostile(), r"expected an array of numbers, got Hostile"),
        ([1.0, np.ma.masked], "it has masked values|expected an array of numbers"),  # NumPy warns, here an error
        ((np.ma.array([1.0, 2.0], mask=[0, 1]), [1.0, 2.0]), "it has masked values"),
        (np.ma.array([1.0, 2.0], mask=[0, 1]), "it has masked values"),
    ):
        with pytest.raises(ValueError, match=reason):
            number_array(value)
    assert number_array(np.ma.array([1.0, 2.0])).tolist() == [1.0, 2.0]


def test_vectors_of_a_caller():
    found = finite_vector([1, 2, -999_999.0], 3)
    assert found is not None and found.dtype == np.float64 and found.tolist() == [1.0, 2.0, -999_999.0]
    wrong = (
        [1, 2],
        [[1, 2, 3]],
        [1, 2, math.nan],
        [1, 2, math.inf],
        [1, 2, 1e6],
        [1, 2, -1e6],
        ["1", "2", "3"],
        None,
        3,
    )
    for value in wrong:
        assert finite_vector(value, 3) is None
