from __future__ import annotations

import os
import pickle
import time

import numpy as np
import pytest
from writers import CLASSES, make_images, python_batches, rows

from lucidate.core.errors import SourceError, UnsafeFileError
from lucidate.data.sources.unpickle import load_batch, load_class_names

# A batch of two all-zero images as Python 2 with NumPy 1 wrote it: text is `str`, protocol 2.
PYTHON2 = (
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85q\x05"
    b"U\x01bq\x06\x87q\x07Rq\x08(K\x01K\x02M\x00\x0c\x86q\x09cnumpy\ndtype\nq\x0aU\x02u1q\x0bK\x00K\x01\x87q\x0cRq\x0d"
    b"(K\x03U\x01|q\x0eNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x00\x18\x00\x00" + bytes(6144) + b"tb"
    b"U\x06labelsq\x0f]q\x10(K\x03K\x07eu."
)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("text_keys", [False, True])
def test_every_protocol_gives_the_same_arrays(protocol, text_keys):
    images, labels = make_images(20)
    files = python_batches((images, labels), (images, labels), protocol=protocol, text_keys=text_keys)
    data, classes = load_batch(files["test_batch"], name="test_batch", num_classes=10)
    np.testing.assert_array_equal(data, rows(images))
    np.testing.assert_array_equal(classes, labels)
    assert load_class_names(files["batches.meta"], name="batches.meta") == CLASSES


def test_columns_first_arrays_keep_their_rows():
    images, labels = make_images(10)
    content = pickle.dumps({"data": np.asfortranarray(rows(images)), "labels": labels})
    data, classes = load_batch(content, name="batch", num_classes=10)
    np.testing.assert_array_equal(data, rows(images))
    np.testing.assert_array_equal(classes, labels)


def test_a_batch_of_python_2():
    data, classes = load_batch(PYTHON2, name="batch", num_classes=10)
    assert data.shape == (2, 3072)
    assert not data.any()
    assert classes.tolist() == [3, 7]


class Evil:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_acts_is_refused_and_does_not_act(tmp_path, protocol):
    marker = tmp_path / "marker"
    harmless = pickle.loads(pickle.dumps(Evil(os.mkdir, str(marker)), protocol))
    assert harmless is None
    assert marker.exists(), "the pickle acts when it is loaded without care"
    marker.rmdir()
    content = pickle.dumps({"data": Evil(os.mkdir, str(marker)), "labels": []}, protocol)
    with pytest.raises(UnsafeFileError, match=r"data_batch_1.*posix\.mkdir.*nothing of it was executed"):
        load_batch(content, name="data_batch_1", num_classes=10)
    assert not marker.exists()


@pytest.mark.parametrize("function", [eval, exec, getattr, np.load, np.fromfile, __import__])
def test_other_globals_are_refused(function):
    with pytest.raises(UnsafeFileError, match="asks for"):
        load_batch(pickle.dumps(Evil(function, "1")), name="batch", num_classes=10)


def test_attributes_of_the_stand_ins_cannot_be_set():
    # BUILD with (None, {name: value}) sets attributes of whatever stands on the stack, here a class
    for name in ("numpy ndarray", "numpy dtype", "_codecs encode", "numpy._core.numeric _frombuffer"):
        module, attribute = name.split()
        content = f"c{module}\n{attribute}\n(N(dS'spoiled'\nI1\nstb.".encode()
        with pytest.raises(SourceError):
            load_batch(content, name="batch", num_classes=10)
    images, labels = make_images(10)
    content = pickle.dumps({"data": rows(images), "labels": labels.tolist()})
    np.testing.assert_array_equal(load_batch(content, name="batch", num_classes=10)[0], rows(images))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"data": np.array([{}, {}], dtype=object), "labels": [0, 1]}, "uint8 array"),
        ({"data": np.zeros((2, 3071), np.uint8), "labels": [0, 1]}, r"\(2, 3071\)"),
        ({"data": np.zeros((2, 3072), np.int16), "labels": [0, 1]}, "received int16"),
        ({"data": np.zeros((0, 3072), np.uint8), "labels": []}, "received uint8"),
        ({"labels": [0, 1]}, "received none"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, "2 images, received 1"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]}, "received 10 in row 1"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [-1, 1]}, "received -1 in row 0"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0.5, 1]}, "whole numbers"),
        ([1, 2], "received a list"),
    ],
)
def test_other_content_is_refused(batch, message):
    with pytest.raises(SourceError, match=message) as caught:
        load_batch(pickle.dumps(batch), name="batch", num_classes=10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_pickle(share):
    images, labels = make_images(10)
    content = pickle.dumps({"data": rows(images), "labels": labels.tolist()})
    with pytest.raises(SourceError, match=r"batch: .*truncated"):
        load_batch(content[: int(len(content) * share)], name="batch", num_classes=10)


@pytest.mark.parametrize("names", [None, b"cat", [b"cat"], [b"cat", b"cat"], [1, 2]])
def test_class_names_are_checked(names):
    with pytest.raises(SourceError, match="meta: expected"):
        load_class_names(pickle.dumps({b"label_names": names}), name="meta")


NAMES = b"\x80\x04}C\x0blabel_names"


def doubled(times: int) -> bytes:
    """Pickle operations that leave a tuple of 2**times members in less than 10 bytes a doubling."""
    return b"K\x01" + b"2\x86" * times  # DUP, TUPLE2


def lists(times: int) -> bytes:
    """The same of lists, each of them kept in the memo under its number."""
    return b"\x80\x04]" + b"".join(b"\x94](h%ch%ce" % (number, number) for number in range(times)) + b"\x94"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (NAMES + doubled(40) + b"s.", "cost far more"),
        (lists(40) + b"}C\x0blabel_namesh\x28s.", "at least two names, received "),  # too long to write
        (b"\x80\x04}" + doubled(40) + b"K\x01s.", "damaged"),  # too long to hash, as a key is
        (b"\x80\x04}" + b"K\x01" + b"\x85" * 2_000_000 + b"K\x01s.", "damaged"),  # deeper than the stack
        (b"\x80\x04}" + b"c_codecs\nencode\nX\x01\x00\x00\x00a" + doubled(40) + b"\x86Rs.", "damaged"),
        (b"\x80\x04Nr\xff\xff\xff\x0f.", "entry 268435455 of the memo"),  # room for as many would be made
        (b"\x80\x04" + b"N0" * 700_000 + b"}.", "operations"),
        (NAMES + b"\x8a\xff" + b"\x7f" * 255 + b"s.", "received a number of 2039 bits"),
    ],
)
def test_a_small_pickle_costs_little(content, why):
    start = time.monotonic()
    with pytest.raises(SourceError, match=why) as caught:
        load_class_names(content, name="batches.meta")
    assert time.monotonic() - start < 10
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
