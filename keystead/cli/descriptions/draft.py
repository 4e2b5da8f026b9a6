"""A draft of an asset's version, made from a description: what an owner looks over, may edit, and then registers.

A draft decides nothing and proves nothing. It names the description by its digest, which the version's audit record
repeats; the inputs in it are declared, and become declared parents.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from keystead.binding import AssetRef, BindingError
from keystead.cli.asset_kind import Kind
from keystead.cli.descriptions.croissant import parse_croissant
from keystead.cli.descriptions.document import (
    MAX_FILES,
    MAX_ITEMS,
    MAX_LEFT_OUT,
    Description,
    DescriptionError,
    digest_of,
    file_name,
    one_text,
    read_object,
)
from keystead.cli.descriptions.openlineage import parse_openlineage
from sealed.manifest import Manifest

MAX_DRAFT: Final = 64 << 20
"""Bytes of a draft."""


def read_description(data: bytes, *, output: str | None = None) -> Description:
    """Read a description of either kind; its members tell which it is.

    Args:
        data: its bytes.
        output: see `keystead.cli.descriptions.openlineage.parse_openlineage`.

    Raises:
        DescriptionError: it is neither, or a field that is read has another form.
    """
    document = read_object(data)
    if "schemaURL" in document:
        return parse_openlineage(document, digest=digest_of(data), output=output)
    if "@context" in document or "@type" in document:
        if output is not None:
            raise DescriptionError("--output", "belongs to an OpenLineage event; this describes one data set")
        return parse_croissant(document, digest=digest_of(data))
    raise DescriptionError("", "neither Croissant (no @context) nor an OpenLineage event (no schemaURL)")


def _text(value: str) -> str:
    try:
        return one_text(value, "")
    except DescriptionError as error:
        raise ValueError(str(error)) from None


def _name(value: str) -> str:
    try:
        return file_name(value, "")
    except DescriptionError as error:
        raise ValueError(str(error)) from None


def _asset(value: str) -> str:
    if "@" in value:
        raise ValueError("not TENANT/NAME")
    return _ref(f"{value}@1").rpartition("@")[0]


def _ref(value: str) -> str:
    try:
        ref = AssetRef.parse(value)
    except BindingError as error:
        raise ValueError(str(error)) from None
    if "/" not in ref.asset or "@" in ref.asset or str(ref) != value:
        raise ValueError("not TENANT/NAME@VERSION")
    return value


_Text = Annotated[str, AfterValidator(_text)]
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Texts = Annotated[tuple[_Text, ...], Field(max_length=MAX_ITEMS)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class DraftFile(_Strict):
    """A file that the description names; see `keystead.cli.descriptions.document.DescribedFile`."""

    name: Annotated[str, AfterValidator(_name)]
    size: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    sha256: _Digest | None = None
    url: _Text | None = None


class DraftInput(_Strict):
    """Something that the data were derived from.

    Attributes:
        name: as the description has it.
        ref: the asset version that it is, ``TENANT/NAME@VERSION``; None where nobody has said.
        outside: somebody has said that it is no asset here.
    """

    name: _Text
    ref: Annotated[str, AfterValidator(_ref)] | None = None
    outside: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.ref is not None and self.outside:
            raise ValueError("has a ref and is outside: one of them")
        return self

    @property
    def decided(self) -> bool:
        """Whether somebody has said what it is."""
        return self.ref is not None or self.outside


class Draft(_Strict):
    """A draft.

    Attributes:
        draft: version of this structure.
        asset: ``TENANT/NAME``.
        kind: what the asset is.
        form, description_digest: which description it was made from; see `Description`.
        name, version, licences, sources, left_out: as in `Description`.
        files, inputs: as above.
    """

    draft: Literal[1] = 1
    asset: Annotated[str, AfterValidator(_asset)]
    kind: Kind
    form: _Text
    description_digest: _Digest
    name: _Text | None = None
    version: _Text | None = None
    licences: _Texts = ()
    sources: _Texts = ()
    files: Annotated[tuple[DraftFile, ...], Field(max_length=MAX_FILES)] = ()
    inputs: Annotated[tuple[DraftInput, ...], Field(max_length=MAX_ITEMS)] = ()
    left_out: Annotated[tuple[_Text, ...], Field(max_length=MAX_LEFT_OUT)] = ()

    @classmethod
    def of(cls, description: Description, *, asset: str, kind: Kind, inputs: Iterable[DraftInput]) -> Self:
        """A draft made from a description.

        Raises:
            DescriptionError: `asset` is not ``TENANT/NAME``.
        """
        try:
            return cls(
                asset=asset,
                kind=kind,
                form=description.form,
                description_digest=description.digest,
                name=description.name,
                version=description.version,
                licences=description.licences,
                sources=description.sources,
                files=tuple(
                    DraftFile(name=file.name, size=file.size, sha256=file.sha256, url=file.url)
                    for file in description.files
                ),
                inputs=tuple(inputs),
                left_out=description.left_out,
            )
        except ValidationError as error:
            raise DescriptionError("draft", _summary(error)) from None

    def to_bytes(self) -> bytes:
        """As JSON that people can read and edit."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=True).encode("ascii") + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a draft, edited or not.

        Raises:
            DescriptionError: it is none; it names each member that is wrong.
        """
        read_object(data, limit=MAX_DRAFT)  # refuses what pydantic's reader lets pass: members that are there twice
        try:
            draft = cls.model_validate_json(data)
        except ValidationError as error:
            raise DescriptionError("", _summary(error)) from None
        for what, names in (("files", [file.name for file in draft.files]), ("inputs", [i.name for i in draft.inputs])):
            if len(set(names)) != len(names):
                raise DescriptionError(what, "two have one name")
        return draft

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a draft from a file.

        Raises:
            DescriptionError: it holds none.
            OSError: it cannot be read.
        """
        with path.open("rb") as file:
            data = file.read(MAX_DRAFT + 1)
        try:
            return cls.parse(data)
        except DescriptionError as error:
            raise DescriptionError(str(path), str(error)) from None

    def check_sealed(self, manifest: Manifest) -> None:
        """Check that what was sealed has the files that were described, in the sizes that were described.

        Raises:
            DescriptionError: it is another asset, or a file is missing or of another size.
        """
        if self.asset != manifest.asset:
            raise DescriptionError("asset", f"this is a draft of {self.asset}, what was sealed is {manifest.asset}")
        sizes = {file.name: file.size for file in manifest.files}
        for file in self.files:
            if file.name not in sizes:
                raise DescriptionError(
                    "files", f"{file.name!a:.80} was not sealed; seal it too, or take it out of the draft"
                )
            if file.size not in {None, sizes[file.name]}:
                raise DescriptionError(
                    "files",
                    f"{file.name!a:.80} has {file.size} bytes as described, {sizes[file.name]} were sealed",
                )

    def parents(self) -> tuple[str, ...]:
        """The asset versions that it declares it was derived from.

        Raises:
            DescriptionError: nobody has said of some input what it is.
        """
        open_ = [each.name for each in self.inputs if not each.decided]
        if open_:
            known = ", ".join(f"{name!a:.80}" for name in open_[:8])
            raise DescriptionError(
                "inputs",
                f"{len(open_)} undecided ({known}): give each a ref, TENANT/NAME@VERSION, or set outside to true "
                "where it is no asset here; `keystead asset import` does it by --input and --outside",
            )
        return tuple(dict.fromkeys(each.ref for each in self.inputs if each.ref is not None))


def _summary(error: ValidationError) -> str:
    items = error.errors(include_url=False, include_context=False, include_input=False)
    told = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'draft':.80}: {item['msg']:.160}" for item in items[:6])
    return told if len(items) <= 6 else f"{told}; and {len(items) - 6} more"
