"""The identity loss is the cosine distance of embeddings, by TorchScript and ONNX alike, and gradients pass."""

from __future__ import annotations

import sys

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pipeline_lib.config import IdentityLoss
from pipeline_lib.networks.identity import Identity
from pipeline_lib.runtime.errors import WeightsError

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")
A, B = torch.rand(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def embedding():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.PReLU(4), torch.nn.Flatten(), torch.nn.Linear(4 * 8 * 8, 5)
    ).eval()


def write_script(embedding, path):
    torch.jit.save(torch.jit.trace(embedding, torch.zeros(2, 3, 8, 8)), path)
    return path


def write_onnx(embedding, path):
    conv, prelu, _, linear = embedding
    values = {
        "w": conv.weight,
        "b": conv.bias,
        "slope": prelu.weight.view(4, 1, 1),
        "m": linear.weight,
        "c": linear.bias,
    }
    nodes = [
        helper.make_node("Conv", ["images", "w", "b"], ["x1"], pads=[1, 1, 1, 1]),
        helper.make_node("PRelu", ["x1", "slope"], ["x2"]),
        helper.make_node("Flatten", ["x2"], ["x3"]),
        helper.make_node("Gemm", ["x3", "m", "c"], ["vectors"], transB=1),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["n", 3, 8, 8]), ("vectors", ["n", 5]))
    ]
    weights = [numpy_helper.from_array(value.detach().numpy(), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "embedding", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize(("write", "name"), [(write_script, "face.pt"), (write_onnx, "face.onnx")])
def test_the_distance_is_one_minus_the_cosine_of_what_the_network_sees(tmp_path, embedding, write, name):
    square = {"top": 0.25, "left": 0.5, "side": 0.5}
    settings = IdentityLoss(path=write(embedding, tmp_path / name), crop=square, side=8, mean=[0.5] * 3, std=[0.25] * 3)
    identity = Identity(settings)
    vectors = [embedding(2 * image[..., 4:12, 8:16]) for image in (A, B)]
    a = A.clone().requires_grad_()
    found = identity(a, B)
    torch.testing.assert_close(found, 1 - torch.nn.functional.cosine_similarity(*vectors))
    torch.testing.assert_close(identity(A, A), torch.zeros(3), atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad(found.sum(), a)
    assert gradient[..., 4:12, 8:16].abs().max() > 0
    assert gradient[..., :4, :].abs().max() == 0


def test_a_network_that_embeds_nothing_is_refused(tmp_path, embedding):
    with pytest.raises(WeightsError, match=r"face.pt: does not run on images of 12 pixels"):
        Identity(IdentityLoss(path=write_script(embedding, tmp_path / "face.pt"), side=12))
    with pytest.raises(WeightsError, match=r"flat.pt: outputs \(2, 4, 8, 8\) for two images"):
        Identity(IdentityLoss(path=write_script(embedding[:2], tmp_path / "flat.pt"), side=8))
    for name, complaint in (
        ("text.pt", "neither TorchScript nor named .onnx"),
        ("text.onnx", "cannot be converted to"),
    ):
        (tmp_path / name).write_text("no network")
        with pytest.raises(WeightsError, match=rf"{name}: {complaint}"):
            Identity(IdentityLoss(path=tmp_path / name, side=8))


def test_a_missing_package_is_named_with_its_mend(tmp_path, embedding, monkeypatch):
    path = write_onnx(embedding, tmp_path / "face.onnx")
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    with pytest.raises(WeightsError, match=r"pip install latent-rebalance\[identity\]"):
        Identity(IdentityLoss(path=path, side=8))
