"""Random images of the data sets."""

from base64 import b64decode
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from api.deps import LooksDep, UploadedDep
from ml.images.samples import SubsetName

router = APIRouter(prefix="/datasets", tags=["images"])


class ImagePublic(BaseModel):
    """An image of a data set and its label."""

    dataset: str
    part: SubsetName
    index: int = Field(description="position in the data set, from 0")
    label: str
    shape: list[int] = Field(description="channels, height, width")
    pixels: list[int] = Field(description="row by row, 0 to 255; 0 is black")


@router.get("/{name}/images/random")
def random_image(
    name: Annotated[str, Path(max_length=100, description="the data set's name")],
    looks: LooksDep,
    uploaded: UploadedDep,
    part: Annotated[SubsetName, Query(description="subset of the random split")] = "test",
) -> ImagePublic:
    """Return a random image with its label.

    Nothing is measured with the image, so this counts as no opening of the test set.
    """
    dataset = uploaded.find(name)
    found = looks.random(dataset, part)
    return ImagePublic(
        dataset=dataset.name,
        part=part,
        index=found.index,
        label=found.label,
        shape=list(dataset.shape),
        pixels=list(b64decode(found.pixels)),
    )
