"""A disentanglement study under way: who is asked about which factors, and what they answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fbm_dist.evaluation.disentanglement.config import Disentanglement
from fbm_dist.evaluation.encoders.candidates import Candidate
from fbm_dist.evaluation.measures.comparison import Column, Compared
from fbm_dist.evaluation.measures.probing import Question, reference_of
from fbm_dist.training.distributed import World


@dataclass
class Study:
    """An evaluation under way: a question a factor; `columns` and `compared` are by factor, then by group."""

    evaluation: Disentanglement
    world: World
    tested: tuple[Candidate, ...]
    questions: tuple[Question, ...]
    notes: list[str]
    columns: dict[str, dict[str, Column]] = field(default_factory=dict)
    compared: dict[str, dict[str, Compared]] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        return reference_of(self.tested)

    @property
    def factors(self) -> tuple[str, ...]:
        return tuple(asked.clips.label for asked in self.questions)

    @property
    def groups(self) -> tuple[str, ...]:
        """Of all encoders."""
        return tuple(next(iter(self.columns.values())))

    @property
    def chance(self) -> dict[str, float]:
        """By factor, by clip."""
        return {factor: next(iter(by_group.values())).chance for factor, by_group in self.columns.items()}

    def known(self, pairs: Mapping[str, str]) -> dict[str, str]:
        """Those factor -> group of the config that were measured."""
        return {factor: group for factor, group in pairs.items() if factor in self.factors and group in self.groups}
