"""Redraw the galleries from `figures/results`: python figures/regenerate.py [--check].

    figures/*.png, *.csv         from runs on the CPU (results/cpu), the paper's numbers beside them
    figures/NAME/*.png, *.csv    the same from the runs of results/NAME: another folder of results
                                 is another gallery
    figures/paper/*.png, *.csv   all figures and tables of the paper, from its own numbers alone

A figure of which no number is a run's is in `figures/paper` only.

Pictures are kept with a palette of 256 colours, a third as large and to the eye the same.

`--check` draws nothing: it compares the tables behind the figures with the committed CSV files.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mtp_harness.commands.figures import summary, write
from mtp_harness.figures.catalogue import FIGURES, Gallery, draw_all
from mtp_harness.figures.figure import NoData, Shown
from mtp_harness.figures.series import is_paper
from mtp_harness.results.tidy import Results, read_runs, to_csv

HERE = Path(__file__).parent
FIRST, PAPER = "cpu", "paper"
"""The results whose figures stand in `figures/` itself, and the folder of the paper's own."""

LONG = ("fig_long_context",)
ONLY: dict[str, Sequence[str]] = {
    "long_context": LONG,
    "long_context_7B": LONG,
    "arithmetic": ("fig_8",),
}
"""Galleries of one question: their runs would give other figures too, which others show better."""


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare the committed CSV files")
    given = parser.parse_args(argv)
    if given.check:
        said = [line for name, runs in galleries().items() for line in stale(HERE / name, runs)]
        sys.stdout.write("".join(f"{one}\n" for one in said))
        return 1 if said else 0
    for name, runs in galleries().items():
        folder = HERE / name
        gallery = draw_all(runs, ONLY.get(name, ()), paper=True)
        gallery = of_runs(gallery) if runs else gallery
        files = write(gallery, folder)
        for path in files:
            if path.suffix == ".png":
                give_palette(path)
        written = {path.name for path in files}
        for path in [*folder.glob("*.png"), *folder.glob("*.csv")]:
            if path.name not in written:
                path.unlink()
        sys.stdout.write(summary(gallery, folder.relative_to(HERE.parent)))
        for problem in runs.problems if runs else ():
            sys.stderr.write(f"{problem}\n")
    return 0


def galleries() -> dict[str, Results | None]:
    """Return the runs behind each folder of figures; None: the paper's numbers alone.

    A folder of `results/` has a gallery of its name.
    """
    folders = sorted(path for path in (HERE / "results").iterdir() if path.is_dir())
    of_runs = {"" if path.name == FIRST else path.name: read_runs([path]) for path in folders}
    return of_runs | {PAPER: None}


def give_palette(path: Path) -> None:
    """Write a picture again with a palette; its texts and resolution stay."""
    with Image.open(path) as picture:
        texts = PngInfo()
        for name, text in picture.text.items():
            texts.add_text(name, text)
        few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        few.save(path, optimize=True, dpi=picture.info["dpi"], pnginfo=texts)


def of_runs(gallery: Gallery) -> Gallery:
    """Return a gallery without the figures that show the paper alone, as `figures/paper` does."""
    refused = gallery.refused | {
        one.figure.name: f"{one.figure.name} shows the paper alone: {one.left_out or 'a diagram'}"
        for one in gallery.drawn
        if not shows_runs(one)
    }
    return gallery._replace(drawn=list(filter(shows_runs, gallery.drawn)), refused=refused)


def shows_runs(shown: Shown) -> bool:
    """Return whether any number of a figure is a run's."""
    return not is_paper(shown.table).all()


def stale(folder: Path, results: Results | None) -> list[str]:
    """Return in words where the CSV files of a folder are not those that the results give."""
    said = []
    only = ONLY.get(folder.name, tuple(FIGURES))
    for name, figure in FIGURES.items():
        path = folder / f"{name}.csv"
        try:
            shown = figure.show(results, paper=True)
            kept = name in only and (not results or shows_runs(shown))
            expected = to_csv(shown.table) if kept else None
        except NoData:
            expected = None
        committed = path.read_text(encoding="utf-8") if path.is_file() else None
        if committed != expected:
            what = "is missing" if committed is None else "is not what the results give"
            said.append(f"{path.relative_to(HERE.parent)} {what}: run `make figures`")
    return said


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
