"""The card of a model as ONNX: that of the model, with how to use the file."""

from __future__ import annotations

from gmp_atl_dist.exchange.card_facts import CardFacts
from gmp_atl_dist.exchange.model_card import LOGITS, READ_SAMPLES, render_card


def render_onnx_card(facts: CardFacts, opset: int) -> str:
    """The text of ``README.md`` beside ``model.onnx``."""
    text = render_card(facts)
    before, _, rest = text.partition("## Use\n\n")
    _, mark, after = rest.partition("\n\n## ")
    before = before.replace('library_name: "transformers"', 'library_name: "onnx"', 1)
    return f"{before}{_onnx_use(facts, opset)}{mark}{after}"


def _onnx_use(facts: CardFacts, opset: int) -> str:
    return (
        "## Use\n\n"
        "```python\n"
        "import json\n\n"
        "import numpy as np\n"
        "import onnxruntime\n"
        "import soundfile\n"
        "import soxr\n\n"
        'session = onnxruntime.InferenceSession("FOLDER/model.onnx")\n'
        f"{READ_SAMPLES}"
        'inputs = {"wave": wave[None], "num_samples": np.array([len(wave)])}\n'
        "logits, probabilities = session.run(None, inputs)\n"
        'emotions = json.loads(session.get_modelmeta().custom_metadata_map["emotions"])\n'
        "print(dict(zip(emotions, probabilities[0])))\n"
        "```\n\n"
        f"Classes: {', '.join(facts.emotions)}. The file has opset {opset}. It needs neither torch nor "
        "transformers. Both axes of `wave` are dynamic. Clips of different lengths may be padded: "
        "`num_samples` has the length of each clip, and what lies behind is not read. The waveform is "
        f"normalised inside where the model needs it. Logits are {LOGITS[facts.loss]}. The export compared "
        "all of this with torch."
    )
