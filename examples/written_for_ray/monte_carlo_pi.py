"""Pi by throwing darts: tasks that throw, and an actor that they report to.

A program for Ray; `zray run examples/written_for_ray/monte_carlo_pi.py` runs it as it is.
"""

import argparse
import random
import time

import ray


@ray.remote
class Progress:
    def __init__(self, total):
        self.total = total
        self.done = {}

    def report(self, task, darts):
        self.done[task] = darts

    def fraction(self):
        return sum(self.done.values()) / self.total


@ray.remote
def throw(task, darts, progress):
    inside = 0
    for number in range(1, darts + 1):
        if random.random() ** 2 + random.random() ** 2 <= 1:
            inside += 1
        if number % 10_000 == 0 or number == darts:
            progress.report.remote(task, number)
    return inside


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--darts", type=int, default=50_000, help="of each task")
    options = parser.parse_args()

    ray.init()
    total = options.tasks * options.darts
    progress = Progress.remote(total)
    refs = [throw.remote(task, options.darts, progress) for task in range(options.tasks)]
    while True:
        fraction = ray.get(progress.fraction.remote())
        print(f"{fraction:.0%} of {total} darts thrown")
        if fraction == 1:
            break
        time.sleep(0.2)
    print(f"pi is about {4 * sum(ray.get(refs)) / total:.2f}")


if __name__ == "__main__":
    main()
