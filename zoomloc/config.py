"""One YAML becomes one frozen, strict tree; all defaults live in the classes below.

Knows nothing of torch or of the files that a config points to. Paths in a YAML count from
the folder in which the command runs.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from zoomloc.errors import ConfigError


class Section(BaseModel):
    """A part of the tree: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TownConfig(Section):
    """The synthetic town that `zoomloc town` and `zoomloc demo` build."""

    seed: int = 1
    size_m: float = 720.0
    train_photos: int = Field(10_000, ge=1)
    test_photos: int = Field(1_000, ge=1)
    width_px: int = Field(256, ge=32)
    height_px: int = Field(128, ge=32)
    nuisances: bool = True  # other seasons, blur, passers-by, errors of position
    scattered: bool = False  # photos at random points of the roads instead of on drives


class TilesConfig(Section):
    """From rasters to the region's pyramid."""

    rasters: tuple[Path, ...] = ()
    bounds: tuple[float, float, float, float] | None = None  # west, south, east, north; degrees
    terminal_cell_m: float = Field(16.0, gt=0)  # about the accuracy of a phone's position
    levels_per_zoom: Literal[1, 2, 3] = 2
    tile_px: Literal[256, 512] = 256
    image_format: Literal["webp", "jpeg", "png"] = "webp"
    quality: int = Field(90, ge=1, le=100)
    attribution: tuple[str, ...] = ()
    licence: str = ""
    capture_date: str | None = None

    @field_validator("bounds")
    @classmethod
    def _is_a_box(cls, bounds: tuple[float, ...] | None) -> tuple[float, ...] | None:
        """West before east (which may pass 180), south before north."""
        if bounds is not None:
            west, south, east, north = bounds
            if not (-180 <= west < east <= west + 360 and -85.06 < south < north < 85.06):
                raise ValueError("must be west, south, east, north in degrees")
        return bounds


class PhotosConfig(Section):
    """From a folder of photos to the photo table."""

    folder: Path | None = None
    licence: str = ""
    creator: str = ""
    default_position_error_m: float = Field(5.0, gt=0)


class SplitConfig(Section):
    """How photos are divided into train, val and test."""

    by: Literal["sequence", "block", "image", "region"] = "sequence"
    val: float = Field(0.1, ge=0, lt=1)
    test: float = Field(0.1, ge=0, lt=1)
    newest_test: bool = False  # the drives of the last day become the test split
    seed: int = 0


class EncoderConfig(Section):
    """A picture encoder; ``name`` is a key of ``zoomloc.model.encoders.ENCODERS``."""

    name: str = "tiny"
    channels: tuple[int, ...] = (32, 64, 128)  # tiny: stages; the first three halve the picture
    source: str = ""  # hf: a model's name on the Hugging Face hub, or a folder
    tune: Literal["frozen", "last", "lora", "all"] = "frozen"  # hf: what is trained of it
    last_blocks: int = Field(4, ge=1)  # hf: how many blocks "last" trains
    lora_rank: int = Field(8, ge=1)


class TowersConfig(Section):
    """Two towers: photo and map crops as vectors (retrieval, or matching by levels)."""

    depths: int = Field(1, ge=1)  # 1: terminal cells only (retrieval); more: one head a depth
    context_m: float = Field(64.0, gt=0)  # side of the square round a terminal cell
    dense: int = Field(4, ge=1)  # reference squares a side of a coarser cell
    temperature: float = Field(0.07, gt=0)
    learned_temperature: bool = True
    near: int = Field(31, ge=0)  # neighbours that join each seed of a batch
    near_share: float = Field(0.1, ge=0, le=1)  # of the run with near cells; later similar ones
    mine_every: float = Field(0.15, gt=0, le=1)  # share of the run between two minings
    extra: float = Field(0.5, ge=0)  # crops of anywhere, a share of the batch
    sigma_cells: float = Field(0.25, gt=0)  # softness of the targets at the coarser depths


class MatchConfig(Section):
    """Bird's-eye matching: what is asked of photo and map, and how finely they are compared."""

    gsd_m: float = Field(2.0, gt=0)  # of the map's picture; its features are twice as coarse
    map_channels: tuple[int, int, int] = (32, 32, 64)
    slices: int = Field(16, ge=4)  # of the full circle, which are also the headings tried
    fan: int = Field(5, ge=1)  # slices a training photo may fill
    rings_m: tuple[float, ...] = (3.0, 6.0, 10.0, 16.0, 24.0, 36.0, 52.0)
    channels: int = Field(16, ge=1)  # of each bin
    width: int = Field(192, ge=8)  # of the column network
    descriptor: int = Field(0, ge=0)  # width of one vector for a photo and each place; 0: none
    memory: bool = False  # absolute place joins a place's vector, in the one region trained on
    memory_dropout: float = Field(0.3, ge=0, le=1)  # share of the steps that go without
    straight: float = Field(0.0, ge=0, le=1)  # share of the steps with the map as it is, north up
    window_m: float = Field(736.0, gt=0)  # side of the ground searched in a training step
    lattice: int = Field(4, ge=1)  # features between the places of a training step
    exact: bool = True  # where the photos of a step stand joins its places
    turn: bool = True  # the map turned at random while training
    rescale: float = Field(0.06, ge=0)  # and scaled by about so much
    mirror: bool = True
    ensemble: bool = True  # answers: means over the quarter turns and mirror images trained on
    heading: float = Field(6.0, ge=0)  # concentration of the heading's label; 0 ignores headings
    layers: float = Field(0.0, ge=0)  # weight of the auxiliary task, where layers.pmtiles is there
    layers_until: float = Field(1.0, gt=0, le=1)  # share of the run after which it is left out


class ResidualConfig(Section):
    """What stands beside the match and on it."""

    towers_share: float = Field(0.0, ge=0, lt=1)  # of the steps, in which two towers learn instead
    towers_px: tuple[int, int] = (64, 32)  # photos as the towers see them
    towers_batch: int = Field(128, ge=1)
    towers_sigma_m: float = Field(8.0, ge=0)
    towers_shift: float = Field(0.08, ge=0, le=0.5)  # as augment.photo_shift and photo_scale, which
    towers_scale: float = Field(0.15, ge=0, le=0.5)  # the match cannot bear
    zoom: bool = True  # a zoom on top; it learns in the steps that ``match.straight`` grants it
    silent: float = Field(0.2, ge=0, lt=1)  # share of photos for which the match stands alone


class ModelConfig(Section):
    """The encoders and what stands on them: the zoom transformer, two towers, the match."""

    kind: Literal["zoom", "towers", "match", "residual"] = "zoom"
    towers: TowersConfig = TowersConfig()
    match: MatchConfig = MatchConfig()
    residual: ResidualConfig = ResidualConfig()
    photo_px: tuple[int, int] = (64, 32)  # width, height; padded to this shape, never squashed
    view_px: int = Field(64, ge=16)
    view_margin: float = Field(0.0, ge=0, le=2)  # context around a view, share of its side
    photo_encoder: EncoderConfig = EncoderConfig()
    view_encoder: EncoderConfig = EncoderConfig(channels=(16, 32, 64))
    shared_encoder: bool = False
    norm: Literal["batch", "group"] = "batch"  # in the tiny encoders
    photo_crops: int = Field(1, ge=1, le=8)  # a photo is encoded in so many parts, side by side
    photo_tokens: int = Field(2, ge=1)
    # a picture's tokens: from its mean, from all of its grid, or from the class token (hf)
    pooling: Literal["mean", "grid", "class"] = "grid"
    width: int = Field(128, ge=8)
    layers: int = Field(3, ge=1)
    heads: int = Field(4, ge=1)
    ffn_ratio: float = Field(8 / 3, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    head: Literal["linear", "pointer", "both"] = "both"
    level_embedding: bool = True
    place: bool = True  # absolute place within the trained region, dropped at random
    place_dropout: float = Field(0.2, ge=0, le=1)


class AugmentConfig(Section):
    """Random changes to training pictures; 0 turns one off (1 a crop)."""

    photo_colour: float = Field(0.2, ge=0)
    photo_colour_chance: float = Field(1.0, ge=0, le=1)
    photo_grey: float = Field(0.0, ge=0, le=1)  # chance
    photo_jpeg: float = Field(0.0, ge=0, le=1)  # chance of the loss of another coding
    photo_crop: float = Field(1.0, gt=0, le=1)  # least share of the area, its shape kept
    photo_shift: float = Field(0.08, ge=0, le=0.5)  # share of the picture's width
    photo_scale: float = Field(0.15, ge=0, le=0.5)
    photo_blur: float = Field(0.0, ge=0, le=1)  # chance of blur or sharpening
    photo_erase: float = Field(0.3, ge=0, le=1)  # chance of one grey box
    photo_dropout: float = Field(0.0, ge=0, le=1)  # chance of a grid or many black boxes
    photo_noise: float = Field(0.0, ge=0)
    view_colour: float = Field(0.15, ge=0)
    view_colour_chance: float = Field(1.0, ge=0, le=1)
    view_grey: float = Field(0.0, ge=0, le=1)
    view_jpeg: float = Field(0.0, ge=0, le=1)
    view_blur: float = Field(0.0, ge=0, le=1)
    view_dropout: float = Field(0.0, ge=0, le=1)
    first_view_plain: bool = False  # zoom: the view all photos share is left as it is
    mirror: bool = False  # towers: photo and map mirrored together, for half of a batch
    turn: bool = False  # towers: the map turned by a multiple of 90 degrees
    view_noise: float = Field(0.0, ge=0)


Beta = Annotated[float, Field(ge=0, lt=1)]
Recall = Literal["r_at_25m", "r_at_40m", "r_at_50m", "r_at_100m", "exact_cell"]


class TrainConfig(Section):
    """The loop; it ends at ``steps`` or after ``max_minutes``, whichever comes first."""

    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a graphics card where there is one
    batch: int = Field(64, ge=1)
    accumulate: int = Field(1, ge=1)  # batches that one step of the weights is made of
    steps: int = Field(100_000, ge=1)
    max_minutes: float | None = Field(None, gt=0)
    clock: Literal["wall", "process"] = "wall"  # process: time of this process over all threads
    optimizer: Literal["muon", "adamw"] = "muon"  # for what is not pretrained
    lr: float = Field(4e-3, gt=0)  # adamw wants about a fifth of it
    lr_floor: float = Field(0.02, ge=0, le=1)  # share of lr at the end of the cosine
    backbone_lr: float = Field(1.0, ge=0)  # share of lr for pretrained weights
    layer_decay: float = Field(1.0, gt=0, le=1)  # of that, from each pretrained layer to the next
    warmup: float = Field(0.05, ge=0, le=1)  # share of the run
    weight_decay: float = Field(0.05, ge=0)
    decay_vectors: bool = False  # weight decay on norms and biases too
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    clip: float = Field(1.0, gt=0)
    ema: float = Field(0.998, ge=0, lt=1)
    # auto: bf16 where the processor has it; fp16 on a graphics card only
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    threads: int = Field(1, ge=0)  # of torch; 0 leaves it to torch. One beats two on shared cores
    targets: Literal["soft", "hard"] = "soft"
    sigma_m: float = Field(8.0, ge=0)  # blur of the target beyond the photo's own position error
    uniform_share: float = Field(0.03, ge=0, lt=1)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    rollout_share: float = Field(0.0, ge=0, le=1)  # share of prefixes from the model's own rollout
    val_every_minutes: float = Field(2.0, gt=0)
    val_every_steps: int | None = Field(None, ge=1)
    val_photos: int = Field(200, ge=1)
    select_by: Recall = "r_at_50m"  # on val
    keep: int = Field(2, ge=1)
    augment: AugmentConfig = AugmentConfig()


class SearchConfig(Section):
    """How a region is searched and how the answer is read off the posterior."""

    method: Literal["greedy", "beam", "best-first", "exhaustive"] = "beam"
    beam: int = Field(8, ge=1)
    bound: float = Field(0.05, ge=0, lt=1)
    refined: float = Field(0.09, gt=0, le=1)  # match: share of the ground looked at finely
    answer: Literal["bayes", "cell"] = "bayes"  # best disc of 25 m, or the last cell's centre
    right_within_m: float = Field(50.0, gt=0)
    candidates: int = Field(5, ge=1)
    unknown_below: float = Field(0.05, ge=0, le=1)  # probability under which the answer is unknown


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


GENERAL = Path(__file__).resolve().parent / "general"  # the run that comes with zoomloc


def load_config(sources: Sequence[str | Path], overrides: Sequence[str] = ()) -> Config:
    """The tree of one or several YAMLs (later ones win) and of overrides ``a.b=c``.

    A source is a path, or the name of a packaged config such as ``demo`` or
    ``models/justzoomin``. Raises ConfigError for a missing file, no YAML, an unknown key.
    """
    merged: dict[str, Any] = {}
    for source in sources:
        merged = _merge(merged, _read_yaml(find_config(source)))
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
    """The file that a path or a packaged name stands for. Raises ConfigError."""
    path = Path(source)
    if path.is_file():
        return path
    for folder in packaged_folders():
        for candidate in (folder / path, folder / f"{source}.yaml"):
            if candidate.is_file():
                return candidate
    known = sorted(
        str(p.relative_to(f).with_suffix("")) for f in packaged_folders() for p in f.rglob("*.yaml")
    )
    raise ConfigError(f"config {source}: no such file; packaged ones are {', '.join(known)}")


def packaged_folders() -> list[Path]:
    """Where packaged configs lie: inside the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    return [f for f in (package / "configs", package.parent / "configs") if f.is_dir()]


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
