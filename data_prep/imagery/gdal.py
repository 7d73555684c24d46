"""GDAL let near a file or an address only as far as it is trusted.

Knows nothing of what a raster shows. A file may be hostile: it is opened by the drivers of picture
formats alone, and a VRT, which names other files, may name only such as lie beside it.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import rasterio
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from zoomloc.errors import ImageryError

PICTURES = ("GTiff", "VRT", "JP2OpenJPEG", "PNG", "JPEG", "WEBP", "HFA", "ENVI", "ERS", "GPKG")
PAID = ("ECW", "JP2ECW", "JP2KAK", "MRSID")  # where GDAL was built with them
SCHEMES = ("https://", "http://")
HANDLERS = ("/vsicurl/", "/vsizip/", "/vsitar/", "/vsigzip/", "/vsis3/", "/vsigs/", "/vsiaz/")
OPTIONS = {
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_VRT_RAWRASTERBAND_ALLOWED_SOURCE": "SIBLING_OR_CHILD_OF_VRT_PATH",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_CONNECTTIMEOUT": "15",
    "GDAL_HTTP_TIMEOUT": "120",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "500",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "VSI_CACHE": "TRUE",
}
REMOTE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}  # no guessing of files beside an address
LARGEST_VRT = 64 << 20
DEEPEST_VRT = 4  # VRTs within VRTs


def is_remote(where: str) -> bool:
    """Whether GDAL reads it through a file-system handler or over HTTP."""
    return where.startswith((*SCHEMES, "/vsi"))


def told_of(where: str) -> str:
    """What messages call it: an address without its query, which may hold a signature."""
    return where.split("?", 1)[0]


@contextmanager
def reading(where: str) -> Iterator[None]:
    """GDAL's options set, and what it says of damaged pixels turned into one line."""
    options = OPTIONS | (REMOTE if is_remote(where) else {})
    name = told_of(where)
    try:
        with rasterio.Env(**options):
            yield
    except RasterioError as error:
        how = "or does not answer; run again" if is_remote(where) else "; copy it again"
        raise ImageryError(
            f"{name}: damaged or cut off, its pixels cannot be read ({_said(error, where)}){how}"
        ) from error


def open_dataset(where: str | Path, folders: Sequence[Path] = ()) -> Any:
    """The rasterio dataset of a file or an address.

    ``folders``: where a VRT's sources may lie besides its own folder. Raises ImageryError where
    it is missing, damaged, of another kind than a picture, or a VRT that reaches elsewhere.
    """
    where = str(where)
    name = told_of(where)
    if is_remote(where):
        address = _address(where)
    elif not Path(where).exists():
        raise ImageryError(f"{name}: no such raster")
    else:
        check_vrt(Path(where), folders)
        address = where
    options = OPTIONS | (REMOTE if is_remote(where) else {})
    try:
        with warnings.catch_warnings(), rasterio.Env(**options) as env:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # refused in our own words
            known = env.drivers()
            # rasterio.open takes one driver's name only
            return DatasetReader(address, driver=[d for d in (*PICTURES, *PAID) if d in known])
    except RasterioError as error:
        raise ImageryError(
            f"{name}: not a readable raster ({_said(error, where)}); "
            + ("check the address" if is_remote(where) else "copy it again")
        ) from error


def _said(error: Exception, where: str) -> str:
    """What GDAL said, without signatures."""
    return str(error).replace(where, told_of(where))


def _address(where: str) -> str:
    """How GDAL is told to read it. Raises ImageryError for handlers that are not allowed."""
    if where.startswith(SCHEMES):
        return f"/vsicurl/{where}"
    if not where.startswith(HANDLERS):
        raise ImageryError(
            f"{told_of(where)}: this way of reading is not allowed; take a file, an http(s) "
            f"address or one of {', '.join(HANDLERS)}"
        )
    return where


# 1. VRTs


def check_vrt(path: Path, folders: Sequence[Path] = (), depth: int = 0) -> None:
    """Refuse a VRT that runs code, reads raw bytes, or names what lies outside its folder.

    Raises ImageryError. Files of other kinds pass.
    """
    tree = _vrt_tree(path)
    if tree is None:
        return
    if depth > DEEPEST_VRT:
        raise ImageryError(f"{path}: VRTs within VRTs, more than {DEEPEST_VRT} deep")
    for node in tree.iter():
        _check_node(path, node)
    trusted = [folder.resolve() for folder in (path.parent, *folders)]
    for source in vrt_sources(path, tree):
        _check_source(path, source, trusted)
        if source.is_file():
            _check_head(path, source)
            check_vrt(source, folders, depth + 1)


def vrt_sources(path: Path, tree: Element) -> list[Path]:
    """The files that a VRT names, as it names them."""
    found = []
    for node in tree.iter():
        if node.tag in ("SourceFilename", "SourceDataset") and node.text:
            relative = node.get("relativeToVRT", node.get("relativetoVRT", "0")) == "1"
            found.append((path.parent / node.text) if relative else Path(node.text))
    return found


def vrt_parts(path: Path) -> list[tuple[float, float, float, float]]:
    """Left, top, right, bottom in pixels of what a VRT mosaic is pieced together from.

    Empty where it is no mosaic.
    """
    tree = _vrt_tree(path)
    if tree is None or tree.get("subClass"):
        return []
    places = [node.attrib for node in tree.iter("DstRect")]
    found = {tuple(float(p[k]) for k in ("xOff", "yOff", "xSize", "ySize")) for p in places}
    return [(x, y, x + width, y + height) for x, y, width, height in sorted(found)]


def _vrt_tree(path: Path) -> Element | None:
    """The tree of a VRT, None for another kind of file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        if b"<VRTDataset" not in file.read(4096):
            return None
    if path.stat().st_size > LARGEST_VRT:
        raise ImageryError(f"{path}: a VRT of more than {LARGEST_VRT >> 20} MB")
    try:
        tree: Element = fromstring(path.read_bytes())
        return tree
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise ImageryError(f"{path}: not a readable VRT ({error}); build it again") from error


def _check_head(path: Path, source: Path) -> None:
    """Refuse descriptions of servers, which GDAL would ask."""
    with source.open("rb") as file:
        head = file.read(4096).lstrip()
    if head.startswith(b"<") and b"<VRTDataset" not in head:
        raise ImageryError(f"{path}: names {source}, which is no picture but describes a server")


def _check_node(path: Path, node: Element) -> None:
    """Refuse code and raw bytes."""
    if node.tag == "PixelFunctionCode" or (node.text or "").strip().lower() == "python":
        raise ImageryError(f"{path}: runs Python code, which is off; write its result to a GeoTIFF")
    if node.get("subClass") == "VRTRawRasterBand":
        raise ImageryError(f"{path}: reads raw bytes of a file; write it to a GeoTIFF")


def _check_source(path: Path, source: Path, trusted: Sequence[Path]) -> None:
    """Refuse what lies elsewhere."""
    text = str(source)
    plain = not text.startswith("/vsi") and "://" not in text and ":/" not in text[2:]
    if plain and any(source.resolve().is_relative_to(folder) for folder in trusted):
        return
    raise ImageryError(
        f"{path}: names {told_of(text)}, outside of its own folder; if you trust it, name that "
        "folder under 'folders' of the source, or 'rasters' themselves in place of the VRT"
    )
