"""Bases for images: what they load, what they make of an image, and which are refused."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    ViTImageProcessor,
)

from bitswitch.base.depth import lower
from bitswitch.base.faults import BaseError
from bitswitch.base.features import features, layer, recipe
from bitswitch.base.heads import Heads
from bitswitch.base.load import load
from bitswitch.core import InputLimits, Want
from bitswitch.errors import InputTooLongError, InvalidRequestError
from bitswitch_store.checkpoint import Checkpoint
from bitswitch_store.match import head_of, match
from tiny import IMAGE_FAMILIES, data_url, make_finetune, make_image_base, picture

IMAGES = [picture(1), picture(2, (40, 20)), picture(3, (16, 16), "L")]
URLS = [data_url(image) for image in IMAGES]


@pytest.fixture(scope="module", params=IMAGE_FAMILIES)
def folder(request, tmp_path_factory):
    return make_image_base(tmp_path_factory.mktemp(request.param) / "base", request.param)


@pytest.fixture(scope="module")
def base(folder):
    return load(folder)


def pixels(folder):
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    return processor([image.convert("RGB") for image in IMAGES], return_tensors="pt")["pixel_values"]


def test_a_pass_is_the_librarys(base, folder):
    rows = base.encode(URLS, want=Want.CLASSIFY)
    theirs = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = theirs(pixel_values=pixels(folder)).last_hidden_state
    ours = base.forward(rows).output["last_hidden_state"]
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)
    assert [row.length for row in rows] == [expected.shape[1]] * 3
    assert base.encoder.guess(URLS) == sum(row.length for row in rows)


def test_every_weight_of_the_file_can_be_switched(base, folder):
    checkpoint = Checkpoint.open(folder)
    assert set(base.parameters) == set(checkpoint.names)
    for name, parameter in base.parameters.items():
        np.testing.assert_array_equal(parameter.numpy(), checkpoint.tensor(name))


def test_a_head_answers_as_the_library_does(base, folder, tmp_path):
    finetune = make_finetune(tmp_path, folder, ("cat", "dog", "owl"), touched=0.0)
    checkpoint = Checkpoint.open(finetune)
    paired = match(Checkpoint.open(folder), checkpoint)
    head = Heads(base).build(head_of(checkpoint, paired.head))
    theirs = AutoModelForImageClassification.from_pretrained(finetune).eval()
    with torch.inference_mode():
        expected = theirs(pixel_values=pixels(folder)).logits.softmax(-1)
    ours = head(base.forward(base.encode(URLS, want=Want.CLASSIFY)))
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


def test_features_come_of_a_lower_pass(base):
    rows = base.encode(URLS, want=Want.FEATURES)
    assert base.lower is not None
    half, whole = features(base, base.forward_lower(rows), rows), features(base, base.forward(rows), rows)
    assert torch.equal(half, whole)
    state = base.forward(rows).output["hidden_states"][layer(base)]
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(half, unit(unit(state.mean(1)) + unit(state[:, 0])))
    assert recipe(base) == "hidden:1|mean+first|l2"
    assert lower(base.model, 2, base.pad(rows)) is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_take_halves(tmp_path, dtype):
    base = load(make_image_base(tmp_path), dtype=dtype)
    hidden = base.forward(base.encode(URLS, want=Want.CLASSIFY))
    assert hidden.fields["pixel_values"].dtype == getattr(torch, dtype)
    assert hidden.output["last_hidden_state"].dtype == getattr(torch, dtype)


def test_all_pixels_of_a_request_are_counted_before_any_is_decoded(tmp_path, monkeypatch):
    make_image_base(tmp_path)
    base = load(tmp_path, limits=InputLimits(image_pixels=800, request_pixels=24 * 20 + 40 * 20 + 16 * 16))
    assert len(base.encode(URLS, want=Want.CLASSIFY)) == 3
    monkeypatch.setattr("bitswitch.base.picture.Picture.rgb", lambda _: pytest.fail("decoded"))
    for images, says in (
        ([*URLS, data_url(picture(4, (1, 1)))], "1537 pixels together; .* at most 1536"),
        ([URLS[0], data_url(picture(4, (801, 9)))], "Input 1 .* more than 800 pixels"),
    ):
        with pytest.raises(InputTooLongError, match=says):
            base.encode(images, want=Want.CLASSIFY)


def test_an_encoder_checks_before_it_decodes(tmp_path):
    encoder = load(make_image_base(tmp_path), limits=InputLimits(image_bytes=1024)).encoder
    encoder.check(URLS, want=Want.CLASSIFY)
    for inputs, want, error, says in (
        ([("a", "b")], Want.CLASSIFY, InvalidRequestError, "Input 0 is a pair"),
        ([URLS[0], "who is it?"], Want.FEATURES, InvalidRequestError, "Input 1 is no image; .* base64"),
        (URLS, Want.EMBED, InvalidRequestError, "Embeddings are of texts"),
        (["data:image/png;base64," + "A" * 4096], Want.CLASSIFY, InputTooLongError, "more than 1024 bytes"),
    ):
        with pytest.raises(error, match=says):
            encoder.check(inputs, want=want)


def test_a_base_of_texts_refuses_images(bert):
    bert.encoder.check(["data:image/png is a media type"], want=Want.CLASSIFY)
    for image in (URLS[0], URLS[0].partition(",")[2], ("a", URLS[0])):
        with pytest.raises(InvalidRequestError, match=r"Input 1 is an image; .* reads texts"):
            bert.encoder.check(["a", image], want=Want.CLASSIFY)


def test_a_processor_must_make_one_shape(tmp_path):
    make_image_base(tmp_path, "dinov2")
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_center_crop": False}))
    with pytest.raises(BaseError, match=r"\(3, 20, 30\) of a wide image and \(3, 30, 20\) of a high one"):
        load(tmp_path)


def test_a_processor_must_make_the_models_shape(tmp_path):
    make_image_base(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    with pytest.raises(BaseError, match=r"does not run on what its image processor makes.*32"):
        load(tmp_path)


def test_a_folder_without_a_processor_is_no_base(tmp_path):
    make_image_base(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(BaseError, match="does not load as a base"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("resnet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}),
        (
            "swin",
            {
                "image_size": 16,
                "patch_size": 2,
                "embed_dim": 8,
                "depths": [1, 1],
                "num_heads": [2, 2],
                "window_size": 2,
            },
        ),
    ],
)
def test_what_is_no_vision_transformer_is_no_base(tmp_path, family, sizes):
    model = AutoModel.from_config(AutoConfig.for_model(family, **sizes))
    model.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    with pytest.raises(BaseError, match="is no vision transformer"):
        load(tmp_path)


def test_a_fine_tune_sees_what_its_base_sees(tmp_path):
    from bitswitch_store.checkpoint import CheckpointError

    base = make_image_base(tmp_path / "base")
    finetune = make_finetune(tmp_path / "finetune", base)
    assert match(Checkpoint.open(base), Checkpoint.open(finetune)).head == (
        "classifier.bias",
        "classifier.weight",
    )
    ViTImageProcessor(size=16).save_pretrained(finetune)  # one number: both sides
    match(Checkpoint.open(base), Checkpoint.open(finetune))
    ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.1, 0.2, 0.3]).save_pretrained(finetune)
    with pytest.raises(CheckpointError, match=r"preprocessing is not the base's: image_mean is \[0\.1"):
        match(Checkpoint.open(base), Checkpoint.open(finetune))
