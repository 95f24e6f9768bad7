"""`python -m tests.bench [TABLE …]`: measure what has no figures yet, and render the tables."""

import sys

from tests.bench.cells import CELLS, SHARED
from tests.bench.corpora import CORPORA, missing
from tests.bench.harness import has_gpu, run_cells
from tests.bench.tables import OVER_SEEDS, TABLES, write_tables


def main(tables: list[str]) -> None:
    """Run the cells of these tables, or of all of them."""
    known = [*TABLES, *OVER_SEEDS]
    unknown = set(tables) - set(known)
    if unknown:
        sys.exit(f"no table {', '.join(sorted(unknown))}; accepted: {', '.join(known)}")
    chosen = [cell for cell in CELLS if not tables or cell.table in tables]
    if not SHARED.is_dir():
        print("real models and data are not at hand, so only the embedded cells are measured")
        chosen = [cell for cell in chosen if cell.model == "embedded"]
    if any(cell.needs_gpu for cell in chosen) and not has_gpu():
        print("torch finds no GPU here, so cells that need one are not measured")
        chosen = [cell for cell in chosen if not cell.needs_gpu]
    for corpus in CORPORA:
        for folder, origin in missing(corpus).items():
            print(f"{folder} is not there ({origin}), so cells with {corpus.name} are not measured")
    for cell in chosen:
        run_cells([cell])
        write_tables()


main(sys.argv[1:])
