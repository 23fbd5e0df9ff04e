"""A recipe: one YAML file that says everything about one adapter, from its data to its rollout."""

from pocketloop.contracts.names import GgufQuantization
from pocketloop.contracts.recipe.base import BaseConfig
from pocketloop.contracts.recipe.catalogue import Catalogue
from pocketloop.contracts.recipe.data import (
    DataConfig,
    DriftConfig,
    EventsSource,
    ExamplesSource,
    PromptConfig,
    SelectConfig,
)
from pocketloop.contracts.recipe.evaluation import EvaluationConfig, EvaluationSet, Gate, RouterTarget
from pocketloop.contracts.recipe.export import (
    BudgetConfig,
    ExportConfig,
    GgufConfig,
    ParityConfig,
    PteConfig,
)
from pocketloop.contracts.recipe.label import JudgeEndpoint, LabelConfig, PairsConfig
from pocketloop.contracts.recipe.safety import BehaviourConfig, GuardConfig, SafetyConfig
from pocketloop.contracts.recipe.scrub import NerConfig, ScrubConfig
from pocketloop.contracts.recipe.whole import Recipe

__all__ = [
    "BaseConfig",
    "BehaviourConfig",
    "BudgetConfig",
    "Catalogue",
    "DataConfig",
    "DriftConfig",
    "EvaluationConfig",
    "EvaluationSet",
    "EventsSource",
    "ExamplesSource",
    "ExportConfig",
    "Gate",
    "GgufConfig",
    "GgufQuantization",
    "GuardConfig",
    "JudgeEndpoint",
    "LabelConfig",
    "NerConfig",
    "PairsConfig",
    "ParityConfig",
    "PromptConfig",
    "PteConfig",
    "Recipe",
    "RouterTarget",
    "SafetyConfig",
    "ScrubConfig",
    "SelectConfig",
]
