"""Show bytes in tcpdump's three forms: ``-x``, ``-X`` and ``-A``."""

from __future__ import annotations

__all__ = ["ascii_only", "hex_and_ascii", "hex_only"]

INDENT = "\n\t"
_GRAPHIC = bytes(code if 0x21 <= code <= 0x7E else 0x2E for code in range(256))
_TEXT = bytes(code if 0x20 <= code <= 0x7E or code in b"\t\n" else 0x2E for code in range(256))
_HEX_WIDTH = 40


def hex_only(data: bytes, indent: str = INDENT) -> str:
    """Return lines of sixteen bytes, each begun with ``indent``."""
    return "".join(
        f"{indent}0x{offset:04x}:  {data[offset : offset + 16].hex(' ', -2)}"
        for offset in range(0, len(data), 16)
    )


def hex_and_ascii(data: bytes, indent: str = INDENT) -> str:
    """Return lines of sixteen bytes with their characters behind."""
    lines = []
    for offset in range(0, len(data), 16):
        row = data[offset : offset + 16]
        digits = " " + row.hex(" ", -2)
        text = row.translate(_GRAPHIC).decode()
        lines.append(f"{indent}0x{offset:04x}: {digits:<{_HEX_WIDTH}}  {text}")
    return "".join(lines)


def ascii_only(data: bytes) -> str:
    """Return the characters; a carriage return is a dot, or nothing before a line feed."""
    kept = bytearray()
    last = len(data) - 1
    for index, code in enumerate(data):
        if code == 0x0D:
            # tcpdump looks two bytes ahead, so one in the last two places is left out too
            if index < last - 1 and data[index + 1] != 0x0A:
                kept.append(0x2E)
        else:
            kept.append(_TEXT[code])
    return "\n" + kept.decode()
