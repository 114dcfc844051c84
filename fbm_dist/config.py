"""`load(Run, path, overrides)`: the door by which every config of training and evaluation comes in (see data_tools/config.py)."""

from data_tools.config import Config, ConfigError, Schema, dump, load

__all__ = ["Config", "ConfigError", "Schema", "dump", "load"]
