"""List the benchmarks: ``python -m benchmarks``."""

from __future__ import annotations

from benchmarks.harness.command import all_benchmarks


def main() -> None:
    for name, benchmark in all_benchmarks().items():
        print(f"python -m benchmarks.{name:9}  {benchmark.summary}")
    print("\nEach takes --help, and --quick for at most 3 minutes on two slow cores.")


if __name__ == "__main__":
    main()
