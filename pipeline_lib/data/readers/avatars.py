"""The embedded dataset of rendered cartoon faces with known ground truth."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version

from pipeline_lib.data.avatars.settings import AvatarData
from pipeline_lib.data.sources import Item, Record, Source


class Avatars(AvatarData):
    """The embedded dataset of rendered cartoon faces with known ground truth."""

    def open(self) -> Source:
        """List the faces of the training and held-out sets; they are drawn when read."""
        from pipeline_lib.data.avatars.faces import HELD_OUT_FROM, ID, face_of

        def items(indices: range) -> list[Item]:
            names = [f"{ID}{index:08d}" for index in indices]
            return [Item(name, name, face_of(self, name).attributes) for name in names]

        return Source(
            train=items(range(self.images)),
            held_out=items(range(HELD_OUT_FROM, HELD_OUT_FROM + self.held_out)),
            read=partial(_read, self),
            preprocessing=f"rendered by resvg-py {version('resvg-py')}",
            equal_are_copies=False,
        )


def _read(settings: AvatarData, item: Item) -> Record:
    from pipeline_lib.data.avatars.drawing import render_face
    from pipeline_lib.data.avatars.faces import face_of

    return Record(*render_face(face_of(settings, item.image_id), settings.resolution, settings.crop))
