"""The ready cities: whole, credited, checked, small enough, and the paper's region inside one.

No server is asked; whether one answers today no test can say.
"""

import itertools
import math
import re
from pathlib import Path

import mercantile
import pytest
import shapely
import typer
import yaml

from data_prep.ground import ground_of
from data_prep.imagery.terms import check_terms
from data_prep.imagery.xyz import order_xyz
from zoomloc.cli import app
from zoomloc.config import imagery as schema
from zoomloc.config import load_config, packaged_folders, parse_config
from zoomloc.config.imagery import NetworkSource, WmtsSource, XyzSource
from zoomloc.world.cells import LatLng, distance_m
from zoomloc.world.region import MAX_ROOTS, cover

FILES = sorted(p for folder in packaged_folders() for p in (folder / "cities").glob("*.yaml"))
CHECKED = re.compile(
    r"# checked: \{url: (https://\S+), date: (\d{4}-\d\d-\d\d)\}; not contacted while building"
)
MOST_TILES = 60_000
ENDS = {  # of an address, by city: some servers want the column first, others the row
    "amsterdam": "/Actueel_orthoHR/EPSG:3857/19/{0.x}/{0.y}.jpeg",
    "new-york": "/NYC_Orthos_-_2020/MapServer/tile/19/{0.y}/{0.x}",
    "vienna": "/bmaporthofoto30cm/normal/google3857/19/{0.y}/{0.x}.jpeg",
}
CONTINENTS = {  # boxes that hold the cities there may be: west, south, east, north
    "Africa": (-18, -35, 52, 37),
    "Asia": (60, 5, 150, 75),
    "Europe": (-11, 37, 40, 71),
    "North America": (-170, 15, -50, 75),
    "Oceania": (110, -48, 180, -10),
    "South America": (-82, -56, -34, 13),
}
every_city = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def city(file: Path):
    return load_config([f"cities/{file.stem}"])


@every_city
def test_a_city_loads_by_its_name(file):
    config = city(file)
    assert config.name == file.stem
    assert config.data == Path("data") / file.stem
    assert config.tiles.sources
    for source in config.tiles.sources:
        assert source.attribution.strip() and source.licence.strip()
        if isinstance(source, NetworkSource):
            assert source.rate_per_s <= 8, "modest"
            assert not source.headers and "${" not in str(source), "no key"


@every_city
def test_what_was_checked_stands_in_the_file(file):
    lines = [v for v in file.read_text(encoding="utf-8").splitlines() if "# checked" in v]
    found = [CHECKED.fullmatch(line) for line in lines]
    assert found and all(found), lines
    assert len(lines) == len(set(lines))
    assert "Not verified:" in file.read_text(encoding="utf-8")


@every_city
def test_the_region_is_covered(file):
    plan = city(file).tiles
    ground = ground_of(plan)
    region = cover(file.stem, ground, plan.terminal_cell_m, plan.levels_per_zoom)
    assert 1 <= len(region.roots) <= MAX_ROOTS
    assert 16 / math.sqrt(2) <= region.cell_size_m <= 16 * math.sqrt(2), "the nearest level"
    assert shapely.union_all([shapely.box(*r.bounds) for r in region.roots]).covers(ground)


@every_city
def test_no_source_is_of_a_provider_that_forbids_it(file):
    for source in city(file).tiles.sources:
        if isinstance(source, NetworkSource):
            address = source.capabilities if isinstance(source, WmtsSource) else source.url
            assert address.startswith("https://")
            check_terms(address, permission="")


def in_comments(file: Path):
    """Sources that a file shows as comments, to be put in the place of its own."""
    lines = file.read_text(encoding="utf-8").splitlines()
    kept = [line[1:] for line in lines if line.startswith(("#   - kind:", "#     "))]
    trees = yaml.safe_load("\n".join(kept)) or []
    return parse_config({"tiles": {"sources": trees}}, file.name).tiles.sources


@every_city
def test_sources_in_comments_are_valid_and_credited(file):
    for source in in_comments(file):
        assert source.attribution and source.licence


def test_the_imagery_of_the_paper_stands_in_a_comment():
    (washington,) = (file for file in FILES if file.stem == "washington-dc")
    assert [source.kind for source in in_comments(washington)] == ["tiles"]


@pytest.mark.parametrize("name", sorted(ENDS))
def test_tiles_of_xyz_cities_are_few_and_in_the_order_of_the_server(name, tmp_path):
    plan = load_config([f"cities/{name}"]).tiles
    (source,) = plan.sources
    assert isinstance(source, XyzSource)
    order = order_xyz(source, ground_of(plan), tmp_path / "none")
    assert 500 < len(order.tiles) < MOST_TILES
    assert 0.1 < order.sheet.gsd_m < 0.3
    told = [order.told(at) for at in order.tiles]
    assert len(set(told)) == len(told)
    assert not any("{" in address or "}" in address for address in told)
    lat, lng = plan.place
    middle = mercantile.tile(lng, lat, source.level)
    assert (middle.x, middle.y) in order.tiles
    assert order.told((middle.x, middle.y)).endswith(ENDS[name].format(middle))


def test_every_xyz_city_is_looked_at():
    kinds = {file.stem for file in FILES for s in city(file).tiles.sources if s.kind == "xyz"}
    assert kinds == set(ENDS)


def test_there_are_five_cities_on_three_continents():
    assert len(FILES) >= 5
    found = set()
    for file in FILES:
        middle = ground_of(city(file).tiles).centroid
        here = {n for n, box in CONTINENTS.items() if shapely.box(*box).contains(middle)}
        assert len(here) == 1, (file.stem, here)
        found |= here
    assert len(found) >= 3


# The region of the paper, as its code has it: OSUPCVLab/justzoomin, configs/base.py (a centre and
# metres from it) and fferflo/tiledwebmaps, geo.h (a step on a sphere by bearing and distance)

CENTRE = LatLng(38.8936, -77.0116)
EAST_M, NORTH_M = (-3000, 7000), (-5000, 5000)
SPHERE_M = 6_378_137.0


def moved(place: LatLng, bearing_deg: float, distance_m: float) -> LatLng:
    lat, bearing = math.radians(place.lat), math.radians(bearing_deg)
    angle = distance_m / SPHERE_M
    sine = math.sin(lat) * math.cos(angle) + math.cos(lat) * math.sin(angle) * math.cos(bearing)
    turn = math.atan2(
        math.sin(bearing) * math.sin(angle) * math.cos(lat), math.cos(angle) - math.sin(lat) * sine
    )
    return LatLng(math.degrees(math.asin(sine)), place.lng + math.degrees(turn))


def test_washington_holds_the_region_of_the_paper_and_hardly_more():
    plan = load_config(["cities/washington-dc"]).tiles
    ground = ground_of(plan)
    region = cover("washington-dc", ground, plan.terminal_cell_m, plan.levels_per_zoom)
    for east, north in itertools.product(EAST_M, NORTH_M):
        for first, second in (((90, east), (0, north)), ((0, north), (90, east))):
            corner = moved(moved(CENTRE, *first), *second)
            assert ground.contains(shapely.Point(corner.lng, corner.lat))
            assert region.path(corner)[-1].level == region.terminal_level
    west, south, east, north = ground.bounds
    assert distance_m(LatLng(north, west), LatLng(north, east)) < 10_050
    assert distance_m(LatLng(north, west), LatLng(south, west)) < 10_050


def test_the_verb_lists_all_cities(zoomloc):
    code, out, err = zoomloc("cities")
    assert code == 0, err
    listed = [line for line in out.splitlines() if line.startswith("cities/")]
    assert listed == [f"cities/{file.stem}" for file in FILES]
    for file in FILES:
        for source in city(file).tiles.sources:
            assert source.attribution in out and source.licence in out
        for url, day in CHECKED.findall(file.read_text(encoding="utf-8")):
            assert url in out and f"read {day}; servers not contacted while building" in out


# The guide to imagery

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "imagery.md"


def test_the_guide_names_only_options_that_there_are():
    text = GUIDE.read_text(encoding="utf-8")
    verb = typer.main.get_command(app).commands["tiles"]
    flags = {flag for parameter in verb.params for flag in parameter.opts}
    others = {"--region", "--map", "--run"}  # of locate and train
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= flags | others
    sections = [v for v in vars(schema).values() if hasattr(v, "model_fields")]
    fields = {name for section in sections for name in section.model_fields}
    rows = re.findall(r"^\| (`[^|]+) \|[^|]+\|$", text, re.M)
    named = {key for row in rows for key in re.findall(r"`([a-z_]+)`", row)}
    assert len(named) > 20 and named <= fields, named - fields


def test_configs_in_the_guide_are_valid():
    for block in re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S):
        tree = yaml.safe_load(block)
        parse_config(tree if isinstance(tree, dict) else {"tiles": {"sources": tree}}, "guide")


def test_the_guide_lists_the_cities():
    text = GUIDE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \|[^|]+\|[^|]+\|$", text, re.M)
    assert sorted(rows) == [file.stem for file in FILES]
