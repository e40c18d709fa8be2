"""A listing of many files and the resolver's index of it: memory and time for each file.

    python tests/bench/bench_listing.py [--files 1000000] [--names 100000]

The files are those of a synthetic store, in the order in which a disk gives them, with marks as long as ETags; images
and label files in a thousand directories. Each measurement is a process of its own. The same script runs on trees
whose listing is a list of objects and a dictionary.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute  # noqa: F401 - a long listing is sorted by it; so its memory counts as that of an import
from yolov7_ray import storage
from yolov7_ray.data.files.resolver import Resolver
from yolov7_ray.data.files.suffixes import IMAGE_SUFFIXES
from yolov7_ray.storage import FileInfo

STEP = 7919
"""A prime: the files come in the order of its multiples."""
PARTS = ("imports", "listing", "listing, resolver")


def path_of(number: int) -> str:
    """41 characters on average."""
    folder, kind = divmod(number, 2)
    return (f"images/train/{folder % 1000:04d}/frame_{folder:010d}.jpg" if kind
            else f"labels/train/{folder % 1000:04d}/frame_{folder:010d}.txt")


class Names:
    """A store that has the names of files alone."""

    def __init__(self, uri: str):
        self.count = int(uri.rpartition("/")[2])

    def files(self, *_: object) -> Iterator[FileInfo]:
        """Every number below `count` once."""
        for step in range(self.count):
            number = step * STEP % self.count
            yield FileInfo(path_of(number), 100_000 + number, f"{number * STEP:032x}")


def measured(part: str, count: int, num_names: int) -> None:
    """Print seconds and peak of this process, and what the names took."""
    storage.SCHEMES["names"] = Names
    begun, find_us, exact_us = time.process_time(), 0.0, 0.0
    if part != "imports":
        files = storage.list_files(f"names://x/{count}")
        files = files.by_path if hasattr(files, "by_path") else {info.path: info for info in files}
    if part.endswith("resolver"):
        resolver = Resolver(files, "bench", IMAGE_SUFFIXES)
        assert resolver.find("/mnt/data/" + path_of(1).upper()).path == path_of(1)
    took_s = time.process_time() - begun
    [peak_kb] = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    if part.endswith("resolver"):
        numbers = [number * STEP % count | 1 for number in range(num_names)]
        for name, root in (("exact", ""), ("bent", "/mnt/data/")):
            begun = time.process_time()
            assert all(resolver.find(root + path_of(number)) for number in numbers)
            exact_us, find_us = find_us, (time.process_time() - begun) / num_names * 1e6
    print(took_s, int(peak_kb) / 1e3, exact_us, find_us)


def main() -> None:
    """Print a line for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--names", type=int, default=100_000)
    parser.add_argument("--part", choices=PARTS)
    options = parser.parse_args()
    if options.part:
        return measured(options.part, options.files, options.names)
    base_mb = 0.0
    for part in PARTS:
        done = subprocess.run([sys.executable, __file__, "--part", part, "--files", str(options.files), "--names",
                               str(options.names)], stdout=subprocess.PIPE, text=True, check=True)
        took_s, peak_mb, exact_us, bent_us = map(float, done.stdout.split())
        base_mb = base_mb or peak_mb
        print(f"{part:18s} {took_s:6.1f} CPU s, peak {peak_mb - base_mb:6.0f} MB above the imports' = "
              f"{(peak_mb - base_mb) * 1e6 / options.files:4.0f} bytes a file; a name as written {exact_us:4.1f} us, "
              f"bent {bent_us:4.1f} us", flush=True)
    return None


if __name__ == "__main__":
    main()
