"""For every test: one thread per process. Two cores are shared by the test, Ray and its workers."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
