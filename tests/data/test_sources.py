from __future__ import annotations

import shutil

import numpy as np
import pytest
from sklearn.datasets import load_digits
from writers import (
    CLASSES,
    Listener,
    make_images,
    pixels,
    png,
    python_batches,
    write_files,
    write_folder,
    write_parquet,
)

from lucidate.core import progress
from lucidate.core.errors import ChecksumError, SourceError
from lucidate.data.pack import open_pack
from lucidate.data.sources import cifar_files, named
from lucidate.data.sources.find import fetch_source, location, open_source, verify_source
from lucidate.data.sources.source import NamedSource, dataset_name, sources

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_all_forms_agree_image_for_image(forms, train, test):
    images, labels = np.concatenate([train[0], test[0]]), np.concatenate([train[1], test[1]])
    for form, path in forms.items():
        source = open_source(str(path))
        assert source.class_names == CLASSES, form
        assert source.spec == str(path)
        assert len(set(source.ids)) == len(source.ids) == len(source) == 140
        assert source.labels.dtype == np.int64
        assert source.flips
        assert source.set_aside == ()
        order = range(140)
        if form == "folder":  # sorted by class; the file's name tells the number
            starts = {"train": 0, "test": 100}
            order = [starts[each.split("/")[0]] + int(each[-9:-4]) for each in source.ids]
            assert sorted(order) == list(range(140))
        else:
            assert (source.ids[0], source.ids[99], source.ids[100]) == ("train/00000", "train/00099", "test/00000")
        for index, original in enumerate(order):
            np.testing.assert_array_equal(pixels(source, index), images[original], err_msg=form)
            assert source.labels[index] == labels[original]
            assert source.given[index] == ("train" if original < 100 else "test")


def test_dataset_and_fingerprint_do_not_depend_on_the_place(forms, tmp_path):
    opened = {form: open_source(path) for form, path in forms.items()}
    assert [opened[form].dataset for form in ("parquet", "python", "archive", "folder")] == [
        "tables",
        "cifar10",
        "cifar10",
        "folder",
    ]
    assert len({opened[form].fingerprint for form in ("python", "binary", "archive", "binary archive")}) == 1
    for form in ("parquet", "folder", "python"):
        moved = forms[form].rename(tmp_path / f"Moved {form}")
        again = open_source(moved)
        assert again.fingerprint == opened[form].fingerprint
        assert again.dataset == f"moved-{form}"


def test_fingerprint_changes_with_a_pixel_and_a_label(forms, train, test, tmp_path):
    before = {form: open_source(forms[form]).fingerprint for form in ("parquet", "python", "folder")}
    images, labels = train[0].copy(), train[1].copy()
    images[3, 0, 0, 0] ^= 1
    write_parquet(tmp_path / "tables" / "plain_text" / "train-00000-of-00001.parquet", images, labels)
    write_files(forms["python"], python_batches((images, labels), test))
    write_folder(tmp_path / "folder" / "train", images, labels)
    assert all(open_source(forms[form]).fingerprint != before[form] for form in before)
    changed = train[1].copy()
    changed[[0, 1]] = (changed[[0, 1]] + 1) % 10
    write_files(forms["python"], python_batches((train[0], changed), test))
    assert open_source(forms["python"]).fingerprint != before["python"]


def test_digits():
    source, scans = open_source("digits"), load_digits()
    assert (len(source), source.class_names, source.flips) == (1797, tuple("0123456789"), False)
    assert set(source.given) == {""}
    np.testing.assert_array_equal(source.labels, scans.target)
    for index in (0, 100, 1796):
        expected = np.rint(scans.images[index] * 255 / 16)
        np.testing.assert_array_equal(source.read(index), expected[..., None].repeat(3, -1))
    assert source.read(0).shape == (8, 8, 3)


def test_names():
    assert list(sources) == ["cifar10", "digits"]
    for spec in ("x/y", "", "digit"):
        with pytest.raises(SourceError) as caught:
            open_source(spec)
        assert str(caught.value) == (
            f"data: expected a name (cifar10, digits) or an existing path, received {spec!r}, which does not exist"
        )


def test_a_name_lies_nowhere_whatever_folder_is_called_so(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert location("digits") is None
    assert location("./digits") == str(tmp_path / "digits")
    assert location("elsewhere") is None


def test_cifar10_without_copy_or_network_names_three_ways_on(elsewhere):
    with pytest.raises(SourceError) as caught:
        open_source("cifar10")
    text = str(caught.value)
    for way in ("lucidate data fetch cifar10", "cifar-10-python.tar.gz", str(elsewhere / "cache"), "--data digits"):
        assert way in text
    assert "\n" not in text


@pytest.mark.parametrize("place", ["data", "own", "cache"])
@pytest.mark.parametrize("form", ["python", "parquet"])
def test_cifar10_finds_a_local_copy(elsewhere, monkeypatch, forms, place, form):
    monkeypatch.setenv("LUCIDATE_DATA", str(elsewhere / "own"))
    copy = elsewhere / place / {"python": "cifar-10-batches-py", "parquet": "cifar10"}[form]
    copy.parent.mkdir()
    forms[form].rename(copy)
    source = open_source("cifar10")
    assert (source.dataset, source.spec, len(source)) == ("cifar10", "cifar10", 140)
    assert fetch_source("cifar10").resolve() == copy
    assert verify_source("cifar10")["official"] is False


def test_cifar10_pins_the_archive_that_it_finds(elsewhere, monkeypatch, forms):
    (elsewhere / "data").mkdir()
    archive = forms["archive"].rename(elsewhere / "data" / "cifar-10-python.tar.gz")
    with pytest.raises(ChecksumError, match="checksum"):
        open_source("cifar10")
    monkeypatch.setattr("lucidate.data.sources.named.PYTHON_PIN", cifar_files.sha256(archive))
    assert len(open_source("cifar10")) == 140


def test_fetch_compares_the_checksum_of_a_local_archive(elsewhere, monkeypatch, forms):
    """Without it, `run` says to fetch again what `fetch` calls fine."""
    (elsewhere / "data").mkdir()
    archive = forms["archive"].rename(elsewhere / "data" / "cifar-10-python.tar.gz")
    with pytest.raises(
        ChecksumError, match=r"delete data/cifar-10-python\.tar\.gz and run `lucidate data fetch"
    ) as caught:
        fetch_source("cifar10")
    assert "\n" not in str(caught.value)
    assert archive.exists(), "it is not ours to delete"
    monkeypatch.setattr(named, "PYTHON_PIN", cifar_files.sha256(archive))
    assert fetch_source("cifar10").resolve() == archive
    assert verify_source("cifar10")["official"] is True


def test_fetch_replaces_a_bad_archive_in_the_cache(elsewhere, monkeypatch, forms):
    cached = elsewhere / "cache" / "cifar-10-python.tar.gz"
    cached.parent.mkdir()
    cached.write_bytes(b"bad")
    with pytest.raises(SourceError, match="connect and run"):
        fetch_source("cifar10")

    def bring(_, destination, **__):
        return shutil.copy(forms["archive"], destination)

    monkeypatch.setattr(named, "PYTHON_PIN", cifar_files.sha256(forms["archive"]))
    monkeypatch.setattr(named, "download", bring)
    listener = Listener()
    assert fetch_source("cifar10", reporter=listener) == cached
    assert "is damaged" in listener.said[0]
    assert len(open_source("cifar10")) == 140


def test_a_named_source_needs_no_more_than_what_opens_it(monkeypatch):
    """Nothing outside a source's own file knows its name."""
    monkeypatch.setitem(sources, "mine", NamedSource(open=sources["digits"].open))
    assert list(sources) == ["cifar10", "digits", "mine"]
    assert len(open_source("mine")) == 1797
    assert fetch_source("mine") is None
    assert verify_source("mine") == verify_source("digits")


def test_what_cannot_be_read_is_told_in_words():
    for act in (open_source, fetch_source, verify_source):
        with pytest.raises(SourceError, match=r"File name too long.*check the path") as caught:
            act("x" * 300)
        assert "Errno" not in str(caught.value)
        with pytest.raises(SourceError, match="does not exist"):
            act("~nobody-of-this-name/pets")


def test_word_is_given_only_of_what_takes_more_than_a_moment(monkeypatch):
    class Counter(Listener):
        def advance(self, *steps) -> None:
            self.said.append(steps)

    listener = Counter()
    assert list(progress.with_progress("abc", "reading", listener)) == ["a", "b", "c"]
    assert listener.said == []
    monkeypatch.setattr(progress, "MOMENT", 0.0)
    assert list(progress.with_progress("abc", "reading", listener)) == ["a", "b", "c"]
    assert listener.said == [("reading", done, 3) for done in range(4)]


def test_fetch_source(tmp_path):
    assert fetch_source("digits") is None
    assert fetch_source(str(tmp_path)) == tmp_path
    with pytest.raises(SourceError, match="does not exist"):
        fetch_source(tmp_path / "nothing")
    with pytest.raises(SourceError, match="connect and run"):
        fetch_source("cifar10")


def test_verify_source(forms):
    truncated = forms["folder"] / "train" / "cat" / "zz.png"
    truncated.write_bytes(png(make_images(1)[0][0])[:200])
    result = verify_source(forms["folder"])
    assert result["images"] == 140
    assert result["classes"] == list(CLASSES)
    assert result["set_aside"] == [{"path": "train/cat/zz.png", "reason": "truncated image"}]
    assert result["official"] is None
    assert result["fingerprint"] == open_source(forms["folder"]).fingerprint
    assert verify_source("digits")["images"] == 1797


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("photos/Dataset", "photos"),
        ("photos/data/train", "photos"),
        ("birds", "birds"),
        ("my photos/images", "my-photos"),
        ("birds/train.parquet", "birds"),
        ("birds/train-00000-of-00001.parquet", "birds"),
        ("birds/data.tar.gz", "birds"),
        ("birds/trains.parquet", "trains"),
        ("x/cifar-10-batches-py", "cifar10"),
        ("/data", "data"),
        ("/", "images"),
    ],
)
def test_a_name_that_could_be_anybodys_is_passed_over(place, name, tmp_path):
    assert dataset_name(tmp_path / place) == name


def test_a_pack_is_the_same_whatever_its_folder_is_called(tmp_path, train):
    root = write_folder(tmp_path / "photos" / "Dataset", *train)
    before = open_pack(root)
    assert (before.dataset, before.path.name) == ("photos", f"photos-{before.hash[:16]}")
    other = before.path.rename(before.path.with_name(f"dataset-{before.hash[:16]}"))  # as it was called formerly
    again = open_pack(root)
    assert (again.path, again.hash) == (other, before.hash)
