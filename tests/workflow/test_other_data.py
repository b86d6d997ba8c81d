"""Other images, other weights, other detectors: the same rules run on them, and every example can be planned."""

from __future__ import annotations

import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
import transformers
import yaml
from harness import CONFIG, REPOSITORY, Run, jobs_of
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pipeline_lib.config.names import CELEBA_ATTRIBUTES
from pipeline_lib.data.example_photos import write_photos
from pipeline_lib.data.shards import count_images, read_shards
from pipeline_lib.data.tables import read_table, read_tables
from pipeline_lib.networks.checkpoints import load_weights, read_header
from pipeline_lib.networks.classifier import PlainClassifier
from pipeline_lib.networks.encoder import ResNetEncoder
from pipeline_lib.networks.progan import ProGANGenerator
from pipeline_lib.networks.stylegan2 import StyleGAN2Generator
from pipeline_lib.release.export import export

pytestmark = pytest.mark.workflow


#: Rules that need a network other than the detectors, or masks.
OF_NETWORKS = {
    *("train_generator", "train_encoder", "sample_generator", "retrain_generator"),
    *("train_segmenter", "compare_with_renderings"),
}


def reduced(editor: str | dict, retrain: bool) -> dict:
    """Return the toy config with that editor, and without the sections that it does not need."""
    values = yaml.safe_load((REPOSITORY / CONFIG).read_text())
    values["rebalance"]["edit"]["editor"] = editor
    if not retrain:
        values["retrain"] = None
    if editor != "latent-regression":
        del values["encoder"], values["studies"]
        if not retrain:
            del values["generator"]
    return values


@pytest.mark.parametrize(
    ("editor", "retrain", "absent"),
    [
        ("latent-regression", False, {"retrain_generator"}),
        ("poisson", True, {"train_encoder", "compare_with_renderings"}),
        ("poisson", False, OF_NETWORKS - {"train_segmenter"}),
    ],
)
def test_rules_that_a_config_does_not_need_are_not_in_its_dag(
    sources: Run, tmp_path: Path, editor: str | dict, retrain: bool, absent: set[str]
) -> None:
    run = sources.copy(tmp_path / "run")
    (run.folder / "reduced.yaml").write_text(yaml.safe_dump(reduced(editor, retrain)))
    rules = {rule for rule, _ in jobs_of(run.snakemake("--dry-run", config="reduced.yaml"))}
    assert OF_NETWORKS - rules == absent


def test_a_folder_of_photographs_is_rebalanced_to_the_end_without_a_gan_or_masks(sources: Run, tmp_path: Path) -> None:
    run = sources.copy(tmp_path / "run")
    labels = write_photos(run.folder / "photos", 384, short_sides=(40, 70))
    table = pd.read_csv(labels)  # as many have it: words, more than two of a kind, and cells that nobody filled
    short = np.where(table.index % 2, "short & flat", "kurz/gewöhnlich = $1, $2")
    table["hair"] = pd.Series(np.where(table["long_hair"] == 1, "long", short)).mask(table.index % 23 == 0)
    table["smiling"] = table["smiling"].map({1: "yes", 0: "no"}).mask(table.index % 17 == 0)
    table.drop(columns="long_hair").to_csv(labels, index=False)
    values = reduced("poisson", retrain=False) | {
        "run": "photos",
        "data": {
            "reader": "folder",
            "folder": "photos",
            "labels": "photos.csv",
            "attributes": ["smiling", "hair"],
            "held_out": 0.33,
            "resolution": 32,
        },
    }
    values["detectors"]["attributes"] = ["smiling", "hair"]
    values["rebalance"]["edit"] |= {"region": {"kind": "box", "shows": None}}
    values["jobs"] = 1
    values["rebalance"]["targets"] = [{"where": {"hair": "each"}, "attribute": "smiling", "rate": 0.5}]
    (run.folder / "photos.yaml").write_text(yaml.safe_dump(values))

    ran = {rule for rule, _ in jobs_of(run.snakemake(config="photos.yaml"))}
    assert not ran & OF_NETWORKS
    results = run.folder / "results/photos"
    metrics = json.loads((results / "evaluation/metrics.json").read_text())
    for judged in (metrics["gap"]["smiling"], metrics["agreement"], metrics["quality"]):
        assert set(judged) == {"dataset", "dataset_rebalanced"}
    assert set(metrics["edits"]) == {"dataset"}
    assert {path.name for path in (results / "images").iterdir()} == {"dataset", "held_out", "dataset_rebalanced"}
    for name in ("report.html", "report/datasheet.md", "report/edits-dataset.png"):
        assert (results / name).stat().st_size > 0, name

    read = read_table(results / "labels/dataset.parquet", "labels").set_index("image_id")
    shown = table.set_index("image").loc[read.index].rename_axis("image_id")
    for hair in (hairs := sorted(set(table["hair"].dropna()))):
        expected = (shown["hair"] == hair).astype("boolean").mask(shown["hair"].isna())
        assert read[f"hair={hair}"].astype("boolean").tolist() == expected.tolist()
    assert (
        read["smiling"].astype("boolean").tolist()
        == shown["smiling"].map({"yes": True, "no": False}).astype("boolean").tolist()
    )
    assert list(metrics["rate"]["smiling"]["dataset"]["referee"]) == sorted(f"hair={hair}" for hair in hairs)
    assert "hair kurz/gewöhnlich = $1, $2" in (results / "report.html").read_text()
    edited = read_table(results / "labels/dataset_rebalanced.parquet", "assembled")["edited"]
    plan = read_table(results / "plan/dataset.parquet", "plan")
    assert 0 < edited.sum() <= len(plan)
    named = ["smiling", *(f"hair={hair}" for hair in hairs)]
    assert read.loc[plan["image_id"], named].notna().all(axis=None)
    unknown = int(read[named].isna().any(axis=1).sum())
    assert all(0 < target["unknown"] <= unknown for target in metrics["edits"]["dataset"]["targets"])

    export(results, "dataset_rebalanced", tmp_path / "published")
    rows = pd.read_parquet(tmp_path / "published/train/metadata.parquet")
    assert rows["edited"].tolist() == rows["synthetic"].tolist() == edited.tolist()
    made = rows[rows["edited"]]
    assert made["smiling"].isna().all() and all(json.loads(names) == named[1:] for names in made["carried_over"])
    assert made[named[1:]].to_numpy().tolist() == read.loc[made["original_id"], named[1:]].to_numpy().tolist()
    assert set(made["confirmed_by"].dropna()) == {"referee"}
    assert not (tmp_path / "published/model").exists()
    assert list(json.loads((tmp_path / "published/provenance.json").read_text())["given"]) == ["photos.csv"]


@pytest.mark.parametrize("reader", ["folder", "class-folders"])
def test_a_replaced_image_file_makes_what_follows_from_it_again(sources: Run, tmp_path: Path, reader: str) -> None:
    run = sources.copy(tmp_path / "run")
    labels = pd.read_csv(write_photos(run.folder / "photos", 128, short_sides=(40, 70)), index_col="image")
    data = {"folder": "photos", "held_out": 0.33, "resolution": 32}
    if reader == "folder":
        data |= {"labels": "photos.csv", "attributes": ["smiling", "long_hair"]}
    else:
        for name, row in labels.iterrows():
            folder = run.folder / f"photos/{row.smiling}{row.long_hair}"
            folder.mkdir(exist_ok=True)
            (run.folder / "photos" / name).rename(folder / name)
        data |= {"attributes": {"smiling": ["11", "10"], "long_hair": ["11", "01"]}, "others": ["00"]}
    values = reduced("poisson", retrain=False) | {"run": "photos", "data": {"reader": reader, **data}}
    values["rebalance"]["edit"] |= {"region": {"kind": "box", "shows": None}}
    (run.folder / "photos.yaml").write_text(yaml.safe_dump(values))

    first = ("results/photos/labels/dataset.parquet", "results/photos/labels/notes.parquet")
    run.snakemake(*first, config="photos.yaml")
    assert "Nothing to be done" in run.snakemake("-n", *first, config="photos.yaml")
    file = next((run.folder / "photos").rglob("00007.jpg"))
    Image.new("RGB", (48, 48)).save(file)
    assert {rule for rule, _ in jobs_of(run.snakemake("-n", *first, config="photos.yaml"))} == {"prepare_dataset"}


GENERATOR = "pretrained/pgans_celebahq-small_generator.pth"
ENCODER = "pretrained/pgan_encoders_celebahq-small_RGBM_model_final.pth"


def write_published(run: Run) -> str:
    """Write a config with published weights, and return its name."""
    values = yaml.safe_load((run.folder / CONFIG).read_text())
    values["published"] = {"family": "progan", "domain": "celebahq-small"}
    values["data"]["resolution"] = 128
    values["generator"] = {"channels": [16] * 6}
    values["encoder"]["training"]["kimg"] = 0
    values["retrain"]["init"] = "scratch"
    del values["studies"]  # with methods for W+
    (run.folder / "published.yaml").write_text(yaml.safe_dump(values))
    return "published.yaml"


@pytest.mark.long
def test_two_attributes_are_rebalanced_together_each_in_its_region(sources: Run, tmp_path: Path) -> None:
    run = sources.copy(tmp_path / "run")
    values = reduced("poisson", retrain=False)
    values["run"] = "joint"
    values["detectors"]["attributes"] = ["smiling", "long_hair", "eyeglasses"]
    box = {"kind": "box", "left": 0.25, "right": 0.75, "shows": None}
    values["rebalance"]["edit"] |= {
        "region": box | {"top": 0.65, "bottom": 0.93},
        "regions": {"eyeglasses": box | {"top": 0.35, "bottom": 0.6}},
    }
    values["rebalance"] |= {
        "targets": [
            *({"where": {"long_hair": hair}, "attribute": "smiling", "rate": 0.5} for hair in (True, False)),
            *({"where": {"smiling": smile}, "attribute": "eyeglasses", "rate": 0.4} for smile in (True, False)),
        ],
    }
    values["evaluate"]["utility"] = None
    (run.folder / "joint.yaml").write_text(yaml.safe_dump(values))
    run.snakemake(config="joint.yaml")
    results = run.folder / "results/joint"
    plan = read_table(results / "plan/dataset.parquet", "plan")
    assert set(plan["attribute"]) == {"smiling", "eyeglasses"}
    assert plan["image_id"].is_unique
    tried = read_tables(sorted((results / "swaps/dataset").glob("*.candidates.parquet")), "candidates")
    assert set(tried["image_id"]) == set(plan["image_id"])
    certificate = json.loads((results / "evaluation/certificate.json").read_text())
    assert [target["attribute"] for target in certificate["targets"]] == ["smiling"] * 2 + ["eyeglasses"] * 2
    assert sum(target["edited"] for target in certificate["targets"][:2]) == int(tried["chosen"].sum())
    page = (results / "report.html").read_text()
    assert "Rebalancing smiling and eyeglasses" in page
    assert "rectangle (for “smiling”) or rectangle (for “eyeglasses”)" in page
    export(results, "dataset_rebalanced", tmp_path / "published")
    rows = pd.read_parquet(tmp_path / "published/train/metadata.parquet")
    rows = rows[rows["edited"]].set_index("original_id")
    aims = plan.set_index("image_id").loc[rows.index]
    assert rows["target_attribute"].equals(aims["attribute"].rename("target_attribute"))
    assert (rows["target_value"] == aims["wanted"]).all()
    assert set(zip(rows["target_attribute"], rows["region"], strict=True)) == {
        ("smiling", "box rows 0.65-0.93 columns 0.25-0.75"),
        ("eyeglasses", "box rows 0.35-0.6 columns 0.25-0.75"),
    }


def test_published_weights_are_fetched_unless_they_are_there(sources: Run, tmp_path: Path) -> None:
    run = sources.copy(tmp_path / "run")
    config = write_published(run)

    def fetched() -> set[str]:
        return {made for rule, made in jobs_of(run.snakemake("-n", config=config)) if rule.startswith("fetch")}

    assert fetched() == {GENERATOR, ENCODER}
    (run.folder / "pretrained").mkdir()
    (run.folder / GENERATOR).touch()
    assert fetched() == {ENCODER}


class BusyAtFirst(BaseHTTPRequestHandler):
    """Refuses the first request for a file and answers the others."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        busy = self.server.asked.count(self.path) == 1 and "encoder" in self.path
        self.send_response(503 if busy else 200)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"weights")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.long
def test_a_fetch_is_tried_again_for_the_network_but_not_for_a_wrong_checksum(sources: Run, tmp_path: Path) -> None:
    run = Run(sources.copy(tmp_path / "run").folder)  # with its own library, of which an address is changed
    config = write_published(run)
    (run.folder / "pretrained").mkdir()
    (run.folder / "pretrained/checksums.txt").write_text(f"{'0' * 64}  {Path(GENERATOR).name}\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), BusyAtFirst) as server:
        server.asked = []
        domains = run.folder / "pipeline_lib/config/domains.py"
        text, changed = re.subn(
            r'^PAPER = ".*"', f'PAPER = "http://127.0.0.1:{server.server_port}/"', domains.read_text(), flags=re.M
        )
        assert changed == 1
        domains.write_text(text)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        run.snakemake(ENCODER, config=config)
        output = run.snakemake(GENERATOR, config=config, fails=True)
        server.shutdown()
    assert (run.folder / ENCODER).read_bytes() == b"weights"
    assert server.asked == [f"/{Path(name).name}" for name in (ENCODER, ENCODER, GENERATOR)]
    assert "not retried, because it would fail again: DataError" in output


def write_onnx(detector: PlainClassifier, path: Path) -> None:
    """Write a plain classifier of 32-pixel images, whose last features are 4 by 4 already, layer by layer."""
    nodes, weights = [], []
    here = "images"

    def add(kind: str, *given: torch.Tensor, **options: object) -> None:
        nonlocal here
        names = [f"weight_{len(weights) + number}" for number in range(len(given))]
        weights.extend(numpy_helper.from_array(value.numpy(), name) for value, name in zip(given, names, strict=True))
        nodes.append(helper.make_node(kind, [here, *names], [f"{here}_"], **options))
        here += "_"

    for layer in detector.body:
        if isinstance(layer, torch.nn.Conv2d):
            add("Conv", layer.weight, strides=list(layer.stride), pads=[1, 1, 1, 1])
        elif isinstance(layer, torch.nn.BatchNorm2d):
            add("BatchNormalization", layer.weight, layer.bias, layer.running_mean, layer.running_var)
        else:
            add("Relu")
    add("Flatten")
    add("Gemm", detector.head.weight, detector.head.bias, transB=1)
    shapes = [("images", ["n", 3, 32, 32]), (here, ["n", len(detector.attributes)])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]
    graph = helper.make_graph(nodes, "detector", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


def write_celeba(run: Run, folder: Path) -> None:
    """Lay the avatars of a run out as CelebA is published, Smiling for smiling and Male for long hair."""
    for place in ("Anno", "Eval", "Img/img_align_celeba"):
        (folder / place).mkdir(parents=True)
    attributes, partition = [], []
    for name, part in (("dataset", 0), ("held_out", 2)):
        _, pixels = read_shards(sorted((run.results / "images" / name).glob("*.parquet")))
        table = read_table(run.results / f"labels/{name}.parquet", "labels")
        for image, smiling, long_hair in zip(pixels, table["smiling"], table["long_hair"], strict=True):
            number = f"{len(attributes) + 1:06d}.jpg"
            canvas = Image.new("RGB", (178, 218))
            canvas.paste(Image.fromarray(image).resize((178, 178)), (0, 20))
            canvas.save(folder / "Img/img_align_celeba" / number, quality=95)
            truth = {"Smiling": smiling, "Male": long_hair}
            values = " ".join("1" if truth.get(attribute) else "-1" for attribute in CELEBA_ATTRIBUTES)
            attributes.append(f"{number} {values}")
            partition.append(f"{number} {part}")
    header = [str(len(attributes)), " ".join(CELEBA_ATTRIBUTES)]
    (folder / "Anno/list_attr_celeba.txt").write_text("\n".join(header + attributes))
    (folder / "Eval/list_eval_partition.txt").write_text("\n".join(partition))


@pytest.mark.long
def test_a_published_progan_and_its_encoder_swap_a_box_that_a_timm_backbone_chooses(
    finished: Run, tmp_path: Path
) -> None:
    run = finished.copy(tmp_path / "run")
    torch.manual_seed(0)
    generator = ProGANGenerator(32, [16] * 4, z_dim=16)
    heads = ("output_4x", "output_8", "output_1")  # of the lower resolutions, which are not published
    kept = {name: value for name, value in generator.state_dict().items() if not name.startswith(heads)}
    torch.save(kept, run.folder / "progan.pth")
    encoder = ResNetEncoder(generator.latent_shape, width=8)
    torch.save({"state_dict": encoder.state_dict()}, run.folder / "encoder.pth")

    values = yaml.safe_load((run.folder / CONFIG).read_text()) | {"run": "progan"}
    values["generator"] = {"channels": [16] * 4, "z_dim": 16, "mapping_layers": 2, "weights": "progan.pth"}
    values["detectors"]["training"]["kimg"] = 0.3
    values["detectors"]["selector"] = {"backend": "backbone", "library": "timm", "name": "resnet10t"}
    values["encoder"] |= {"weights": "encoder.pth", "training": {"kimg": 0.1, "batch": 16}}
    values["rebalance"]["edit"] |= {"region": {"kind": "box", "shows": None}}
    values["jobs"] = 1
    values["retrain"] |= {"init": "scratch"}
    (run.folder / "progan.yaml").write_text(yaml.safe_dump(values))
    run.snakemake("results/progan/swaps/dataset/0.candidates.parquet", config="progan.yaml")

    results = run.folder / "results/progan"
    assert read_header(results / "models/source/generator.safetensors")["imported_from"] == "progan.pth"
    assert load_weights(results / "models/encoder.safetensors").latent_shape == (16,)
    tried = read_table(results / "swaps/dataset/0.candidates.parquet", "candidates")
    assert len(tried) == 4 * len(read_table(results / "plan/dataset.parquet", "plan")) > 0


def write_saliency(path: Path) -> None:
    """Write a model that finds the redder of two pixels salient: a colour channel less another, squashed."""
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["difference"]),
        helper.make_node("Sigmoid", ["difference"], ["saliency"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, "h", "w"])
        for name, channels in (("images", 3), ("saliency", 1))
    ]
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [1, 3, 1, 1], [8.0, -4.0, -4.0])
    graph = helper.make_graph(nodes, "saliency", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


def write_transformer(run: Run, folder: Path) -> None:
    """Write a small vision transformer that was trained on the images of a run, well enough to beat chance."""
    names, pixels = read_shards(sorted((run.results / "images/dataset").glob("*.parquet")))
    labels = read_table(run.results / "labels/dataset.parquet", "labels").set_index("image_id").loc[names]
    truth = torch.tensor(labels[["smiling", "long_hair"]].to_numpy(float), dtype=torch.float32)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8
    )
    config.id2label = {0: "smile", 1: "long hair"}
    config.problem_type = "multi_label_classification"
    torch.manual_seed(0)
    network = transformers.ViTForImageClassification(config)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(150):
        optimiser.zero_grad()
        network(pixel_values=images, labels=truth).loss.backward()
        optimiser.step()
    network.save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


@pytest.mark.long
def test_celeba_with_a_published_stylegan2_and_an_onnx_a_saliency_and_a_transformer_network(
    finished: Run, tmp_path: Path
) -> None:
    run = finished.copy(tmp_path / "run")
    torch.manual_seed(0)
    generator = StyleGAN2Generator(32, [16] * 4, style_dim=512, mapping_layers=2)
    state = generator.state_dict()
    mean_latent = state.pop("latent_avg")
    torch.save({"g_ema": state, "latent_avg": mean_latent}, run.folder / "stylegan2.pt")
    state = ResNetEncoder(generator.latent_shape, width=8, depth=34).state_dict()
    last = {f"layer5.conv5.{name}": state.pop(f"fc.{name}") for name in ("weight", "bias")}
    last["layer5.conv5.weight"] = last["layer5.conv5.weight"][:, :, None, None]
    torch.save({"state_dict": state | last}, run.folder / "encoder.pth")
    write_onnx(load_weights(run.results / "models/selector.safetensors", PlainClassifier), run.folder / "judge.onnx")
    write_saliency(run.folder / "saliency.onnx")
    write_transformer(run, run.folder / "referee")
    write_celeba(run, run.folder / "celeba")

    values = yaml.safe_load((run.folder / CONFIG).read_text())
    values |= {
        "run": "celeba",
        "data": {"reader": "celeba", "folder": "celeba", "resolution": 32},
        "parts": {"backend": "onnx", "path": "saliency.onnx", "groups": {"salient": [0]}, "threshold": 0.5},
        "generator": {"channels": [16] * 4, "z_dim": 512, "mapping_layers": 2, "weights": "stylegan2.pt"},
        "encoder": {"weights": "encoder.pth", "training": {"kimg": 0.05, "batch": 8}},
    }
    classes = {"Smiling": "smile", "Male": "long hair"}
    values["detectors"] |= {
        "attributes": ["Smiling", "Male"],
        "selector": {"backend": "onnx", "path": "judge.onnx", "columns": {"Smiling": 0, "Male": 1}},
        "referee": {"backend": "transformers", "path": "referee", "classes": classes},
    }
    values["rebalance"]["targets"] = [
        {"where": {"Male": value}, "attribute": "Smiling", "rate": 0.5} for value in (True, False)
    ]
    values["rebalance"]["edit"] |= {"region": {"kind": "part", "name": "salient"}}
    values["jobs"] = 1
    values["retrain"] = {"init": "scratch", "training": {"kimg": 0.1}}  # no attributes: ONNX passes no gradients on
    (run.folder / "celeba.yaml").write_text(yaml.safe_dump(values))
    results = run.folder / "results/celeba"
    wanted = ("images/retrained/0.parquet", "scores/referee/samples.parquet")
    run.snakemake(*(f"results/celeba/{name}" for name in wanted), config="celeba.yaml")

    origins = {
        "source/generator": "stylegan2.pt",
        "selector": "judge.onnx",
        "referee": "referee",
        "segmenter": "saliency.onnx",
    }
    for name, origin in origins.items():
        assert read_header(results / f"models/{name}.safetensors")["imported_from"] == origin
    assert load_weights(results / "models/encoder.safetensors").arguments["depth"] == 34
    selector = json.loads((results / "models/selector.json").read_text())
    alone = json.loads((run.results / "models/selector.json").read_text())  # the same detector before it was exported
    assert selector["Smiling"]["accuracy"] > alone["smiling"]["accuracy"] - 0.1
    assert set(read_table(results / "parts/dataset.parquet", "parts")["part"]) == {"salient"}
    segmenter = json.loads((results / "models/segmenter.json").read_text())
    assert segmenter == {"n": 0, "intersection_over_union": {}, "mean": None}
    assert len(read_table(results / "swaps/dataset/0.candidates.parquet", "candidates")) > 0
    assert set(read_table(results / wanted[1], "scores").columns) == {"image_id", "Smiling", "Male"}
    assert count_images([results / wanted[0]]) > 0


@pytest.mark.parametrize("example", sorted(path.name for path in (REPOSITORY / "config/examples").glob("*.yaml")))
def test_every_example_can_be_planned(sources: Run, tmp_path: Path, example: str) -> None:
    run = sources.copy(tmp_path / "run")
    churches = [f"church/{kind}_{sky}" for kind in ("tower", "plain") for sky in ("clear", "overcast")]
    for folder in ("faces", "photos", "celeba", "CelebAMask-HQ", "ffhq", "UTKFace", "face-parsing", *churches):
        (run.folder / "data" / folder).mkdir(parents=True)
    for name in ("faces", "photos"):
        (run.folder / f"data/{name}.csv").write_text("image,smiling,long_hair\n")
    (run.folder / "data/segformer-b5-ade").mkdir()
    (run.folder / "data/utkface-race.csv").write_text("image,female,white,split\n")
    shutil.copytree(REPOSITORY / "resources/avatars-64", run.folder / "resources/avatars-64")
    for name in ("celeba/identity_CelebA.txt", "resnet18-f37072fd.pth", "resnet50-0676ba61.pth"):
        (run.folder / "data" / name).touch()
    (run.folder / "data/ffhq-labels.csv").write_text("image_number,smiling,male\n")
    (run.folder / "data/ffhq/ffhq-dataset-v2.json").write_text("{}")
    (run.folder / "data/celeba/list_eval_partition.txt").touch()
    rules = {rule for rule, _ in jobs_of(run.snakemake("-n", config=f"config/examples/{example}"))}
    assert {"prepare_dataset", "train_detector", "swap_parts", "write_report"} <= rules
    classical = ("photos-laptop.yaml", "utkface-race.yaml")
    without = ("celeba-blond.yaml", "avatars-progan.yaml", "avatars-joint.yaml")
    not_retrained = {"retrain_generator"} if example in without else set()
    others = {"train_segmenter", "compare_with_renderings"}
    of_gans = OF_NETWORKS - others - not_retrained
    assert rules & OF_NETWORKS - others == (set() if example in classical else of_gans)
    assert ("compare_with_renderings" in rules) == example.startswith("avatars")
    published = {"celebahq-progan.yaml", "church-progan.yaml", "ffhq-stylegan2.yaml"}
    assert ("fetch_published" in rules) == (example in published)
    assert ("train_segmenter" in rules) == (example not in ("custom-folder.yaml", *classical))
