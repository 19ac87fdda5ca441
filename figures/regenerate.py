"""Redraw the gallery from `figures/results`: python figures/regenerate.py [--check].

    figures/*.png, *.csv         from runs on the CPU (results/cpu), the paper's numbers beside them
    figures/gpu/*.png, *.csv     the same from runs on a GPU (results/gpu)
    figures/sizes/*.png, *.csv   the same from models of four sizes (results/sizes)
    figures/paper/*.png, *.csv   the paper's figures, from its own numbers alone

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
from mtp_harness.figures.figure import NoData
from mtp_harness.results.tidy import Results, read_runs, to_csv

HERE = Path(__file__).parent
SOURCES = {"": "results/cpu", "gpu": "results/gpu", "sizes": "results/sizes", "paper": None}
"""Folders of figures, and the runs they are drawn from; None: the paper's numbers."""


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
        gallery = measured(draw_all(runs, paper=runs is not None))
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
    """Return the runs behind each folder of figures."""
    return {name: read_runs([HERE / runs]) if runs else None for name, runs in SOURCES.items()}


def give_palette(path: Path) -> None:
    """Write a picture again with a palette; its texts and resolution stay."""
    with Image.open(path) as picture:
        texts = PngInfo()
        for name, text in picture.text.items():
            texts.add_text(name, text)
        few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        few.save(path, optimize=True, dpi=picture.info["dpi"], pnginfo=texts)


def measured(gallery: Gallery) -> Gallery:
    """Return a gallery without the figures that show the paper alone, as `figures/paper` does."""
    drawn = [one for one in gallery.drawn if one.measured]
    refused = gallery.refused | {
        one.figure.name: one.left_out for one in gallery.drawn if not one.measured
    }
    return gallery._replace(drawn=drawn, refused=refused)


def stale(folder: Path, results: Results | None) -> list[str]:
    """Return in words where the CSV files of a folder are not those that the results give."""
    said = []
    for name, figure in FIGURES.items():
        path = folder / f"{name}.csv"
        try:
            shown = figure.show(results, paper=results is not None)
            expected = to_csv(shown.table) if shown.measured else None
        except NoData:
            expected = None
        committed = path.read_text(encoding="utf-8") if path.is_file() else None
        if committed != expected:
            what = "is missing" if committed is None else "is not what the results give"
            said.append(f"{path.relative_to(HERE.parent)} {what}: run `make figures`")
    return said


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
