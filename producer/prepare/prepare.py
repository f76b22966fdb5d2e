"""Turns an input into pairs that are clustered by query."""


def prepare(*_: object) -> None:
    raise NotImplementedError
