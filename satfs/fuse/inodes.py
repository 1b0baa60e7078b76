"""Number the nodes the kernel knows, count its references.

An inode number is derived from a node's identity by a keyed hash: the same identity has the same
number in every mount of the account, on every machine, so that NFS clients, `rsync` and backups
recognise what they have seen. Numbers lie in [2^32, 2^63): out of the way of the root's (1), and
positive however a program reads them.

The kernel counts references ("lookup count"): each answer that names an inode adds one, and it
gives them back in `forget`, sometimes many at once. Between the first and the last reference the
number means that identity and nothing else. (libfuse, `fuse_lowlevel_ops.forget`.)

Should two identities ever hash to one number (one chance in twenty that any two do, among a billion
known at once), the one that comes second is hashed again with a salt, for as long as it is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Generic, NewType, Protocol, TypeVar

from satfs.errors import Misuse

Inode = NewType("Inode", int)

#: The root's number, fixed by the kernel (FUSE_ROOT_ID).
ROOT: Final = Inode(1)

_SMALLEST: Final = 2**32
_LIMIT: Final = 2**63


class Identified(Protocol):
    """Whatever can be numbered."""

    @property
    def identity(self) -> tuple[str, ...]:
        """What it is, whoever asks and whenever."""
        ...


N = TypeVar("N", bound=Identified)
Numbering = Callable[[Sequence[str], int], int]


def keyed_numbering(key: bytes) -> Numbering:
    """Return a function from (identity, salt) to an inode number, keyed by *key*.

    The key keeps the numbers of two accounts apart, and a vendor from choosing ids that collide.
    """
    digest_key = blake2b(key, digest_size=32).digest()

    def number(identity: Sequence[str], salt: int) -> int:
        # Lengths first, so that ("a", "b") is never ("ab",).
        text = "".join(f"{len(part)}:{part}" for part in identity)
        digest = blake2b(
            text.encode("utf-8", "surrogatepass"),
            digest_size=8,
            key=digest_key,
            salt=salt.to_bytes(8, "little"),
        ).digest()
        return _SMALLEST + int.from_bytes(digest, "little") % (_LIMIT - _SMALLEST)

    return number


@dataclass(slots=True)
class _Known(Generic[N]):
    inode: Inode
    node: N
    n_lookups: int


class Inodes(Generic[N]):
    """The nodes that the kernel has a reference to, by number and by identity.

    Invariants:
        Each known identity has exactly one number, and each number one identity.
        What is known, the root aside, has a lookup count above zero.
        The root is always known.
    """

    def __init__(self, root: N, numbering: Numbering) -> None:
        self._numbering = numbering
        self._by_inode: dict[Inode, _Known[N]] = {}
        self._by_identity: dict[tuple[str, ...], _Known[N]] = {}
        self._enter(_Known(ROOT, root, 0))

    def __len__(self) -> int:
        """Return how many nodes are known, the root included."""
        return len(self._by_inode)

    def known(self) -> list[tuple[Inode, N]]:
        """Return every node that is known, with its number, the root first."""
        return [(known.inode, known.node) for known in self._by_inode.values()]

    def number(self, node: N) -> Inode:
        """Return the number that *node* has, or would have if it became known now."""
        identity = node.identity
        known = self._by_identity.get(identity)
        return known.inode if known is not None else self._free_number(identity)

    def remember(self, node: N) -> Inode:
        """Count one more reference to *node* and return its number.

        From now on the number leads to this very object: of two nodes with one identity the later
        knows times and attributes of today.
        """
        identity = node.identity
        known = self._by_identity.get(identity)
        if known is None:
            known = _Known(self._free_number(identity), node, 0)
            self._enter(known)
        known.node = node
        known.n_lookups += 1
        return known.inode

    def node(self, inode: int) -> N:
        """Return the node that *inode* leads to.

        Raises:
            Misuse: the kernel has no reference to such an inode.
        """
        known = self._by_inode.get(Inode(inode))
        if known is None:
            raise Misuse(f"inode {inode} is not known")
        return known.node

    def knows(self, inode: int) -> bool:
        """Return whether *inode* leads to a node."""
        return inode in self._by_inode

    def n_lookups(self, inode: int) -> int:
        """Return how many references the kernel has to *inode*; 0 when it is not known."""
        known = self._by_inode.get(Inode(inode))
        return known.n_lookups if known is not None else 0

    def forget(self, inode: int, n_lookups: int) -> None:
        """Take *n_lookups* references from *inode*; the last one makes it unknown.

        Raises:
            Misuse: there are not that many. Then as many as there are have been taken.
        """
        known = self._by_inode.get(Inode(inode))
        if known is None:
            raise Misuse(f"inode {inode} was forgotten, and is not known")
        if n_lookups < 0:
            raise Misuse(f"inode {inode} was forgotten {n_lookups} times")
        missing = n_lookups - known.n_lookups
        known.n_lookups = max(0, -missing)
        if known.n_lookups == 0 and inode != ROOT:
            del self._by_inode[known.inode]
            del self._by_identity[known.node.identity]
        # The kernel counts no references to the root, but sends some back at unmount.
        if missing > 0 and inode != ROOT:
            raise Misuse(f"inode {inode} was forgotten {missing} times too often")

    def _enter(self, known: _Known[N]) -> None:
        self._by_inode[known.inode] = known
        self._by_identity[known.node.identity] = known

    def _free_number(self, identity: tuple[str, ...]) -> Inode:
        salt = 0
        while True:
            inode = Inode(self._numbering(identity, salt))
            if inode not in self._by_inode:
                return inode
            salt += 1
