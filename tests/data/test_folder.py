from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from writers import (
    CLASSES,
    Listener,
    pixels,
    png,
    write_folder,
)

from lucidate.core.atomic import sha256
from lucidate.core.errors import SourceError
from lucidate.data.pack import open_pack
from lucidate.data.sources import folder
from lucidate.data.sources.find import open_source
from lucidate.data.sources.source import SetAside

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_a_plain_folder_and_what_lies_beside_the_images(tmp_path, train):
    root = write_folder(tmp_path / "My Pets", train[0][:20], train[1][:20])
    (root / "cat" / "deep" / "er").mkdir(parents=True)
    (root / "cat" / "deep" / "er" / "UPPER.PNG").write_bytes(png(train[0][0]))
    (root / "cat" / "notes.txt").write_text("hello")
    (root / "loose.png").write_bytes(png(train[0][0]))
    for hidden in (root / ".DS_Store", root / "cat" / "Thumbs.db", root / "cat" / ".x.png"):
        hidden.write_text("x")
    (tmp_path / "outside.png").write_bytes(png(train[0][0]))
    (root / "cat" / "out.png").symlink_to(tmp_path / "outside.png")
    (root / "cat" / "broken.png").symlink_to(root / "nothing.png")
    (root / "dog" / "loop").symlink_to(root)
    os.mkfifo(root / "cat" / "pipe.png")
    inside = root / "dog" / "link.png"
    inside.symlink_to(root / "loose.png")
    source = open_source(root)
    assert (source.dataset, source.class_names, len(source)) == ("my-pets", CLASSES, 22)
    assert set(source.given) == {""}
    assert "cat/deep/er/UPPER.PNG" in source.ids
    assert {(each.path, each.reason) for each in source.set_aside} == {
        ("cat/notes.txt", "not an image file (.txt)"),
        ("loose.png", "outside any class's folder"),
        ("cat/out.png", "a link that leads outside the folder"),
        ("cat/broken.png", "not a file, or a broken link"),
        ("cat/pipe.png", "not a file, or a broken link"),
        ("dog/loop", "a link to a folder"),
    }
    assert SetAside("loose.png", "outside any class's folder") in source.set_aside


@pytest.fixture
def nested(tmp_path):
    """A function that makes `folder/d/d/d…` below tmp_path, which is removed by what can: Python's own cannot."""
    before = os.open(".", os.O_RDONLY)

    def make(folder: Path, depth: int) -> Path:
        os.chdir(folder)
        for _ in range(depth):  # step by step, since no call takes so long a path
            os.mkdir("d")
            os.chdir("d")
        os.fchdir(before)
        return folder.joinpath(*["d"] * depth)

    yield make
    os.fchdir(before)
    os.close(before)
    subprocess.run(["rm", "-rf", str(tmp_path)], check=True)


def test_links_to_themselves_and_deep_folders_are_set_aside(tmp_path, train, nested):
    root = write_folder(tmp_path / "pets", train[0][:20], train[1][:20])
    (root / "cat" / "me.png").symlink_to("me.png")
    (root / "loop").symlink_to("loop")
    (root / "table.parquet").symlink_to("table.parquet")
    (root / "cifar-10-batches-py").symlink_to("cifar-10-batches-py")
    (root / "cat" / "far.png").symlink_to("x" * 300)
    deep = nested(root / "dog", 1100)
    (deep / "deep.png").write_bytes(png(train[0][0]))
    source = open_source(root)
    assert len(source) == 21
    (name,) = (each for each in source.ids if each.endswith("deep.png"))
    assert pixels(source, source.ids.index(name)).shape == (32, 32, 3)
    broken = "not a file, or a broken link"
    names = ("cat/far.png", "cat/me.png", "cifar-10-batches-py", "loop", "table.parquet")
    assert {(each.path, each.reason) for each in source.set_aside} == {(each, broken) for each in names}
    assert len(open_pack(root)) == 21


def test_deeper_than_the_system_has_paths_for(tmp_path, train, nested):
    root = write_folder(tmp_path / "pets", train[0][:20], train[1][:20])
    nested(root / "dog", 2500)
    source = open_source(root)
    assert len(source) == 20
    ((path, reason),) = ((each.path, each.reason) for each in source.set_aside)
    assert path.startswith("dog/d/d/d")
    assert reason == "cannot be read: File name too long"
    assert open_pack(root).set_aside == source.set_aside


def test_what_is_too_large_is_not_read(tmp_path, train, monkeypatch):
    digested = []
    monkeypatch.setattr(folder, "sha256", lambda path: digested.append(path.name) or sha256(path))
    root = write_folder(tmp_path / "pets", train[0][:20], train[1][:20])
    big = root / "cat" / "big.png"
    big.write_bytes(png(train[0][0]))
    os.truncate(big, 5 << 30)  # sparse: it takes no room
    pack = open_pack(root)
    assert pack.set_aside == (SetAside("cat/big.png", "too large: 5,368,709,120 bytes"),)
    assert len(digested) == 20
    assert "big.png" not in digested


def test_splits_of_a_folder(tmp_path, train, test):
    root = tmp_path / "s"
    write_folder(root / "train", *train)
    write_folder(root / "Val", *test)
    (root / "docs").mkdir()
    (root / "docs" / "picture.png").write_bytes(png(train[0][0]))
    source = open_source(root)
    assert (source.given.count("train"), source.given.count("test"), source.class_names) == (100, 40, CLASSES)
    assert [each.path for each in source.set_aside] == ["docs/picture.png"]
    write_folder(root / "test", *test)
    listener = Listener()
    source = open_source(root, reporter=listener)
    assert (source.given.count("train"), source.given.count("test")) == (140, 40)
    assert "validation images are added to train" in listener.said[0]
    write_folder(root / "test", *test, names=(*CLASSES[:9], "zebra"))
    with pytest.raises(SourceError, match="'zebra' in test only"):
        open_source(root)


def test_a_class_may_be_called_train(tmp_path, train):
    root = write_folder(tmp_path / "v", train[0], train[1] % 3, names=("bus", "car", "train"))
    source = open_source(root)
    assert source.class_names == ("bus", "car", "train")
    assert set(source.given) == {""}


def test_folders_that_are_no_source(tmp_path, train):
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = [(empty, "an empty folder")]
    one = write_folder(tmp_path / "one", train[0], train[1] * 0, names=("cat",))
    cases.append((one, r"at least two class sub-folders.*received one \('cat'\)"))
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "a.png").write_bytes(png(train[0][0]))
    cases.append((flat, "FOLDER/CLASS/IMAGE.*1 images but no sub-folders"))
    text = tmp_path / "text"
    (text / "cat").mkdir(parents=True)
    (text / "cat" / "a.txt").write_text("x")
    cases.append((text, "no image files"))
    hollow = write_folder(tmp_path / "hollow", train[0], train[1])
    (hollow / "yak").mkdir()
    cases.append((hollow, "none in 'yak'"))
    cases.append((text / "cat" / "a.txt", "received the file"))
    for path, message in cases:
        with pytest.raises(SourceError, match=message) as caught:
            open_source(str(path))
        assert "\n" not in str(caught.value)
