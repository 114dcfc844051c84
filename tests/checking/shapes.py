"""The type checker behind the shapes in signatures: beartype, with an int where a float is asked for, as Python's own typing has it."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
