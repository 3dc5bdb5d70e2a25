"""Specifications of jobs in the body of a request, with the data sets that people have uploaded."""

from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import Body
from fastapi.exceptions import RequestValidationError
from pydantic import PlainValidator, ValidationError

from ml.specs import Spec, TrainSpec, TuneSpec
from worker.database.engine import Database
from worker.uploaded_datasets import dataset_info

S = TypeVar("S", bound=Spec)


def _as_sent(body: Any) -> Any:
    return body


# Bodies that are documented as specifications, and checked by `checked`.
TrainBody = Annotated[Any, Body(), PlainValidator(_as_sent, json_schema_input_type=TrainSpec)]
TuneBody = Annotated[Any, Body(), PlainValidator(_as_sent, json_schema_input_type=TuneSpec)]


def checked(kind: type[S], body: Any, database: Database) -> S:
    """Check a body as FastAPI does, with the data sets of the database, which FastAPI does not know.

    Raises:
        RequestValidationError: if a value has the wrong type or range.
        SpecError: if a value does not fit the network, the data set or the sampler.
    """
    try:
        with database.reading() as session:
            return kind.of(body, partial(dataset_info, session))
    except ValidationError as error:
        problems: list[dict[str, Any]] = [dict(problem) for problem in error.errors(include_url=False)]
        for problem in problems:
            problem["loc"] = ("body", *problem["loc"])
        raise RequestValidationError(problems, body=body) from None
