"""``zoomloc info``: what a file is and what is in it, in a few lines.

Knows the names of the formats, not how they are read; each reader explains its own trouble.
"""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoomloc.errors import ConfigError

if TYPE_CHECKING:
    from zoomloc.belief.calibration import Calibration


def explain(path: Path) -> list[str]:
    """Lines about a file or folder. Raises a ZoomlocError for what is none of ours."""
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder")
    if path.is_dir():
        return _folder(path)
    readers = {
        ".pmtiles": _pyramid,
        ".mbtiles": _pyramid,
        ".parquet": _table,
        ".jsonl": _answers,
        ".safetensors": _checkpoint,
        ".jpg": _photo,
        ".jpeg": _photo,
        ".png": _photo,
        ".webp": _photo,
        ".json": _json,
        ".yaml": _config,
        ".yml": _config,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(
            f"{path}: not a kind of file that zoomloc knows ({', '.join(sorted(readers))})"
        )
    return reader(path)


def _folder(path: Path) -> list[str]:
    if (path / "checkpoint-best.safetensors").is_file():
        return [f"run {path}", *_checkpoint(path / "checkpoint-best.safetensors")]
    if (path / "region.json").is_file():
        return [
            f"region folder {path}",
            *_json(path / "region.json"),
            *_pyramid(path / "imagery.pmtiles"),
        ]
    if (path / "index.json").is_file():
        return _json(path / "index.json")
    raise ConfigError(
        f"{path}: neither a run (checkpoint-best.safetensors), a region folder (region.json) nor "
        "an index (index.json)"
    )


def _pyramid(path: Path) -> list[str]:
    from zoomloc.world.pyramid import TilePyramid

    with TilePyramid.open(path) as pyramid:
        about = pyramid.metadata
        lines = [
            f"pyramid of {pyramid.tile_px} px tiles, levels {pyramid.min_level} to "
            f"{pyramid.max_level}, imagery {pyramid.imagery_hash()}"
        ]
        lines += [
            f"  {key}: {about[key]}"
            for key in ("name", "attribution", "licence", "capture_date", "sources")
            if about.get(key)
        ]
        return lines


def _table(path: Path) -> list[str]:
    from zoomloc.world.photos import READINGS, read_photos, split_hash, split_protocol

    photos, protocol = read_photos(path), split_protocol(path)
    reading = READINGS.get(protocol or "")
    splits = Counter(p.split or "no split" for p in photos)
    drives = len({p.sequence_id for p in photos})
    return [
        f"photo table: {len(photos):,} photos of {drives} drives",
        f"  split: {protocol or 'unknown'} {dict(splits)}, {split_hash(photos)}",
        *([f"  {reading}"] if reading else []),
        f"  with heading: {sum(p.bearing_deg is not None for p in photos):,}, with field of "
        f"view: {sum(p.fov_deg is not None for p in photos):,}",
    ]


def _answers(path: Path) -> list[str]:
    from zoomloc.world.answers import read_answers

    answers = read_answers(path)
    if not answers:
        raise ConfigError(f"{path}: holds no answer")
    return [
        f"{len(answers)} answers, {sum(a.unknown for a in answers)} of them unknown",
        f"  mean probability {sum(a.probability for a in answers) / len(answers):.2f}",
    ]


def _checkpoint(path: Path) -> list[str]:
    from zoomloc.checkpoint import load_explained

    about = load_explained(path)
    lines = [
        f"checkpoint {path.name}: step {about.step:,}, {about.seconds / 60:.1f} min, "
        f"{about.photos_seen:,} photos seen",
        f"  region {about.region.name}: {len(about.region.roots)} roots, "
        f"{about.region.zooms} zooms of {about.region.branching}",
        f"  imagery {about.imagery_hash}, split {about.split_hash}",
    ]
    val = about.metrics.get("val", {}).get("r_at_50m")
    if val:
        lines.append(
            f"  val R@50m {val['value']:.1%} ({val['lo']:.1%} – {val['hi']:.1%}, n {val['n']})"
        )
    return [*lines, _calibrated(about.calibration)]


def _calibrated(known: "Calibration | None") -> str:
    """On what probabilities were calibrated, and whether "not here" can be told."""
    if known is None:
        return "  not calibrated; 'zoomloc calibrate' does it"
    told = "evidence" if known.slope is not None else "no evidence"
    return (
        f"  calibrated on {known.photos:,} val photos of {len(known.regions)} region(s): scale "
        f"{known.scale:.2f}, floor {known.floor:.2%}, alpha {known.alpha:.2f}, {told}"
    )


def _photo(path: Path) -> list[str]:
    from zoomloc.world.exif import read_exif
    from zoomloc.world.images import image_size

    width, height = image_size(path)
    facts = read_exif(path)
    place = "no position" if facts.lat is None else f"{facts.lat:.6f}, {facts.lng:.6f}"
    heading = "no heading" if facts.bearing_deg is None else f"heading {facts.bearing_deg:.0f}°"
    view = "unknown" if facts.fov_deg is None else f"{facts.fov_deg:.0f}°"
    return [
        f"photo {width} x {height} px, {facts.projection}: {place}, {heading}, field of view "
        f"{view}, taken {facts.captured_at or 'at an unknown time'}"
    ]


def _json(path: Path) -> list[str]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error})") from error
    schema = str(data.get("schema", "")) if isinstance(data, dict) else ""
    if schema.startswith("zoomloc/region"):
        from zoomloc.world.region import Region

        region = Region.load(path)
        return [
            f"region {region.name}: {len(region.roots)} roots of level {region.root_level}, "
            f"{region.zooms} zooms of {region.branching}, cells of {region.cell_size_m:.1f} m",
            f"  attribution: {'; '.join(region.attribution) or 'none'}; "
            f"licence: {region.licence or 'not stated'}",
        ]
    if schema.startswith("zoomloc/report"):
        return _report(path, data)
    if schema.startswith("zoomloc/checkpoint"):
        return _checkpoint(path.with_suffix(".safetensors"))
    if schema.startswith("zoomloc/index"):
        height, width = data["shape"]
        state = f"imagery {data['imagery']}" if data["imagery"] else "not finished"
        return [
            f"index of a region's map, {width} x {height} features in {len(data['chunks'])} chunks",
            f"  checkpoint {data['checkpoint']}, {state}",
        ]
    raise ConfigError(f"{path}: JSON of another kind (schema {schema!r})")


def _report(path: Path, data: dict[str, Any]) -> list[str]:
    """Recall of a report, and what must be known to read it."""
    found = data.get("metrics", {}).get("r_at_50m")
    if not found:
        raise ConfigError(f"{path}: a report without r_at_50m; evaluate again")
    lines = [
        f"report of {data['run']}: {data['n']} photos, R@50m {found['value']:.1%} "
        f"({found['lo']:.1%} – {found['hi']:.1%})"
    ]
    return lines + ([f"  {data['reading']}"] if data.get("reading") else [])


def _config(path: Path) -> list[str]:
    from zoomloc.config import load_config

    config = load_config([path])
    return [
        f"config {config.name}: data in {config.data}, model of width {config.model.width} "
        f"and {config.model.layers} layers"
    ]
