"""How long the command line takes to answer without doing anything, side by side with another checkout.

    python tests/bench/bench_command_line.py [--other CHECKOUT] [--rounds 9]

Medians of wall seconds of `--help`, of a mistake in a job file, and of `schema`; the checkouts take turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MISTAKE = "kind: train\ndataset: data\nepocs: 3\n"


def seconds(checkout: Path, words: list[str]) -> float:
    """Of one `python submit.py WORDS`."""
    environment = os.environ | {"PYTHONPATH": f"{checkout}{os.pathsep}{checkout / 'platform'}"}
    started = time.perf_counter()
    subprocess.run([sys.executable, "submit.py", *words], cwd=checkout, env=environment, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, help="another checkout, e.g. of an earlier commit")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    checkouts = [ROOT] + ([arguments.other.resolve()] if arguments.other else [])
    with tempfile.TemporaryDirectory() as directory:
        job = Path(directory, "job.yaml")
        job.write_text(MISTAKE)
        for words in (["--help"], [str(job)], ["schema"]):
            times = [[seconds(checkout, words) for checkout in checkouts] for _ in range(arguments.rounds + 1)][1:]
            medians = [statistics.median(column) for column in zip(*times)]
            ratio = f"   {medians[1] / medians[0]:.1f} x as long" if len(medians) > 1 else ""
            name = "a mistake in a job file" if words[0].endswith(".yaml") else words[0]
            print(f"{name:<24}" + "".join(f"{median:8.3f} s" for median in medians) + ratio, flush=True)


if __name__ == "__main__":
    main()
