"""The scoring engine: the same scores whatever the batch, the portion, the memory or what was kept before."""

from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from synthetic_ward import Ward, catalogue, ward
from test_training import TINY

from modelling.batches import Modality, fit_encoding, prepare
from modelling.batches.ahead import ahead
from modelling.batches.arrays import read_array
from modelling.errors import ArrayUnreadableError
from modelling.models import build_model
from modelling.models.encoders import ImageResNet
from modelling.registry.folder import ModelFolder
from modelling.scoring import ScoringModel, score_samples
from modelling.scoring.encoders import Encoders
from modelling.scoring.model import scoring_model
from modelling.training.calibrate import Calibration, risk_thresholds


@pytest.fixture(scope="module")
def stays(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return ward(tmp_path_factory.mktemp("engine"), n=60, seed=31, pixels=40, values=4, ehr_share=0.9)


def fresh_model(stays: Ward, name: str = "medfuse", device: str = "cpu", **settings) -> ScoringModel:
    """Return a model with random weights: what is tested here does not depend on what it learnt."""
    encoding = fit_encoding(
        samples=stays.samples,
        encounters=stays.encounters,
        events=stays.events,
        recordings=stays.recordings,
        catalogue=catalogue(),
        settings=TINY.encoding,
    )
    torch.manual_seed(5)
    chosen = settings or dict(TINY.model)
    network = build_model(name, encoding, chosen).eval()
    with torch.no_grad():  # BatchNorm as after training, so that embeddings are neither zero nor huge
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    folder = ModelFolder(
        path=Path("fresh"),
        digest="0" * 64,
        config={
            "encoding": encoding.to_dict(),
            "model": name,
            "model_settings": chosen,
            "calibration": Calibration(temperature=0.5).to_dict(),
            "thresholds": risk_thresholds(np.linspace(0.01, 0.99, 50)),
            "task": "mortality",
            "horizon_hours": 48.0,
        },
        card={"name": name, "version": "1"},
        weights=network.state_dict(),
    )
    return scoring_model(folder, device=device)


@pytest.fixture
def model(stays: Ward) -> ScoringModel:
    return fresh_model(stays)


def score(model: ScoringModel, stays: Ward, **changes) -> pl.DataFrame:
    return score_samples(model, **{**stays.tables(), **changes}, site="ward-1")[0]


def test_batches_of_one_and_of_512_give_the_same_scores(model: ScoringModel, stays: Ward) -> None:
    large = score(model, stays, max_samples=512)
    assert large["probability"].n_unique() > 30
    assert_frame_equal(large, score(model, stays, max_samples=1), check_exact=True)
    assert_frame_equal(large, score(model, stays, token_budget=100, portion=7), check_exact=True)


def test_lazy_tables_are_read_a_portion_at_a_time(model: ScoringModel, stays: Ward, tmp_path: Path) -> None:
    names = ("encounters", "events", "recordings", "images")
    for name in names:
        getattr(stays, name).sort("subject_id").write_parquet(tmp_path / f"{name}.parquet", row_group_size=50)
    lazy = {name: pl.scan_parquet(tmp_path / f"{name}.parquet") for name in names}
    assert_frame_equal(score(model, stays), score(model, stays, **lazy, portion=9), check_exact=True)


def test_an_embedding_does_not_depend_on_its_neighbours() -> None:
    """At the paper's size: one shape, one order of sums, the same bits."""
    torch.manual_seed(0)
    resnet = ImageResNet((3, 4, 6, 3), 64, 0.449, 0.226).eval()

    class Network:
        embed_images = staticmethod(resnet)

    encoders = Encoders(network=Network(), device="cpu", digests={}, batch={Modality.CXR: 4})
    images = torch.randint(0, 255, (6, 224, 224), dtype=torch.uint8)
    with torch.inference_mode():
        all_six = encoders.encode(images, Modality.CXR)
        order = torch.tensor([5, 0, 3, 1, 4, 2])
        assert torch.equal(all_six[order], encoders.encode(images[order], Modality.CXR))
        assert torch.equal(all_six[5:], encoders.encode(images[5:], Modality.CXR))
        alone = resnet(images[5:].unsqueeze(1))
    assert torch.allclose(all_six[5:], alone, rtol=1e-3, atol=1e-5) and all_six.std() > 0


def counted(model: ScoringModel, monkeypatch: pytest.MonkeyPatch) -> dict[Modality, int]:
    counts = {Modality.ECG: 0, Modality.CXR: 0}
    encode = Encoders.encode

    def counting(self, items, modality):
        counts[modality] += len(items)
        return encode(self, items, modality)

    monkeypatch.setattr(Encoders, "encode", counting)
    return counts


def test_an_item_is_encoded_once_a_night(
    model: ScoringModel, stays: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = counted(model, monkeypatch)
    later = stays.samples.with_columns(pl.col("prediction_time") + timedelta(minutes=30))
    twice = pl.concat([stays.samples, later])
    first = score(model, stays, samples=twice, embeddings=tmp_path, portion=10)
    latest_recordings = stays.recordings["subject_id"].n_unique()
    assert counts == {Modality.ECG: latest_recordings, Modality.CXR: stays.images.height}
    assert latest_recordings < stays.recordings.height  # MedFuse reads the latest only
    # Another task of the same night: nothing is encoded again, and nothing is read.
    second = stays.samples.with_columns(pl.lit("another").alias("task"))
    again = score(model, stays, samples=second, embeddings=tmp_path, run_folder=tmp_path / "gone")
    assert counts == {Modality.ECG: latest_recordings, Modality.CXR: stays.images.height}
    same = first.filter(pl.col("prediction_time").is_in(stays.samples["prediction_time"].implode()))
    assert again["probability"].to_list() == same["probability"].to_list()
    # A damaged part is computed again; other weights never meet these embeddings.
    for path in tmp_path.rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:100])
    assert_frame_equal(score(model, stays, embeddings=tmp_path), score(model, stays), check_exact=True)
    (tmp_path / "a file").touch()
    blocked = score(
        model, stays, embeddings=tmp_path / "a file"
    )  # no place to keep them: scored all the same
    assert_frame_equal(blocked, score(model, stays), check_exact=True)
    other = replace(TINY, model={**TINY.model, "image_width": 8})
    digests = fresh_model(stays, **other.model).encoders.digests
    assert digests[Modality.CXR] != model.encoders.digests[Modality.CXR]


def test_only_the_encoders_of_what_is_there_and_used_run(
    model: ScoringModel, stays: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = counted(model, monkeypatch)
    score(model, stays, images=stays.images.clear())
    assert counts[Modality.CXR] == 0 < counts[Modality.ECG]
    records_only = fresh_model(stays, "mufuse", width=8, value_width=8, inner=8)
    assert records_only.encoders is None
    there = score(
        records_only, stays, run_folder=Path("/nonexistent")
    )  # a model that reads no array needs none
    assert there.height == stays.events["subject_id"].n_unique()


def test_out_of_memory_halves_the_batch(
    model: ScoringModel, stays: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = score(model, stays)
    run, forward = Encoders._run, type(model.network).forward
    sizes: list[int] = []

    def small_encoder(self, items, modality):
        if len(items) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, items, modality)

    def small_network(self, batch):
        sizes.append(len(batch))
        if batch.feature.numel() > 150:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, batch)

    monkeypatch.setattr(Encoders, "_run", small_encoder)
    monkeypatch.setattr(type(model.network), "forward", small_network)
    scores = score(model, stays)
    assert model.encoders.batch == {Modality.ECG: 2, Modality.CXR: 2} and max(sizes) > 20
    assert scores["encounter_id"].to_list() == clean["encounter_id"].to_list()
    assert np.allclose(scores["probability"], clean["probability"], atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_cpu_computes_and_the_score_says_so(
    stays: Ward, caplog: pytest.LogCaptureFixture
) -> None:
    scores = score(fresh_model(stays, device="cuda:0"), stays)
    assert scores["computed_on"].unique().to_list() == ["cpu"]
    assert "no GPU is available" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_cpu_and_gpu_agree(stays: Ward) -> None:
    cpu = score(fresh_model(stays), stays)
    gpu_model = fresh_model(stays, device="cuda:0")
    gpu = score(gpu_model, stays)
    assert gpu["computed_on"].unique().to_list() == ["cuda:0"]
    assert gpu["encounter_id"].to_list() == cpu["encounter_id"].to_list()
    assert np.allclose(gpu["probability"], cpu["probability"], atol=0.01)  # the encoders' bfloat16
    one = score(gpu_model, stays, max_samples=1)
    assert np.allclose(gpu["probability"], one["probability"], atol=1e-4)


def test_training_and_scoring_embed_alike(model: ScoringModel, stays: Ward) -> None:
    """Embeddings through the reader are those that the network itself would compute from the same arrays."""
    dataset = prepare(**stays.tables(), encoding=model.encoding, latest_only=True)
    assert dataset.signals.shape[0] == stays.recordings["subject_id"].n_unique()
    with torch.inference_mode():
        mine = model.encoders.encode(dataset.signals, Modality.ECG)
        network = model.network.embed_signals(dataset.signals.double())
    assert torch.allclose(mine.double(), network, atol=1e-4) and mine.std() > 0


def test_work_ahead_keeps_order_raises_and_stops() -> None:
    drawn: list[int] = []

    def numbers(limit: int):
        for number in range(limit):
            drawn.append(number)
            yield number
        raise ValueError("the end of the road")

    received = []
    with pytest.raises(ValueError, match="end of the road"):
        for number in ahead(numbers(20), depth=2):
            received.append(number)
    assert received == list(range(20))
    drawn.clear()
    for number in ahead(numbers(1000), depth=2):
        if number == 3:
            break
    time.sleep(0.2)
    assert len(drawn) < 10


def test_arrays_are_mapped_checked_and_never_unpickled(tmp_path: Path) -> None:
    def saved(array: np.ndarray) -> tuple[Path, str]:
        np.save(tmp_path / "a.npy", array)
        return tmp_path / "a.npy", sha256((tmp_path / "a.npy").read_bytes()).hexdigest()

    columns = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    found = read_array(*saved(columns))
    assert np.array_equal(found, columns) and not found.flags.writeable
    with pytest.raises(ArrayUnreadableError, match="not a plain array"):
        read_array(*saved(np.array([{"a": 1}], dtype=object)))
    for array in (np.float64(3.5), np.zeros(3, dtype="<i2"), np.zeros((0, 4), dtype=bool)):
        found = read_array(*saved(np.asarray(array)))
        assert found.dtype == array.dtype and np.array_equal(found, array)
    for array in (np.zeros(2, dtype=[("a", "i4")]), np.array(["a"]).astype("O")):
        with pytest.raises(ArrayUnreadableError, match="not a plain array"):
            read_array(*saved(array))
    path, _ = saved(columns)
    with pytest.raises(ArrayUnreadableError, match="changed"):
        read_array(path, "0" * 64)
    for content in (b"", path.read_bytes()[:-4], b"text"):
        path.write_bytes(content)
        with pytest.raises(ArrayUnreadableError):
            read_array(path, sha256(content).hexdigest())


def test_threads_read_arrays_beside_each_other(tmp_path: Path) -> None:
    """CPython < 3.11.8 parses literals in one thread at a time: a collection of garbage amid it shows that."""
    np.save(tmp_path / "a.npy", np.zeros((40, 56), dtype=np.uint8))
    digest = sha256((tmp_path / "a.npy").read_bytes()).hexdigest()

    def let_others_run(phase: str, info: dict[str, int]) -> None:
        time.sleep(1e-5)

    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()  # or each of the many collections below goes through all that the other tests left
    gc.callbacks.append(let_others_run)
    gc.set_threshold(7)
    try:
        with ThreadPoolExecutor(4) as pool:
            shapes = list(pool.map(lambda _: read_array(tmp_path / "a.npy", digest).shape, range(8000)))
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(let_others_run)
        gc.unfreeze()
    assert shapes == [(40, 56)] * 8000


def _leave_free(megabytes: int) -> None:
    """Let this process take so much more of the GPU and no more, so that its allocator refuses in earnest."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + megabytes * 2**20) / total)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_a_full_gpu_halves_the_batches_of_the_encoder() -> None:
    torch.manual_seed(0)
    resnet = ImageResNet((1, 1, 1, 1), 64, 0.449, 0.226).eval().to("cuda:0")

    class Network:
        embed_images = staticmethod(resnet)

    def encoders() -> Encoders:
        return Encoders(network=Network(), device="cuda:0", digests={}, batch={Modality.CXR: 128})

    images = torch.randint(0, 255, (200, 224, 224), dtype=torch.uint8)
    with torch.inference_mode():
        clean = encoders().encode(images, Modality.CXR)
        crowded = encoders()
        try:
            _leave_free(150)  # the first layer alone makes 205 MB of 128 images
            halved = crowded.encode(images, Modality.CXR)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert crowded.batch[Modality.CXR] < 128
    assert torch.allclose(halved, clean, rtol=0.05, atol=0.02) and clean.std() > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_a_full_gpu_halves_the_batches_of_the_network(tmp_path: Path) -> None:
    long_stays = ward(
        tmp_path, n=48, seed=7, values=200, ecg_share=0.0, image_share=0.0
    )  # about 800 values each
    model = fresh_model(long_stays, "mufuse", device="cuda:0", width=256, value_width=256, inner=1024)
    clean = score(model, long_stays, explain=False)
    sizes: list[int] = []
    model.network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    try:
        _leave_free(60)
        crowded = score(model, long_stays, explain=False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert crowded["encounter_id"].to_list() == clean["encounter_id"].to_list()
    assert np.allclose(crowded["probability"], clean["probability"], atol=1e-3)
    assert min(sizes) <= max(sizes) / 2 and len(sizes) > 2
