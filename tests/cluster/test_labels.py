"""Nodes with labels, and tasks and actors that select them, on several nodes."""

from __future__ import annotations

from typing import Any

import zray


def where() -> Any:
    """A function of its own for workers, which cannot import this module."""

    @zray.task
    def node() -> str:
        return str(zray.get_runtime_context().get_node_name())

    return node


def start(bare: Any) -> None:
    bare.start_head()
    for name, labels in {"a": "zone=a,disk=ssd", "b": "zone=b", "c": ""}.items():
        bare.start_node(name, 1, *(("--labels", labels) if labels else ()), wait=False)
    for name in "abc":
        bare.await_node(name)
    bare.connect()


def test_tasks_go_to_the_nodes_that_they_select(bare: Any) -> None:
    start(bare)
    node = where()

    def places(count: int = 6, **options: Any) -> set[str]:
        chosen = node.options(**options)
        return set(zray.get([chosen.remote() for _ in range(count)], timeout=20))

    assert places(label_selector={"zone": "a"}) == {"a"}
    assert places(label_selector={"zone": "!a"}) <= {"b", "c"}
    assert places(label_selector={"zone": "in(a,b)", "disk": "!ssd"}) == {"b"}
    assert places(
        label_selector={"zone": "x"},
        fallback_strategy=[
            {"label_selector": {"zone": "y"}},
            {"label_selector": {"zone": "b"}},
        ],
    ) == {"b"}

    @zray.task(label_selector={"zone": "b"})
    def outer() -> tuple[str, set[str]]:
        here = str(zray.get_runtime_context().get_node_name())
        inner = where().options(label_selector={"zone": "a"})
        return here, set(zray.get([inner.remote() for _ in range(4)]))

    assert zray.get(outer.remote(), timeout=20) == ("b", {"a"})

    @zray.actor(label_selector={"disk": "ssd"})
    class Actor:
        def node(self) -> str:
            return str(zray.get_runtime_context().get_node_name())

    actor = Actor.remote()
    assert zray.get(actor.node.remote(), timeout=20) == "a"


def test_a_task_waits_for_a_node_and_says_so(bare: Any) -> None:
    start(bare)
    node = where()
    ref = node.options(label_selector={"zone": "d"}).remote()
    fallback = node.options(
        label_selector={"zone": "d"}, fallback_strategy=[{"label_selector": {"zone": "b"}}]
    )
    assert zray.get(fallback.remote(), timeout=20) == "b"

    def reason() -> str:
        return " ".join(one.reason for one in bare.status().classes)

    bare.until(lambda: "zone=d" in reason() and "--labels" in reason(), 5, "the reason is said")
    bare.start_node("d", 1, "--labels", "zone=d")
    assert zray.get(ref, timeout=20) == "d"
    assert set(zray.get([fallback.remote() for _ in range(4)], timeout=20)) == {"d"}


def test_labels_come_from_files_and_the_environment(bare: Any, tmp_path: Any) -> None:
    bare.start_head()
    file = tmp_path / "labels.yaml"
    file.write_text("# of this machine\nzone: a\n'disk': \"ssd\"  # fast\nrack: \n")
    environment = {"RAY_NODE_REGION": "eu", "ZRAY_OVERRIDE_LABELS": '{"tier": "gold"}'}
    options = ("--labels-file", str(file), "--labels", "zone=b,tier=silver")
    bare.start_node("a", 1, *options, environment=environment)
    found = dict(bare.node("a").info.labels)
    node_id = found.pop("ray.io/node-id")
    assert node_id == bare.node("a").node_id.hex()
    assert found == {
        "zone": "b",
        "disk": "ssd",
        "rack": "",
        "tier": "gold",
        "ray.io/availability-region": "eu",
    }
