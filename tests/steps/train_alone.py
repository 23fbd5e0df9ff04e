"""The training step by itself, as a program: train_alone.py RECIPE BASE SPLITS."""

import sys
from pathlib import Path

from pocketloop.contracts.files import Folder
from pocketloop.contracts.recipe import BaseConfig, Recipe
from steps import stage
from steps.champion import ChampionRef
from steps.train_adapter import train_adapter

stage.log_metadata = lambda metadata: None  # there is no pipeline around it
recipe, base, splits = sys.argv[1:]
train_adapter.entrypoint(
    Recipe.model_validate_json(recipe),
    BaseConfig.model_validate_json(base),
    Folder.of(Path(splits)),
    ChampionRef(),
    [],
)
