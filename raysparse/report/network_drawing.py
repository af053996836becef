"""Drawing a NASRec network: its blocks in order, and which reads what from which."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from raysparse.models.nasrec.canonical import Use, canonical, dense_reads, sparse_reads, uses_of
from raysparse.models.nasrec.choice import NUM_MERGED, BlockChoice, NASRecConfig

DENSE_COLOUR, SPARSE_COLOUR = "#0072B2", "#D55E00"

_BOX, _GAP, _HEAD, _EDGE = 108.0, 30.0, 46.0, 3.0
"""Widths of a block, of what lies between two, of the head, and of the margin."""
_HALF, _MIDDLE, _PAD = 42.0, 30.0, 8.0
"""Heights of an operator's box and of the strip between the two of a block; margin around them."""
_HEIGHT = 2 * (_HALF + _PAD) + _MIDDLE
_LANE, _FIRST_LANE = 13.0, 27.0
"""Heights from a lane to the next, and from the blocks to the first."""
_PORTS, _ROLE_PORTS = (24.0, 20.0), (12.0, 46.0)
"""Where the first input of a block enters, and how far from it the next; roles are words beside them."""
_ROLES = {"gating": ("gate", "value"), "cross": ("factor", "value")}
"""What `left` and `right` are to an operator to which they are not the same."""
_ROUND = 5.0


@dataclass(frozen=True)
class _Side:
    """What differs between the dense vectors, above the blocks, and the tokens, below them."""

    name: str
    colour: str
    up: float
    """-1 where lanes lie above the blocks, 1 where below: down is positive."""
    edge: float
    """Height of the edge of a block that its inputs enter."""
    middle: float
    """Height at which an output leaves."""


@dataclass(frozen=True)
class _Port:
    """Where an input enters a block."""

    source: int
    reader: int
    x: float
    role: str = ""


def draw_network(choice: NASRecConfig, title: str) -> str:
    """Return a network as one `<svg>` element, of its canonical form: blocks that nothing reads are not in it.

    `title` is what a screen reader says.
    """
    choice = canonical(choice)
    uses = uses_of(choice)
    ports = _ports(choice, uses, dense=True), _ports(choice, uses, dense=False)
    lanes = [len({port.source for port in side}) for side in ports]
    top, bottom = (_FIRST_LANE + _LANE * count if count else _EDGE for count in lanes)
    width = 2 * _EDGE + (len(choice.blocks) + 1) * (_BOX + _GAP) + _HEAD
    height = top + _HEIGHT + bottom
    dense = _Side("dense output", DENSE_COLOUR, -1, top, top + _PAD + _HALF / 2)
    sparse = _Side("tokens", SPARSE_COLOUR, 1, top + _HEIGHT, top + _HEIGHT - _PAD - _HALF / 2)
    parts = [
        *_connections(dense, ports[0]),
        *_connections(sparse, ports[1]),
        *_raw_input(choice, dense, sparse),
        *(
            part
            for number, (block, use) in enumerate(zip(choice.blocks, uses, strict=True), start=1)
            for part in _block(number, block, use, (dense, sparse))
        ),
        *_head(len(choice.blocks), dense, sparse),
    ]
    start = (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}" '
        f'style="max-width: {width:g}px; font-size: 11px; fill: var(--ink)">'
    )
    return "\n".join([start, *parts, "</svg>"])


def _left(number: int) -> float:
    return _EDGE + number * (_BOX + _GAP)


def _ports(choice: NASRecConfig, uses: Sequence[Use], dense: bool) -> list[_Port]:
    """The inputs of all blocks, of each block from the left, the nearest predecessor first."""
    ports: list[_Port] = []
    for number, (block, use) in enumerate(zip(choice.blocks, uses, strict=True), start=1):
        if dense and block.dense_op in _ROLES and use.dense_op:
            reads = sorted(zip((block.left, block.right), _ROLES[block.dense_op], strict=True), reverse=True)
        else:
            reads = [(source, "") for source in sorted((dense_reads if dense else sparse_reads)(block, use))[::-1]]
        first, gap = _ROLE_PORTS if any(role for _, role in reads) else _PORTS
        ports += [
            _Port(source, number, _left(number) + first + place * gap, role)
            for place, (source, role) in enumerate(reads)
        ]
    return ports


def _connections(side: _Side, ports: Sequence[_Port]) -> Iterator[str]:
    """A line per source, that leaves it, runs in a lane of its own and falls into each reader.

    The first source has the outermost lane, so that no lane is crossed on the way to it.
    """
    sources = sorted({port.source for port in ports}, reverse=True)
    for lane, source in enumerate(sources):
        height = side.edge + side.up * (_FIRST_LANE + _LANE * lane)
        of_source = [port for port in ports if port.source == source]
        last = max(port.x for port in of_source)
        out = _left(source) + _BOX
        rise = out + _GAP / 2 - 4
        yield _path(
            side.colour,
            f"M{out:g} {side.middle:g}H{rise:g}V{height - side.up * _ROUND:g}"
            f"Q{rise:g} {height:g} {rise + _ROUND:g} {height:g}H{last - _ROUND:g}",
        )
        for port in of_source:
            yield _drop(side, port, height, corner=port.x == last)


def _drop(side: _Side, port: _Port, height: float, corner: bool) -> str:
    """From the lane into the block, with the number of the source beside the arrow."""
    source = "the raw input" if port.source == 0 else f"block {port.source}"
    tip = side.edge
    begin = (
        f"M{port.x - _ROUND:g} {height:g}Q{port.x:g} {height:g} {port.x:g} {height - side.up * _ROUND:g}"
        if corner
        else f"M{port.x:g} {height:g}"
    )
    dot = "" if corner else f'<circle cx="{port.x:g}" cy="{height:g}" r="2.6" fill="{side.colour}"/>'
    base = tip + side.up * 6
    text = f"{port.role} {port.source}" if port.role else str(port.source)
    baseline = tip - 8 if side.up < 0 else tip + 15
    return (
        f'<g class="reads"><title>block {port.reader} reads the {side.name} of {source}'
        f"{' as its ' + port.role if port.role else ''}</title>{dot}"
        + _path(side.colour, f"{begin}V{base:g}")
        + f'<path d="M{port.x - 3.5:g} {base:g}H{port.x + 3.5:g}L{port.x:g} {tip:g}Z" fill="{side.colour}"/>'
        + _text(port.x + 5, baseline, text, f'fill="{side.colour}" font-size="10"')
        + "</g>"
    )


def _raw_input(choice: NASRecConfig, dense: _Side, sparse: _Side) -> Iterator[str]:
    dims = choice.field_dims
    narrow = dims is not None and min(dims) < choice.embedding_dim
    width = f"{min(dims)} to {max(dims)} wide" if dims is not None and narrow else f"{choice.embedding_dim} wide"
    yield _frame(0, dense)
    yield _half(0, dense, "dense", "features")
    yield _half(0, sparse, "embeddings", width)
    yield _text(_left(0) + _BOX / 2, _middle(dense) + 5, "raw input (0)", 'text-anchor="middle" font-weight="600"')


def _block(number: int, block: BlockChoice, use: Use, sides: tuple[_Side, _Side]) -> Iterator[str]:
    dense, sparse = sides
    yield _frame(number, dense)
    yield _half(number, dense, block.dense_op, f"width {block.dense_width}", use.dense_op)
    tokens = f"{block.num_tokens} + {NUM_MERGED} tokens" if use.dense_to_sparse else f"{block.num_tokens} tokens"
    # dot reads the tokens, too: they pass the sparse operator on its left
    passed = use.dense_op and block.dense_op == "dot"
    yield _half(number, sparse, block.sparse_op, tokens, use.sparse_op, inset=9 if passed else 0)
    middle, left = _middle(dense), _left(number)
    yield _text(left + _BOX / 2, middle + 5, str(number), 'text-anchor="middle" font-weight="700" font-size="15"')
    upper, lower = dense.middle + _HALF / 2, sparse.middle - _HALF / 2
    if passed:
        last = left + _PORTS[0] + _PORTS[1] * (len(block.sparse_inputs) - 1)
        yield _path(SPARSE_COLOUR, f"M{last:g} {sparse.edge:g}H{left + 10:g}")
        yield _inner_arrow(SPARSE_COLOUR, left + 10, (sparse.edge, upper), f"dot of block {number} reads the tokens")
    if use.fm:
        yield _inner_arrow(SPARSE_COLOUR, left + 21, (lower, upper), "a factorization machine of the tokens is added")
        yield _text(left + 25, middle + 3.5, "FM", f'fill="{SPARSE_COLOUR}" font-size="9.5"')
    if use.dense_to_sparse:
        what = f"the dense output is appended as {NUM_MERGED} tokens"
        yield _inner_arrow(DENSE_COLOUR, left + _BOX - 27, (upper, lower), what)
        yield _text(left + _BOX - 23, middle + 3.5, f"+{NUM_MERGED}", f'fill="{DENSE_COLOUR}" font-size="9.5"')


def _head(num_blocks: int, dense: _Side, sparse: _Side) -> Iterator[str]:
    left, begin = _left(num_blocks + 1), _left(num_blocks) + _BOX
    for side in (dense, sparse):
        arrow = f"M{left - 6:g} {side.middle - 3.5:g}V{side.middle + 3.5:g}L{left:g} {side.middle:g}Z"
        yield _path(side.colour, f"M{begin:g} {side.middle:g}H{left - 6:g}")
        yield f'<path d="{arrow}" fill="{side.colour}"/>'
    yield (
        f'<rect x="{left:g}" y="{dense.edge:g}" width="{_HEAD:g}" height="{_HEIGHT:g}" rx="7" '
        'fill="var(--card)" stroke="var(--muted)"/>'
    )
    yield _text(left + _HEAD / 2, _middle(dense) + 4, "logit", 'text-anchor="middle" font-weight="600"')


def _frame(number: int, dense: _Side) -> str:
    return (
        f'<rect x="{_left(number):g}" y="{dense.edge:g}" width="{_BOX:g}" height="{_HEIGHT:g}" rx="7" '
        'fill="var(--card)" stroke="var(--muted)"/>'
    )


def _half(number: int, side: _Side, name: str, size: str, live: bool = True, inset: float = 0) -> str:
    """An operator's box; grey where nothing reads it."""
    left, width = _left(number) + _PAD + inset, _BOX - 2 * _PAD - inset
    look = (
        f'fill="{side.colour}" fill-opacity="0.13" stroke="{side.colour}"'
        if live
        else 'fill="none" stroke="var(--band)" stroke-dasharray="3 3"'
    )
    box = f'<rect x="{left:g}" y="{side.middle - _HALF / 2:g}" width="{width:g}" height="{_HALF:g}" rx="4" {look}/>'
    middle = left + width / 2
    if not live:
        return box + _text(middle, side.middle + 4, "not read", 'text-anchor="middle" fill="var(--muted)"')
    return (
        box
        + _text(middle, side.middle - 3, name, 'text-anchor="middle" font-weight="600" font-size="12"')
        + _text(middle, side.middle + 13, size, 'text-anchor="middle"')
    )


def _middle(dense: _Side) -> float:
    return dense.edge + _HEIGHT / 2


def _inner_arrow(colour: str, x: float, ends: tuple[float, float], what: str) -> str:
    begin, tip = ends
    base = tip + (5 if begin > tip else -5)
    return (
        f"<g><title>{what}</title>"
        + _path(colour, f"M{x:g} {begin:g}V{base:g}")
        + f'<path d="M{x - 3:g} {base:g}H{x + 3:g}L{x:g} {tip:g}Z" fill="{colour}"/></g>'
    )


def _path(colour: str, data: str) -> str:
    return f'<path d="{data}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def _text(x: float, y: float, text: str, look: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" {look}>{escape(text)}</text>'
