"""What a config says of the model and of how it is searched.

Knows nothing of torch, of regions or of how a config is read.
"""

from typing import Literal

from pydantic import Field

from zoomloc.config.base import Section


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
