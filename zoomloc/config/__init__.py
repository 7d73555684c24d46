"""One YAML becomes one frozen, strict tree; all defaults live in its sections.

Knows nothing of torch or of the files that a config points to. Paths in a YAML count from
the folder in which the command runs. A region's folder stands for a YAML that names it as data.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from zoomloc.config.base import Section
from zoomloc.config.imagery import TilesConfig
from zoomloc.config.model import (
    EncoderConfig,
    MatchConfig,
    ModelConfig,
    ResidualConfig,
    SearchConfig,
    TowersConfig,
)
from zoomloc.config.photos import PhotosConfig, SplitConfig, TownConfig
from zoomloc.config.training import AugmentConfig, TrainConfig
from zoomloc.errors import ConfigError

__all__ = [
    "AugmentConfig",
    "Config",
    "EncoderConfig",
    "GENERAL",
    "MatchConfig",
    "ModelConfig",
    "PhotosConfig",
    "ResidualConfig",
    "SearchConfig",
    "SplitConfig",
    "TilesConfig",
    "TowersConfig",
    "TownConfig",
    "TrainConfig",
    "find_config",
    "load_config",
    "packaged_folders",
    "parse_config",
]


class Config(Section):
    """One experiment: a region, its photos, a model, how it is trained and searched."""

    name: str = "zoomloc"
    data: Path = Path("data/region")
    regions: tuple[Path, ...] = ()  # folders to train on; none: data alone
    val_regions: tuple[Path, ...] = ()  # folders to validate on; none: those trained on
    town: TownConfig | None = None
    tiles: TilesConfig = TilesConfig()
    photos: PhotosConfig = PhotosConfig()
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    search: SearchConfig = SearchConfig()

    def to_dict(self) -> dict[str, Any]:
        """The whole tree, defaults included, as plain YAML and JSON types."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The whole tree as YAML, which ``load_config`` reads back the same."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


GENERAL = Path(__file__).resolve().parents[1] / "general"  # the run that comes with zoomloc


def load_config(sources: Sequence[str | Path], overrides: Sequence[str] = ()) -> Config:
    """The tree of one or several YAMLs (later ones win) and of overrides ``a.b=c``.

    A source is a path, the name of a packaged config such as ``demo`` or ``models/justzoomin``,
    or a folder with a region.json. Raises ConfigError for a missing file, no YAML, an unknown key.
    """
    merged: dict[str, Any] = {}
    for source in sources:
        merged = _merge(merged, _tree_of(find_config(source)))
    for override in overrides:
        merged = _merge(merged, _parse_override(override))
    return parse_config(merged, " + ".join(str(s) for s in sources) or "config")


def parse_config(tree: dict[str, Any], origin: str) -> Config:
    """Check a plain tree. Raises ConfigError that names the key and the nearest known one."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_explain(error)}") from error


def find_config(source: str | Path) -> Path:
    """The file or the region's folder that a path or a packaged name stands for.

    Of a folder and a packaged config of one name, the config. Raises ConfigError.
    """
    path = Path(source)
    if path.is_file():
        return path
    for folder in packaged_folders():
        for candidate in (folder / path, folder / f"{source}.yaml"):
            if candidate.is_file():
                return candidate
    if (path / "region.json").is_file():
        return path
    if path.is_dir():
        raise ConfigError(
            f"config {path}: a folder without region.json; 'zoomloc tiles --raster ortho.tif "
            f"--out {path}' makes it a region, or give a YAML"
        )
    known = sorted(
        str(p.relative_to(f).with_suffix("")) for f in packaged_folders() for p in f.rglob("*.yaml")
    )
    raise ConfigError(f"config {source}: no such file; packaged ones are {', '.join(known)}")


def packaged_folders() -> list[Path]:
    """Where packaged configs lie: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return [f for f in (package / "configs", package.parent / "configs") if f.is_dir()]


def _tree_of(path: Path) -> dict[str, Any]:
    """What a YAML says; a region's folder says its name and where it is."""
    if path.is_dir():
        return {"name": path.resolve().name, "data": str(path)}
    return _read_yaml(path)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"config {path}: cannot be read as YAML ({first})") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"config {path}: must hold keys and values, found {type(tree).__name__}")
    return tree


def _parse_override(text: str) -> dict[str, Any]:
    """``a.b=c`` as a nested dict; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text}: must read key=value, as in --set train.lr=0.001")
    try:
        tree: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text}: the value is not YAML") from error
    for part in reversed(key.strip().split(".")):
        tree = {part: tree}
    return dict(tree)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merge(old, value)
        merged[key] = value
    return merged


def _explain(error: ValidationError) -> str:
    """The first complaint as one line: key, what is wrong, nearest known key."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        given = repr(first.get("input"))
        said = first["msg"].lower().removeprefix("value error, ")
        return f"{where}: {said} (given: {given[:60]})"
    known = _known_keys(first["loc"][:-1])
    near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key {where!r}; {hint}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Config
    for part in location:
        annotation = section.model_fields[str(part)].annotation
        options = [annotation, *get_args(annotation)]
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(section.model_fields)
