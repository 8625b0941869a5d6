"""The smallest cluster program: five tasks, each doubling a number.

It owns one lesson: this is a Ray script, and its only difference is ``import zray as ray``.
It must never use a name that Ray does not have.
"""

import zray as ray

ray.init()


@ray.remote
def double(number: int) -> int:
    return 2 * number


refs = [double.remote(number) for number in range(5)]
print(ray.get(refs))
