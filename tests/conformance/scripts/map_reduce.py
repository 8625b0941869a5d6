"""An example: map and reduce, with as many returns as there are reducers.

is: 9
Beautiful: 1
than: 8
"""

import zlib
from collections import Counter

import ray

ray.init(num_cpus=2)
TEXT = """Beautiful is better than ugly. Explicit is better than implicit.
Simple is better than complex. Complex is better than complicated.
Flat is better than nested. Sparse is better than dense. Readability counts.
Special cases aren't special enough to break the rules. Although practicality beats purity.
Now is better than never. Although never is often better than right now.
If the implementation is hard to explain, it's a bad idea."""
corpus = TEXT.split()
num_partitions = 3
chunk = len(corpus) // num_partitions
partitions = [corpus[i * chunk : (i + 1) * chunk] for i in range(num_partitions - 1)]
partitions.append(corpus[(num_partitions - 1) * chunk :])


@ray.remote
def apply_map(corpus, num_partitions=1):
    map_results = [[] for _ in range(num_partitions)]
    for word in corpus:
        word = word.strip(".,")
        map_results[zlib.crc32(word.encode()) % num_partitions].append((word, 1))
    return map_results


@ray.remote
def apply_reduce(*results):
    reduce_results = Counter()
    for res in results:
        for key, value in res:
            reduce_results[key] += value
    return reduce_results


map_results = [
    apply_map.options(num_returns=num_partitions).remote(data, num_partitions)
    for data in partitions
]
outputs = [
    apply_reduce.remote(*[partition[i] for partition in map_results]) for i in range(num_partitions)
]
counts = {k: v for output in ray.get(outputs) for k, v in output.items()}
for word in ("is", "Beautiful", "than"):
    print(f"{word}: {counts[word]}")
