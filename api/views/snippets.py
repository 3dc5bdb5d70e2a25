"""Shell and Python snippets that load a version; they run as printed."""

import json
from urllib.parse import quote

from api.views.markdown import fence
from api.views.versions import file_name
from worker.database.tables import Artifact, ModelVersion

FETCH = """
curl -fsS "$CHIFFRE_URL/models/{model}/versions/{version}/onnx" -o {graph}
curl -fsS "$CHIFFRE_URL/models/{model}/versions/{version}/checkpoint" -o {weights}
echo "{onnx.sha256}  {graph}" | sha256sum --check
echo "{checkpoint.sha256}  {weights}" | sha256sum --check
"""
RUN = """
import numpy as np
import onnxruntime

classes = {classes}
session = onnxruntime.InferenceSession("{graph}")
pixels = np.zeros({batch}, np.float32)
(outputs,) = session.run(["outputs"], {{"pixels": pixels}})
powers = np.exp((outputs - outputs.max(1, keepdims=True)) / {temperature})
probabilities = powers / powers.sum(1, keepdims=True)
print(classes[probabilities[0].argmax()], probabilities[0].max())
"""
READ = """
from safetensors import safe_open

with safe_open("{weights}", framework="numpy") as file:
    card = file.metadata()["chiffre"]
    weights = {{name: file.get_tensor(name) for name in file.keys()}}
print(card, {{name: array.shape for name, array in weights.items()}})
"""


def loading(version: ModelVersion, checkpoint: Artifact, onnx: Artifact) -> str:
    """Return Markdown with snippets that download a version's files, run its graph and read its weights."""
    graph, weights = file_name(version, "onnx"), file_name(version, "safetensors")
    fetch = FETCH.format(
        model=quote(version.model, safe=""),
        version=version.version,
        graph=graph,
        weights=weights,
        checkpoint=checkpoint,
        onnx=onnx,
    )
    run = RUN.format(
        classes=json.dumps(version.classes),
        graph=graph,
        batch=(1, *version.shape),
        temperature=(version.calibration or {}).get("temperature", 1.0),
    )
    return "\n\n".join(
        (
            "Download both files and check their hashes. `CHIFFRE_URL` is the API's address, such as "
            "`http://127.0.0.1:8000`:",
            fence("sh", fetch),
            "Run the graph. It takes float32 pixels from 0 to 1 (here one black image) and returns one output per "
            "class:",
            fence("python", run),
            "Read the checkpoint. It holds the weights by name, and a JSON description of the layers:",
            fence("python", READ.format(weights=weights)),
        )
    )
