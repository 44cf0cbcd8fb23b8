"""Detects, from the first bytes of a file that is to be published, its compression, format and encoding.

If the file cannot be read, the error says so in one sentence, with the remedy. Text is taken to be UTF-8, unless a byte
order mark shows UTF-16 or UTF-32, or zero bytes show UTF-16. Any other encoding must be named by the user: it is never
guessed, since a wrong guess would change the text.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from coupon_ledger.ledger.errors import UnusableFile
from coupon_ledger.ledger.formats.csv_rows import DELIMITERS, known_columns
from coupon_ledger.ledger.formats.ndjson import ByteSource
from coupon_ledger.ledger.formats.rows import BROKEN
from coupon_ledger.ledger.topics import INPUT_TOPICS

FORMATS: Final = ("ndjson", "json", "csv", "parquet", "xlsx")
IN_WORDS: Final = {
    "ndjson": "NDJSON",
    "json": "a JSON array",
    "csv": "CSV",
    "parquet": "Parquet",
    "xlsx": "an Excel workbook",
}

_PIECE_BYTES: Final = 1 << 20
_FIRST_LINE: Final = 1 << 16
_BLANK: Final = " \t\r\n"
_ENDINGS: Final = {"csv": "csv", "tsv": "csv", "parquet": "parquet", "xlsx": "xlsx", "xlsm": "xlsx"}
_LINES: Final = ("ndjson", "jsonl")
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Files that cannot be published: their first bytes, what they are, and the remedy.
_OTHERS: Final = (
    (b"%PDF-", "a PDF", "export the table behind it as CSV or XLSX"),
    (
        b"\xd0\xcf\x11\xe0",
        "an old (.xls) or a password-protected Excel workbook",
        "save it as .xlsx without a password",
    ),
    (b"SQLite format 3\0", "a SQLite database", "export the table as CSV; as a log, name it with --log"),
    (b"BZh", "compressed with bzip2", "unpack it first (bunzip2)"),
    (b"\xfd7zXZ\0", "compressed with xz", "unpack it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it first (unzstd)"),
    (b"\x04\x22\x4d\x18", "compressed with lz4", "unpack it first (unlz4)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and publish the files in it"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it and publish the files in it"),
    (b"Obj\x01", "an Avro container", "write it as NDJSON or Parquet"),
    (b"ARROW1\0", "an Arrow (Feather) file", "write it as Parquet"),
    (b"ORC\x08", "an ORC file", "write it as Parquet"),
    (b"{\\rtf", "an RTF document", "save it as plain text"),
    (b"\x89PNG", "an image", "publish the data behind it"),
    (b"\xff\xd8\xff", "an image", "publish the data behind it"),
    (b"GIF8", "an image", "publish the data behind it"),
)
_MARKUP: Final = re.compile(r"<(\?xml|!doctype|html)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What was detected. `kind`: the file's format, one of `FORMATS`. `source`: the file's decompressed bytes; text is
    converted to UTF-8. `empty`: whether the file has no bytes."""

    kind: str
    source: ByteSource
    empty: bool


def sniffed(
    file: Path, opened: IO[bytes], file_format: str | None, encoding: str | None, by_default: str = "ndjson"
) -> Sniffed:
    """Detect the format of `file`, or of standard input (`-`). `opened`: the opened file, at its start.

    `file_format` and `encoding`: what the user specified. `by_default`: the format of a text file from which no format
    can be detected. Raises `UnusableFile` if the file cannot be read, or is not in the specified format.
    """
    what = f"file {file}"
    source = _Ahead(cast(ByteSource, opened))
    packed = source.look().startswith(b"\x1f\x8b")
    if packed:
        source = _Ahead(_Unpacked(source, what))
    head = source.look()
    ending = _ending(file, packed)
    if kind := _binary(what, file, head, packed):
        if file_format not in (None, kind):
            raise UnusableFile(f"{what}: is {IN_WORDS[kind]}, not {IN_WORDS[str(file_format)]}; leave out --format")
        return Sniffed(kind, source, False)
    kind = file_format or _ENDINGS.get(ending)
    if kind in ("parquet", "xlsx"):
        return Sniffed(kind, source, not head)
    known = encoding or _encoding(head)
    if known is None:
        _refuse_gb18030(what, head)
    text = head.decode(known or "utf-8", "replace").removeprefix("\ufeff")
    if kind is None:
        kind = _text_kind(what, text, ending) or by_default
    return Sniffed(kind, _Transcoded(source, known) if known else source, not head)


def checked_encoding(name: str) -> str:
    """The canonical name of an encoding. Raises `LookupError` if there is no text encoding with this name."""
    known = codecs.lookup(name)
    # rot13, base64 and the like turn text into text, or bytes into bytes.
    if not getattr(known, "_is_text_encoding", True) or known.name in ("idna", "punycode", "undefined"):
        raise LookupError(name)
    return known.name


def _ending(file: Path, packed: bool) -> str:
    endings = [suffix.lower().removeprefix(".") for suffix in file.suffixes]
    if packed and endings[-1:] in (["gz"], ["gzip"]):
        endings.pop()
    return endings[-1] if endings else ""


def _binary(what: str, file: Path, head: bytes, packed: bool) -> str | None:
    """The format of a binary file: `parquet` or `xlsx`. None if the file may be text. Raises `UnusableFile` for any
    other binary file, and for one of these formats in gzip or from standard input. `packed`: whether the file was
    compressed with gzip."""
    kind = None
    if head.startswith(b"PAR1"):
        kind = "parquet"
    elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        kind = "xlsx" if packed or str(file) == "-" or _is_workbook(what, file) else None
        if kind is None:
            raise UnusableFile(f"{what}: is a ZIP archive; unpack it and publish the files in it")
    elif head[8:12] == b"DUCK":
        raise UnusableFile(f"{what}: is a DuckDB database; export the table as Parquet (COPY … TO 'FILE.parquet')")
    else:
        for start, is_what, remedy in _OTHERS:
            if head.startswith(start):
                raise UnusableFile(f"{what}: is {is_what}; {remedy}")
    if kind and packed:
        raise UnusableFile(f"{what}: is {IN_WORDS[kind]} packed with gzip; unpack it first (gunzip)")
    if kind and str(file) == "-":
        raise UnusableFile(f"{what}: {IN_WORDS[kind]} cannot be read from standard input; write it to a file")
    return kind


def _is_workbook(what: str, file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if "mimetype" in names:
                with archive.open("mimetype") as kind:  # a part may decompress to any size
                    if b"opendocument" in kind.read(100):
                        raise UnusableFile(f"{what}: is an OpenDocument file; save it as .xlsx or CSV")
    except (zipfile.BadZipFile, OSError, zlib.error) as error:
        raise UnusableFile(
            f"{what}: is a ZIP archive or workbook that is cut off or broken ({error}); copy it again"
        ) from error
    return any(name.startswith("xl/workbook") for name in names)


def _encoding(head: bytes) -> str | None:
    """The encoding that the first bytes show: UTF-16 or UTF-32 if they begin with its byte order mark; UTF-16 if about
    every second byte is zero, as in Latin text. Otherwise None."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    start = head[:4096]
    even, odd = start[::2].count(0), start[1::2].count(0)
    most, fewest = max(even, odd), min(even, odd)
    if most * 10 > len(start[::2]) * 3 and fewest * 10 <= most:
        return "utf-16-le" if odd > even else "utf-16-be"
    return None


def _refuse_gb18030(what: str, head: bytes) -> None:
    """Raises `UnusableFile` if the text seems to be in GB18030 (GBK): of the lines that are not plain ASCII, none is
    valid UTF-8 and all are valid GB18030. Without this check, each of those lines would be refused on its own."""
    lines = head.splitlines() if len(head) < _PIECE_BYTES else head.splitlines()[:-1]
    beyond = [line for line in lines if not line.isascii()]
    if beyond and not any(_decodes(line, "utf-8") for line in beyond) and _decodes(b"\n".join(beyond), "gb18030"):
        raise UnusableFile(
            f"{what}: is not UTF-8 but may be GBK; name its encoding with --encoding, such as --encoding gb18030"
        )


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _text_kind(what: str, text: str, ending: str) -> str | None:
    start = text.lstrip(_BLANK)
    if start.startswith("[") and start[1:].lstrip(_BLANK)[:1] in ("{", "]"):
        return "json"
    if _MARKUP.match(start):
        raise UnusableFile(f"{what}: is XML or HTML; export the table behind it as CSV or XLSX")
    if ending not in (*_LINES, "json") and not start.startswith("{"):
        header = start.split("\n", 1)[0].encode("utf-8", "surrogatepass")
        if header.startswith(b"sep=") or any(
            known_columns(header, delimiter, topic) > 1 for delimiter in DELIMITERS for topic in INPUT_TOPICS
        ):
            return "csv"
    return None


class _Ahead:
    """A source whose first bytes can be looked at before they are read."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._ahead = b""
        self._looked = False

    def look(self) -> bytes:
        """The first bytes of the source: at least the whole first line, or `_FIRST_LINE` bytes if that line is longer.
        A later `read1` returns them again."""
        while not self._looked:
            piece = self._source.read1(_PIECE_BYTES)
            self._ahead += piece
            self._looked = not piece or b"\n" in piece or len(self._ahead) >= _FIRST_LINE
        return self._ahead

    def read1(self, size: int, /) -> bytes:
        if not self._ahead:
            return self._source.read1(size)
        piece, self._ahead = self._ahead[:size], self._ahead[size:]
        return piece

    def fileno(self) -> int:
        if self._ahead:
            raise io.UnsupportedOperation("bytes wait in memory")
        return self._source.fileno()


class _Reader(io.RawIOBase):
    """Presents a `ByteSource` as an `io` stream, which `gzip` requires."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self._source.read1(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


class _Unpacked:
    """The decompressed bytes of a gzip file. `read1` raises `UnusableFile` if the file is broken or cut off."""

    def __init__(self, source: ByteSource, what: str) -> None:
        self._source = source
        self._what = what
        self._file = gzip.GzipFile(fileobj=cast(IO[bytes], io.BufferedReader(_Reader(source))), mode="rb")

    def read1(self, size: int, /) -> bytes:
        try:
            return self._file.read1(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UnusableFile(f"{self._what}: gzip that is cut off or broken ({error}); copy it again") from error

    def fileno(self) -> int:
        return self._source.fileno()


class _Transcoded:
    """The text of a source, converted from its encoding to UTF-8. Bytes that cannot be decoded become `BROKEN`, which
    is not valid UTF-8. So only the lines with such bytes are refused, not the file."""

    def __init__(self, source: ByteSource, encoding: str) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)(_BROKEN_BYTES)

    def read1(self, size: int, /) -> bytes:
        while True:
            piece = self._source.read1(size)
            text = self._decoder.decode(piece, final=not piece)
            if text or not piece:
                return text.encode("utf-8", "surrogatepass")

    def fileno(self) -> int:
        return self._source.fileno()


_BROKEN_BYTES: Final = "coupon-ledger-broken-bytes"


def _marked(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return BROKEN.decode("utf-8", "surrogatepass"), error.end


codecs.register_error(_BROKEN_BYTES, _marked)
