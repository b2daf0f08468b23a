from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from writers import (
    Listener,
    pixels,
    png,
    write_parquet,
)

from lucidate.core.errors import SourceError
from lucidate.data.decode import DecodeError
from lucidate.data.sources.find import open_source, verify_source

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_parquet_in_its_variants(tmp_path, train):
    images, labels = train[0][:20], train[1][:20]
    one = open_source(write_parquet(tmp_path / "pets.parquet", images, labels, names=None, column="image"))
    assert (one.dataset, one.class_names, one.ids[3], one.given[0]) == ("pets", tuple("0123456789"), "00003", "")
    np.testing.assert_array_equal(pixels(one, 19), images[19])
    plain = open_source(write_parquet(tmp_path / "p" / "train.parquet", images, labels, struct=False))
    np.testing.assert_array_equal(pixels(plain, 19), images[19])
    assert (plain.ids[19], plain.given[19]) == ("train/00019", "")  # train alone is no split
    words = pa.table({"img": [png(image) for image in images], "label": ["wolf", "bear"] * 10})
    pq.write_table(words, tmp_path / "words.parquet")
    source = open_source(tmp_path / "words.parquet")
    assert source.class_names == ("bear", "wolf")
    assert source.labels[:4].tolist() == [1, 0, 1, 0]


def test_parquet_shards_and_splits(tmp_path, train, test):
    for number in (0, 1):
        half = slice(50 * number, 50 * number + 50)
        write_parquet(tmp_path / "d" / f"train-0000{number}-of-00002.parquet", train[0][half], train[1][half])
    write_parquet(tmp_path / "d" / "validation-00000.parquet", *test)
    source = open_source(tmp_path / "d")
    assert (source.given.count("train"), source.given.count("test")) == (100, 40)
    for index in (0, 15, 16, 49, 50, 99, 3):
        np.testing.assert_array_equal(pixels(source, index), train[0][index])
    np.testing.assert_array_equal(pixels(source, 139), test[0][39])
    write_parquet(tmp_path / "d" / "test-00000.parquet", *test)
    listener = Listener()
    source = open_source(tmp_path / "d", reporter=listener)
    assert (source.given.count("train"), source.given.count("test")) == (140, 40)
    assert "validation images are added to train" in listener.said[0]
    write_parquet(tmp_path / "e" / "default" / "train" / "0000.parquet", *train)
    write_parquet(tmp_path / "e" / "default" / "test" / "0000.parquet", *test)
    assert open_source(tmp_path / "e").given == ["train"] * 100 + ["test"] * 40
    write_parquet(tmp_path / "d" / "extra.parquet", *test)
    with pytest.raises(SourceError, match=r"extra\.parquet"):
        open_source(tmp_path / "d")


def test_a_row_without_bytes_is_read_from_nowhere(tmp_path, train):
    image = tmp_path / "outside.png"
    image.write_bytes(png(train[0][0]))
    cells = [{"bytes": png(train[0][0]), "path": None}, {"bytes": None, "path": str(image)}, None]
    pq.write_table(pa.table({"img": cells, "label": [0, 1, 1]}), tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet")
    assert isinstance(source.read(0), bytes)
    for row in (1, 2):
        with pytest.raises(DecodeError, match="no image bytes"):
            source.read(row)
    verified = verify_source(tmp_path / "t.parquet")
    assert (verified["images"], len(verified["set_aside"]), verified["official"]) == (1, 2, None)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"picture": [b"x"], "label": [0]}, "img .or image. and label, received picture, label"),
        ({"img": [b"x"], "target": [0]}, "received img, target"),
        ({"img": ["x"], "label": [0]}, "as bytes, received string"),
        ({"img": [b"x", b"y"], "label": [0, None]}, "a label in every row, received none in row 1"),
        ({"img": [b"x", b"y"], "label": [0, -1]}, "received -1 in row 1"),
        ({"img": [b"x", b"y"], "label": [0.0, 1.5]}, "whole numbers or text, received double"),
        ({"img": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}, "at least one row"),
    ],
)
def test_other_tables(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(SourceError, match=message) as caught:
        open_source(tmp_path)
    assert "\n" not in str(caught.value)


def test_labels_beyond_the_names_and_a_damaged_table(tmp_path, train):
    path = write_parquet(tmp_path / "t.parquet", *train, names=("cat", "dog"))
    with pytest.raises(SourceError, match="0 to 1"):
        open_source(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceError, match="damaged"):
        open_source(path)
