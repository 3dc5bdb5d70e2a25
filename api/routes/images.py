"""Images of the data sets, one at a time."""

from base64 import b64decode
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from api.deps import LooksDep, UploadedDep
from ml.images.samples import SubsetName

router = APIRouter(prefix="/datasets", tags=["images"])


class ImagePublic(BaseModel):
    """One image and what it shows."""

    dataset: str
    part: SubsetName
    index: int = Field(description="its number in the data set")
    label: str
    shape: list[int] = Field(description="channels, height, width")
    pixels: list[int] = Field(description="row by row, 0 to 255; 0 is black")


@router.get("/{name}/images/random")
def random_image(
    name: Annotated[str, Path(max_length=100, description="a data set")],
    looks: LooksDep,
    uploaded: UploadedDep,
    part: Annotated[SubsetName, Query(description="of the data set, as the random split divides it")] = "test",
) -> ImagePublic:
    """Show a random image with its label; nothing is measured with it, so no opening of test images is counted."""
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
