"""The body of an answer to `/predict`, as JSON bytes."""

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any

import orjson

from api.inputs.options import Options
from api.inputs.pixels import InputImages
from api.prediction.batch_result import BatchSlice
from api.prediction.served import Served


def response(
    served: Served,
    images: InputImages,
    predicted: BatchSlice,
    options: Options,
    saliency: list[list[float]] | None = None,
) -> bytes:
    """Return the answer to a request.

    Args:
        served: the version that predicted.
        images: the images of the request; some of a list may be unusable.
        predicted: the predictions for the usable ones.
        options: what the request asked for.
        saliency: of a single image, if it is to be explained.
    """
    if images.several:
        answer = _several(served, images, predicted, options)
    elif options.top_k is None and images.reports is None:
        answer = _plain(served, images, predicted)
    else:
        (answer,) = _predictions(served, images, predicted, options)
    if saliency is not None:
        answer["saliency"] = saliency
    # All answers of a version end with the same origin: its bytes are made once, and replace the closing brace.
    return orjson.dumps(answer)[:-1] + served.origin


def _several(served: Served, images: InputImages, predicted: BatchSlice, options: Options) -> dict[str, Any]:
    """Return the answer for a list of images, with an error in the place of each unusable one."""
    if options.top_k == 1 and images.reports is None:
        usable = _labels(served, predicted)
    else:
        usable = _predictions(served, images, predicted, options)
    if not images.errors:
        return {"predictions": list(usable)}
    places = range(images.count)
    return {"predictions": [{"error": images.errors[i]} if i in images.errors else next(usable) for i in places]}


def _predictions(
    served: Served, images: InputImages, predicted: BatchSlice, options: Options
) -> Iterator[dict[str, Any]]:
    shown = _top(served, predicted, options.top_k) if options.top_k else _all(predicted)
    reports: Iterable[dict[str, Any] | None] = images.reports or repeat(None, len(predicted))
    for label, probabilities, scale, report in zip(
        _labels(served, predicted), shown, images.scales, reports, strict=True
    ):
        prediction = label | probabilities
        prediction["scale"] = scale
        if report is not None:
            prediction["input_report"] = report
        yield prediction


def _plain(served: Served, images: InputImages, predicted: BatchSlice) -> dict[str, Any]:
    """Return the prediction for one image without options, the most frequent request: no generator and no slice."""
    batch, place = predicted.batch, predicted.start
    label, reason, probabilities = batch.labels[place], batch.reasons[place], batch.rounded[place]
    return {
        "label": served.labels[label],
        "digit": served.digits[label],
        "confidence": probabilities[label],
        "abstained": reason is not None,
        "reason": reason,
        "probabilities": probabilities,
        "scale": images.scales[0],
    }


def _labels(served: Served, predicted: BatchSlice) -> Iterator[dict[str, Any]]:
    labels, digits = served.labels, served.digits
    for label, confidence, reason in zip(predicted.labels, predicted.confidences, predicted.reasons, strict=True):
        yield {
            "label": labels[label],
            "digit": digits[label],
            "confidence": confidence,
            "abstained": reason is not None,
            "reason": reason,
        }


def _all(predicted: BatchSlice) -> Iterator[dict[str, Any]]:
    for probabilities in predicted.rounded:
        yield {"probabilities": probabilities}


def _top(served: Served, predicted: BatchSlice, count: int) -> Iterator[dict[str, Any]]:
    for probabilities in predicted.rounded:
        best = sorted(range(len(probabilities)), key=lambda label: -probabilities[label])[:count]
        yield {"top": [{"label": served.labels[label], "probability": probabilities[label]} for label in best]}
