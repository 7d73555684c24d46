"""From what a config names to sheets, in order, and what has to be fetched first.

Knows nothing of how any source works: each kind has a module beside this one.
"""

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import shapely
from shapely.geometry.base import BaseGeometry

from data_prep.imagery.fetched import CACHE_NAME, Order, Progress, digest_of, fetch
from data_prep.imagery.gdal import is_remote
from data_prep.imagery.rasters import Reading, inspected
from data_prep.imagery.sheets import Sheet
from data_prep.imagery.stac import open_stac
from data_prep.imagery.stores import open_stored
from data_prep.imagery.terms import check_terms
from data_prep.imagery.web import Manners, Web, filled
from data_prep.imagery.wmts import order_wmts
from data_prep.imagery.xyz import order_xyz
from zoomloc.config.imagery import (
    NetworkSource,
    RasterSource,
    Source,
    StacSource,
    StoredSource,
    TilesConfig,
    WmtsSource,
    XyzSource,
)
from zoomloc.errors import ConfigError, ImageryError


@dataclass(frozen=True)
class LookedUp:
    """What a config comes to: sheets in order (those of ``orders`` among them), and credits."""

    sheets: tuple[Sheet, ...]
    orders: tuple[Order, ...]
    attribution: tuple[str, ...]
    licence: str

    def fetched(self, order: Order, progress: Progress | None = None) -> "LookedUp":
        """Fetch what an order asks for; its sheet then knows what came. Raises as ``fetch``."""
        fetch(order, progress)
        came = digest_of(order.sheet.cache, order.sheet.source)
        known = replace(order.sheet, stamp=came)
        sheets = tuple(known if sheet is order.sheet else sheet for sheet in self.sheets)
        return replace(self, sheets=sheets)


def look_up(
    plan: TilesConfig, rasters: Sequence[Path], ground: BaseGeometry | None, out: Path
) -> LookedUp:
    """Open all sources of a config; ``rasters`` lie on top of them.

    ``ground``: the region in degrees, None for all that files show; servers need one. Nothing is
    fetched but descriptions. Raises ConfigError, ImageryError.
    """
    sources: list[Source] = [*plan.sources]
    if rasters:
        short = RasterSource(kind="raster", files=tuple(map(str, rasters)))
        sources.insert(0, short)
    if not sources:
        raise ConfigError(
            "tiles: no imagery; give --raster FILE, or tiles.rasters or tiles.sources in the config"
        )
    for source in sources:
        if isinstance(source, NetworkSource):
            check_terms(_address(source), source.permission)
    files = {i: _of_files(source) for i, source in enumerate(sources)}
    if ground is None:
        ground = _shown(sheet for sheets in files.values() for sheet in sheets)
    sheets: list[Sheet] = []
    orders: list[Order] = []
    for i, source in enumerate(sources):
        if isinstance(source, (XyzSource, WmtsSource, StacSource)):
            found = _of_server(source, _needed(ground, source), out / CACHE_NAME)
            orders += [each for each in found if isinstance(each, Order)]
            sheets += [each.sheet if isinstance(each, Order) else each for each in found]
        else:
            sheets += files[i]
    return LookedUp(tuple(sheets), tuple(orders), *_credits(plan, sources))


def _of_files(source: Source) -> list[Sheet]:
    """Sheets of what lies on this disk, or of rasters at addresses."""
    if isinstance(source, StoredSource):
        return open_stored(source.path, source.level)
    if not isinstance(source, RasterSource):
        return []
    asked = Reading(source.bands, source.stretch, source.nodata, source.crs, source.folders)
    return [inspected(filled(one), asked, _stamp(one)) for one in _each_file(source.files)]


def _each_file(names: Iterable[str]) -> list[str]:
    """Patterns become the files that they match, sorted. Raises ImageryError for none."""
    found: list[str] = []
    for name in names:
        if is_remote(name) or not glob.has_magic(name) or Path(name).exists():
            found.append(name)
            continue
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            raise ImageryError(f"{name}: no file matches; check the folder in which you run this")
        found += matches
    return found


def _stamp(name: str) -> str | None:
    """What a server says of the state of a raster, so that a changed one is read again."""
    if not name.startswith(("http://", "https://")):
        return None
    with Web(Manners(retries=2)) as web:
        return web.state(filled(name), name)


def _of_server(
    source: XyzSource | WmtsSource | StacSource, ground: BaseGeometry, cache: Path
) -> list[Sheet | Order]:
    if isinstance(source, XyzSource):
        return [order_xyz(source, ground, cache)]
    if isinstance(source, WmtsSource):
        return [order_wmts(source, ground, cache)]
    return [*open_stac(source, ground)]


def _address(source: NetworkSource) -> str:
    """Where a server is."""
    return source.capabilities if isinstance(source, WmtsSource) else str(getattr(source, "url"))  # noqa: B009


def _shown(sheets: Iterable[Sheet]) -> BaseGeometry | None:
    """All that sheets show together; None where there is none."""
    footprints = [sheet.footprint for sheet in sheets]
    return shapely.union_all(footprints) if footprints else None


def _needed(ground: BaseGeometry | None, source: NetworkSource) -> BaseGeometry:
    if ground is None:
        raise ConfigError(
            f"{_address(source)}: say which ground is meant: tiles.bounds, tiles.polygon, or "
            "tiles.place with tiles.radius_m"
        )
    return ground


def _credits(plan: TilesConfig, sources: Sequence[Source]) -> tuple[tuple[str, ...], str]:
    """Attributions and licences of the config and of all its sources, each once."""
    named = [*plan.attribution, *(s.attribution for s in sources if s.attribution)]
    licences = [plan.licence, *(s.licence for s in sources)]
    return tuple(dict.fromkeys(named)), "; ".join(dict.fromkeys(filter(None, licences)))
