from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lucidate.analysis.studies import Level, LevelsTable
from lucidate.cli.analyze import report as report_verb
from lucidate.core.errors import LucidateError, RunError
from lucidate.core.progress import Silent
from lucidate.core.recipe import Recipe, make_recipe
from lucidate.core.records import DataCard, ModelCard, Predictions, Results, RunCard, SplitCard
from lucidate.core.run import RunDir
from lucidate.data.pack import open_pack
from lucidate.data.splits import make_splits
from lucidate.report.figures import comparison as drawing
from lucidate.report.pdf import content, document, ending, opening, results
from lucidate.report.pdf.content import Facts, Figure, Points, ReportData, Table, Tiles
from lucidate.report.pdf.document import CHAPTERS, compose, report_of_run, write_report
from pdfs import images_of, pages_of, text_of

MARKUP = ('#import "x"', "*a_b* $x$ `raw`", "\\ = // [c] @d <e> ~", "w" * 200, "猫 → Käse")
MEGABYTE = 1_000_000


def card_of(case: Any, **changes: Any) -> RunCard:
    """A run card that fits synthetic predictions."""
    predictions = case.predictions
    images = len(predictions)
    card = RunCard(
        status="finished",
        name="trial",
        created="2026-01-02T03:04:05+00:00",
        seed=3,
        recipe=Recipe(),
        data=DataCard(
            source="photos/#1",
            path=None,
            dataset="shapes",
            pack="0123456789abcdef" * 4,
            images=images,
            image_size=32,
            flips=True,
            set_aside=(),
        ),
        classes=predictions.class_names,
        split=SplitCard(scheme="official", requested="official", sizes={"train": images, "test": images}),
        preprocess={"size": 32, "mean": [0.5, 0.5, 0.5]},
        model=ModelCard(name="compact", options={"dense": 256}, parameters=323_050, values=323_946),
        results=Results(test_accuracy=predictions.accuracy, epochs=3, train_seconds=75.0, test_openings=1),
        versions={"lucidate": "0.1.0", "python": "3.11.7"},
        hardware={"processor": "AMD EPYC", "cores": 2, "memory_gib": 23.5, "system": "Linux"},
        threads=2,
        commit=None,
        command='lucidate run "#x" --set a_b=$c',
    )
    return card.model_copy(update=changes)


def material_of(case: Any, *, levels: LevelsTable | None = None, **changes: Any) -> ReportData:
    return ReportData(card_of(case, **changes), case.findings, "test", case.pixels, levels)


def level(number: int, accuracy: float, **changes: Any) -> Level:
    values: dict[str, Any] = {
        "level": number,
        "title": f"step *{number}*",
        "run": f"level-{number}",
        "model": "resnet50",
        "origin": "pretrained",
        "parameters": 23_528_522,
        "val_images": 5_000,
        "val_accuracy": accuracy - 0.01,
        "val_low": accuracy - 0.02,
        "val_high": accuracy,
        "test_images": 10_000,
        "test_accuracy": accuracy,
        "test_low": accuracy - 0.006,
        "test_high": accuracy + 0.006,
        "change": None if number == 1 else 0.0213,
        "p": None if number == 1 else 0.00004,
        "seconds": 1_830.0,
        "images_per_second": 512.3,
    }
    return Level(**{**values, **changes})


LEVELS = LevelsTable(
    (
        level(1, 0.8712),
        level(2, 0.8926),
        level(3, 0.9138, members=(level(3, 0.9011), level(3, 0.8877)), best_member_test_accuracy=0.9011),
    ),
    ("All on $one$ machine.",),
)


@pytest.fixture(scope="module")
def run(case: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run on the embedded digits that nobody trained: a run card, splits and predictions, as an ensemble has them."""
    run = RunDir(tmp_path_factory.mktemp("runs") / "digits")
    run.path.mkdir()
    run.weights.touch()
    pack = open_pack("digits")
    splits = make_splits(pack.labels, pack.given, scheme="80-10-10", val_fraction=0.1, seed=0)
    splits.save(run.splits, pack.ids)
    generator = np.random.default_rng(0)
    for split in ("validation", "test"):
        rows = splits.rows(split)
        labels = pack.labels[rows]
        logits = generator.normal(size=(len(rows), 10)) + 3 * np.eye(10)[labels]
        told = {"class_names": pack.class_names, "dataset": pack.dataset, "split": split, "model": "compact"}
        Predictions(pack.ids[rows], rows, labels, logits.astype(np.float32), **told).save(run.predictions(split))
    card = card_of(case(3, 60))
    data = {"source": "digits", "dataset": pack.dataset, "pack": pack.hash, "images": len(pack)}
    scheme = SplitCard(scheme="80-10-10", requested="80-10-10", sizes=splits.sizes)
    changes = {"data": card.data.model_copy(update={**data, "image_size": 8}), "split": scheme}
    card.model_copy(update={**changes, "classes": pack.class_names}).save(run.card)
    return run


def blocks_of(material: ReportData, kind: Any, *, chapters: Any = CHAPTERS) -> list[Any]:
    """Blocks of one kind of all chapters, those that stand beside others too."""
    found = []
    for chapter_of in chapters:
        chapter = chapter_of(material)
        for block in chapter.blocks if chapter else ():
            found += [block, getattr(block, "left", None), getattr(block, "right", None)]
    return [block for block in found if isinstance(block, kind)]


@pytest.fixture(scope="module")
def report(large_case: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 10,000 predictions in ten classes, as CIFAR-10's."""
    return write_report(material_of(large_case), tmp_path_factory.mktemp("pdf") / "report.pdf")


def test_a_run_takes_a_few_pages(report: Path) -> None:
    assert report.read_bytes().startswith(b"%PDF-")
    assert 4 <= pages_of(report) <= 7
    assert report.stat().st_size <= 3 * MEGABYTE
    assert [path.name for path in report.parent.iterdir()] == ["report.pdf"]


def test_its_text_is_text(report: Path, large_case: Any) -> None:
    text, findings = text_of(report), large_case.findings
    for info in (findings.summary, findings.confusion_matrix, findings.per_class_accuracy, findings.confidence):
        assert info.headline in text
    assert "automobile" in text
    assert "Confidence (dotted: means of the groups)" in text  # of a figure
    assert "323,050" in text
    assert 'lucidate run "#x" --set a_b=$c' in text


def test_names_from_elsewhere_are_printed_as_they_are(case: Callable[..., Any], tmp_path: Path) -> None:
    hostile = case(5, 200, names=MARKUP, side=8)
    notes = ("#panic() in a _note_",)
    pdf = write_report(material_of(hostile, notes=notes), tmp_path / "hostile.pdf")
    text = text_of(pdf)
    for words in (*MARKUP[:3], notes[0], "photos/#1"):
        assert words in text
    assert "w" * 20 in text


@pytest.mark.parametrize("classes", [2, 100])
def test_few_and_many_classes(case: Callable[..., Any], tmp_path: Path, classes: int) -> None:
    material = material_of(case(classes, 20 * classes))
    pdf = write_report(material, tmp_path / "report.pdf")
    assert 4 <= pages_of(pdf) <= 8
    assert pdf.stat().st_size <= 3 * MEGABYTE
    blocks = blocks_of(material, Table | Figure)
    for table in blocks:
        if isinstance(table, Table):
            assert len(table.rows) <= content.MOST_ROWS + 1
    assert any("of 100 classes" in block.note for block in blocks) == (classes == 100)


def test_the_same_run_gives_the_same_bytes(case: Callable[..., Any], tmp_path: Path) -> None:
    material = material_of(case(3, 60))
    first, second = (write_report(material, tmp_path / name).read_bytes() for name in ("a.pdf", "b.pdf"))
    assert first == second
    later = write_report(replace(material, card=card_of(case(3, 60), created="2027-01-01")), tmp_path / "c.pdf")
    assert later.read_bytes() != first


def test_without_history_or_mistakes(case: Callable[..., Any], tmp_path: Path) -> None:
    material = material_of(case(4, 80, perfect=True, history=False))
    told = compose(material, reporter=Silent())
    assert "The training" not in [chapter.title for chapter in told.chapters]
    assert write_report(material, tmp_path / "report.pdf").exists()


def test_levels_have_a_chapter(case: Callable[..., Any], tmp_path: Path) -> None:
    material = material_of(case(3, 60), levels=LEVELS)
    chapter = next(each for each in compose(material, reporter=Silent()).chapters if each.title == "The levels")
    table = next(block for block in chapter.blocks if isinstance(block, Table))
    assert [row[0] for row in table.rows] == ["1", "2", "3", "3.1", "3.2"]
    assert table.indented == {3, 4}
    assert table.rows[1][4] == "89.3 %\n88.7–89.9 %"
    assert table.rows[1][5] == "+2.1\np < 0.0001"
    assert table.rows[0][5] == "–"
    assert "its best member alone 90.1 %" in table.rows[2][1]
    assert table.rows[2][6:] == ("30.5", "512")
    assert chapter.blocks[-1] == Points(LEVELS.notes)
    assert write_report(material, tmp_path / "report.pdf").exists()


def test_levels_are_drawn_twice() -> None:
    figure = drawing.LEVELS.interactive(LEVELS)
    rings, levels = figure.data
    assert list(levels.x) == [0.8712, 0.8926, 0.9138]
    assert list(levels.error_x.array) == pytest.approx([0.006] * 3)
    assert list(rings.x) == [0.9011, 0.8877]
    assert list(rings.y) == [2, 2]
    assert figure.layout.xaxis.range[0] == pytest.approx(0.845)
    axes = drawing.LEVELS.static(LEVELS).axes[0]
    assert [text.get_text() for text in axes.texts] == ["87.1 %", "89.3 %", "91.4 %"]
    assert "ring" in drawing.LEVELS.hint(LEVELS)
    assert len(drawing.LEVELS.interactive(LevelsTable(LEVELS.levels[:2])).data) == 1


def test_limits_say_how_often_the_test_split_was_opened(case: Callable[..., Any]) -> None:
    few = case(3, 60)

    def limits(**changes: Any) -> str:
        return " ".join(blocks_of(material_of(few, **changes), Points, chapters=[ending.limits])[-1].points)

    assert "opened once" in limits()
    assert "opened 3 times" in limits(results=Results(test_openings=3))
    assert "one seed (3)" in limits()
    assert "The smallest class has 20 test images" in limits()
    many = limits(notes=tuple(f"note {number}" for number in range(30)))
    assert "note 11" in many
    assert "18 more notes" in many
    split = SplitCard(scheme="80-10-10", requested="official", sizes={"train": 60})
    assert "pooled" in limits(split=split)


def test_results_table_has_both_splits_and_both_ways(case: Callable[..., Any]) -> None:
    found = Results(val_accuracy=0.9, val_accuracy_one_view=0.88, test_accuracy=0.5, test_accuracy_one_view=0.4)
    sizes = {"train": 100, "validation": 50, "test": 60}
    card = {
        "results": found,
        "split": SplitCard(scheme="official", requested="official", sizes=sizes),
        "recipe": make_recipe({"predict": {"views": "mirror"}}),
    }
    table = blocks_of(material_of(case(3, 60), **card), Table, chapters=[results.results])[0]
    assert [row[:5] for row in table.rows] == [
        ("validation", "several views averaged", "50", "5", "90.0 %"),
        ("validation", "one view", "50", "6", "88.0 %"),
        ("test", "several views averaged", "60", "30", "50.0 %"),
        ("test", "one view", "60", "36", "40.0 %"),
    ]
    assert table.rows[2][5] == "37.7–62.3 %"  # Wilson's of 30 of 60


def test_a_recipe_in_words(case: Callable[..., Any]) -> None:
    values = {
        "train": {
            "optimizer": "muon",
            "lr": 0.12,
            "bias_lr": 26.0,
            "schedule": "cosine",
            "warmup_epochs": 1,
            "compile": True,
        },
        "augment": {"flip": "alternating", "translate": 2},
        "predict": {"views": "mirror-shift"},
    }
    card = card_of(case(3, 60), recipe=make_recipe(values))
    assert dict(opening.model_facts(card))["Trained for"] == "3 epochs of at most 30"
    rows = {setting: (value, words) for setting, value, words in opening.settings_table(card).rows}
    assert rows["train.optimizer"][0] == "muon"
    assert rows["train.lr"] == ("0.12", "highest learning rate of the schedule")
    assert rows["train.bias_lr"] == ("26", "muon: highest rate of biases; default: lr")
    assert rows["train.schedule"][0] == "cosine"
    assert rows["train.warmup_epochs"] == ("1", "linear warm-up; not for plateau")
    assert rows["train.compile"][0] == "yes"
    assert rows["augment.flip"][0] == "alternating"
    assert rows["augment.translate"][0] == "2"
    assert rows["predict.views"][0] == "mirror-shift"
    assert "train.weight_decay" not in rows
    mirrored = dict(row[:2] for row in opening.settings_table(card_of(case(3, 60))).rows)
    assert mirrored["augment.flip"] == "auto: they do"


def test_every_setting_of_a_recipe_is_described() -> None:
    sections = (Recipe.model_fields[name].annotation for name in ("train", "augment", "predict"))
    fields = [(name, field) for section in sections for name, field in section.model_fields.items()]
    assert len(fields) > 30
    assert [name for name, field in fields if not field.description] == []


def test_weights_that_a_model_begins_with(case: Callable[..., Any]) -> None:
    made = make_recipe({"train": {"probe_steps": 100, "layer_decay": 0.8, "freeze": 0.5}})

    def card(**options: Any) -> RunCard:
        model = ModelCard(name="timm:resnet50", options={"fit": "native", **options}, parameters=1, values=1)
        return card_of(case(3, 60), model=model, recipe=made)

    def facts(**options: Any) -> dict[str, str]:
        return dict(opening.model_facts(card(**options)))

    tuned = facts(pretrained=True)
    assert tuned["Model"] == "resnet50 of timm (fit native)"
    assert tuned["Begins with"] == "pretrained weights, those that timm names on the hub"
    rows = {setting: (value, words) for setting, value, words in opening.settings_table(card(pretrained=True)).rows}
    assert rows["train.probe_steps"][0] == "100"
    assert "L-BFGS steps of the head alone" in rows["train.probe_steps"][1]
    assert rows["train.layer_decay"][0] == "0.8"
    assert rows["train.freeze"][0] == "0.5"
    assert facts(weights="mine.safetensors")["Begins with"] == "the weights of mine.safetensors"
    assert facts(pretrained=False)["Begins with"] == "random weights"


def test_an_ensemble_has_members_and_no_seed(case: Callable[..., Any]) -> None:
    members = [
        {"name": name, "model": {"name": "compact"}, "share": share} for name, share in (("one", 0.25), ("two", 0.75))
    ]
    made = make_recipe({"model": {"name": "ensemble", "members": members}})
    model = ModelCard(name="ensemble", options={"method": "weighted"}, parameters=2, values=2)
    material = material_of(case(3, 60, history=False), recipe=made, model=model)
    facts = dict(blocks_of(material, Facts, chapters=[opening.method])[0].facts)
    assert facts["Members"] == "one (compact, share 0.25); two (compact, share 0.75)"
    assert "Training" not in facts
    assert "all members" in blocks_of(material, Table, chapters=[results.results])[0].rows[0]
    assert "One ensemble." in " ".join(blocks_of(material, Points, chapters=[ending.limits])[0].points)


def test_samples_show_mistakes_of_many_classes(large_case: Any) -> None:
    mistakes = blocks_of(material_of(large_case), Tiles, chapters=[results.samples])[0]
    assert len(mistakes.tiles) == 16
    assert len({tile.first for tile in mistakes.tiles}) >= 8
    assert all(tile.wrong and tile.second.startswith("→") for tile in mistakes.tiles)
    assert "a random sample of 16" in mistakes.caption


def test_few_mistakes_are_shown_once(case: Callable[..., Any]) -> None:
    findings = case(4, 80, perfect=True).findings
    captions = [each.caption for each in blocks_of(material_of(case(4, 80, perfect=True)), Tiles)]
    assert not findings.summary.errors
    assert not [caption for caption in captions if "istakes" in caption]


def test_pictures_are_vectors_without_dates(large_case: Any) -> None:
    for figure in blocks_of(material_of(large_case), Figure):
        content = figure.picture.content
        assert b"<text" in content
        assert b"Libertinus Serif" in content
        assert b"STIX" not in content
        assert b"<image" not in content  # the confusion matrix too is made of cells
        assert b"dc:date" not in content


def test_the_run_card_names_the_hash_and_the_command(case: Callable[..., Any]) -> None:
    facts = dict(blocks_of(material_of(case(3, 60)), Facts, chapters=[ending.run_card])[0].facts)
    assert facts["Hash of the images"] == "0123456789abcdef" * 4
    assert facts["Command"] == 'lucidate run "#x" --set a_b=$c'
    assert facts["Commit"] == "not from a checkout"
    assert facts["Seed"] == "3"


def test_a_failure_leaves_the_old_report(
    case: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    path = tmp_path / "report.pdf"
    path.write_bytes(b"old")
    monkeypatch.setattr(document.typst, "compile", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(material_of(case(3, 60)), path)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["report.pdf"]


def test_of_a_run_and_its_splits(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert report_of_run(run) == run.path / "report.pdf"
    report_verb(run.path, split="validation", json=True)
    result = json.loads(capsys.readouterr().out)
    assert result["report"] == str(run.path / "report-validation.pdf")
    assert result["bytes"] == (run.path / "report-validation.pdf").stat().st_size
    with pytest.raises(RunError, match="train"):
        report_of_run(run, split="train")


def test_images_that_are_not_for_everyone_stay_out_of_it(run: RunDir, tmp_path: Path) -> None:
    report_verb(run.path, out=tmp_path / "all.pdf")
    report_verb(run.path, out=tmp_path / "none.pdf", images=False)
    assert images_of(tmp_path / "all.pdf") > 10
    assert images_of(tmp_path / "none.pdf") == 0
    words = text_of(tmp_path / "none.pdf")
    assert "How sure it is" in words
    assert "Image by image" not in words


def test_out_names_a_pdf(run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_verb(run.path, out=tmp_path / "mine.pdf")
    assert capsys.readouterr().out.strip() == str(tmp_path / "mine.pdf")
    with pytest.raises(
        LucidateError, match=r"--out: expected the name of a PDF file such as report.pdf, received .*txt"
    ):
        report_verb(run.path, out=tmp_path / "mine.txt")
