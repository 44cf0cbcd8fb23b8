"""Reads the cells of an XLSX workbook row by row. Memory holds one row, and the table of texts that rows share.

A workbook is a ZIP of XML files, called parts. A small ZIP may decompress to any size, and the sizes that it declares
may be false. So bytes are counted while they are decompressed: for all parts before any cell is read, and again for
each row while it is parsed. openpyxl interprets the cells; it gets one row at a time.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, cast
from xml.etree.ElementTree import Element, iterparse

from openpyxl.cell.text import Text
from openpyxl.reader.excel import SHARED_STRINGS, ExcelReader
from openpyxl.styles.numbers import BUILTIN_FORMATS, is_date_format, is_timedelta_format
from openpyxl.worksheet._reader import FORMULA_TAG, ROW_TAG, VALUE_TAG, WorkSheetParser
from openpyxl.xml.constants import ARC_STYLE, SHEET_MAIN_NS

from coupon_ledger.ledger.errors import UnusableFile
from coupon_ledger.ledger.formats.rows import MAX_ROW_BYTES

MOST_UNPACKED: Final = 1 << 32
"""Limit in bytes for all parts together. A million rows of 30 columns take half of it."""
MOST_SHARED: Final = 1 << 29
"""Limit in bytes for the texts that rows share, which are held in memory."""
NO_VALUE: Final = "f"
"""The kind of a cell that has a formula without a result."""

_PIECE_BYTES: Final = 1 << 16
_CELL_LIMIT: Final = "a cell holds at most 32,767 characters"
_EAST_ASIAN_DATES: Final = {*range(27, 37), *range(50, 59)}
"""Numbers of the formats that are built into Chinese, Japanese and Korean Excel and have no text. All are dates or
times."""


class Cell(NamedTuple):
    """A cell. `kind`: openpyxl's code for the type of `value` (such as "e" for an error), or `NO_VALUE`. `shown`: the
    number format in which spreadsheets show the value; None if it is not known."""

    value: Any
    kind: str
    shown: str | None


Row = tuple[int, dict[int, Cell]]
"""The row's number, and its nonempty cells by column; both count from 1."""


class Workbook:
    """An opened workbook. Raises `UnusableFile` if the workbook cannot be read."""

    def __init__(self, path: Path, what: str) -> None:
        self._what = what
        # Passed as a stream: openpyxl refuses paths with other endings.
        self._file = path.open("rb")
        try:
            with self._readable():
                self._archive = _Archive(self._file, what)
                _measure(self._archive, what)
                self._read()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._archive.close()
        self._file.close()

    @property
    def sheets(self) -> list[str]:
        return list(self._parts)

    def rows(self, sheet: str) -> Iterator[Row]:
        """Yields the rows of a sheet that have a nonempty cell."""
        with self._readable():
            source = self._archive.open(self._parts[sheet])
        with source:
            part = _Part(source, lambda n: f"{self._what}: sheet {sheet!r}, behind row {n}: {_too_long('row')}")
            parser = _Parser(
                part,
                self._texts,
                data_only=True,
                epoch=self._epoch,
                date_formats=self._dates,
                timedelta_formats=self._durations,
            )
            rows = _elements(part, {ROW_TAG})
            while True:
                with self._readable():
                    _, row = next(rows, (None, None))
                    if row is None:
                        return
                    part.place, cells = parser.parse_row(row)
                    parser.row_dimensions.clear()
                    filled = {cell["column"]: self._cell(cell) for cell in cells if _holds_something(cell)}
                if filled:
                    yield part.place, filled

    def _cell(self, cell: dict[str, Any]) -> Cell:
        style = cell["style_id"]
        return Cell(cell["value"], cell["data_type"], self._formats[style] if style < len(self._formats) else "General")

    def _read(self) -> None:
        reader = ExcelReader(self._file, read_only=True, data_only=True, keep_links=False)
        reader.archive = self._archive
        reader.read_manifest()
        shared = reader.package.find(SHARED_STRINGS)
        self._texts = self._shared(shared.PartName[1:]) if shared is not None else _Texts()
        reader.read_workbook()
        self._epoch = reader.wb.epoch
        names = set(self._archive.namelist())
        self._parts: dict[str, str] = {
            sheet.name: part.target
            for sheet, part in reader.parser.find_sheets()
            if part.target in names and "chartsheet" not in part.Type
        }
        self._formats = self._number_formats() if ARC_STYLE in names else []
        self._dates = {n for n, code in enumerate(self._formats) if is_date_format(code)}
        self._durations = {n for n, code in enumerate(self._formats) if is_timedelta_format(code)}

    def _shared(self, name: str) -> _Texts:
        if self._archive.getinfo(name).file_size > MOST_SHARED:
            raise UnusableFile(f"{self._what}: holds more than {MOST_SHARED:,} bytes of text; save the sheet as CSV")
        texts = _Texts()
        with self._archive.open(name) as source:
            part = _Part(source, lambda _: f"{self._what}: {_too_long('text')}")
            for _, element in _elements(part, {_tag("si")}):
                texts.append(Text.from_tree(element).content.replace("x005F_", ""))
        return texts

    def _number_formats(self) -> list[str | None]:
        """The number formats of the cell styles: the index is the `style_id` of a cell. None for a format that is not
        known."""
        own: dict[int, str | None] = {}
        used: list[int] = []
        with self._archive.open(ARC_STYLE) as source:
            part = _Part(source, lambda _: f"{self._what}: its styles are too long; save the sheet as CSV")
            for within, element in _elements(part, {_tag("numFmt"), _tag("xf")}):
                number = int(element.get("numFmtId") or 0)
                if within == _tag("numFmts"):
                    own[number] = element.get("formatCode")
                elif within == _tag("cellXfs"):
                    used.append(number)
        east_asian = dict.fromkeys(_EAST_ASIAN_DATES, "yyyy-mm-dd")
        known = {**east_asian, **BUILTIN_FORMATS, **own}
        return [known.get(number) for number in used]

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # openpyxl warns of styles and extensions, which hold no data
                yield
        except (UnusableFile, MemoryError, AssertionError):
            raise
        except Exception as error:  # a broken workbook makes its reader fail in many ways
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UnusableFile(
                f"{self._what}: cannot be read as an Excel workbook ({reason}); save it again as .xlsx or CSV"
            ) from error


class _Archive(zipfile.ZipFile):
    """The workbook's ZIP. openpyxl reads some parts as a whole, by `read`. It raises `UnusableFile` for a part that is
    longer than `MAX_ROW_BYTES`."""

    def __init__(self, file: IO[bytes], what: str) -> None:
        super().__init__(file)
        self._what = what

    def read(self, name: str | zipfile.ZipInfo, pwd: bytes | None = None) -> bytes:
        info = name if isinstance(name, zipfile.ZipInfo) else self.getinfo(name)
        if info.file_size > MAX_ROW_BYTES:
            raise UnusableFile(
                f"{self._what}: its {info.filename} is longer than {MAX_ROW_BYTES:,} bytes; save the sheet as CSV"
            )
        return super().read(name, pwd)


def _measure(archive: _Archive, what: str) -> None:
    """Decompress every part once, and discard the bytes. Raises `UnusableFile` if all parts together or one cell are
    too large, or if a part's size differs from the one that the ZIP declares. After that, the declared sizes can be
    trusted."""
    too_much = UnusableFile(f"{what}: unpacks to more than {MOST_UNPACKED:,} bytes; save the sheet as CSV")
    parts = archive.infolist()
    if sum(info.file_size for info in parts) > MOST_UNPACKED:
        raise too_much
    left = MOST_UNPACKED
    for info in parts:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnusableFile(f"{what}: is packed as no spreadsheet program packs workbooks; save it again as .xlsx")
        size = 0
        for piece, text in _unpacked(archive, info):
            size += len(piece)
            left -= len(piece)
            if left < 0:
                raise too_much
            if text > MAX_ROW_BYTES and info.filename.startswith("xl/") and info.filename.endswith(".xml"):
                raise UnusableFile(f"{what}: {_too_long('cell')}")
        if size != info.file_size:
            raise UnusableFile(f"{what}: its {info.filename} is not as long as the file says; save it again as .xlsx")


def _unpacked(archive: _Archive, info: zipfile.ZipInfo) -> Iterator[tuple[bytes, int]]:
    """Decompress a part, whatever size the ZIP declares. Yields pieces, each with the number of bytes from the last `<`
    so far to the end of the piece, which is the length of an unfinished text or tag."""
    honest = copy(info)
    honest.file_size = MOST_UNPACKED + _PIECE_BYTES  # zipfile would stop where the file says that the part ends
    text = 0
    with archive.open(honest) as source:
        while piece := source.read(_PIECE_BYTES):
            last = piece.rfind(b"<")
            text = text + len(piece) if last < 0 else len(piece) - last
            yield piece, text


def _too_long(thing: str) -> str:
    return f"holds a {thing} of more than {MAX_ROW_BYTES:,} bytes ({_CELL_LIMIT}); mend it"


class _Part:
    """A part, as a stream for the XML parser. `read` raises `UnusableFile` if more than `MAX_ROW_BYTES` bytes were read
    since the last call of `taken`, which is called after each row or text."""

    def __init__(self, source: IO[bytes], too_long: Callable[[int], str]) -> None:
        self._source = source
        self._too_long = too_long
        self._since = 0
        self.place = 0

    def read(self, size: int = -1, /) -> bytes:
        piece = self._source.read(size)
        self._since += len(piece)
        if self._since > MAX_ROW_BYTES:
            raise UnusableFile(self._too_long(self.place))
        return piece

    def taken(self) -> None:
        self._since = 0


def _elements(part: _Part, tags: set[str]) -> Iterator[tuple[str, Element]]:
    """Yields the XML elements with these tags, each with its parent's tag. After the caller has used an element, it and
    all before it are removed from memory."""
    around: list[Element] = []
    for event, element in iterparse(cast(io.BytesIO, part), ("start", "end")):
        if event == "start":
            around.append(element)
            continue
        around.pop()
        if element.tag in tags:
            yield around[-1].tag if around else "", element
            for outer in around:
                outer.clear()
            part.taken()
        elif element.tag == _DATA:
            return


def _tag(name: str) -> str:
    return f"{{{SHEET_MAIN_NS}}}{name}"


_DATA: Final = _tag("sheetData")


class _Texts:
    """A list of texts in one block of memory. As separate Python strings, short texts would take several times the
    memory."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("I")

    def append(self, text: str) -> None:
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def __getitem__(self, number: int) -> str:
        if number < 0:
            raise IndexError(number)
        start = self._ends[number - 1] if number else 0
        return self._bytes[start : self._ends[number]].decode("utf-8", "surrogatepass")


class _Parser(WorkSheetParser):  # type: ignore[misc]  # openpyxl has no types
    def parse_cell(self, element: Element) -> dict[str, Any]:
        cell: dict[str, Any] = super().parse_cell(element)
        if cell["value"] is None and _lacks_value(element):
            cell["data_type"] = NO_VALUE
        return cell


def _lacks_value(element: Element) -> bool:
    """Whether the cell has a formula that was never calculated. False if the formula's result is an empty text: such a
    cell counts as empty."""
    empty_text = element.get("t") == "str" and element.find(VALUE_TAG) is not None
    return not empty_text and element.find(FORMULA_TAG) is not None


def _holds_something(cell: dict[str, Any]) -> bool:
    return cell["value"] not in (None, "") or cell["data_type"] == NO_VALUE
