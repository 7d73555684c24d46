"""Config: strictness, the text of each refusal, overrides, packaged files."""

import pytest
import yaml

from zoomloc.config import Config, find_config, load_config, packaged_folders
from zoomloc.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.lrr=1", "unknown key 'train.lrr'; did you mean 'lr'?"),
        ("train.augment.photo_color=1", "did you mean 'photo_colour'?"),
        ("qqqq=1", "known keys: name, data"),
        ("train.lr=abc", "train.lr"),
        ("train.lr=-1", "train.lr"),
        ("tiles.levels_per_zoom=5", "tiles.levels_per_zoom"),
        ("no-equals-sign", "must read key=value"),
        ("=3", "must read key=value"),
        ("train=[1", "not YAML"),
        ("tiles.bounds=[7.0, 45.0, 6.0, 46.0]", "tiles.bounds: must be west, south"),
        ("tiles.bounds=[7.0, 45.0, 8.0]", "tiles.bounds"),
        ("tiles.bounds=[7.0, 85.5, 8.0, 86.0]", "must be west, south"),
        ("train.betas=[0.9, 1.0]", "train.betas.1"),
        ("train.select_by=median_error_m", "train.select_by"),
        ("split.group=camera", "split.group: input should be 'drive' or 'creator-day'"),
        ("split.block_m=0", "split.block_m"),
        ("split.buffer_m=-1", "split.buffer_m"),
    ],
)
def test_every_refusal_names_the_key(override, says):
    with pytest.raises(ConfigError) as refusal:
        load_config([], [override])
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_later_sources_win_and_overrides_win_over_all(tmp_path):
    (tmp_path / "a.yaml").write_text("train: {lr: 0.1, batch: 7}\n")
    (tmp_path / "b.yaml").write_text("train: {lr: 0.2}\n")
    config = load_config([tmp_path / "a.yaml", tmp_path / "b.yaml"], ["train.seed=5"])
    assert (config.train.lr, config.train.batch, config.train.seed) == (0.2, 7, 5)


def test_the_tree_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_config([]).train.lr = 1.0


def test_what_is_saved_reads_back_the_same(tmp_path):
    config = load_config(["demo"], ["train.lr=0.01"])
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_config([tmp_path / "config.yaml"]) == config


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "cannot be read as YAML"),
        ("- 1\n- 2\n", "must hold keys and values"),
    ],
)
def test_files_that_are_no_config_are_refused(tmp_path, text, says):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_config([path])


def test_a_region_folder_is_a_config_unless_a_packaged_one_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "data/my-city"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "region.json").touch()
    config = load_config(["data/my-city", "models/match"], ["split.group=creator-day"])
    assert (config.name, str(config.data)) == ("my-city", "data/my-city")
    assert (config.model.kind, config.split.group) == ("match", "creator-day")
    assert load_config(["demo"]).town is not None
    (tmp_path / "data/my-city/region.json").unlink()
    with pytest.raises(ConfigError, match="a folder without region.json; 'zoomloc tiles"):
        load_config(["data/my-city"])


def test_a_missing_config_names_the_packaged_ones():
    with pytest.raises(ConfigError, match="models/justzoomin"):
        load_config(["nowhere.yaml"])


def test_all_packaged_configs_are_valid():
    files = [p for folder in packaged_folders() for p in folder.rglob("*.yaml")]
    assert find_config("demo") in files
    for path in files:
        assert isinstance(load_config([path]), Config)


def test_the_papers_config_is_the_paper():
    """field.md 4.5 and 4.6: what the published code does."""
    config = load_config(["demo", "models/justzoomin"])
    model, train, search = config.model, config.train, config.search
    assert model.photo_tokens == 1 and model.pooling == "mean"
    assert not model.place and not model.level_embedding and model.head == "linear"
    assert (model.layers, model.dropout) == (6, 0.1)
    assert round(768 * model.ffn_ratio) == 512
    assert (train.targets, train.label_smoothing, train.rollout_share) == ("hard", 0.1, 0)
    assert (search.method, search.answer) == ("greedy", "cell")


def test_an_empty_file_is_all_defaults(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("")
    assert load_config([path]) == Config()
    assert yaml.safe_load(yaml.safe_dump(Config().to_dict())) == Config().to_dict()
