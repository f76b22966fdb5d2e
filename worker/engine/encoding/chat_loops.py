"""Whether a chat template ends for every text, as far as its loops show it.

Jinja's loops go over something finite, and its sandbox bounds `range`. What takes for ever is loops
in loops: over the characters of a text, say, again for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set

from jinja2 import Environment, TemplateError, nodes


def takes_linear_time(template: str) -> bool:
    """Whether no loop is inside another; a loop over the two or three messages does not count."""
    try:
        parsed = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except TemplateError:  # of transformers' own extensions, say
        return False
    if any(each.name == "messages" and each.ctx != "load" for each in parsed.find_all(nodes.Name)):
        return False
    macros = {macro.name: macro for macro in parsed.find_all(nodes.Macro)}
    return _depth(parsed, macros, frozenset()) <= 1


def _depth(node: nodes.Node, macros: Mapping[str, nodes.Macro], inside: Set[str]) -> float:
    """How many loops are in each other, those of the macros that are called among them.

    Args:
        inside: the macros that the node is called from.
    """
    if isinstance(node, nodes.Name) and node.ctx == "load" and node.name in macros:
        if node.name in inside:
            return math.inf
        body = macros[node.name].body
        return max((_depth(each, macros, inside | {node.name}) for each in body), default=0)
    if isinstance(node, nodes.CallBlock):
        return math.inf
    children = (each for each in node.iter_child_nodes() if not isinstance(each, nodes.Macro))
    deepest = max((_depth(each, macros, inside) for each in children), default=0)
    if isinstance(node, nodes.For):
        return math.inf if node.recursive else deepest + (not _are_messages(node.iter))
    # A filter may go through it.
    is_range = isinstance(node, nodes.Name) and node.name == "range"
    return deepest + is_range


def _are_messages(iterated: nodes.Node) -> bool:
    if isinstance(iterated, nodes.Getitem) and isinstance(iterated.arg, nodes.Slice):
        return _are_messages(iterated.node)
    return isinstance(iterated, nodes.Name) and iterated.name == "messages"
