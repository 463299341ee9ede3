"""Exports a classifier to ONNX, and checks the file against torch before anybody gets it."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import torch

from gmp_atl_dist.audio import MIN_SAMPLES, SAMPLE_RATE_HZ
from gmp_atl_dist.errors import ConfigError, ModelError
from gmp_atl_dist.exchange.onnx_model import OnnxClassifier
from gmp_atl_dist.models.emotion import EmotionModel

OPSET = 18
TOLERANCE = 1e-4
"""Largest difference of a probability, and of a logit divided by the largest possible one."""
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_LENGTHS = (MIN_SAMPLES, MIN_SAMPLES + 1, 3_000, SAMPLE_RATE_HZ, 5 * SAMPLE_RATE_HZ + 123)
_EXAMPLE = (2, SAMPLE_RATE_HZ)


def check_installed() -> None:
    """Raises ConfigError if the extra ``onnx`` is not installed."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--format onnx needs {', '.join(missing)}; install them: pip install 'gmp_atl_dist[onnx]'"
        )


def onnx_bytes(model: EmotionModel, metadata: Mapping[str, str]) -> bytes:
    """``model.onnx``: inputs ``wave`` (batch, samples) and ``num_samples`` (batch,), both axes dynamic.

    ``wave`` is float32, 16 kHz mono in [-1, 1), padded with anything behind ``num_samples``. Outputs are
    ``logits`` and ``probabilities``, both (batch, emotions).

    Raises:
        ModelError: torch cannot export the model, or onnxruntime computes something else than torch.
    """
    import onnx

    graph = OnnxClassifier(model).eval()
    model.backbone.set_attn_implementation("eager")
    wave_BN = torch.zeros(_EXAMPLE)
    num_samples_B = torch.tensor([_EXAMPLE[1], _EXAMPLE[1] // 2])
    batch = torch.export.Dim("batch", min=1, max=4096)
    samples = torch.export.Dim("samples", min=MIN_SAMPLES, max=1 << 24)
    try:
        with _quiet():
            program = torch.onnx.export(
                graph,
                (wave_BN, num_samples_B),
                dynamo=True,
                opset_version=OPSET,
                input_names=["wave", "num_samples"],
                output_names=["logits", "probabilities"],
                dynamic_shapes=({0: batch, 1: samples}, {0: batch}),
                verbose=False,
            )
    except Exception as e:
        raise ModelError(
            f"torch cannot export this model to ONNX ({type(e).__name__}: {str(e).splitlines()[0]}); export "
            f"it for transformers instead"
        ) from e
    assert program is not None, "with dynamo=True torch returns the program"
    proto = program.model_proto
    _anonymise(proto)
    described = {
        "emotions": json.dumps(list(model.config.emotions)),
        "sample_rate_hz": str(SAMPLE_RATE_HZ),
        "min_samples": str(MIN_SAMPLES),
        "opset": str(OPSET),
        **metadata,
    }
    onnx.helper.set_model_props(proto, described)
    data = proto.SerializeToString()
    _check(data, graph)
    return data


def _anonymise(proto: Any) -> None:
    """Remove what names files of this machine: the exporter keeps a stack trace with each node."""
    graphs = [proto.graph, *proto.functions]
    for graph in graphs:
        for one in (graph, *graph.node, *graph.value_info):
            del one.metadata_props[:]
            one.doc_string = ""
    for one in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del one.metadata_props[:]
        one.doc_string = ""
    del proto.metadata_props[:]
    proto.doc_string = ""


def _check(data: bytes, graph: OnnxClassifier) -> None:
    """Raises ModelError if onnxruntime and torch differ, for single clips and for a padded batch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    waves = [(0.1 * random.standard_normal(n)).astype(np.float32) for n in _LENGTHS]
    padded = np.zeros((len(waves), max(_LENGTHS)), np.float32)
    for row, wave in zip(padded, waves, strict=True):
        row[: len(wave)] = wave
    cases = [(wave[None], np.array([len(wave)])) for wave in waves]
    cases.append((padded, np.array(_LENGTHS)))
    for wave_BN, num_samples_B in cases:
        found = session.run(None, {"wave": wave_BN, "num_samples": num_samples_B})
        with torch.inference_mode():
            # The model itself, not the graph that was exported.
            logits_BK = graph.model(torch.from_numpy(wave_BN), torch.from_numpy(num_samples_B))
        expected = (logits_BK.numpy(), logits_BK.softmax(-1).numpy())
        scale = max(1.0, float(getattr(graph.model.config, "am_scale", 1.0)))
        worst = max(
            float(np.abs(np.asarray(found[0]) - expected[0]).max()) / scale,
            float(np.abs(np.asarray(found[1]) - expected[1]).max()),
        )
        if not worst <= TOLERANCE:
            raise ModelError(
                f"onnxruntime {onnxruntime.__version__} and torch {torch.__version__} differ by {worst:.2g} "
                f"on a batch of {len(wave_BN)} with {wave_BN.shape[1]} samples; nothing was written"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its steps and warns of its own deprecations."""
    names = ("torch.onnx", "onnxscript", "onnx_ir")
    before = [logging.getLogger(name).level for name in names]
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in zip(names, before, strict=True):
            logging.getLogger(name).setLevel(level)
