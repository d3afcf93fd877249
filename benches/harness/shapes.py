"""Configurations of flows whose nodes do nothing. Pure."""

import random


def _node(name, parents=()):
    return {"node": name, "routine": "bench.nothing", "dependencies": [{"parent": parent} for parent in parents]}


def chain(nodes):
    """Each node is the parent of the next."""
    return {"nodes": [_node(f"n{i}", [f"n{i - 1}"] if i else []) for i in range(nodes)]}


def fan(nodes):
    """One node, then all but two of them side by side, then one."""
    middle = [f"n{i}" for i in range(nodes - 2)]
    return {"nodes": [_node("first"), *(_node(name, ["first"]) for name in middle), _node("last", middle)]}


def layered(nodes, seed=1):
    """Layers of 5 to 50 nodes; each node has one to three parents in the layer before. The same for the same seed."""
    choose = random.Random(seed)
    layers, configuration = [[]], []
    for i in range(nodes):
        if len(layers[-1]) == 50 or len(layers[-1]) >= 5 and choose.random() < 1 / 25:
            layers.append([])
        before = layers[-2] if len(layers) > 1 else []
        configuration.append(_node(f"n{i}", choose.sample(before, min(len(before), choose.randint(1, 3)))))
        layers[-1].append(f"n{i}")
    return {"nodes": configuration}


def dense(layers):
    """Layers of two nodes that depend on both of the layer before."""
    return {"nodes": [
        _node(f"n{layer}_{k}", [f"n{layer - 1}_{parent}" for parent in (1, 2)] if layer > 1 else [])
        for layer in range(1, layers + 1) for k in (1, 2)]}
