"""What `/predict` answers, as bytes."""

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any

import orjson

from api.inputs.options import Options
from api.inputs.pixels import InputImages
from api.prediction.batch_result import Answered
from api.prediction.served import Served


def single(served: Served, images: InputImages, answered: Answered, options: Options, extra: dict[str, Any]) -> bytes:
    """The answer for one image; `extra` is added to it."""
    if options.top_k is None and images.reports is None:
        prediction = _plain(served, images, answered)
    else:
        (prediction,) = _predictions(served, images, answered, options)
    return _with_origin(orjson.dumps(prediction | extra if extra else prediction), served)


def several(served: Served, images: InputImages, answered: Answered, options: Options) -> bytes:
    """The answers for a list of images, those that could not be used told in their places."""
    if options.top_k == 1 and images.reports is None:
        predictions = _labels(served, answered)
    else:
        predictions = _predictions(served, images, answered, options)
    return _listed(served, images, predictions)


def unusable(served: Served, images: InputImages) -> bytes:
    """The answer for a list of images of which none could be used."""
    return _listed(served, images, iter(()))


def _listed(served: Served, images: InputImages, predictions: Iterator[dict[str, Any]]) -> bytes:
    if images.errors:
        places = range(images.count)
        whole = [{"error": images.errors[i]} if i in images.errors else next(predictions) for i in places]
    else:
        whole = list(predictions)
    return _with_origin(orjson.dumps({"predictions": whole}), served)


def _predictions(served: Served, images: InputImages, answered: Answered, options: Options) -> Iterator[dict[str, Any]]:
    shown = _top(served, answered, options.top_k) if options.top_k else _all(answered)
    reports: Iterable[dict[str, Any] | None] = images.reports or repeat(None, len(answered))
    for label, probabilities, scale, report in zip(
        _labels(served, answered), shown, images.scales, reports, strict=True
    ):
        prediction = label | probabilities
        prediction["scale"] = scale
        if report is not None:
            prediction["input_report"] = report
        yield prediction


def _plain(served: Served, images: InputImages, answered: Answered) -> dict[str, Any]:
    """The answer for one image of which nothing special was asked, as most are: no generator, no slice."""
    batch, place = answered.batch, answered.start
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


def _labels(served: Served, answered: Answered) -> Iterator[dict[str, Any]]:
    labels, digits = served.labels, served.digits
    for label, confidence, reason in zip(answered.labels, answered.confidences, answered.reasons, strict=True):
        yield {
            "label": labels[label],
            "digit": digits[label],
            "confidence": confidence,
            "abstained": reason is not None,
            "reason": reason,
        }


def _all(answered: Answered) -> Iterator[dict[str, Any]]:
    for probabilities in answered.rounded:
        yield {"probabilities": probabilities}


def _top(served: Served, answered: Answered, count: int) -> Iterator[dict[str, Any]]:
    for probabilities in answered.rounded:
        best = sorted(range(len(probabilities)), key=lambda label: -probabilities[label])[:count]
        yield {"top": [{"label": served.labels[label], "probability": probabilities[label]} for label in best]}


def _with_origin(answer: bytes, served: Served) -> bytes:
    """An object's bytes with whose answer it is at its end; made once a version, as it is the same in every answer."""
    return answer[:-1] + served.origin
