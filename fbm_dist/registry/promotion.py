"""The gate before an alias: a version gets it if a stated figure is at least that of the version that has it now."""

from __future__ import annotations

import getpass
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fbm_dist.registry.catalogue import Entry, entry
from fbm_dist.registry.client import NotInRegistryError, calling, connect
from fbm_dist.registry.versions import CHAMPION, Registered, promote, tag

if TYPE_CHECKING:
    from mlflow import MlflowClient

Mode = Literal["max", "min"]
CONFIGS = Path("configs/evaluate")


@dataclass(frozen=True)
class Promotion:
    """What was decided, and by which figures; `champion` None: nobody had the alias."""

    version: Entry
    champion: Entry | None
    alias: str
    metric: str
    forced: bool

    @property
    def moved(self) -> bool:
        """False: the version had the alias before."""
        return self.champion is None or self.champion.uri != self.version.uri

    def line(self) -> str:
        """One line for people."""
        if not self.moved:
            return f"{self.version.uri} has the alias {self.alias} already"
        mine = self.version.metrics.get(self.metric)
        told = f"{self.version.uri} is {self.alias} now"
        if self.champion is None:
            return f"{told}: {self.metric} {_number(mine)}, nobody before"
        theirs = self.champion.metrics.get(self.metric)
        told += f": {self.metric} {_number(mine)}, {_number(theirs)} before ({self.champion.uri})"
        return told + ("; forced" if self.forced else "")


def promote_by(
    uri: str,
    metric: str,
    *,
    mode: Mode = "max",
    alias: str = CHAMPION,
    force: bool = False,
    reason: str = "",
    by: str | None = None,
    tracking_uri: str | None = None,
) -> Promotion:
    """Move `alias` to the version at `uri`, and say on the version who did it, when and why.

    Args:
        metric: as `list` and `show` name it, e.g. probes.motion.linear.clip.
        mode: max: the larger figure is the better one.
        force: also where the figure is worse or missing; `reason` must say why.
        by: who does it; None: MLFLOW_TRACKING_USERNAME, else this machine's user.
    Raises:
        ValueError: the figure is worse, or one of the two has none, or they were measured on different data; in one line.
    """
    if force and not reason.strip():
        raise ValueError('force=true needs a reason, which is kept with the version: reason="..."')
    client = connect(tracking_uri, create=False)
    version = entry(client, uri)
    champion = _holder(client, version.name, alias)
    decided = Promotion(version, champion, alias, metric, force)
    if not decided.moved:
        return decided
    if not force:
        _check(version, champion, metric, mode)
    registered = Registered(version.name, str(version.version), version.run_id)
    prefix = f"promoted.{alias}."
    told = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "by": by or _user(),
        "why": f"{'forced: ' if force else ''}{reason.strip() or decided.line()}"[:2000],
        "metric": f"{metric} ({mode})",
        "before": champion.uri if champion else "none",
    }
    tag(
        registered,
        {prefix + key: value for key, value in told.items()},
        tracking_uri=client.tracking_uri,
        prefix=prefix,
    )
    promote(version.name, version.version, alias=alias, tracking_uri=client.tracking_uri)
    return decided


def _check(version: Entry, champion: Entry | None, metric: str, mode: Mode) -> None:
    """The gate itself."""
    for one in (version, champion):
        if one is not None and metric not in one.metrics:
            others = [other.uri for other in (version, champion) if other is not None and other is not one]
            has = f"it has {', '.join(one.metrics)}" if one.metrics else "it has no figures"
            raise ValueError(f"{one.uri} has no metric {metric!r} ({has}); measure it: {_command(metric, one, others)}")
    if champion is None:
        return
    mine, theirs = version.metrics[metric], champion.metrics[metric]
    protocol = metric.partition(".")[0]
    data = [one.tags.get(f"{protocol}.data") for one in (version, champion)]
    if data[0] != data[1]:
        raise ValueError(
            f"{metric} was measured on {data[0] or 'unknown data'} for {version.uri} and on {data[1] or 'unknown data'} for "
            f"{champion.uri}; measure both at once: {_command(metric, version, [champion.uri])}"
        )
    if (mine < theirs) if mode == "max" else (mine > theirs):
        raise ValueError(
            f"{version.uri} is not promoted: its {metric} is {_number(mine)}, and {champion.uri} has {_number(theirs)} "
            f'(mode={mode}); force=true reason="..." promotes it all the same'
        )


def _command(metric: str, version: Entry, others: list[str]) -> str:
    """What measures `metric`."""
    protocol = metric.partition(".")[0]
    config = CONFIGS / f"{protocol}.yaml"
    if not (Path(__file__).parents[2] / config).is_file():
        config = CONFIGS / "probes.yaml"
    return f"python launch/evaluate.py {config} encoder={version.uri} compare_with=[{','.join(others)}] data.path=DIR"


def _holder(client: MlflowClient, name: str, alias: str) -> Entry | None:
    """The version that has the alias now."""
    with calling(f"find {name!r}"):
        aliases = client.get_registered_model(name).aliases
    if alias not in aliases:
        return None
    try:
        return entry(client, f"models:/{name}/{aliases[alias]}")
    except NotInRegistryError:  # the version was deleted
        return None


def _user() -> str:
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"
