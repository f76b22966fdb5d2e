"""Decide by a chat template's loops whether it needs a time limit.

A loop of Jinja is finite, and the sandbox bounds `range`. Only nested loops can take forever, for
example over the characters of a text for each of its characters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set

from jinja2 import Environment, TemplateError, nodes


def takes_linear_time(template: str) -> bool:
    """Return whether no loop is inside another; a loop over the messages does not count."""
    try:
        parsed = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except TemplateError:  # for example of an extension of transformers
        return False
    names = parsed.find_all(nodes.Name)
    if any(name.name == "messages" and name.ctx != "load" for name in names):
        return False
    macros = {macro.name: macro for macro in parsed.find_all(nodes.Macro)}
    return _depth(parsed, macros, frozenset()) <= 1


def _depth(node: nodes.Node, macros: Mapping[str, nodes.Macro], inside: Set[str]) -> float:
    """Return the depth of nested loops, including those of called macros; infinite if unknown.

    Args:
        node: the part of the template.
        macros: the template's macros by name.
        inside: the macros that the node is called from.
    """
    if isinstance(node, nodes.Name) and node.ctx == "load" and node.name in macros:
        if node.name in inside:
            return math.inf
        body = macros[node.name].body
        return max((_depth(part, macros, inside | {node.name}) for part in body), default=0)
    if isinstance(node, nodes.CallBlock):
        return math.inf
    children = (child for child in node.iter_child_nodes() if not isinstance(child, nodes.Macro))
    deepest = max((_depth(child, macros, inside) for child in children), default=0)
    if isinstance(node, nodes.For):
        return math.inf if node.recursive else deepest + (not _are_messages(node.iter))
    # A filter may iterate over it.
    is_range = isinstance(node, nodes.Name) and node.name == "range"
    return deepest + is_range


def _are_messages(iterated: nodes.Node) -> bool:
    if isinstance(iterated, nodes.Getitem) and isinstance(iterated.arg, nodes.Slice):
        return _are_messages(iterated.node)
    return isinstance(iterated, nodes.Name) and iterated.name == "messages"
